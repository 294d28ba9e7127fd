"""The paper's error bounds."""
