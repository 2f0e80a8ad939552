"""Intervals over seeds and prompts, and what they decide."""
