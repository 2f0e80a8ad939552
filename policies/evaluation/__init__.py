"""Evaluation of test-time search: gold and proxy score at equal tokens."""
