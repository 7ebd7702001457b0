"""Converts joules to grams of CO2e and money, at the place and time of their use."""
