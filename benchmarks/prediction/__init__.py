"""Predictions of merges held against the merges themselves: MiniLM on twelve real tasks, in four families."""
