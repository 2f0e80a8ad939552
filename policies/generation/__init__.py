"""Sampling from a language model, segment by segment."""
