"""CPU time by cgroup and by process."""
