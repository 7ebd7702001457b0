"""READ: one source per file or folder; the registry is the list of them."""
