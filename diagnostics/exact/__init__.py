"""Small worlds whose every number is known, and arithmetic that carries its own rounding error."""
