"""Bytes on disk that may be broken or hostile; knows nothing of activations."""
