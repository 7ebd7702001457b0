"""Resolvers that find the workload of a cgroup from its path alone."""
