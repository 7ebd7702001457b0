"""The status page in a browser; not part of the suite: ``make status-check``."""
