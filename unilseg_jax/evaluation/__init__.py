"""Evaluation: predictions of any model, counted as the field counts."""
