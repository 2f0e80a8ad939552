"""Planners, one a file, and their registry."""
