"""Reward models, one kind per file, and how they are loaded."""
