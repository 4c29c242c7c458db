"""Rows that scikit-learn can index, from files, arrays and models."""
