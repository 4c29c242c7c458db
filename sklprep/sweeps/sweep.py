"""`layer_sweep`: which layer knows it, answered without leakage and with its controls."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import sklearn
from numpy.typing import ArrayLike

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH
from sklprep.sweeps.baselines import Rival, make_rivals, sentences_of
from sklprep.sweeps.bootstrap import N_DRAWS, draw_counts, middle_95, score_draws
from sklprep.sweeps.design import BOOTSTRAP, Design, draw_design
from sklprep.sweeps.fitting import Answers, FoldResult, Work, fit_folds, fit_outer_fold
from sklprep.sweeps.inputs import members_of, read_inputs
from sklprep.sweeps.problem import Problem, read_problem
from sklprep.sweeps.sweep_result import Baseline, LayerSweep, argmax
from sklprep.sweeps.workers import RemoteRows, Task, is_on_cluster, run_tasks


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
    constant within groups, otherwise all labels of a group between groups of equal size.
    Each    permutation redraws the folds from its labels and is shared by all layers.
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
    problem = read_problem(estimator, acts, y, layers, groups, scoring)
    design = draw_design(
        problem,
        cv=cv,
        inner_cv=inner_cv,
        n_permutations=n_permutations,
        random_state=random_state,
    )
    rivals = make_rivals(problem) if baselines else {}
    fits = _fit_all(problem, design, rivals, n_jobs, show_progress)
    best, interval = None, None
    if inner_cv is not None:
        inner = np.array([[fold.inner_score for fold in row] for row in fits.folds])
        best = [argmax(of_inputs) for of_inputs in inner.T]
        interval = _nested_interval(problem, design, fits, best)
    names = [spec.name for spec in problem.inputs]
    return LayerSweep(
        layers=names,
        scores=np.array([[fold.score for fold in row] for row in fits.folds]),
        fit_times=np.array([[fold.seconds for fold in row] for row in fits.folds]),
        scoring=problem.scoring.name,
        n_samples=len(problem.y),
        n_groups=len(np.unique(problem.groups)),
        nested_interval=interval,
        best_layers=None if best is None else [names[i] for i in best],
        permutation_scores=np.array(fits.permuted).T if n_permutations else None,
        baselines=fits.baselines,
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
    n_inputs = len(read_inputs(layers, acts))
    n_baselines = (3 if sentences_of(acts) is not None else 1) if baselines else 0
    return cv * (n_inputs * (1 + (inner_cv or 0) + n_permutations) + n_baselines)


class _Fits(NamedTuple):
    """Results in the order of the inputs, and within each of the folds or the permutations."""

    folds: list[list[FoldResult]]
    permuted: list[list[float]]
    baselines: dict[str, Baseline]


def _fit_all(
    problem: Problem,
    design: Design,
    rivals: dict[str, Rival],
    n_jobs: int | None,
    show_progress: bool | None,
) -> _Fits:
    """Fit for each input its folds and its permutations, then the baselines."""
    tasks = _make_tasks(problem, design, rivals, _make_rows(problem, elsewhere=is_on_cluster()))
    n_folds, n_permutations = len(design.folds), len(design.permutations)
    total = len(problem.inputs) * (n_folds + n_permutations) + len(rivals) * n_folds
    results = iter(run_tasks(_with_progress(tasks, total, show_progress), total, n_jobs))
    folds, permuted = [], []
    for _ in problem.inputs:
        folds.append(list(islice(results, n_folds)))
        permuted.append(list(islice(results, n_permutations)))
    baselines = {
        name: Baseline(np.array([fold.score for fold in islice(results, n_folds)]))
        for name in rivals
    }
    return _Fits(folds, permuted, baselines)


def _make_tasks(
    problem: Problem, design: Design, rivals: dict[str, Rival], rows: Iterator[Any]
) -> Iterator[Task]:
    scorer, y = problem.scoring.scorer, problem.y
    groups = problem.groups if problem.needs_groups else None
    for spec, X in zip(problem.inputs, rows, strict=True):
        work = Work(problem.model_for(spec), scorer, X, y, groups)
        for fold, inner in zip(design.folds, design.inner, strict=True):
            yield fit_outer_fold, work, fold, inner
        for labels, folds in design.permutations:
            yield fit_folds, work._replace(y=labels), folds
    for rival in rivals.values():
        for fold in design.folds:
            yield fit_outer_fold, Work(rival.model, scorer, rival.X, y), fold, []


def _make_rows(problem: Problem, *, elsewhere: bool) -> Iterator[Any]:
    """Give the rows of each input; to a cluster, the way to them."""
    acts = problem.acts
    if isinstance(acts, ActivationSet):
        wanted = members_of(problem.inputs, acts)
        if elsewhere and acts.rows.source.place is not None:
            token = uuid4().hex
            for spec in problem.inputs:
                yield RemoteRows(acts.unread(), spec, token=token, wanted=wanted)
            return
        acts.rows.source.read(wanted)  # all in one pass over the files
    for spec in problem.inputs:
        yield spec.select(acts)


def _with_progress(tasks: Iterator[Task], total: int, show: bool | None) -> Iterator[Task]:
    if not (sys.stderr.isatty() if show is None else show):
        return tasks
    from tqdm import tqdm

    bar = tqdm(tasks, "Fitting", total, leave=False, delay=0.5, unit="job", dynamic_ncols=True)
    return iter(bar)


def _nested_interval(
    problem: Problem, design: Design, fits: _Fits, best: list[int]
) -> tuple[float, float]:
    rng = np.random.default_rng([design.seed, BOOTSTRAP])
    draws = []
    for k, (i, (_, test)) in enumerate(zip(best, design.folds, strict=True)):
        model = fits.folds[i][k].model
        counts = draw_counts(rng, problem.groups[test], N_DRAWS)
        # answers are asked by position, a model itself by its rows
        is_model = not isinstance(model, Answers)
        X = problem.inputs[i].select(problem.acts)[test] if is_model else np.arange(len(test))
        draws.append(score_draws(problem.scoring, model, X, problem.y[test], counts))
    return middle_95(np.mean(draws, axis=0))


def _describe(problem: Problem, design: Design) -> dict[str, str]:
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
    models = dict.fromkeys(repr(problem.model_for(spec)) for spec in problem.inputs)
    return {
        "data": data,
        "target": target,
        "estimator": ", for other inputs ".join(" ".join(m.split()) for m in models),
        "folds": design.outer_cv,
        "inner_folds": design.inner_cv,
        "seed": str(design.seed),
        "versions": f"sklprep {__version__}, scikit-learn {sklearn.__version__}, numpy"
        f" {np.__version__}, Python {platform.python_version()}",
    }
