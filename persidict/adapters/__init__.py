"""Dictionaries where other libraries want a store or a file system of their own kind."""
