"""Named bytes in one SQLite database file, large ones in files beside it."""
