"""Readers of files tried on broken ones: mutations, readers with what they must hold to, and the stored run."""
