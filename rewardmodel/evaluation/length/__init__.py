"""Length bias: how far length explains scores and labels."""
