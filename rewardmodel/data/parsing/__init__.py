"""Parsing rows into prompts, replies and labels."""
