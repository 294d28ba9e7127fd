"""Changes of a model that several passes share: folding, merging, contracting duplicates, matching statistics."""
