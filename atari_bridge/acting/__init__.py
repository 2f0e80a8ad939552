"""Self-play: in this process, or by Ray actors."""
