"""Preference data: loading, checks and reports."""
