"""`layer_sweep`: which layer knows it, answered without leakage and with its controls."""

from __future__ import annotations

import csv
import io
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import sklearn
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, check_scoring, make_scorer
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state, get_tags
from threadpoolctl import threadpool_limits

from sklprep import __version__
from sklprep.activations import ActivationSet
from sklprep.exceptions import DataError, InsufficientDataError, UsageError
from sklprep.files import atomic_write
from sklprep.layers import ALL, EMBEDDINGS, check_layers_exist, format_layers, parse_layers
from sklprep.normalizers import ActivationNormalizer
from sklprep.selectors import LayerSelector

EACH = "each"
_PROCESSES_PAY_SECONDS = 15
"""Processes take seconds to start; from here on they win over threads, which lbfgs holds up."""

_ENOUGH_ACTIVE = 10
_N_DRAWS = 1_000
_MAX_BINS = 4
_ScorerObject = type(make_scorer(accuracy_score))

# what the random draws of one seed are for
_PERMUTATION, _BOOTSTRAP = range(2)

_Split = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Baseline:
    """Scores of a model that sees no activations.

    Attributes
    ----------
    scores : ndarray of shape (n_folds,)
    mean : float
    """

    scores: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


@dataclass(frozen=True, eq=False, repr=False)
class LayerSweep:
    """What `layer_sweep` found.

    Attributes
    ----------
    layers : list of int and str
        The inputs, in order: a layer number, a specification of several layers, ``"embeddings"``.
    scores, fit_times : ndarray of shape (n_layers, n_folds)
        Score and seconds of fitting in each outer fold.
    mean_scores : ndarray of shape (n_layers,)
    nested_score : float or None
        Mean over the outer folds of the score of the layer that the inner folds picked. None
        without nesting, as are the next two.
    nested_interval : (float, float) or None
        Its 95 % interval, without the variance of training.
    best_layers : list of int and str, or None
        The layer picked in each outer fold.
    naive_best_score, naive_best_layer : float, int or str
        The largest of `mean_scores`, flattered by its own selection, and where it is.
    permutation_scores : ndarray of shape (n_permutations, n_layers), or None
        Mean over folds with permuted labels.
    permutation_band : ndarray of shape (2, n_layers), or None
        Their 2.5th and 97.5th percentiles.
    p_value, p_value_min : float or None
        Permutation p-value of the maximum over layers, and the smallest it could be.
    baselines : dict of str to Baseline
        Of ``"majority"`` or ``"mean"``, ``"sentence length"``, ``"TF-IDF"``.
    table : DataFrame
        One row for each layer and fold: ``layer``, ``fold``, ``score``, ``fit_time``. Without
        pandas, a dict of these columns.
    scoring : str
    n_samples, n_groups, n_folds, n_permutations : int
    details : dict
        What `methods_text` says besides: data, estimator, folds, seed, versions.

    Examples
    --------
    >>> from sklprep import layer_sweep, make_activations
    >>> acts = make_activations(60, n_layers=3, d_model=8, n_features=32, random_state=0)
    >>> sweep = layer_sweep(None, acts, acts.labels, cv=3, inner_cv=None, baselines=False)
    >>> sweep.mean_scores.shape, sweep.nested_score is None
    ((4,), True)
    """

    layers: list[int | str]
    scores: NDArray[np.float64]
    fit_times: NDArray[np.float64]
    scoring: str
    n_samples: int
    n_groups: int
    nested_interval: tuple[float, float] | None = None
    best_layers: list[int | str] | None = None
    permutation_scores: NDArray[np.float64] | None = None
    baselines: dict[str, Baseline] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    __module__ = "sklprep"

    @property
    def n_folds(self) -> int:
        return self.scores.shape[1]

    @property
    def n_permutations(self) -> int:
        return 0 if self.permutation_scores is None else len(self.permutation_scores)

    @property
    def mean_scores(self) -> NDArray[np.float64]:
        return self.scores.mean(axis=1)

    @property
    def nested_score(self) -> float | None:
        if self.best_layers is None:
            return None
        picked = [self.layers.index(layer) for layer in self.best_layers]
        return float(self.scores[picked, range(self.n_folds)].mean())

    @property
    def naive_best_score(self) -> float:
        return float(self.mean_scores[_argmax(self.mean_scores)])

    @property
    def naive_best_layer(self) -> int | str:
        return self.layers[_argmax(self.mean_scores)]

    @property
    def permutation_band(self) -> NDArray[np.float64] | None:
        if self.permutation_scores is None:
            return None
        return np.percentile(self.permutation_scores, [2.5, 97.5], axis=0)

    @property
    def p_value(self) -> float | None:
        if self.permutation_scores is None:
            return None
        reached = self.permutation_scores.max(axis=1) >= self.naive_best_score - 1e-12
        return float(1 + reached.sum()) / (1 + self.n_permutations)

    @property
    def p_value_min(self) -> float | None:
        return 1 / (1 + self.n_permutations) if self.n_permutations else None

    @property
    def table(self) -> Any:
        columns = {
            "layer": [layer for layer in self.layers for _ in range(self.n_folds)],
            "fold": list(range(self.n_folds)) * len(self.layers),
            "score": self.scores.reshape(-1).tolist(),
            "fit_time": self.fit_times.reshape(-1).tolist(),
        }
        try:
            import pandas as pd
        except ImportError:
            return columns
        return pd.DataFrame(columns)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as CSV, atomically; pandas is not needed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["layer", "fold", "score", "fit_time"])
        for layer, scores, times in zip(self.layers, self.scores, self.fit_times, strict=True):
            for fold, (score, seconds) in enumerate(zip(scores, times, strict=True)):
                writer.writerow([layer, fold, float(score), f"{seconds:.6f}"])
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def summary(self) -> str:
        """Give the honest answer in one sentence."""
        naive = f"naive best {format_score(self.naive_best_score)}"
        if self.best_layers is None or self.nested_interval is None:
            head = f"Not nested, so the best {self._score_name} is flattered by its selection"
            parts = [f"{naive} at {_name(self.naive_best_layer)}"]
        else:
            low, high = map(format_score, self.nested_interval)
            head = f"Honest {self._score_name} {format_score(self.nested_score)} [{low}, {high}]"
            layer, times = Counter(self.best_layers).most_common(1)[0]
            verb = "was" if isinstance(layer, int) else "were"
            parts = [f"{_name(layer)} {verb} picked in {times} of {self.n_folds} folds", naive]
        if self.baselines:
            order = sorted(self.baselines, key=lambda name: name == "sentence length")
            parts.append(
                ", ".join(f"{name} {format_score(self.baselines[name].mean)}" for name in order)
            )
        if self.p_value is not None:
            parts.append(
                f"permutation p = {self.p_value:.3g} (smallest possible {self.p_value_min:.3g})"
            )
        return f"{head}: {'; '.join(parts)}"

    def methods_text(self) -> str:
        """Describe data, folds, model, controls and versions in one paragraph for a paper."""
        details = self.details
        sentences = [
            f"{details['data']}: {self.n_samples:,} rows in {self.n_groups:,} groups,"
            f" {details['target']}.",
            f"Each of {len(self.layers)} inputs ({_name_all(self.layers)}) was scored by"
            f" {self._score_name} in {self.n_folds}-fold cross-validation ({details['folds']}), on"
            " the same folds for every input and with no group on both sides of a split; the model"
            f" {details['estimator']} was refitted from scratch, its normalization included, on the"
            " training rows of each fold.",
        ]
        if self.best_layers is not None and self.nested_interval is not None:
            low, high = (format_score(bound, 3) for bound in self.nested_interval)
            score = format_score(self.nested_score, 3)
            sentences.append(
                "The best input was chosen by inner cross-validation"
                f" ({details['inner_folds']}) within each outer training set and scored on the"
                f" outer test set: {self._score_name} {score}, 95 % interval [{low}, {high}] by"
                f" resampling groups within each test fold {_N_DRAWS:,} times with fixed models, so"
                " without the variance of training."
            )
        if self.permutation_scores is not None:
            sentences.append(
                f"In a permutation control labels were permuted between groups"
                f" {self.n_permutations:,} times, with folds redrawn each time and shared by all"
                f" inputs; the maximum over inputs has p = {self.p_value:.3g} (smallest possible"
                f" {self.p_value_min:.3g})."
            )
        if self.baselines:
            means = ", ".join(
                f"{name} {format_score(b.mean, 3)}" for name, b in self.baselines.items()
            )
            sentences.append(f"Baselines on the same folds: {means}.")
        return " ".join([*sentences, f"Seed {details['seed']}; {details['versions']}."])

    @property
    def _score_name(self) -> str:
        return "R2" if self.scoring == "r2" else self.scoring.replace("_", " ")

    def __repr__(self) -> str:
        score = (
            f"naive best {self.naive_best_score:.3f}"
            if self.nested_score is None
            else f"nested {self.nested_score:.3f}"
        )
        return (
            f"LayerSweep({len(self.layers)} inputs, {self.n_folds} folds, {self.scoring}: {score})"
        )


def layer_sweep(
    estimator: Any,
    acts: Any,
    y: ArrayLike,
    *,
    layers: Any = EACH,
    cv: Any = 5,
    inner_cv: Any = 5,
    groups: ArrayLike | None = None,
    scoring: Any = None,
    n_permutations: int = 0,
    baselines: bool = True,
    n_jobs: int | None = None,
    random_state: Any = 0,
    show_progress: bool | None = None,
) -> LayerSweep:
    r"""Cross-validate a model on every layer, and score the choice of the best one honestly.

    Parameters
    ----------
    estimator : estimator or None
        Everything behind the selector; cloned and refitted in each fold. None is
        `ActivationNormalizer` with `LogisticRegression` for labels (integers, booleans, strings),
        with `Ridge` for floats.
    acts : ActivationSet of shape (n_samples,), or array-like of shape \
(n_samples, n_layers, d_model)
        An array's layers are numbered from 0.
    y : array-like of shape (n_samples,)
        Labels for a classifier, numbers for a regressor.
    layers : "each" or list of layer specifications, default="each"
        Each item is one input: ``["embeddings", 0, "0-5", "0,12,25"]``. ``"each"`` is the
        embeddings, where there are any, and every single layer.
    cv : int, splitter or iterable of splits, default=5
        Outer folds. An int is `StratifiedGroupKFold`, shuffled; a numeric y is stratified in bins:
        zero, and quantiles of the others.
    inner_cv : int, splitter or None, default=5
        Folds within each outer training set, to choose the layer. None: no nesting.
    groups : array-like of shape (n_samples,), default=None
        Rows that must not straddle a split. By default ``acts.groups``; for an array, each row by
        itself.
    scoring : str or callable, default=None
        As scikit-learn takes it; by default accuracy or R2. The interval takes seconds, except for
        accuracy, balanced_accuracy, f1_macro, roc_auc and r2.
    n_permutations : int, default=0
        Permutations of the labels in the permutation control.
    baselines : bool, default=True
        Score, on the same folds, the majority class (or the mean), and where sentences are known
        their length (characters and words) and their TF-IDF, each with the default model.
    n_jobs : int or None, default=None
        Fits at once, in threads unless `joblib.parallel_config` says otherwise. It does not change
        the result.
    random_state : int, RandomState instance or None, default=0
        Seeds folds, permutations and resampling.
    show_progress : bool or None, default=None
        None shows a progress bar on stderr where that is a terminal.

    Returns
    -------
    LayerSweep

    Raises
    ------
    InsufficientDataError
        If y is constant or has missing values, a class is in fewer groups than there are folds, a
        sparse y is active in fewer than 10 groups, or too few groups can be permuted.
    UsageError
        If the arguments do not fit together, or the splits of `cv` break up groups.

    Notes
    -----
    Outer fold :math:`k` has training rows :math:`T_k` and test rows :math:`V_k`. With
    :math:`s_{lk}` the score on :math:`V_k` of layer :math:`l` fitted on :math:`T_k`, and
    :math:`\bar{s}_{lk}` its mean inner score within :math:`T_k`,

    .. math::

        \mathtt{nested\_score} = \frac1K \sum_k s_{l_k k}, \quad l_k = \arg\max_l \bar{s}_{lk};
        \qquad
        \mathtt{naive\_best\_score} = \max_l \frac1K \sum_k s_{lk}

    [1]_. Of equal inner scores the first layer wins. ``nested_interval`` is the 2.5th and 97.5th
    percentile of the nested score over 1,000 draws that resample the groups within each
    :math:`V_k` with replacement. The fitted models stay as they are, so it lacks the variance of
    training and is too narrow by that. Draws on which the score is undefined are left out.

    The permutation control moves labels between groups: those of whole groups where they are
    constant within groups, otherwise blocks of labels between groups of equal size. Each
    permutation redraws the folds from its labels and is shared by all layers.
    :math:`p = (1 + b) / (1 + n)`, where in :math:`b` of :math:`n` permutations the maximum over
    layers reaches ``naive_best_score`` [2]_. It tests whether any layer knows anything about y; it
    is not the control task of Hewitt and Liang (2019).

    References
    ----------
    .. [1] G. C. Cawley, N. L. C. Talbot, "On over-fitting in model selection and subsequent
       selection bias in performance evaluation", JMLR 11, 2010.
    .. [2] B. Phipson, G. K. Smyth, "Permutation p-values should never be zero", Statistical
       Applications in Genetics and Molecular Biology 9, 2010.

    Examples
    --------
    >>> from sklprep import make_activations
    >>> from sklprep.sweep import layer_sweep
    >>> acts = make_activations(60, n_layers=3, d_model=8, n_features=32, random_state=0)
    >>> sweep = layer_sweep(None, acts, acts.labels, cv=3, inner_cv=3)
    >>> sweep.layers
    ['embeddings', 0, 1, 2]
    >>> sweep.scores.shape
    (4, 3)
    >>> sweep.nested_score <= sweep.naive_best_score
    True
    """
    if n_permutations < 0:
        raise UsageError(f"n_permutations must be at least 0, got {n_permutations}.")
    problem = _read_problem(estimator, acts, y, layers, groups, scoring)
    design = _draw_design(problem, cv, inner_cv, n_permutations, random_state)
    rivals = _make_baselines(problem) if baselines else {}
    results = iter(_fit_all(problem, design, rivals, n_jobs, show_progress))
    n_folds = len(design.splits)
    folds, permuted = [], []
    for _ in problem.specs:
        folds.append([next(results) for _ in range(n_folds)])
        permuted.append([next(results) for _ in range(n_permutations)])
    scores = np.array([[fold.score for fold in row] for row in folds])
    best, interval = None, None
    if inner_cv is not None:
        inner = np.array([[fold.inner_score for fold in row] for row in folds])
        best = [_argmax(inner[:, k]) for k in range(n_folds)]
        interval = _nested_interval(problem, design, folds, best)
    return LayerSweep(
        layers=problem.specs,
        scores=scores,
        fit_times=np.array([[fold.seconds for fold in row] for row in folds]),
        scoring=problem.scoring,
        n_samples=len(problem.y),
        n_groups=len(np.unique(problem.groups)),
        nested_interval=interval,
        best_layers=None if best is None else [problem.specs[layer] for layer in best],
        permutation_scores=np.array(permuted).T if n_permutations else None,
        baselines={
            name: Baseline(np.array([next(results).score for _ in range(n_folds)]))
            for name in rivals
        },
        details=_describe(problem, design),
    )


def count_fits(
    acts: Any,
    *,
    layers: Any = EACH,
    cv: int = 5,
    inner_cv: int | None = 5,
    n_permutations: int = 0,
    baselines: bool = True,
) -> int:
    """Count the models that `layer_sweep` will fit with these arguments.

    Examples
    --------
    >>> import numpy as np
    >>> count_fits(np.zeros((100, 26, 4)), inner_cv=None, baselines=False)
    130
    """
    n_layers = len(_read_layers(layers, acts))
    n_baselines = (3 if _sentences(acts) is not None else 1) if baselines else 0
    return cv * (n_layers * (1 + (inner_cv or 0) + n_permutations) + n_baselines)


# ---- what is asked -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    acts: Any
    y: NDArray[Any]
    groups: NDArray[np.int64]
    specs: list[int | str]
    model: Any
    scorer: Callable[..., Any]
    scoring: str
    classify: bool


def _read_problem(
    estimator: Any, acts: Any, y: Any, layers: Any, groups: Any, scoring: Any
) -> _Problem:
    if not isinstance(acts, ActivationSet):
        acts = np.asarray(acts)
        if acts.ndim not in (2, 3) or acts.dtype.kind not in "fiu":
            raise UsageError(
                "acts must be an ActivationSet or a numeric array of shape (n_samples, n_layers,"
                f" d_model), got {acts.dtype} of shape {acts.shape}."
            )
    y = _check_y(y, len(acts))
    classify = _is_classification(estimator, y)
    if scoring is None:
        scoring = "accuracy" if classify else "r2"
    elif not (isinstance(scoring, str) or callable(scoring)):
        raise UsageError(f"scoring must be one scorer, its name or a callable, got {scoring!r}.")
    model = _default_model(classify) if estimator is None else estimator
    try:
        scorer = check_scoring(model, scoring)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _Problem(
        acts=acts,
        y=y,
        groups=_check_groups(groups, acts),
        specs=_read_layers(layers, acts),
        model=model,
        scorer=scorer,
        scoring=scoring
        if isinstance(scoring, str)
        else getattr(scoring, "__name__", repr(scoring)),
        classify=classify,
    )


def _check_y(y: Any, n: int) -> NDArray[Any]:
    y = np.asarray(y)
    if y.shape != (n,):
        raise UsageError(f"y must have shape ({n},), one value a row of acts, got {y.shape}.")
    missing = sum(value is None or value != value for value in y.tolist())  # noqa: PLR0124
    if missing:
        raise InsufficientDataError(
            f"y has {missing} missing values among {n}. Leave these rows out: acts[rows], y[rows]."
        )
    return y


def _is_classification(estimator: Any, y: NDArray[Any]) -> bool:
    fractional = y.dtype.kind == "f" and bool(np.any(np.mod(y, 1)))
    if estimator is not None and is_classifier(estimator):
        if fractional:
            raise UsageError(
                f"y holds numbers such as {y[np.mod(y, 1) != 0][0]:g}, but a classifier needs"
                " labels. Give a regressor, or make labels of y, for example y > 0."
            )
        return True
    numeric = y.dtype.kind in "fiub"
    if estimator is not None and is_regressor(estimator):
        if not numeric:
            raise UsageError(f"y holds {y.dtype} values, but a regressor needs numbers.")
        return False
    return y.dtype.kind != "f"


def _default_model(classify: bool) -> Any:
    # on correlated activations newton-cg converges in ten steps where lbfgs takes hundreds
    model = LogisticRegression(solver="newton-cg", max_iter=1_000) if classify else Ridge()
    return make_pipeline(ActivationNormalizer(), model)


def _check_groups(groups: Any, acts: Any) -> NDArray[np.int64]:
    if groups is None:
        groups = acts.groups if isinstance(acts, ActivationSet) else np.arange(len(acts))
    groups = np.asarray(groups)
    if groups.shape != (len(acts),):
        raise UsageError(f"groups must have shape ({len(acts)},), got {groups.shape}.")
    return np.unique(groups, return_inverse=True)[1].reshape(-1)


def _read_layers(layers: Any, acts: Any) -> list[int | str]:
    """Give each input its canonical name: a number, a specification, or "embeddings"."""
    if isinstance(acts, ActivationSet):
        available = acts.layers.tolist()
    else:
        available = list(range(np.shape(acts)[1] if np.ndim(acts) == 3 else 1))
    if isinstance(layers, str) and layers == EACH:
        return [EMBEDDINGS] * _has_embeddings(acts) + available
    if isinstance(layers, str | Integral) or not len(layers):
        raise UsageError(
            f"layers must be 'each' or a list of inputs, got {layers!r}. Write ['0-5'] for one"
            " input of six layers, range(6) for six inputs."
        )
    names: list[int | str] = []
    for spec in layers:
        if isinstance(spec, str) and spec == EMBEDDINGS:
            LayerSelector(EMBEDDINGS).fit(acts)  # raises if there are none
            names.append(EMBEDDINGS)
            continue
        numbers = available if isinstance(spec, str) and spec == ALL else parse_layers(spec)
        check_layers_exist(numbers, available)
        names.append(numbers[0] if len(numbers) == 1 else format_layers(numbers))
    return list(dict.fromkeys(names))


def _has_embeddings(acts: Any) -> bool:
    try:
        return isinstance(acts, ActivationSet) and acts.d_embed > 0
    except DataError:
        return False


def _sentences(acts: Any) -> NDArray[np.str_] | None:
    return acts.sentences if isinstance(acts, ActivationSet) else None


# ---- folds and permutations ----------------------------------------------------------------


@dataclass(frozen=True)
class _Design:
    """Every random choice but the resampling, made before the first fit."""

    seed: int
    splits: list[_Split]
    inner: list[list[_Split]]
    permutations: list[tuple[NDArray[Any], list[_Split]]]
    outer_folds: str
    inner_folds: str


def _draw_design(
    problem: _Problem, cv: Any, inner_cv: Any, n_permutations: int, random_state: Any
) -> _Design:
    y, groups, classify = problem.y, problem.groups, problem.classify
    if isinstance(random_state, Integral):
        seed = int(random_state)
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    outer_cv = _check_cv(cv, "cv")
    if isinstance(outer_cv, list) and n_permutations:
        raise UsageError(
            "The permutation control redraws the folds, which a fixed list of splits in cv does"
            " not allow. Give cv as an int or a splitter, or n_permutations=0."
        )
    inner_cv = None if inner_cv is None else _check_cv(inner_cv, "inner_cv")
    if isinstance(inner_cv, list):
        raise UsageError("inner_cv must be an int, a splitter or None: it splits training sets.")
    splits = _draw_folds(outer_cv, y, groups, classify, seed)
    inner: list[list[_Split]] = [[] for _ in splits]
    if inner_cv is not None:
        for k, (train, _) in enumerate(splits):
            where = f" in the training set of outer fold {k}"
            inside = _draw_folds(inner_cv, y[train], groups[train], classify, seed, where)
            inner[k] = [(train[fit], train[score]) for fit, score in inside]
    labels = []
    if n_permutations:
        permute = _make_permuter(y, groups)
        rng = np.random.default_rng([seed, _PERMUTATION])
        labels = [permute(rng) for _ in range(n_permutations)]
    permutations = [
        (permuted, _draw_folds(outer_cv, permuted, groups, classify, seed)) for permuted in labels
    ]
    return _Design(seed, splits, inner, permutations, _name_cv(outer_cv), _name_cv(inner_cv))


def _check_cv(cv: Any, name: str) -> Any:
    """Return an int, a splitter, or a list of splits."""
    if isinstance(cv, Integral) and not isinstance(cv, bool):
        if cv < 2:
            raise UsageError(f"{name} must be at least 2 folds, got {cv}.")
        return int(cv)
    if hasattr(cv, "split") and not isinstance(cv, str):
        return cv
    try:
        return [(np.asarray(train), np.asarray(test)) for train, test in cv]
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} must be an int, a splitter or an iterable of (train, test) row positions,"
            f" got {cv!r}."
        ) from None


def _draw_folds(
    cv: Any,
    y: NDArray[Any],
    groups: NDArray[np.int64],
    classify: bool,
    seed: int,
    where: str = "",
) -> list[_Split]:
    n_folds = cv if isinstance(cv, int) else 2
    _check_enough(y, groups, classify, n_folds, where)
    if isinstance(cv, list):
        splits = cv
    else:
        splitter = (
            _FastStratifiedGroupKFold(cv, shuffle=True, random_state=seed)
            if isinstance(cv, int)
            else cv
        )
        strata = y if classify else _make_strata(y, n_folds)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The groups parameter is ignored")
            splits = list(splitter.split(np.zeros(len(y)), strata, groups))
    if not isinstance(cv, int):
        for k, (train, test) in enumerate(splits):
            both = np.intersect1d(groups[train], groups[test])
            if len(both):
                raise UsageError(
                    f"Fold {k} of cv has rows of {len(both)} groups in training and test, so the"
                    " test rows would not be unseen. Use a splitter that keeps groups together,"
                    " such as StratifiedGroupKFold, or groups=range(n) if each row stands alone."
                )
    return splits


def _check_enough(
    y: NDArray[Any], groups: NDArray[np.int64], classify: bool, n_folds: int, where: str
) -> None:
    """Refuse what no cross-validation of these folds could score, with the counts."""
    values, codes = np.unique(y, return_inverse=True)
    n_groups = len(np.unique(groups))
    if len(values) == 1:
        raise InsufficientDataError(
            f"All {len(y)} values of y{where} are {values[0]}: there is nothing to predict."
        )
    if n_groups < n_folds:
        raise InsufficientDataError(
            f"There are {n_groups} groups{where}, fewer than the {n_folds} folds."
        )
    if classify:
        pairs = np.unique(np.stack([codes.reshape(-1), groups]), axis=1)
        counts = np.bincount(pairs[0])
        if counts.min() < n_folds:
            raise InsufficientDataError(
                f"Class {values[counts.argmin()]} is in {counts.min()} of {n_groups} groups{where},"
                f" fewer than the {n_folds} folds. Use fewer folds, merge classes, or give y as"
                " floats if it is a quantity."
            )
    else:
        needed = n_folds if where else max(n_folds, _ENOUGH_ACTIVE)
        active = len(np.unique(groups[y != 0]))
        if np.any(y == 0) and active < needed:
            raise InsufficientDataError(
                f"y is active (not zero) in {active} of {n_groups} groups{where}, fewer than the"
                f" {needed} it takes to score a prediction of it. Choose a feature that is active"
                " more often, or pool with mean or max."
            )


def _make_strata(y: NDArray[Any], n_folds: int) -> NDArray[np.int64]:
    """Bin a numeric y: zero, and quantiles of the others; each bin has a row for every fold."""
    zero = y == 0
    if zero.sum() < n_folds:
        zero[:] = False
    strata = zero.astype(np.int64)
    for n_bins in range(_MAX_BINS, 0, -1):
        inner_edges = np.quantile(y[~zero], np.arange(1, n_bins) / n_bins)
        strata = np.where(zero, 0, 1 + np.searchsorted(inner_edges, y, side="right"))
        if np.unique(strata, return_counts=True)[1].min() >= n_folds:
            break
    return strata


class _FastStratifiedGroupKFold(StratifiedGroupKFold):
    """The same folds, in a fraction of the time: one array operation tries all folds."""

    def _find_best_fold(
        self,
        y_counts_per_fold: NDArray[np.float64],
        y_cnt: NDArray[np.int64],
        group_y_counts: NDArray[np.float64],
    ) -> int:
        k = len(y_counts_per_fold)
        tried = np.repeat(y_counts_per_fold[np.newaxis], k, axis=0)
        tried[range(k), range(k)] += group_y_counts
        shares = tried / y_cnt
        shares -= shares.mean(axis=1, keepdims=True)
        spreads = np.sqrt((shares * shares).mean(axis=1)).mean(axis=1).tolist()
        sizes = y_counts_per_fold.sum(axis=1).tolist()
        best = 0
        for fold in range(1, k):
            close = abs(spreads[fold] - spreads[best]) <= 1e-8 + 1e-5 * spreads[best]
            if spreads[fold] < spreads[best] or (close and sizes[fold] < sizes[best]):
                best = fold
        return best


def _make_permuter(
    y: NDArray[Any], groups: NDArray[np.int64]
) -> Callable[[np.random.Generator], NDArray[Any]]:
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    of_group = y[order[starts]]
    if np.array_equal(of_group[groups], y):
        return lambda rng: rng.permutation(of_group)[groups]
    # one row for each group of a size, its columns the positions of the group's rows
    blocks = [
        order[starts[sizes == size][:, np.newaxis] + np.arange(size)] for size in np.unique(sizes)
    ]
    can_move = sum(len(block) for block in blocks if len(block) > 1)
    if can_move < len(sizes) / 2:
        raise InsufficientDataError(
            f"Only {can_move} of {len(sizes)} groups have a partner of equal size to swap labels"
            " with, and y varies within groups; the permutation control needs at least half."
            " Use n_permutations=0."
        )

    def permute(rng: np.random.Generator) -> NDArray[Any]:
        permuted = y.copy()
        for block in blocks:
            permuted[block] = y[rng.permutation(block)]
        return permuted

    return permute


# ---- fits ----------------------------------------------------------------------------------


class _Fold(NamedTuple):
    score: float
    seconds: float
    inner_score: float
    judge: Any


@dataclass(frozen=True, eq=False)  # dask hashes it
class _Worker:
    """Runs a function as the caller would, on one BLAS thread, in whichever process it is."""

    config: dict[str, Any]
    pid: int

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        # within the caller's process the limit is set already; it holds for all its threads
        same = os.getpid() == self.pid
        limit = nullcontext() if same else threadpool_limits(1, user_api="blas")
        with limit, config_context(**self.config):
            return function(*args)


def _fit_all(
    problem: _Problem,
    design: _Design,
    rivals: dict[str, tuple[Any, NDArray[Any]]],
    n_jobs: int | None,
    show_progress: bool | None,
) -> list[Any]:
    """Run every job: for each input its folds and its permutations, then the baselines."""
    # the first job checks the models' parameters, which the clones of all others share
    run = delayed(_Worker(get_config() | {"skip_parameter_validation": True}, os.getpid()))
    model, scorer, y = problem.model, problem.scorer, problem.y

    def jobs() -> Iterator[Any]:
        _prefetch(problem)
        for spec in problem.specs:
            X = _select(problem.acts, spec)
            for split, inner in zip(design.splits, design.inner, strict=True):
                yield run(_score_fold, model, scorer, X, y, split, inner)
            for labels, splits in design.permutations:
                yield run(_score_permutation, model, scorer, X, labels, splits)
        for rival, X in rivals.values():
            for split in design.splits:
                yield run(_score_fold, rival, scorer, X, y, split, [])

    n_folds = len(design.splits)
    total = len(problem.specs) * (n_folds + len(design.permutations)) + len(rivals) * n_folds
    queue = _with_progress(jobs(), total, show_progress)
    with threadpool_limits(1, user_api="blas"):
        _, (function, *arguments), _ = next(queue)
        start = time.perf_counter()
        first = function(*arguments)
        ahead = (time.perf_counter() - start) * (total - 1)
        prefer = "processes" if ahead > _PROCESSES_PAY_SECONDS else "threads"
        return [first, *Parallel(n_jobs=n_jobs, prefer=prefer)(queue)]


def _score_fold(
    model: Any, scorer: Any, X: Any, y: NDArray[Any], split: _Split, inner: list[_Split]
) -> _Fold:
    train, test = split
    started = time.perf_counter()
    fitted = clone(model).fit(X[train], y[train])
    seconds = time.perf_counter() - started
    judge, rows = fitted, X[test]
    if isinstance(scorer, _ScorerObject) and isinstance(fitted, BaseEstimator):
        judge, rows = _Answers(fitted, rows), np.arange(len(test))
    score = float(scorer(judge, rows, y[test]))
    if judge is not fitted:
        judge.forget()
    inner_score = _score_permutation(model, scorer, X, y, inner) if inner else np.nan
    return _Fold(score, seconds, inner_score, judge)


def _score_permutation(
    model: Any, scorer: Any, X: Any, y: NDArray[Any], splits: list[_Split]
) -> float:
    """Mean score over folds."""
    scores = [
        scorer(clone(model).fit(X[train], y[train]), X[test], y[test]) for train, test in splits
    ]
    return float(np.mean(scores))


class _Answers:
    """What a fitted model says about its test rows, asked for by row position.

    The first call of a method asks the model; `forget` drops the model and the rows. So a scorer
    can score any resample of the rows for the price of an index.
    """

    def __init__(self, model: Any, X: Any) -> None:
        self._model, self._X, self._tags = model, X, get_tags(model)
        self._said: dict[str, Any] = {}
        if hasattr(model, "classes_"):
            self.classes_ = model.classes_

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._said:
            self._said[name] = getattr(self._model, name)(self._X)

        def answer(rows: NDArray[np.int64]) -> Any:
            return self._said[name][rows]

        answer.__name__ = name  # scorers look at it
        return answer

    def knows(self, name: str) -> bool:
        return name in self._said

    def forget(self) -> None:
        self._model = self._X = None

    def __sklearn_tags__(self) -> Any:
        return self._tags


def _prefetch(problem: _Problem) -> None:
    """Read the layers of all inputs in one pass over the files."""
    if isinstance(problem.acts, ActivationSet):
        numbered = [spec for spec in problem.specs if spec != EMBEDDINGS]
        problem.acts.prefetch(
            embeddings=EMBEDDINGS in problem.specs,
            layers=sorted({layer for spec in numbered for layer in parse_layers(spec)}),
        )


def _select(acts: Any, spec: int | str) -> NDArray[Any]:
    if isinstance(acts, ActivationSet) or acts.ndim == 2:
        selector, X = LayerSelector(spec), acts
    else:  # the selector checks all it is given, so it is given what is needed
        selector, X = LayerSelector(), acts[:, parse_layers(spec)]
    return selector.set_output(transform="default").fit_transform(X)


def _make_baselines(problem: _Problem) -> dict[str, tuple[Any, NDArray[Any]]]:
    n, classify = len(problem.y), problem.classify
    nothing = np.zeros((n, 1))
    rivals: dict[str, tuple[Any, NDArray[Any]]] = (
        {"majority": (DummyClassifier(strategy="most_frequent"), nothing)}
        if classify
        else {"mean": (DummyRegressor(), nothing)}
    )
    sentences = _sentences(problem.acts)
    if sentences is not None:
        lengths = np.array([[len(text), len(text.split())] for text in sentences.tolist()], float)
        rivals["sentence length"] = (_default_model(classify), lengths)
        tfidf = TfidfVectorizer()
        if any(map(tfidf.build_analyzer(), sentences.tolist())):
            last = _default_model(classify).steps[-1][1]
            rivals["TF-IDF"] = (make_pipeline(tfidf, last), sentences)
    return rivals


def _with_progress(jobs: Iterator[Any], total: int, show: bool | None) -> Iterator[Any]:
    if not (sys.stderr.isatty() if show is None else show):
        return jobs
    from tqdm import tqdm

    bar = tqdm(jobs, "Fitting", total, leave=False, delay=0.5, unit="job", dynamic_ncols=True)
    return iter(bar)


# ---- answers -------------------------------------------------------------------------------


def _nested_interval(
    problem: _Problem, design: _Design, folds: list[list[_Fold]], best: list[int]
) -> tuple[float, float]:
    rng = np.random.default_rng([design.seed, _BOOTSTRAP])
    draws = []
    for k, (layer, (_, test)) in enumerate(zip(best, design.splits, strict=True)):
        _, codes = np.unique(problem.groups[test], return_inverse=True)
        codes = codes.reshape(-1)
        n_groups = codes.max() + 1
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=_N_DRAWS)
        judge = folds[layer][k].judge
        rows = np.arange(len(test))
        if not isinstance(judge, _Answers):
            rows = _select(problem.acts, problem.specs[layer])[test]
        draws.append(_score_resamples(problem, judge, rows, problem.y[test], counts[:, codes]))
    scores = np.mean(draws, axis=0)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return np.nan, np.nan
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def _score_resamples(
    problem: _Problem, judge: Any, X: NDArray[Any], y: NDArray[Any], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Score each draw, a count for every row, of a fixed model; NaN where it has no score."""
    if problem.scoring in _CLOSED_FORMS and isinstance(judge, _Answers):
        return _CLOSED_FORMS[problem.scoring](judge, X, y, counts)
    scores = np.full(len(counts), np.nan)
    with (
        warnings.catch_warnings(),
        config_context(assume_finite=True, skip_parameter_validation=True),
        threadpool_limits(1, user_api="blas"),
    ):
        warnings.simplefilter("ignore")
        for i, count in enumerate(counts):
            rows = np.repeat(np.arange(len(y)), count)
            with suppress(ValueError):  # a class that was not drawn, for some scorers
                scores[i] = problem.scorer(judge, X[rows], y[rows])
    return scores


# The usual scores of all draws at once, as scikit-learn defines them with counts for weights;
# one by one they would take seconds.


def _accuracies(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    return counts @ (y == judge.predict(X)) / counts.sum(axis=1)


def _mean_recalls(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, _ = _count_classes(judge.predict(X), y, counts)
    return np.nanmean(np.where(true > 0, hits / np.maximum(true, 1), np.nan), axis=1)


def _mean_f1s(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, said = _count_classes(judge.predict(X), y, counts)
    f1s = 2 * hits / np.maximum(true + said, 1)
    return np.nanmean(np.where(true + said > 0, f1s, np.nan), axis=1)


def _count_classes(predicted: Any, y: Any, counts: Any) -> tuple[Any, Any, Any]:
    """Hits, true and predicted rows of each class, (n_draws, n_classes)."""
    classes = np.union1d(predicted, y)
    true, said = y[:, np.newaxis] == classes, predicted[:, np.newaxis] == classes
    return counts @ (true & said), counts @ true, counts @ said


def _roc_aucs(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    said = judge.decision_function(X) if judge.knows("decision_function") else None
    said = judge.predict_proba(X)[:, 1] if said is None else said
    positive = y == judge.classes_[1]
    above, below = said[positive, np.newaxis], said[~positive]
    wins = (above > below) + 0.5 * (above == below)
    pairs = counts[:, positive].sum(axis=1) * counts[:, ~positive].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (counts[:, positive] @ wins * counts[:, ~positive]).sum(axis=1) / pairs


def _r2s(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    y = y.astype(np.float64)
    residual = counts @ (y - judge.predict(X)) ** 2
    means = counts @ y / counts.sum(axis=1)
    total = (counts * (y - means[:, np.newaxis]) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(total > 0, residual / total, (residual > 0).astype(float))
    return 1 - ratio


_CLOSED_FORMS = {
    "accuracy": _accuracies,
    "balanced_accuracy": _mean_recalls,
    "f1_macro": _mean_f1s,
    "roc_auc": _roc_aucs,
    "r2": _r2s,
}


def _argmax(scores: NDArray[np.float64]) -> int:
    """The first of the largest; undefined scores lose."""
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


# ---- words ---------------------------------------------------------------------------------


def format_score(score: float | None, digits: int = 2) -> str:
    """Write a score for people; never as -0.00."""
    return "none" if score is None else f"{round(score, digits) + 0.0:.{digits}f}"


def _name(layer: int | str) -> str:
    if layer == EMBEDDINGS:
        return EMBEDDINGS
    return f"layer {layer}" if isinstance(layer, int) else f"layers {layer}"


def _name_all(layers: Sequence[int | str]) -> str:
    single = [layer for layer in layers if isinstance(layer, int)]
    parts = [_name(layer) for layer in layers if not isinstance(layer, int)]
    if single:
        parts.append(f"{'layer' if len(single) == 1 else 'each of layers'} {format_layers(single)}")
    return ", ".join(parts)


def _name_cv(cv: Any) -> str:
    if isinstance(cv, int):
        return f"{cv} stratified folds of whole groups, shuffled"
    return "given splits" if isinstance(cv, list) else " ".join(repr(cv).split())


def _describe(problem: _Problem, design: _Design) -> dict[str, str]:
    acts, y = problem.acts, problem.y
    if isinstance(acts, ActivationSet):
        data = f"{acts.name} (pooling {acts.pooling}, fingerprint {acts.fingerprint[:16]})"
    else:
        data = f"An array of shape {acts.shape}"
    if problem.classify:
        values, counts = np.unique(y, return_counts=True)
        sizes = ", ".join(f"{v}: {n:,}" for v, n in zip(values[:10], counts[:10], strict=True))
        target = f"{len(values)} classes ({sizes}{', ...' if len(values) > 10 else ''})"
    else:
        target = f"a numeric target, not zero in {np.count_nonzero(y):,} rows"
    return {
        "data": data,
        "target": target,
        "estimator": " ".join(repr(problem.model).split()),
        "folds": design.outer_folds,
        "inner_folds": design.inner_folds,
        "seed": str(design.seed),
        "versions": f"sklprep {__version__}, scikit-learn {sklearn.__version__}, numpy"
        f" {np.__version__}, Python {platform.python_version()}",
    }
