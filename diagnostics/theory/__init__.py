"""Numbers in, claims out: bounds, conditions and expansions, without models."""
