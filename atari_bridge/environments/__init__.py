"""Environments: N games stepped together, and what an agent sees of them."""
