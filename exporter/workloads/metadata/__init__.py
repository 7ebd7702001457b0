"""Providers of container metadata: the Kubernetes API server, the kubelet, and the sockets of Docker and Podman."""
