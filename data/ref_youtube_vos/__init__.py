"""Ref-YouTube-VOS."""
