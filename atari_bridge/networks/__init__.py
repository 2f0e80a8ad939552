"""Networks of the MuZero family: what they are made of, and how they are built."""
