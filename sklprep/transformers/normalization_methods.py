"""The table of normalization methods. It imports nothing heavy, as `--help` needs it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Method:
    """One way to normalize each column.

    Attributes
    ----------
    scaler : str or None
        Name of the class of `sklearn.preprocessing` that does it; None for no scaling.
    parameters : mapping of str to str
        From the entries of a dataset file to the attributes of the fitted scaler that they hold.
    keeps_zeros : bool
        Whether zeros stay zeros, so that sparse X stays sparse.
    """

    scaler: str | None
    parameters: Mapping[str, str] = field(default_factory=dict)
    keeps_zeros: bool = False


METHODS: dict[str, Method] = {
    "standardize": Method("StandardScaler", {"norm_mean": "mean_", "norm_std": "scale_"}),
    "minmax": Method("MinMaxScaler", {"norm_min": "data_min_", "norm_max": "data_max_"}),
    "maxabs": Method("MaxAbsScaler", {"norm_max_abs": "max_abs_"}, keeps_zeros=True),
    "none": Method(None, keeps_zeros=True),
}

KEEP_ZEROS = tuple(name for name, method in METHODS.items() if method.keeps_zeros)
"""The methods that sparse X can have."""


def is_method(name: object) -> bool:
    """Whether the table has a method of that name."""
    return isinstance(name, str) and name in METHODS
