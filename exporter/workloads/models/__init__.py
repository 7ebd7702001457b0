"""Finds the AI model that a process works for, and whether it trains or serves it."""
