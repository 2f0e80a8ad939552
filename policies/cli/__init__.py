"""`prefsearch policy` and `prefsearch demo`."""
