"""The commands of `prefsearch policy` and `prefsearch demo`."""
