"""Networks of the MuZero family."""
