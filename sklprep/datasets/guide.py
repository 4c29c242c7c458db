"""The functions that the usage guide of ``generate_datasets.py`` names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.arrays import read_tensor, to_numpy
from sklprep.activations.loading import load_activations
from sklprep.exceptions import UsageError
from sklprep.files.npz_writer import write_npz
from sklprep.formats.layers import parse_layers
from sklprep.transformers.normalizers import ActivationNormalizer

_KEYS = (
    "embeddings",
    "hidden_states",
    "activations",
    "labels",
    "layers",
    "average_l0s",
    "sentence_indices",
    "sentences",
)


def load_all_sentences(path: str | os.PathLike[str]) -> ActivationSet:
    """Open a folder of sentence files, as `load_activations` does.

    Parameters
    ----------
    path : path-like
        The folder.

    Returns
    -------
    ActivationSet
    """
    return load_activations(path)


def get_final_token_data(sentences: ActivationSet) -> Mapping[str, Any]:
    """View a set as the mapping of the usage guide; values are read when they are first used.

    Parameters
    ----------
    sentences : ActivationSet
        As `load_all_sentences` returns it.

    Returns
    -------
    mapping
        ``embeddings`` (n_samples, d_embed), ``hidden_states`` (n_samples, n_configs, d_model),
        ``activations`` (one sparse matrix per config), ``labels``, ``sentence_indices`` and
        ``sentences`` (n_samples,), ``layers`` and ``average_l0s`` (n_configs,). As in the files,
        there is one entry for each SAE config, so layers with several configs are repeated.
    """
    return _FinalTokenData(sentences)


def parse_layers_arg(spec: str) -> list[int]:
    """Parse a layer specification such as ``"0-2,10,15-17"``.

    Parameters
    ----------
    spec : str
        Layers and inclusive ranges, separated by commas.

    Returns
    -------
    list of int
        Ascending and distinct.

    Raises
    ------
    LayerSpecError
        If the specification cannot be parsed.

    Examples
    --------
    >>> parse_layers_arg("0-2,10,15-17")
    [0, 1, 2, 10, 15, 16, 17]
    """
    return parse_layers(spec)


def normalize_features(
    X: ArrayLike, method: str = "standardize"
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Normalize the columns of a matrix, as `ActivationNormalizer` does.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Data to normalize.
    method : {"standardize", "minmax", "maxabs", "none"}, default="standardize"
        Method of the normalization.

    Returns
    -------
    X_norm : ndarray of shape (n_samples, n_features)
        Normalized data.
    norm_params : dict
        As `ActivationNormalizer.norm_params_`.

    Examples
    --------
    >>> import numpy as np
    >>> X_norm, norm_params = normalize_features(np.array([[1.0], [3.0]]))
    >>> X_norm.ravel(), norm_params["norm_std"]
    (array([-1.,  1.]), array([1.]))
    """
    normalizer = ActivationNormalizer(method).set_output(transform="default")
    return normalizer.fit_transform(X), normalizer.norm_params_


def save_dataset(
    X: ArrayLike, y: ArrayLike, metadata: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Write a custom dataset, which `load_dataset` reads.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Stored as float32.
    y : array-like of shape (n_samples,)
        Target.
    metadata : mapping
        ``norm_*`` keys keep their names; every other key gets the prefix ``meta_``.
    path : path-like
        The NPZ file to write.

    Raises
    ------
    UsageError
        If X and y do not have the same number of rows.
    OutputError
        If the path cannot be written, or a value is not an array of numbers, booleans or text.
    """
    X, y = to_numpy(X, "X").astype(np.float32, copy=False), to_numpy(y, "y")
    if X.shape[:1] != y.shape[:1]:
        raise UsageError(f"X and y must have the same number of rows, got {X.shape} and {y.shape}.")
    named = {
        key if key.startswith(("norm_", "meta_")) else f"meta_{key}": read_tensor(value, key)
        for key, value in metadata.items()
    }
    write_npz(path, {"X": X, "y": y, **named})


class _FinalTokenData(Mapping[str, Any]):
    def __init__(self, acts: ActivationSet) -> None:
        self._acts = acts
        self._read: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in _KEYS:
            raise KeyError(f"{key!r}; expected one of {', '.join(_KEYS)}")
        if key not in self._read:
            self._read[key] = self._look_up(key)
        return self._read[key]

    def __contains__(self, key: object) -> bool:
        return key in _KEYS

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def _look_up(self, key: str) -> Any:
        acts = self._acts
        layers = acts.sae_layers if len(acts.sae_layers) else acts.layers
        if key == "layers":
            return layers
        if key == "hidden_states":
            return np.stack([acts.layer(int(layer)) for layer in layers], axis=1)
        return getattr(acts, key)
