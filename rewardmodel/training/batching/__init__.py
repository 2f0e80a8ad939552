"""Batches of compared responses."""
