"""Hugging Face model folders: names, weights, adapters, tokenizers."""
