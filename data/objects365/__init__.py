"""Objects365: pictures with boxes."""
