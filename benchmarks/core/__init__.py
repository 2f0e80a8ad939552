"""The planning core beside its peers."""
