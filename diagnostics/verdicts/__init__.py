"""What the measurements and the theory say about a merge."""
