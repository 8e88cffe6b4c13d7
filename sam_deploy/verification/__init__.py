"""A bundle against its PyTorch model: what `sam-parity` does, and what it finds."""
