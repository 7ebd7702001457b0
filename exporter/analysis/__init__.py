"""Reads energy, grams, money and tokens back from Prometheus; needs no exporter on the machine."""
