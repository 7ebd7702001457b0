"""Who knows the names of containers: the API server, the kubelet, the engines' sockets."""
