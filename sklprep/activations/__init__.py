"""Rows that scikit-learn can index, and where they come from."""
