"""The commands of `prefsearch reward`."""
