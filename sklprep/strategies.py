"""The table of strategies: add an entry, and every command has one more."""

from sklprep.datasets.strategies import (
    CONCEPT,
    FEATURE,
    HIDDEN,
    SAE,
    STRATEGIES,
    Strategy,
    make_strategy,
)

__all__ = ["CONCEPT", "FEATURE", "HIDDEN", "SAE", "STRATEGIES", "Strategy", "make_strategy"]
