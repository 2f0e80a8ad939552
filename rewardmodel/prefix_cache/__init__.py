"""Key/value caches over trees of prefixes."""
