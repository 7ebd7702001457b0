"""NVIDIA cards through NVML, in a process of its own."""
