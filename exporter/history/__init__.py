"""KEEP: the embedded history, hourly growth of the published counters in a file of SQLite."""
