"""`layer_sweep`: which layer knows the target, answered without leakage and with controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import ParameterGrid

from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH
from sklprep.sweeps.aggregation import SentenceScores, read_aggregate
from sklprep.sweeps.baselines import Rival, make_rivals, sentences_of
from sklprep.sweeps.confounds import read_confounds, require_linear, residualize
from sklprep.sweeps.design import (
    FEW_ROWS,
    FEWEST_SHARED,
    INNER_IS_OUTER,
    USUAL_FOLDS,
    Design,
    InputScores,
    SharedFolds,
    deal,
    draw_design,
    keep_scorable,
)
from sklprep.sweeps.detections import read_detections, require_negatives
from sklprep.sweeps.fitting import Work, fit_training_sets
from sklprep.sweeps.inputs import read_inputs
from sklprep.sweeps.intervals import size_ratio, why_no_interval
from sklprep.sweeps.leaks import require_unfitted, warn_of_leaks
from sklprep.sweeps.operating_point import count_classes, read_rate
from sklprep.sweeps.problem import Problem, read_problem
from sklprep.sweeps.running import (
    Means,
    make_works,
    name_versions,
    read_means,
    read_repeats,
    run_all,
)
from sklprep.sweeps.scorers import weighs_active, weighs_classes
from sklprep.sweeps.scoring import Scoring
from sklprep.sweeps.sweep_result import LayerSweep
from sklprep.sweeps.sweep_scores import Baseline, argmax


def layer_sweep(
    estimator: Any,
    acts: Any,
    y: ArrayLike | None = None,
    *,
    layers: Any = EACH,
    cv: Any = 5,
    inner_cv: Any = "auto",
    n_repeats: int | str = "auto",
    groups: ArrayLike | None = None,
    scoring: Any = None,
    param_grid: Any = None,
    n_permutations: int = 0,
    baselines: bool = True,
    confounds: Any = None,
    aggregate: str | None = None,
    aggregate_params: Mapping[str, int] | None = None,
    solver: str = "auto",
    device: str | None = None,
    n_jobs: int | None = None,
    random_state: Any = 0,
    show_progress: bool | None = None,
) -> LayerSweep:
    r"""Cross-validate a model on every layer, and score the choice of the best one as well.

    Parameters
    ----------
    estimator : estimator or None
        Everything after the selector; cloned and refitted in each fold. None stands for
        `ActivationNormalizer` (``"maxabs"`` for SAE features) with `LogisticRegression` for labels
        (integers, booleans, strings), or with `Ridge` for floats.
    acts : ActivationSet, ProbeDataset, or array-like of shape (n_samples, n_layers, d_model)
        An array's layers are numbered from 0. A dataset is one input, its X, which keeps its groups
        and is normalized anew in each fold; it is refused if another step learned from its rows.
    y : array-like of shape (n_samples,), default=None
        Labels for a classifier, numbers for a regressor. None takes the y of a dataset.
    layers : "each", "each sae" or list of layer specifications, default="each"
        Each item is one input: ``["embeddings", 0, "0-5", "0,12,25"]``, or SAE features:
        ``["sae 12", "sae 0-5"]``, or ``"sae 12 l0 82"`` if a layer has several SAEs. ``"each"`` is
        the embeddings, if there are any, and every single layer; ``"each sae"`` is every single
        SAE.
    cv : int, splitter or iterable of splits, default=5
        Outer folds. An int is that many folds of `StratifiedGroupKFold`, shuffled; a numeric y is
        stratified in bins: zero, and quantiles of the other values.
    inner_cv : int, splitter, "outer", "auto" or None, default="auto"
        Folds within each outer training set, to choose the layer. ``"outer"``: the other outer
        folds, of which there must be at least 4. A model fitted without two folds then serves both
        of them: with 5 folds, 15 fits per layer instead of 30. ``"auto"``: ``"outer"`` if cv is an
        int of at least 4, otherwise 5. None: no nesting.
    n_repeats : int or "auto", default="auto"
        How often the whole nested cross-validation is run, each time with new folds. ``"auto"``:
        10 if the solver fits every input and folds can be redrawn, otherwise 1.
    groups : array-like of shape (n_samples,), default=None
        Rows of one group are never on both sides of a split. By default the groups of `acts`, in
        which rows of one text are together; for an array, each row is a group.
    scoring : str, callable or list of them, default=None
        A scorer as scikit-learn takes it, or ``"quadratic_kappa"``, ``"spearman"``,
        ``"pooled_r2"`` or ``"roc_auc_active"``, see `sklprep.sweeps.scorers`. ``"recall_at_fpr"``
        is the recall of the second of two classes at 1 % false positives, ``"recall_at_fpr=0.05"``
        at 5 %: the inner folds calibrate the threshold of each outer fold, see `recall_at_fpr`. The
        first of several chooses layers and parameters and is permuted; the others score the same
        models (`LayerSweep.other_scores`).
        By default accuracy or R2. Where more than 60 % of the rows are of one class, ROC AUC (two
        classes) or balanced accuracy; where more than 60 % of the numbers are zero, pooled R2,
        Spearman's correlation and ROC AUC of "not zero".
    param_grid : dict of str to list, or list of dict, default=None
        Parameters of the estimator that compete, as `GridSearchCV` takes them, for example
        ``{"logisticregression__C": [0.01, 0.1, 1]}``. The inner folds choose layer and parameters
        together, and the permutation control repeats that choice.
    n_permutations : int, default=0
        Number of permutations of the labels in the permutation control; 0 is no control.
    baselines : bool, default=True
        Score, on the same folds, the majority class (or the mean) and, where sentences are known,
        their length (characters and words) and their TF-IDF, each with the default model.
    confounds : str, list of str, array-like, DataFrame or mapping, default=None
        Variables that may predict y themselves, one row per row of `acts`: numbers, or text, of
        which each value becomes a column; or ``"length"`` and ``"position"`` of the sentences.
        They are a baseline, and the sweep is repeated on activations minus what they predict
        (`LayerSweep.residualized`). The models must be linear.
    aggregate : {"mean", "max", "rolling_mean_max", "top_k_mean"}, default=None
        If rows are tokens: score sentences, by combining the decisions for their tokens.
        ``"rolling_mean_max"`` is the largest mean of ``window`` consecutive tokens,
        ``"top_k_mean"`` the mean of the ``k`` largest; shorter sentences have the mean of all.
        In an array, each group is a sentence.
    aggregate_params : dict of str to int, default=None
        By default ``{"window": 5}`` or ``{"k": 5}``.
    solver : {"auto", "scikit-learn"}, default="auto"
        ``"auto"`` fits `LogisticRegression`, `Ridge` and `RidgeClassifier` with an L2 penalty,
        alone or after `ActivationNormalizer`, `StandardScaler`, `MinMaxScaler` or `MaxAbsScaler`,
        with `sklprep.sweeps.solver`: the same optimum, reached many times faster. scikit-learn
        fits other estimators, SAE features, and everything if a scorer looks at the model or at X.
    device : str or None, default=None
        ``"cuda"`` or another device of torch, on which the solver computes.
    n_jobs : int or None, default=None
        Number of parallel fits, -1 for all cores: in threads, or in processes if the work takes
        long, unless `joblib.parallel_config` says otherwise. It does not change the result.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and permutations.
    show_progress : bool or None, default=None
        None shows a progress bar if stderr is a terminal.

    Returns
    -------
    LayerSweep

    Raises
    ------
    InsufficientDataError
        If y is constant or has missing values, a class is in fewer groups than there are folds, a
        sparse y is active in fewer than 10 groups, or too few groups can be permuted.
    UsageError
        If the arguments do not fit together, the splits of `cv` break up groups, or a part of the
        estimator is frozen and was fitted before.

    Warns
    -----
    SklprepWarning
        If `groups` separates rows that `acts.groups` holds together, such as tokens of a sentence;
        if texts of different groups are near-duplicates; and, where there are no texts, if rows of
        different groups are nearly equal, or nearest to the row before or after them.

    Notes
    -----
    Outer fold :math:`k` has training rows :math:`T_k` and test rows :math:`V_k`. With
    :math:`s_{lk}` the score on :math:`V_k` of layer :math:`l` fitted on :math:`T_k`, and
    :math:`\bar{s}_{lk}` its mean inner score within :math:`T_k`,

    .. math::

        \mathtt{nested\_score} = \frac1K \sum_k s_{l_k k}, \quad l_k = \arg\max_l \bar{s}_{lk};
        \qquad
        \mathtt{naive\_best\_score} = \max_l \frac1K \sum_k s_{lk}

    [1]_, each of them averaged over repeats. If inner scores are equal, the first layer wins.
    ``nested_interval``, ``band`` and the comparisons with baselines use the corrected t, see
    `sklprep.sweeps.intervals`. They exist if the folds test each row once, every test fold has at
    least 5 groups, and there are at least 30 groups in all; for scores by class, such as ROC AUC,
    30 groups of each class.

    The permutation control moves labels between groups: those of whole groups where they are
    constant within groups, otherwise all labels of a group between groups of equal size. Where
    that is exact, they move within test folds, so that all labelings share the folds and the
    matrices of the fits; otherwise each permutation redraws the folds from its labels.
    `find_exact_permuter` in `sklprep.sweeps.permutations` says where and why. All layers share
    the permutations. :math:`p = (1 + b) / (1 + n)`, where :math:`b` is the number of the :math:`n`
    permutations in which the maximum over layers reaches that of y on the folds of the first repeat
    [2]_. It tests whether any layer knows anything about y; it is not the control task of Hewitt
    and Liang (2019).

    References
    ----------
    .. [1] G. C. Cawley, N. L. C. Talbot, "On over-fitting in model selection and subsequent
       selection bias in performance evaluation", JMLR 11, 2010.
    .. [2] B. Phipson, G. K. Smyth, "Permutation p-values should never be zero", Statistical
       Applications in Genetics and Molecular Biology 9, 2010.

    Examples
    --------
    >>> from sklprep import layer_sweep, make_activations
    >>> acts = make_activations(60, n_layers=3, d_model=8, n_features=32, random_state=0)
    >>> sweep = layer_sweep(None, acts, acts.labels, cv=3, inner_cv=3)
    >>> sweep.layers
    ['embeddings', 0, 1, 2]
    >>> sweep.scores.shape
    (4, 30)
    >>> sweep.nested_score <= sweep.naive_best_score
    True
    """
    if n_permutations < 0:
        raise UsageError(f"n_permutations must be at least 0, got {n_permutations}.")
    require_unfitted(estimator)
    problem = read_problem(estimator, acts, y, layers, groups, scoring, param_grid)
    means = read_means(problem, solver, device)
    sentences = read_aggregate(problem, aggregate, aggregate_params, permutes=n_permutations > 0)
    _require_inner(problem, inner_cv)
    design = draw_design(
        problem,
        cv=cv,
        inner_cv=inner_cv,
        n_permutations=n_permutations,
        n_repeats=read_repeats(n_repeats, cv, means),
        random_state=random_state,
    )
    problem = keep_scorable(problem, design, required=scoring is not None)
    if problem.scoring.fpr is not None:
        require_negatives(design, problem, problem.scoring.fpr)
    warn_of_leaks(problem)
    known_by, numbers = _read_confounds(problem, confounds)
    rivals = make_rivals(problem, numbers) if baselines else {}
    setup = _Setup(problem, design, means, sentences, rivals, numbers, known_by)
    return _make_result(setup, _fit_all(setup, n_jobs, show_progress))


class _Setup(NamedTuple):
    """What is fitted and scored, on which folds."""

    problem: Problem
    design: Design
    means: Means
    sentences: SentenceScores | None
    rivals: dict[str, Rival]
    confounds: NDArray[np.float64] | None
    known_by: str


class _Fits(NamedTuple):
    inputs: list[InputScores]
    residualized: list[InputScores]
    rivals: dict[str, InputScores]


def _require_inner(problem: Problem, inner_cv: Any) -> None:
    """Refuse to do without inner folds where something is chosen on them."""
    if inner_cv is not None:
        return
    if problem.has_grid:
        raise UsageError(
            f"param_grid has {len(problem.candidates)} candidates, which the inner folds choose"
            " from, but inner_cv=None. Give inner_cv, or one candidate."
        )
    if problem.scoring.fpr is not None:
        raise UsageError(
            f"scoring={problem.scoring.name!r} calibrates its threshold on the inner folds, but"
            " inner_cv=None. Give inner_cv."
        )


def _read_confounds(problem: Problem, confounds: Any) -> tuple[str, NDArray[np.float64] | None]:
    if confounds is None:
        return "", None
    known_by, numbers = read_confounds(confounds, problem.acts)
    require_linear(problem.model_for(spec) for spec in problem.inputs)
    return known_by, numbers


def _make_result(setup: _Setup, fits: _Fits) -> LayerSweep:
    problem, design = setup.problem, setup.design
    found = LayerSweep(
        **_read_fits(setup, fits.inputs),
        scoring=problem.scoring.name,
        n_samples=len(problem.y),
        n_groups=len(np.unique(problem.groups)),
        n_repeats=len(design.repeats),
        **_describe_intervals(problem, design, problem.scoring),
        permutation_scores=_stack_permuted(fits),
        n_labelings=design.n_labelings,
        baselines={name: Baseline(rival.scores) for name, rival in fits.rivals.items()},
        solver=setup.means.name,
        details=_describe(setup),
        score_reason=problem.score_reason,
    )
    residualized = None
    if fits.residualized:
        of_residuals = _read_fits(setup, fits.residualized)
        residualized = replace(found, **of_residuals, permutation_scores=None)
    others = {
        one.name: replace(
            found,
            scoring=one.name,
            scores=np.array([of_input.others[i] for of_input in fits.inputs]),
            baselines={name: Baseline(rival.others[i]) for name, rival in fits.rivals.items()},
            permutation_scores=None,
            score_reason="",
            **_describe_intervals(problem, design, one),
        )
        for i, one in enumerate(problem.other_scorings)
    }
    return replace(found, residualized=residualized, other_scores=others)


def _read_fits(setup: _Setup, inputs: list[InputScores]) -> dict[str, Any]:
    """Give the fields of a `LayerSweep` that follow from the fits of its inputs."""
    problem, nested = setup.problem, setup.design.is_nested
    names = [spec.name for spec in problem.inputs]
    best = [argmax(of_inputs) for of_inputs in np.array([one.inner for one in inputs]).T]
    chosen = [
        {"layer": names[i], **problem.candidates[inputs[i].candidates[k]]}
        for k, i in enumerate(best)
    ]
    return {
        "layers": names,
        "scores": np.array([one.scores for one in inputs]),
        "fit_times": np.array([one.seconds for one in inputs]),
        "best_layers": [names[i] for i in best] if nested else None,
        "chosen": chosen if nested else None,
        **_describe_detector(problem, inputs),
    }


def _describe_intervals(problem: Problem, design: Design, scoring: Scoring) -> dict[str, Any]:
    labels = None
    if problem.classify:
        labels = problem.y if weighs_classes(scoring.name) else None
    elif weighs_active(scoring.name):
        labels = np.where(problem.y != 0, "active", "inactive")
    reason = why_no_interval(design.folds, problem.groups, labels)
    return {"size_ratio": None if reason else size_ratio(design.folds), "no_interval": reason}


def _describe_detector(problem: Problem, inputs: list[InputScores]) -> dict[str, Any]:
    if problem.scoring.fpr is None:
        return {}
    positive = problem.y == np.unique(problem.y)[1]
    n_positives, n_negatives = count_classes(positive, problem.groups)
    return {
        "false_positive_rates": np.array([one.false_positive_rates for one in inputs]),
        "n_positives": n_positives,
        "n_negatives": n_negatives,
    }


def _stack_permuted(fits: _Fits) -> NDArray[np.float64] | None:
    permuted = np.array([one.permuted for one in fits.inputs]).T
    return permuted if len(permuted) else None


def count_fits(
    acts: Any,
    *,
    layers: Any = EACH,
    cv: int = 5,
    inner_cv: int | str | None = "auto",
    n_repeats: int = 1,
    param_grid: Any = None,
    n_permutations: int = 0,
    baselines: bool = True,
    scoring: Any = None,
    confounds: Any = None,
) -> int:
    """Count the models that `layer_sweep` will fit with these arguments.

    Examples
    --------
    >>> import numpy as np
    >>> count_fits(np.zeros((100, 26, 4)), inner_cv=None, baselines=False)
    130
    """
    n_candidates = 1 if param_grid is None else len(ParameterGrid(param_grid))
    if inner_cv == "auto":
        inner_cv = INNER_IS_OUTER if cv >= FEWEST_SHARED else USUAL_FOLDS
    n_inner = cv * (cv - 1) // 2 if inner_cv == INNER_IS_OUTER else cv * int(inner_cv or 0)
    scorings = scoring if isinstance(scoring, list | tuple) else [scoring]
    calibrates = any(read_rate(one) is not None for one in scorings)
    n_nested = n_repeats + (n_permutations if n_candidates > 1 or calibrates else 0)
    of_input = n_candidates * (cv * (n_repeats + n_permutations) + n_inner * n_nested)
    n_baselines = (3 if sentences_of(acts) is not None else 1) if baselines else 0
    if confounds is not None:
        n_baselines += int(baselines)
        of_input += n_candidates * n_repeats * (cv + n_inner)
    of_baseline = n_repeats * (cv + (n_inner if calibrates else 0))
    return len(read_inputs(layers, acts)) * of_input + of_baseline * n_baselines


def _fit_all(setup: _Setup, n_jobs: int | None, show_progress: bool | None) -> _Fits:
    """Fit for each input its folds and its permutations, then the baselines."""
    problem, design, means = setup.problem, setup.design, setup.means
    few, adjusts = len(problem.y) <= FEW_ROWS, setup.confounds is not None
    plan: list[tuple[list[SharedFolds], bool]] = []
    for solves in means.solves:
        plan.append((design.rounds(together=solves), solves and few))
        if adjusts:
            plan.append((design.observed(nested=True), solves and few))
    calibrates = problem.scoring.fpr is not None
    plan += [(design.observed(nested=calibrates), few)] * len(setup.rivals)
    n_observed = len(design.repeats)
    dealt = [
        (
            deal(of_one[:n_observed], small=small),
            deal(of_one[n_observed:], small=small),
        )
        for of_one, small in plan
    ]
    total = sum(len(tasks) for of_one in dealt for tasks in of_one)
    tasks = (
        (fit_training_sets, seen, *task)
        for work, (observed, permuted) in zip(_make_works(setup), dealt, strict=True)
        for seen, some in ((work, observed), (work._replace(others=()), permuted))
        for task in some
    )
    results = chain.from_iterable(run_all(tasks, total, means, n_jobs, show_progress))

    found = [_read(of_one, results, setup) for of_one, _ in plan]
    n, step = len(found) - len(setup.rivals), 1 + adjusts
    of_rivals = dict(zip(setup.rivals, found[n:], strict=True))
    return _Fits(found[:n:step], found[1:n:2] if adjusts else [], of_rivals)


def _read(of_input: list[SharedFolds], results: Iterator[Any], setup: _Setup) -> InputScores:
    """Take the scores of an input, or of a baseline, from the results of all tasks."""
    scoring, n_observed = setup.problem.scoring, len(setup.design.repeats)
    are_pooled = [one.is_pooled for one in (scoring, *setup.problem.other_scorings)]
    scores = []
    for i, one in enumerate(of_input):
        fitted = list(islice(results, len(one.folds)))
        if scoring.fpr is not None:
            scores.append(read_detections(one, fitted, scoring.fpr))
        else:
            n_others = len(fitted[0][0].others) if i < n_observed else 0
            scores.append(one.read(fitted, are_pooled[: 1 + n_others]))
    return InputScores.merge(scores, n_observed)


def _make_works(setup: _Setup) -> Iterator[Work]:
    """Give what is fitted for each input, as it is and residualized, and for each baseline."""
    problem = setup.problem
    calibrates = problem.scoring.fpr is not None
    others = tuple(one.scorer for one in problem.other_scorings)
    asked: dict[str, Any] = {"aggregate": setup.sentences, "keep_decisions": calibrates}
    for work in make_works(problem, setup.means):
        yield work._replace(others=others, **asked)
        if setup.confounds is not None:
            sees = partial(residualize, confounds=setup.confounds)
            yield work._replace(sees=sees, **asked)
    scorer, name = problem.scoring.scorer, problem.scoring.name
    for rival in setup.rivals.values():
        solve = rival.solves and any(setup.means.solves)
        work = Work(rival.model, [{}], scorer, name, rival.X, solve=solve, sees=rival.sees)
        yield work._replace(others=others, **asked)


def _describe_left_out(problem: Problem) -> str:
    """Say which part of the set's layers competed, if not all."""
    if not isinstance(problem.acts, ActivationSet) or any(one.is_sae for one in problem.inputs):
        return ""
    n_layers = len(problem.acts.layers)
    n_used = len({layer for one in problem.inputs for layer in one.layers})
    if n_used == n_layers or len(problem.inputs) == 1:
        return ""
    return (
        f"{n_used} of the {n_layers} layers of this set competed, and their selection is not"
        " accounted for"
    )


def _describe(setup: _Setup) -> dict[str, str]:
    problem, design, sentences = setup.problem, setup.design, setup.sentences
    y = problem.y
    if problem.classify:
        values, counts = np.unique(y, return_counts=True)
        sizes = ", ".join(f"{v}: {n:,}" for v, n in zip(values[:10], counts[:10], strict=True))
        target = f"{len(values)} classes ({sizes}{', ...' if len(values) > 10 else ''})"
    else:
        target = f"a numeric target, not zero in {np.count_nonzero(y):,} rows"
    models = dict.fromkeys(repr(problem.model_for(spec)) for spec in problem.inputs)
    return {
        "data": problem.origin,
        "left_out": _describe_left_out(problem),
        "target": target,
        "estimator": ", for other inputs ".join(" ".join(m.split()) for m in models),
        "folds": design.outer_cv,
        "inner_folds": design.inner_cv,
        "parameters": " ".join(repr(problem.candidates).split()) if problem.has_grid else "",
        "permutations": "with folds redrawn each time"
        if design.redrawn
        else "within the test folds, which stay as they are",
        "aggregate": "" if sentences is None else str(sentences),
        "solver": setup.means.name,
        "seed": str(design.seed),
        "versions": name_versions(),
        "confounds": setup.known_by,
    }
