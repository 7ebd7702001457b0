"""COMMANDS: what the program does besides serving; these modules only read arguments and print."""
