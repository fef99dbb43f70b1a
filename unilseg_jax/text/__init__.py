"""From phrases to token ids."""
