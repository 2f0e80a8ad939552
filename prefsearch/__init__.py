"""The base of the packages: command line, settings, storage, runs, reports, statistics."""
