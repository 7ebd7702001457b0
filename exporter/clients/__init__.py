"""Clients of HTTP servers, with limits on the time and size of every response."""
