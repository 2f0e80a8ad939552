"""What every door shares: from a command line to checked settings, and from these to a run."""
