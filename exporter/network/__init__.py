"""Servers of this machine: where a process's port can be reached, and HTTP GET with limits on time and size."""
