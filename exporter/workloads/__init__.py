"""NAME: whose cgroup is it, and which model does a process work for."""
