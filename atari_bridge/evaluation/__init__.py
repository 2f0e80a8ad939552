"""Episodes played by a trained agent, and how they are shown."""
