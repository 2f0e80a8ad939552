"""Text search: cost beside peers, and what search gains."""
