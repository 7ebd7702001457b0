"""Availability of sources and metadata providers: up or down, why, and when to retry."""
