"""Benchmarks of the planning core, text search, reward models and games."""
