"""How reward models, and with the same tools policies, are trained."""
