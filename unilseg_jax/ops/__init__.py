"""Pure functions on arrays: resizing, windows, positions, masks."""
