"""Prioritized experience replay, and its files."""
