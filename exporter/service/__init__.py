"""SERVE: the daemon, put together from its parts."""
