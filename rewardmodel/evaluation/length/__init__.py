"""Length bias of reward models."""
