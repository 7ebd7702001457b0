"""Meters that the operator declares: files and commands that report joules or watts."""
