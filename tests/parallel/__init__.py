"""Several processes against one."""
