"""Distillation: samples and searched answers as training data."""
