"""Who uses AMD and Intel GPUs, from the kernel's own files."""
