"""Prometheus exporter for the energy of AI workloads: read joules, divide them truthfully, publish them."""

__version__ = "0.1.0"
