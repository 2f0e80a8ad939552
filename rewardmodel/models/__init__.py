"""Reward models, one kind a file, and how they are loaded."""
