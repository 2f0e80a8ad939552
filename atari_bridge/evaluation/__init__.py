"""Evaluation episodes of an agent, and reports of a run."""
