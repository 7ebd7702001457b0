"""COMMANDS: what the program does besides serving; arguments and printing only."""
