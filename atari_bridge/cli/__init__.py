"""The commands of `prefsearch atari`."""
