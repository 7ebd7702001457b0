"""NAME: the workload of each cgroup and the model of each process."""
