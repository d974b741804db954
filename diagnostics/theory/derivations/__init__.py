"""Derivations: every numbered claim and definition of the theory, one a file, each with its statement and its check."""
