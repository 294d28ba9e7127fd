"""Solve layers by least squares: which rows a layer reads, what it should make of them, the weights that do it."""
