"""Analyse a model before anything changes: find channel groups, and compute what channels cost."""
