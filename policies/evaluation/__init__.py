"""What test-time search gains: gold against proxy, per token spent."""
