"""Power sensors of the kernel's hwmon subsystem."""
