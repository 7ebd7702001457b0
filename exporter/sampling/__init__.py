"""SAMPLE: the tick, sources behind deadlines, and the state file."""
