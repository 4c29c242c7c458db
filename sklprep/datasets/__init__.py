"""Datasets: making them from activations, writing and loading them."""
