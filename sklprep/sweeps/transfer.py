"""`transfer_matrix`: does a probe that was trained on one set work on another?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH
from sklprep.sweeps.baselines import score_majority
from sklprep.sweeps.cosines import compare_directions, fit_direction
from sklprep.sweeps.design import (
    FEW_ROWS,
    Dealt,
    deal,
    read_seed,
    with_remedies,
)
from sklprep.sweeps.fitting import (
    Fitted,
    TrainingSet,
    Work,
    fit_training_sets,
    is_made_scorer,
)
from sklprep.sweeps.folds import FoldsError, read_cv
from sklprep.sweeps.running import describe_run, make_works, read_means, read_repeats, run_all
from sklprep.sweeps.sweep_scores import argmax
from sklprep.sweeps.transfer_design import (
    Half,
    Round,
    Source,
    describe_folds,
    draw_halves,
    draw_rounds,
    make_sources,
    require_scorable,
)
from sklprep.sweeps.transfer_result import TransferMatrix
from sklprep.sweeps.transfer_sets import JoinedSets, join_sets
from sklprep.sweeps.workers import Task


def transfer_matrix(
    estimator: Any,
    sets: Mapping[str, tuple[Any, Any]],
    *,
    layers: Any = EACH,
    cv: Any = 5,
    n_repeats: int | str = "auto",
    groups: Mapping[str, Any] | None = None,
    scoring: Any = None,
    leave_one_out: bool = True,
    solver: str = "auto",
    device: str | None = None,
    n_jobs: int | None = None,
    random_state: Any = 0,
    show_progress: bool | None = None,
) -> TransferMatrix:
    r"""Train a model on each of several sets, and score it on each of them.

    Parameters
    ----------
    estimator : estimator or None
        As in `layer_sweep`.
    sets : mapping of str to (acts, y)
        At least two, with the same layers; acts and y as in `layer_sweep`.
    layers : "each", "each sae" or list of layer specifications, default="each"
        As in `layer_sweep`.
    cv : int or splitter, default=5
        Folds, drawn for the rows of all sets together. An int is `StratifiedGroupKFold`, shuffled,
        with the classes (of a numeric y, bins) of each set as strata.
    n_repeats : int or "auto", default="auto"
        How often all of it is run, each time with new folds, as in `layer_sweep`.
    groups : mapping of str to array-like of shape (n_samples,), default=None
        Groups of each set, which are never on both sides of a split; equal values are one group in
        all sets. By default ``acts.groups``, in which sets share groups only where they share
        texts; for arrays, each row is a group.
    scoring : str or callable, default=None
        One scorer, as scikit-learn takes it. By default as in `layer_sweep`, with Spearman's
        correlation in place of pooled R2.
    leave_one_out : bool, default=True
        With three sets or more, also train on all but one and score on that one.
    solver, device, n_jobs, random_state, show_progress
        As in `layer_sweep`.

    Returns
    -------
    TransferMatrix

    Raises
    ------
    InsufficientDataError
        If a set has too few groups of a class, or of active rows, for the folds.
    UsageError
        If the arguments, or the sets, do not fit together.

    Notes
    -----
    Fold :math:`k` has training rows :math:`T_k` and test rows :math:`V_k` of all sets, so that no
    group is on both sides, whichever sets share it. With :math:`s_{lk}(A, B)` the score on
    :math:`V_k \cap B` of layer :math:`l` fitted on :math:`T_k \cap A`, and
    :math:`\bar{s}_{lk}(A)` its mean inner score within :math:`T_k \cap A`, a cell is

    .. math::

        m(A, B) = \frac1K \sum_k s_{l_k k}(A, B), \quad
        l_k = \arg\max_l \bar{s}_{lk}(A):

    the choice of the layer depends on nothing of B. On the diagonal that is the nested
    cross-validation of `layer_sweep`; off it, models see :math:`1 - 1/K` of the rows of A, as they
    do on the diagonal, so that a row compares like with like.

    Intervals are the corrected t of `sklprep.sweeps.intervals`, with the size ratio of the folds of
    B; where A has fewer groups than B, times the root of :math:`n_B / n_A`, because the scores then
    vary less between folds than models between samples of A. In simulations of 150 to 250 pairs of
    sets per case (40 to 300 rows, cosines of 0 to 1), they covered 92 to 98 %; without that factor,
    where it applies, 81 to 96 %.

    Cosines compare directions of models that were fitted on different halves of the groups: those
    of A on one half with those of B on the other. On the diagonal they say how well a direction
    agrees with itself, which is the most to expect of another one.

    Examples
    --------
    >>> from sklprep import make_activations, transfer_matrix
    >>> acts = make_activations(120, n_layers=2, d_model=8, n_features=32, random_state=0)
    >>> one, other = acts[:60], acts[60:]
    >>> sets = {"one": (one, one.labels), "other": (other, other.labels)}
    >>> found = transfer_matrix(None, sets, layers=[0, 1], cv=4, n_repeats=1)
    >>> found.matrix.shape, found.scores.shape
    ((2, 2), (2, 2, 2, 4))
    """
    joined = join_sets(estimator, sets, layers, groups, scoring)
    problem = joined.problem
    means = read_means(problem, solver, device)
    cv = read_cv(cv, "cv")
    if isinstance(cv, list):
        raise UsageError("cv must be an int or a splitter: it splits the rows of all sets at once.")
    repeats, seed = read_repeats(n_repeats, cv, means), read_seed(random_state)
    rounds, sources = _draw(joined, cv, repeats, seed, leave_one_out=leave_one_out)
    halves = draw_halves(joined, seed)
    plan = _Plan(joined, rounds, sources, halves)
    dealt = {solves: plan.deal(solves=solves) for solves in set(means.solves)}
    total = sum(len(dealt[solves]) + len(halves) for solves in means.solves)
    works = make_works(problem, means, joined.rows())
    results = iter(run_all(plan.tasks(works, dealt), total, means, n_jobs, show_progress))
    scores, chosen, cosines, no_cosines = plan.read(results)
    reasons, ratios = describe_folds(joined, rounds[0].folds)
    return TransferMatrix(
        sets=joined.names,
        layers=[spec.name for spec in problem.inputs],
        scores=scores,
        chosen=chosen,
        scoring=problem.scoring.name,
        n_samples=[len(rows) for rows in joined.members],
        n_groups=[len(np.unique(problem.groups[rows])) for rows in joined.members],
        n_repeats=repeats,
        size_ratios=ratios,
        majority=_score_majority(joined, rounds),
        no_interval=reasons,
        cosines=cosines,
        no_cosines=no_cosines,
        solver=means.name,
        details=describe_run(problem, cv, seed),
    )


def _draw(
    joined: JoinedSets, cv: Any, repeats: int, seed: int, *, leave_one_out: bool
) -> tuple[list[Round], list[Source]]:
    """Draw the folds of each repeat, of which each source can be scored."""
    try:
        rounds = draw_rounds(joined, cv, repeats, seed)
        sources = make_sources(joined, leave_one_out=leave_one_out)
        for one in rounds:
            require_scorable(joined, sources, one)
    except FoldsError as error:
        raise with_remedies(error, "use fewer folds, cv=...") from None
    return rounds, sources


def _score_majority(joined: JoinedSets, rounds: list[Round]) -> list[float] | None:
    """Score the majority class in each set, where labels are classes and the scorer knows them."""
    problem = joined.problem
    if not (problem.classify and is_made_scorer(problem.scoring.scorer)):
        return None
    folds = [fold for one in rounds for fold in one.folds]
    return [score_majority(problem, rows, folds) for rows in joined.members]


@dataclass(frozen=True)
class _Plan:
    """All fits as tasks, and the reading of their results."""

    joined: JoinedSets
    rounds: list[Round]
    sources: list[Source]
    halves: list[Half]

    def tasks(self, works: Iterator[Work], dealt: Mapping[bool, list[Dealt]]) -> Iterator[Task]:
        for work in works:
            for task in dealt[work.solve]:
                yield fit_training_sets, work, *task
            for half in self.halves:
                yield fit_direction, work, self.joined.problem.y, half.rows

    def deal(self, *, solves: bool) -> list[Dealt]:
        """Deal the training sets of all sources into tasks, the same for each input."""
        tasks: list[Dealt] = []
        for source in self.sources:
            small = solves and int(source.has.sum()) <= FEW_ROWS
            shared = [source.share(one, self.joined.problem.y) for one in self.rounds]
            tests = (test for one in self.rounds for _, test in one.folds)
            tasks += [
                (labels, [self._test(source, sets, next(tests)) for sets in listed])
                for labels, listed in deal(shared, small=small)
            ]
        return tasks

    def _test(
        self, source: Source, sets: list[TrainingSet], test: NDArray[np.int64]
    ) -> list[TrainingSet]:
        """Test the first of the training sets, that of the outer fold, on each column."""
        outer, *inner = sets
        columns = [self.joined.members[column] for column in source.columns]
        tests = [np.intersect1d(test, rows, assume_unique=True) for rows in columns]
        return [outer._replace(tests=tests), *inner]

    def read(
        self, results: Iterator[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64], str]:
        """Give scores, layers chosen, cosines, and why there are no cosines."""
        n_sets, n_inputs = len(self.joined.names), len(self.joined.problem.inputs)
        n_rows = 1 + max(source.row for source in self.sources)
        n_folds = len(self.rounds[0].folds)
        n = n_folds * len(self.rounds)
        scores = np.empty((n_rows, n_sets, n_inputs, n))
        inner = np.empty((n_rows, n_sets, n_inputs, n))
        directions = []
        for i in range(n_inputs):
            for source in self.sources:
                of_source: list[list[Fitted]] = []
                while len(of_source) < n:
                    of_source += next(results)
                for r, one in enumerate(self.rounds):
                    fitted = of_source[r * n_folds : (r + 1) * n_folds]
                    where = source.row, source.columns, i, slice(r * n_folds, (r + 1) * n_folds)
                    of_tests = [
                        [fold[0].scores[t, 0, 0] for fold in fitted]
                        for t in range(len(source.columns))
                    ]
                    shared = source.share(one, self.joined.problem.y)
                    scores[where] = of_tests
                    inner[where] = shared.inner_means(fitted)[:, 0, 0]
            directions.append(list(islice(results, len(self.halves))))
        chosen = np.apply_along_axis(argmax, 2, inner)
        return scores, chosen, *compare_directions(directions, n_sets)
