"""From activations to the dataset NPZ, and back."""
