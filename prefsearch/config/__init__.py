"""Checked settings: types, bounds, flags."""
