"""Least squares for consumers: which rows a layer reads, what it should give, the weights that do it."""
