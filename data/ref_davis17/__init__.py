"""Ref-DAVIS17."""
