"""Preference data: pairs, rankings and labeled steps, read with file and line."""
