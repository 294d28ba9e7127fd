"""What a model is fed with: declared inputs, the user's samples, synthetic ones."""
