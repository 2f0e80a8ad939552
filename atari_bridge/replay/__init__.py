"""Remembered play: rows of many lanes, drawn by priority, and their files."""
