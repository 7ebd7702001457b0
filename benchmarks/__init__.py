"""Numbers about the exporter, each with its command: cost (`benchmarks`) and truth (`benchmarks.accuracy`)."""
