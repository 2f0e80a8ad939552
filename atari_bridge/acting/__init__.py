"""Self-play and reanalysis, in this process or by Ray actors."""
