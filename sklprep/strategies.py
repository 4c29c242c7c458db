"""The documented import of the table of strategies, which lies in `sklprep.datasets.strategies`."""

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
