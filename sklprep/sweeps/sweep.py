"""`layer_sweep`: which layer knows it, answered without leakage and with its controls."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, check_scoring, make_scorer
from sklearn.pipeline import make_pipeline

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import DataError, InsufficientDataError, SklprepWarning, UsageError
from sklprep.formats.layers import ALL, EMBEDDINGS, format_layers, parse_layers, require_layers
from sklprep.formats.members import Members
from sklprep.sweeps.folds import BOOTSTRAP, Design, Split, draw_design
from sklprep.sweeps.resampling import N_DRAWS, Answers, score_resamples
from sklprep.sweeps.sweep_result import Baseline, LayerSweep, argmax
from sklprep.sweeps.workers import (
    SAE_INPUT,
    RemoteRows,
    is_on_cluster,
    make_selector,
    run_jobs,
    select,
)
from sklprep.transformers.layer_selector import LayerSelector
from sklprep.transformers.normalizers import ActivationNormalizer

EACH = "each"
EACH_SAE = "each sae"

_ScorerObject = type(make_scorer(accuracy_score))


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
        `ActivationNormalizer` (by ``"maxabs"`` for SAE features) with `LogisticRegression` for
        labels (integers, booleans, strings), with `Ridge` for floats.
    acts : ActivationSet of shape (n_samples,), or array-like of shape \
(n_samples, n_layers, d_model)
        An array's layers are numbered from 0.
    y : array-like of shape (n_samples,)
        Labels for a classifier, numbers for a regressor.
    layers : "each", "each sae" or list of layer specifications, default="each"
        Each item is one input: ``["embeddings", 0, "0-5", "0,12,25"]``, or SAE features:
        ``["sae 12", "sae 0-5"]``, where a layer has several SAEs ``"sae 12 l0 82"``. ``"each"`` is
        the embeddings, where there are any, and every single layer; ``"each sae"`` is every single
        SAE.
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

    Warns
    -----
    SklprepWarning
        If `groups` separates rows that `acts.groups` holds together, such as tokens of a sentence.

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
    >>> from sklprep.sweeps.sweep import layer_sweep
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
    design = draw_design(
        problem.y,
        problem.groups,
        classify=problem.classify,
        cv=cv,
        inner_cv=inner_cv,
        n_permutations=n_permutations,
        random_state=random_state,
    )
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
        best = [argmax(inner[:, k]) for k in range(n_folds)]
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


@dataclass(frozen=True)
class _Problem:
    acts: Any
    y: NDArray[Any]
    groups: NDArray[np.int64]
    specs: list[int | str]
    model: Any
    sae_model: Any
    scorer: Callable[..., Any]
    scoring: str
    classify: bool

    def model_for(self, spec: int | str) -> Any:
        return self.sae_model if SAE_INPUT.fullmatch(str(spec)) else self.model


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
        sae_model=_default_model(classify, "maxabs") if estimator is None else estimator,
        scorer=scorer,
        scoring=scoring
        if isinstance(scoring, str)
        else getattr(scoring, "__name__", repr(scoring)),
        classify=classify,
    )


def _check_y(y: Any, n: int) -> NDArray[Any]:
    y = np.asarray(y)
    if y.shape != (n,):
        do = " Sweep one target at a time: y[:, 0]." if y.shape[:1] == (n,) and y.ndim == 2 else ""
        raise UsageError(f"y must have shape ({n},), one value a row of acts, got {y.shape}.{do}")
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


def _default_model(classify: bool, method: str = "standardize") -> Any:
    # on correlated activations newton-cg converges in ten steps where lbfgs takes hundreds
    model = LogisticRegression(solver="newton-cg", max_iter=1_000) if classify else Ridge()
    return make_pipeline(ActivationNormalizer(method), model)


def _check_groups(groups: Any, acts: Any) -> NDArray[np.int64]:
    if groups is None:
        groups = acts.groups if isinstance(acts, ActivationSet) else np.arange(len(acts))
    groups = np.asarray(groups)
    if groups.shape != (len(acts),):
        raise UsageError(f"groups must have shape ({len(acts)},), got {groups.shape}.")
    groups = np.unique(groups, return_inverse=True)[1].reshape(-1)
    if isinstance(acts, ActivationSet):
        pairs = np.unique(np.stack([acts.groups, groups]), axis=1)
        n_torn = int((np.bincount(pairs[0]) > 1).sum())
        if n_torn:
            warnings.warn(
                f"groups puts rows of one sentence into several groups ({n_torn} of"
                f" {len(np.unique(acts.groups))} in acts.groups): test rows have siblings in"
                " training, which raises scores. Leave groups out, or give every row of a sentence"
                " the same group.",
                SklprepWarning,
                stacklevel=4,
            )
    return groups


def _read_layers(layers: Any, acts: Any) -> list[int | str]:
    """Give each input its canonical name: a number, a specification, or "embeddings"."""
    if isinstance(acts, ActivationSet):
        available = acts.layers.tolist()
    else:
        available = list(range(np.shape(acts)[1] if np.ndim(acts) == 3 else 1))
    if isinstance(layers, str) and layers == EACH:
        return [EMBEDDINGS] * _has_embeddings(acts) + available
    if isinstance(layers, str) and layers == EACH_SAE:
        return name_saes(acts)
    if isinstance(layers, str | Integral) or not len(layers):
        raise UsageError(
            f"layers must be 'each', 'each sae' or a list of inputs, got {layers!r}. Write ['0-5']"
            " for one input of six layers, range(6) for six inputs."
        )
    names: list[int | str] = []
    for spec in layers:
        if isinstance(spec, str) and spec == EMBEDDINGS:
            LayerSelector(EMBEDDINGS).fit(acts)  # raises if there are none
            names.append(EMBEDDINGS)
            continue
        if isinstance(spec, str) and (sae := SAE_INPUT.fullmatch(spec)):
            selected = make_selector(spec).fit(_check_set(acts)).layers_.tolist()
            l0 = f" l0 {sae['average_l0']}" if sae["average_l0"] else ""
            names.append(f"sae {format_layers(selected)}{l0}")
            continue
        numbers = available if isinstance(spec, str) and spec == ALL else parse_layers(spec)
        require_layers(numbers, available)
        names.append(numbers[0] if len(numbers) == 1 else format_layers(numbers))
    return list(dict.fromkeys(names))


def name_saes(acts: Any, average_l0: float | None = None) -> list[int | str]:
    """Name every SAE of a set, or one of `average_l0` for each layer that has it, as an input."""
    layers, l0s = _check_set(acts).sae_layers, acts.average_l0s
    if not len(layers) or average_l0 not in (None, *l0s.tolist()):
        acts.rows.find_config(int(layers[0]) if len(layers) else 0, average_l0)  # raises
    return [
        f"sae {layer}" + (f" l0 {l0:.17g}" if np.sum(layers == layer) > 1 else "")
        for layer, l0 in sorted(zip(layers.tolist(), l0s.tolist(), strict=True))
        if average_l0 in (None, l0)
    ]


def _check_set(acts: Any) -> ActivationSet:
    if not isinstance(acts, ActivationSet):
        raise UsageError(
            "SAE features need an ActivationSet, got an array, which holds hidden states. Use"
            " ActivationSet.from_arrays(activations=...)."
        )
    return acts


def _has_embeddings(acts: Any) -> bool:
    try:
        return isinstance(acts, ActivationSet) and acts.d_embed > 0
    except DataError:
        return False


def _sentences(acts: Any) -> NDArray[np.str_] | None:
    return acts.sentences if isinstance(acts, ActivationSet) else None


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


class _Fold(NamedTuple):
    score: float
    seconds: float
    inner_score: float
    judge: Any


def _fit_all(
    problem: _Problem,
    design: Design,
    rivals: dict[str, tuple[Any, NDArray[Any]]],
    n_jobs: int | None,
    show_progress: bool | None,
) -> list[Any]:
    """Run every job: for each input its folds and its permutations, then the baselines."""
    scorer, y = problem.scorer, problem.y
    inputs = _make_inputs(problem, elsewhere=is_on_cluster())

    def jobs() -> Iterator[Any]:
        for spec, X in zip(problem.specs, inputs, strict=True):
            model = problem.model_for(spec)
            for split, inner in zip(design.splits, design.inner, strict=True):
                yield _score_fold, model, scorer, X, y, split, inner
            for labels, splits in design.permutations:
                yield _score_permutation, model, scorer, X, labels, splits
        for rival, X in rivals.values():
            for split in design.splits:
                yield _score_fold, rival, scorer, X, y, split, []

    n_folds = len(design.splits)
    total = len(problem.specs) * (n_folds + len(design.permutations)) + len(rivals) * n_folds
    return run_jobs(_with_progress(jobs(), total, show_progress), total, n_jobs)


def find_inputs(acts: ActivationSet, layers: Any) -> Members:
    """What `layer_sweep` will read of a set."""
    members = Members()
    for spec in _read_layers(layers, acts):
        members |= make_selector(spec).fit(acts).find_members(acts)
    return members


def _make_inputs(problem: _Problem, *, elsewhere: bool) -> Iterator[Any]:
    """Give the rows of each input; to a cluster, the way to them."""
    acts = problem.acts
    if isinstance(acts, ActivationSet):
        wanted = find_inputs(acts, problem.specs)
        if elsewhere and acts.rows.source.place is not None:
            token = uuid4().hex
            for spec in problem.specs:
                yield RemoteRows(acts.unread(), spec, token=token, wanted=wanted)
            return
        acts.rows.source.read(wanted)  # all in one pass over the files
    for spec in problem.specs:
        yield select(acts, spec)


def _score_fold(
    model: Any, scorer: Any, X: Any, y: NDArray[Any], split: Split, inner: list[Split]
) -> _Fold:
    X = X.read() if isinstance(X, RemoteRows) else X
    train, test = split
    started = time.perf_counter()
    fitted = clone(model).fit(X[train], y[train])
    seconds = time.perf_counter() - started
    judge, rows = fitted, X[test]
    if isinstance(scorer, _ScorerObject) and isinstance(fitted, BaseEstimator):
        judge, rows = Answers(fitted, rows), np.arange(len(test))
    score = float(scorer(judge, rows, y[test]))
    if judge is not fitted:
        judge.forget()
    inner_score = _score_permutation(model, scorer, X, y, inner) if inner else np.nan
    return _Fold(score, seconds, inner_score, judge)


def _score_permutation(
    model: Any, scorer: Any, X: Any, y: NDArray[Any], splits: list[Split]
) -> float:
    """Mean score over folds."""
    X = X.read() if isinstance(X, RemoteRows) else X
    scores = [
        scorer(clone(model).fit(X[train], y[train]), X[test], y[test]) for train, test in splits
    ]
    return float(np.mean(scores))


def _with_progress(jobs: Iterator[Any], total: int, show: bool | None) -> Iterator[Any]:
    if not (sys.stderr.isatty() if show is None else show):
        return jobs
    from tqdm import tqdm

    bar = tqdm(jobs, "Fitting", total, leave=False, delay=0.5, unit="job", dynamic_ncols=True)
    return iter(bar)


def _nested_interval(
    problem: _Problem, design: Design, folds: list[list[_Fold]], best: list[int]
) -> tuple[float, float]:
    rng = np.random.default_rng([design.seed, BOOTSTRAP])
    draws = []
    for k, (layer, (_, test)) in enumerate(zip(best, design.splits, strict=True)):
        _, codes = np.unique(problem.groups[test], return_inverse=True)
        codes = codes.reshape(-1)
        n_groups = codes.max() + 1
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=N_DRAWS)
        judge = folds[layer][k].judge
        rows = np.arange(len(test))
        if not isinstance(judge, Answers):
            rows = select(problem.acts, problem.specs[layer])[test]
        draws.append(
            score_resamples(
                problem.scorer,
                problem.scoring,
                judge,
                rows,
                problem.y[test],
                counts[:, codes],
            )
        )
    scores = np.mean(draws, axis=0)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return np.nan, np.nan
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def _describe(problem: _Problem, design: Design) -> dict[str, str]:
    acts, y = problem.acts, problem.y
    if isinstance(acts, ActivationSet):
        data = f"{acts.name} (pooling {acts.pooling}, fingerprint {acts.fingerprint[:16]})"
        if acts.left_out:
            data += f" without {len(acts.left_out)} faulty files"
    else:
        data = f"An array of shape {acts.shape}"
    if problem.classify:
        values, counts = np.unique(y, return_counts=True)
        sizes = ", ".join(f"{v}: {n:,}" for v, n in zip(values[:10], counts[:10], strict=True))
        target = f"{len(values)} classes ({sizes}{', ...' if len(values) > 10 else ''})"
    else:
        target = f"a numeric target, not zero in {np.count_nonzero(y):,} rows"
    models = dict.fromkeys(repr(problem.model_for(spec)) for spec in problem.specs)
    return {
        "data": data,
        "target": target,
        "estimator": ", for other inputs ".join(" ".join(m.split()) for m in models),
        "folds": design.outer_folds,
        "inner_folds": design.inner_folds,
        "seed": str(design.seed),
        "versions": f"sklprep {__version__}, scikit-learn {sklearn.__version__}, numpy"
        f" {np.__version__}, Python {platform.python_version()}",
    }
