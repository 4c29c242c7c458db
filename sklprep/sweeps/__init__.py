"""Layer sweeps and transfer matrices: folds, fits, scores and their plots."""
