"""The status page of one node."""
