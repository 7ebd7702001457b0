"""Access to servers: where a process's port can be reached, and HTTP with limits on the time and size of responses."""
