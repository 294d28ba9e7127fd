"""Models in ONNX Runtime: sessions, lock-step activations, comparison of original and result."""
