"""`prefsearch atari`."""
