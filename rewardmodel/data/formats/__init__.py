"""Published formats of preference data, one per file."""
