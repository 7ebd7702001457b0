"""Traces of profilers, priced: joules of ranges, kernels, layers and streams."""
