"""Use of AMD and Intel GPUs by process, from the kernel's own files."""
