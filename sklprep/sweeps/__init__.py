"""Which layer knows it: folds, fits, scores and their picture."""
