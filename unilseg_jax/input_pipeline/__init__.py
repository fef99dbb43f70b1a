"""From data sets to batches: one record (image, masks, phrases) for all of them."""
