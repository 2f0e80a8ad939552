"""Search trees as files, pages and text."""
