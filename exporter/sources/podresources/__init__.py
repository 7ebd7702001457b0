"""GPUs allocated to containers, from the kubelet."""
