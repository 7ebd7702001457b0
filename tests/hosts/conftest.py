"""The recorded trees hold no tests; walking them only costs time."""

collect_ignore_glob = ["*/t0"]
