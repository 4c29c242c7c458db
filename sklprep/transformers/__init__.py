"""The scikit-learn transformers: selectors, target extractors, normalizer and projector."""
