"""Reading rows from files, folders and the hub."""
