"""Which container was given which GPU, from the kubelet."""
