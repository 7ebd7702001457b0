"""Which model a process works for, and whether it trains or serves."""
