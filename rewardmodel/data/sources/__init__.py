"""Files, folders and hub datasets as rows."""
