"""Copies of another store's objects in a directory."""
