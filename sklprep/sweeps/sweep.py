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
from sklearn.model_selection import ParameterGrid

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH
from sklprep.sweeps.baselines import Rival, make_rivals, sentences_of
from sklprep.sweeps.bootstrap import N_DRAWS, draw_counts, middle_95, score_draws
from sklprep.sweeps.design import BOOTSTRAP, INNER_IS_OUTER, Design, InputScores, draw_design
from sklprep.sweeps.fitting import Answers, Work, fit_training_sets
from sklprep.sweeps.inputs import members_of, read_inputs
from sklprep.sweeps.problem import Problem, read_problem
from sklprep.sweeps.solver import require_device
from sklprep.sweeps.sweep_result import Baseline, LayerSweep, argmax
from sklprep.sweeps.workers import RemoteRows, Task, is_on_cluster, run_tasks

SOLVERS = ("auto", "scikit-learn")


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
    param_grid: Any = None,
    n_permutations: int = 0,
    baselines: bool = True,
    solver: str = "auto",
    device: str | None = None,
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
    inner_cv : int, splitter, "outer" or None, default=5
        Folds within each outer training set, to choose the layer. ``"outer"``: the other outer
        folds, of which there must be at least 4. A model without two folds then serves both of
        them: 15 fits a layer instead of 30, of 5 folds. None: no nesting.
    groups : array-like of shape (n_samples,), default=None
        Rows that must not straddle a split. By default ``acts.groups``; for an array, each row by
        itself.
    scoring : str or callable, default=None
        As scikit-learn takes it; by default accuracy or R2. The interval takes seconds, except for
        accuracy, balanced_accuracy, f1_macro, roc_auc and r2.
    param_grid : dict of str to list, or list of dict, default=None
        Parameters of the estimator that compete, as `GridSearchCV` takes them, for example
        ``{"logisticregression__C": [0.01, 0.1, 1]}``. The inner folds choose layer and parameters
        together, and the permutation control repeats that choice.
    n_permutations : int, default=0
        Permutations of the labels in the permutation control.
    baselines : bool, default=True
        Score, on the same folds, the majority class (or the mean), and where sentences are known
        their length (characters and words) and their TF-IDF, each with the default model.
    solver : {"auto", "scikit-learn"}, default="auto"
        ``"auto"`` fits `LogisticRegression`, `Ridge` and `RidgeClassifier` with an L2 penalty,
        alone or behind `ActivationNormalizer`, `StandardScaler`, `MinMaxScaler` or `MaxAbsScaler`,
        with `sklprep.sweeps.solver`: the same optimum, reached many times faster. scikit-learn
        fits other estimators, SAE features, rows of which less than 90 % are distinct, and all
        where the scorer looks at the model or at X.
    device : str or None, default=None
        ``"cuda"`` or another device of torch, to compute there; for what the solver knows.
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
    constant within groups, otherwise all labels of a group between groups of equal size. Where
    that is exact, they move within test folds, so that all labelings share the folds and the
    matrices of the fits; otherwise each permutation redraws the folds from its labels.
    `find_exact_permuter` in `sklprep.sweeps.permutations` says where and why. All layers share
    the permutations. :math:`p = (1 + b) / (1 + n)`, where in :math:`b` of :math:`n` permutations
    the maximum over layers reaches ``naive_best_score`` [2]_. It tests whether any layer knows
    anything about y; it
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
    problem = read_problem(estimator, acts, y, layers, groups, scoring, param_grid)
    means = _read_means(problem, solver, device)
    if problem.has_grid and inner_cv is None:
        raise UsageError(
            f"param_grid has {len(problem.candidates)} candidates, which the inner folds choose"
            " from, but inner_cv=None. Give inner_cv, or one candidate."
        )
    design = draw_design(
        problem,
        cv=cv,
        inner_cv=inner_cv,
        n_permutations=n_permutations,
        random_state=random_state,
    )
    rivals = make_rivals(problem) if baselines else {}
    fits = _fit_all(problem, design, rivals, means, n_jobs, show_progress)
    names = [spec.name for spec in problem.inputs]
    best, interval, chosen = None, None, None
    if inner_cv is not None:
        best = [argmax(of_inputs) for of_inputs in np.array([one.inner for one in fits.inputs]).T]
        interval = _nested_interval(problem, design, fits, best)
        chosen = [
            {"layer": names[i], **problem.candidates[fits.inputs[i].candidates[k]]}
            for k, i in enumerate(best)
        ]
    permuted = np.array([one.permuted for one in fits.inputs]).T
    return LayerSweep(
        layers=names,
        scores=np.array([one.scores for one in fits.inputs]),
        fit_times=np.array([one.seconds for one in fits.inputs]),
        scoring=problem.scoring.name,
        n_samples=len(problem.y),
        n_groups=len(np.unique(problem.groups)),
        nested_interval=interval,
        best_layers=None if best is None else [names[i] for i in best],
        chosen=chosen,
        permutation_scores=permuted if n_permutations else None,
        baselines=fits.baselines,
        solver=means.name,
        details=_describe(problem, design, means),
    )


def count_fits(
    acts: Any,
    *,
    layers: Any = EACH,
    cv: int = 5,
    inner_cv: int | str | None = 5,
    param_grid: Any = None,
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
    n_candidates = 1 if param_grid is None else len(ParameterGrid(param_grid))
    n_inner = cv * (cv - 1) // 2 if inner_cv == INNER_IS_OUTER else cv * int(inner_cv or 0)
    n_nested = 1 + n_permutations if n_candidates > 1 else 1
    of_input = n_candidates * (cv * (1 + n_permutations) + n_inner * n_nested)
    n_baselines = (3 if sentences_of(acts) is not None else 1) if baselines else 0
    return len(read_inputs(layers, acts)) * of_input + cv * n_baselines


class _Means(NamedTuple):
    """What fits: for each input whether the solver does, and where it computes."""

    solves: list[bool]
    device: str | None

    @property
    def name(self) -> str:
        names = ["sklprep" if solves else "scikit-learn" for solves in self.solves]
        return " and ".join(dict.fromkeys(names))


def _read_means(problem: Problem, solver: str, device: str | None) -> _Means:
    if solver not in SOLVERS:
        raise UsageError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}.")
    solves = [solver == "auto" and problem.solves(spec) for spec in problem.inputs]
    if device is not None:
        require_device(device)
        if not all(solves):
            spec = problem.inputs[solves.index(False)]
            raise UsageError(
                f"device={device!r} is for what the solver fits, and scikit-learn fits"
                f" {spec.name} with this estimator and scoring. Leave device out."
            )
    return _Means(solves, device)


class _Fits(NamedTuple):
    inputs: list[InputScores]
    baselines: dict[str, Baseline]


def _fit_all(
    problem: Problem,
    design: Design,
    rivals: dict[str, Rival],
    means: _Means,
    n_jobs: int | None,
    show_progress: bool | None,
) -> _Fits:
    """Fit for each input its folds and its permutations, then the baselines."""
    tasks = _make_tasks(
        problem, design, rivals, means, _make_rows(problem, elsewhere=is_on_cluster())
    )
    rounds = [design.rounds(together=solves) for solves in means.solves]
    alone = design.alone()
    total = sum(len(one.folds) for of_input in rounds for one in of_input)
    total += len(rivals) * len(alone.folds)
    if means.device is not None:
        n_jobs = 1  # the device is one, and keeps itself busy
    results = iter(run_tasks(_with_progress(tasks, total, show_progress), total, n_jobs))
    inputs = [
        InputScores.merge([one.read(list(islice(results, len(one.folds)))) for one in of_input])
        for of_input in rounds
    ]
    baselines = {
        name: Baseline(np.array(alone.read(list(islice(results, len(alone.folds)))).scores))
        for name in rivals
    }
    return _Fits(inputs, baselines)


def _make_tasks(
    problem: Problem,
    design: Design,
    rivals: dict[str, Rival],
    means: _Means,
    rows: Iterator[Any],
) -> Iterator[Task]:
    scorer, name = problem.scoring.scorer, problem.scoring.name
    groups = problem.groups if problem.needs_groups else None
    for spec, X, solves in zip(problem.inputs, rows, means.solves, strict=True):
        model = problem.model_for(spec)
        work = Work(model, problem.candidates, scorer, name, X, groups, solves, means.device)
        for one in design.rounds(together=solves):
            for training_sets in one.training_sets():
                yield fit_training_sets, work, one.labels, training_sets
    alone = design.alone()
    for rival in rivals.values():
        work = Work(rival.model, [{}], scorer, name, rival.X)
        for training_sets in alone.training_sets():
            yield fit_training_sets, work, alone.labels, training_sets


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
        model = fits.inputs[i].models[k]
        counts = draw_counts(rng, problem.groups[test], N_DRAWS)
        # answers are asked by position, a model itself by its rows
        is_model = not isinstance(model, Answers)
        X = problem.inputs[i].select(problem.acts)[test] if is_model else np.arange(len(test))
        draws.append(score_draws(problem.scoring, model, X, problem.y[test], counts))
    return middle_95(np.mean(draws, axis=0))


def _describe(problem: Problem, design: Design, means: _Means) -> dict[str, str]:
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
        "parameters": " ".join(repr(problem.candidates).split()) if problem.has_grid else "",
        "permutations": "with folds redrawn each time"
        if design.redrawn
        else "within the test folds, which stay as they are",
        "solver": means.name,
        "seed": str(design.seed),
        "versions": f"sklprep {__version__}, scikit-learn {sklearn.__version__}, numpy"
        f" {np.__version__}, Python {platform.python_version()}",
    }
