"""Reward models: scoring, training, baselines."""
