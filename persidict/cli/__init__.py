"""The command `persidict`: looking into dictionaries, and moving what is in them."""
