"""Regions that programs on this machine report over a socket."""
