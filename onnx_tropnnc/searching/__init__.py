"""Trials: how much to remove, what to undo, what to advise."""
