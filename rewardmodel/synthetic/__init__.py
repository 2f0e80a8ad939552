"""The embedded world: requests, texts, and a simulated human."""
