"""Data: dataset layouts, decoding, near-duplicates, splits, phantom smears."""
