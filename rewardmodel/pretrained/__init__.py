"""Hugging Face model folders: sources, weights, adapters, tokenizers."""
