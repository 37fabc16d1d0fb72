"""Stores: where named bytes live, and how a change is made conditional on a version."""
