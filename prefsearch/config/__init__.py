"""Settings: composition, types, bounds."""
