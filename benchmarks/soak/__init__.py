"""The soak: the real exporter for hours on a node where everything comes, goes and fails."""
