"""The simulated human: requests, a writer, and a utility that labels pairs."""
