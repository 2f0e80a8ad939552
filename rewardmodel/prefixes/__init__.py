"""Prefixes computed once: trees of token runs whose keys and values lie in one cache."""
