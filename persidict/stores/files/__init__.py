"""Objects as files below a directory."""
