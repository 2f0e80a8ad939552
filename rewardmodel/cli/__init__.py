"""`prefsearch reward`."""
