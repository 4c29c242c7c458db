"""The scikit-learn transformers: selectors, targets, normalizers."""
