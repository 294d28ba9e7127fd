"""Solve layers by least squares: which rows a layer reads, what it should make of them, the weights that do it.

Layers are solved one by one here; refits/ fits several of them together afterwards.
"""
