"""The direct wire: requests signed here, sent over pooled connections, many from one thread."""
