"""Numbers that hold whatever the batch size, the number of threads, and what else the process has done."""
