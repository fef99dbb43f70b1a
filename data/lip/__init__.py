"""LIP: single people with their clothes and body parts."""
