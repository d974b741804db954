"""Tasks, checkpoints, adapters and merge problems; the only place that reads disk."""
