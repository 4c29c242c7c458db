"""`Probe`: a linear probe of one layer, in the units of the residual stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.arrays import require_numbers, to_numpy
from sklprep.exceptions import UsageError
from sklprep.formats.layers import EMBEDDINGS, format_layers
from sklprep.transformers.directions import probe_directions

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from sklprep.sweeps.sweep_result import LayerSweep


@dataclass(frozen=True, eq=False, repr=False)
class Probe:
    """A linear probe of one layer: what `save_probe` writes and `load_probe` gives back.

    Attributes
    ----------
    weight : ndarray of shape (n_outputs, width), float64
        Weights on raw activations of the layer: the normalization is folded in. One row per class
        or target; two classes have one row, towards the second.
    bias : ndarray of shape (n_outputs,), float64
    layer : int or "embeddings"
    layer_numbering : str
        What the layer number counts, for example ``"layers as the files number them"``.
    pooling : str or None
        How tokens became the rows that the probe was fitted on; None if that is not known.
    classes : list or None
        Labels, in the order of the rows of `weight`; None for a regressor.
    threshold : float or None
        With two classes, a row belongs to the second if its decision is above; otherwise None.
    score : dict or None
        What a sweep found: ``scoring``, ``value``, ``interval`` (or None, with the reason in
        ``no_interval``), the ``inputs`` from which the inner folds chose, and its ``summary``; for
        ``"recall_at_fpr"`` also ``false_positive_rate`` and ``false_positive_interval``.
    stability : dict or None
        Cosines between the directions of ``n_folds`` training sets: ``mean`` and ``lowest``.
    provenance : dict
        The data, its fingerprint and layers, the pipeline, and the versions of libraries.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklprep import ActivationNormalizer, LayerSelector, Probe, make_activations
    >>> acts = make_activations(60, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> y = acts.labels >= 2
    >>> pipeline = make_pipeline(LayerSelector(2), ActivationNormalizer(), LogisticRegression())
    >>> probe = Probe.from_pipeline(pipeline.fit(acts, y), acts=acts)
    >>> probe
    Probe(layer 2, weight (1, 8), classes [False, True], threshold 0)
    >>> bool((probe.predict(acts) == pipeline.predict(acts)).all())
    True
    >>> scores = acts.layer(2) @ probe.weight.T + probe.bias
    >>> bool((scores[:, 0] == probe.decision_function(acts)).all())
    True
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    layer: int | str
    layer_numbering: str = ""
    pooling: str | None = None
    classes: list[Any] | None = None
    threshold: float | None = None
    score: dict[str, Any] | None = None
    stability: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    __module__ = "sklprep"

    @classmethod
    def from_pipeline(
        cls,
        pipeline: Pipeline,
        *,
        acts: ActivationSet | None = None,
        sweep: LayerSweep | None = None,
        threshold: float | None = None,
    ) -> Self:
        """Fold a fitted pipeline into one weight and one bias.

        Parameters
        ----------
        pipeline : Pipeline
            As `probe_directions` takes it, with a selector of one layer.
        acts : ActivationSet, default=None
            What it was fitted on, which gives pooling, layer numbering and provenance.
        sweep : LayerSweep, default=None
            A nested sweep that has the layer among its inputs, which gives the score.
        threshold : float, default=None
            For two classes only. By default 0, where the pipeline's own predictions change.

        Returns
        -------
        Probe

        Raises
        ------
        UsageError
            If the pipeline is not linear or selects several layers, the sweep is not nested or
            lacks the layer, or there is a threshold without two classes.
        """
        directions, bias = probe_directions(pipeline)
        if len(directions) > 1:
            raise UsageError(
                f"The pipeline selects layers {format_layers([*map(int, directions)])}; expected"
                " one, as a probe belongs to one place in the model. Fit it on one layer."
            )
        ((layer, weight),) = directions.items()
        found = getattr(pipeline, "classes_", None)
        classes = None if found is None else np.asarray(found).tolist()
        if classes is not None and len(classes) == 2:
            threshold = 0.0 if threshold is None else float(threshold)
        elif threshold is not None:
            raise UsageError(
                "threshold is for two classes, which this pipeline does not have. Leave it out."
            )
        return cls(
            np.atleast_2d(weight),
            np.atleast_1d(np.asarray(bias, np.float64)),
            layer,
            "" if acts is None else _describe_numbering(acts),
            None if acts is None else acts.pooling,
            classes,
            threshold,
            None if sweep is None else describe_score(sweep, layer),
            provenance=_describe_origin(pipeline, acts),
        )

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Give the decisions for rows: ``X @ weight.T + bias``.

        Parameters
        ----------
        X : ActivationSet, or array-like of shape (n_samples, width)
            From a set, the probe takes its own layer.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs), float64

        Raises
        ------
        UsageError
            If X has another shape.
        """
        if isinstance(X, ActivationSet):
            X = X.embeddings if self.layer == EMBEDDINGS else X.layer(int(self.layer))
        rows = to_numpy(X, "X")
        require_numbers(rows, "X")
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise UsageError(
                f"X has shape {rows.shape}; expected (n_samples, {self.weight.shape[1]}), the"
                f" activations of {_name(self.layer)}."
            )
        decisions = rows @ self.weight.T + self.bias
        return decisions[:, 0] if decisions.shape[1] == 1 else decisions

    def predict(self, X: Any) -> NDArray[Any]:
        """Give the class of each row or, for a regressor, its value.

        Parameters
        ----------
        X : ActivationSet, or array-like of shape (n_samples, width)
            From a set, the probe takes its own layer.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Labels from `classes`; float64 values of a regressor.
        """
        decisions = self.decision_function(X)
        if self.classes is None:
            return decisions
        threshold = self.threshold
        codes = decisions.argmax(axis=1) if threshold is None else decisions > threshold
        return np.array(self.classes)[codes.astype(np.intp)]

    def __repr__(self) -> str:
        parts = [_name(self.layer), f"weight {self.weight.shape}"]
        if self.classes is not None:
            parts.append(f"classes {self.classes}")
        if self.threshold is not None:
            parts.append(f"threshold {self.threshold:.4g}")
        if self.score is not None:
            parts.append(f"{self.score['scoring']} {self.score['value']:.3f}")
        return f"Probe({', '.join(parts)})"


def describe_score(sweep: LayerSweep, layer: int | str) -> dict[str, Any]:
    """Give the score of a sweep, as a probe of one of its inputs keeps it."""
    if layer not in sweep.layers or sweep.nested_score is None:
        what = "is not nested" if layer in sweep.layers else f"does not have {_name(layer)}"
        raise UsageError(
            f"The sweep {what}, so it has no honest score for this probe; expected a nested sweep"
            f" with {_name(layer)} among its inputs."
        )
    score: dict[str, Any] = {
        "scoring": sweep.scoring,
        "value": sweep.nested_score,
        "interval": _as_list(sweep.nested_interval),
        "no_interval": sweep.no_interval,
        "inputs": list(sweep.layers),
        "summary": sweep.summary(),
    }
    if sweep.nested_fpr is not None:
        score["false_positive_rate"] = sweep.nested_fpr
        score["false_positive_interval"] = _as_list(sweep.nested_fpr_interval)
    return score


def _as_list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [*map(float, interval)]


def _name(layer: int | str) -> str:
    return EMBEDDINGS if layer == EMBEDDINGS else f"layer {layer}"


def _describe_numbering(acts: ActivationSet) -> str:
    source = acts.rows.source
    if source.mapping:
        return f"layers of the dump, {source.mapping}"
    if source.place is None:
        return "layers of the arrays that were given; from_hidden_states counts blocks from 0"
    return "layers as the files number them"


def _describe_origin(pipeline: Pipeline, acts: ActivationSet | None) -> dict[str, Any]:
    from sklprep.datasets.provenance import versions

    origin: dict[str, Any] = {
        "pipeline": " ".join(repr(pipeline).split()),
        "versions": versions(),
    }
    if acts is not None:
        origin |= {
            "input": acts.name,
            "fingerprint": acts.fingerprint,
            "n_rows": len(acts),
            "layers": format_layers(acts.layers.tolist()),
        }
    return origin
