"""Changes that several passes share."""
