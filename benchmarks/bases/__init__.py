"""Benchmarks of task-vector bases."""
