"""Preference data: pairs, rankings and labelled steps, read with file and line."""
