"""A training run of an agent, and what is kept of it."""
