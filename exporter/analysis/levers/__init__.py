"""What could be changed to save energy: one file for each lever, and their registry."""
