"""Key/value caches over trees of prefixes: each token of each prefix runs once."""
