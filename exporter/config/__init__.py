"""Settings, their value types, the YAML file and the command line."""
