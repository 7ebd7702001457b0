"""The text and OpenMetrics formats of one snapshot."""
