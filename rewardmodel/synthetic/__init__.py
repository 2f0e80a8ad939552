"""The synthetic task: requests, texts, and a simulated human."""
