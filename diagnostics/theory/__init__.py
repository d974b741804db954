"""Numbers in, claims out: bounds, conditions and predictions, without models."""
