"""Tokens and requests, as the model servers of this machine count them."""
