"""Run models in ONNX Runtime: sessions, tensors inside a model, comparison of the original and the result, latency."""
