"""Models that nobody of us wrote: every operator of onnx's own test suite, and random graphs."""
