"""Exact models: simulators and cloned environments as planning models."""
