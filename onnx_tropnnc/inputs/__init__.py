"""Provide the inputs that a model is run on: the user's samples, or made-up ones."""
