"""A simulated GPU node."""
