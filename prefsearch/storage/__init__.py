"""Atomic files and folders, JSON records, digests."""
