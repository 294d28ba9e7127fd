"""Deciding which channels to keep: rankings from activations, error curves, budgets, plans."""
