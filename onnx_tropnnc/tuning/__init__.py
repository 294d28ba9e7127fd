"""Let all weights of a compressed model learn together from the original: see distillation.py."""
