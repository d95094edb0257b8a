"""What runs without torch, as engines of `ingot compare`."""
