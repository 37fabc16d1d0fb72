"""The contract of every persistent dictionary, written once on a handful of primitives."""
