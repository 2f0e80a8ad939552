"""What published agents scored, as data."""
