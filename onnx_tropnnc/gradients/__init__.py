"""Gradients of ONNX models, as ONNX graphs: see backward.py."""
