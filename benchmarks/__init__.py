"""Scripts that measure the package on real models and store raw results."""
