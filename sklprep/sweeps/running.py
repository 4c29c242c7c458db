"""What all sweeps share: the rows of inputs, what fits them, and tasks with a progress bar."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import sklearn

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import UsageError
from sklprep.sweeps.design import can_repeat, describe_inner, read_inner_cv
from sklprep.sweeps.fitting import Work
from sklprep.sweeps.folds import describe_cv
from sklprep.sweeps.inputs import members_of
from sklprep.sweeps.problem import Problem
from sklprep.sweeps.solver import require_device
from sklprep.sweeps.workers import (
    PROCESSES_PAY_SECONDS,
    RemoteRows,
    Task,
    is_on_cluster,
    run_tasks,
)

SOLVERS = ("auto", "scikit-learn")
N_REPEATS = 10
"""Repeats where they are cheap: with the seed, the score of a data set then varies by 0.01 to 0.02,
where that of one repeat varies by 0.04."""


PROCESSES_PAY_SOLVER = 45
"""The same as `PROCESSES_PAY_SECONDS` for the solver, whose products leave Python's lock to others:
of 1,050 small fits, 10 s of work, two threads took 6 s, and two processes 9 s."""


class Means(NamedTuple):
    """What fits the models: for each input whether the solver does, and its device."""

    solves: list[bool]
    device: str | None

    @property
    def name(self) -> str:
        names = ["sklprep" if solves else "scikit-learn" for solves in self.solves]
        return " and ".join(dict.fromkeys(names))


def read_means(problem: Problem, solver: str, device: str | None) -> Means:
    """Read the parameters `solver` and `device` of a sweep."""
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
    return Means(solves, device)


def read_repeats(n_repeats: int | str, cv: Any, means: Means) -> int:
    """Read the parameter `n_repeats` of a sweep."""
    if n_repeats == "auto":
        return N_REPEATS if all(means.solves) and can_repeat(cv) else 1
    if isinstance(n_repeats, bool) or not isinstance(n_repeats, Integral) or n_repeats < 1:
        raise UsageError(f"n_repeats must be 'auto' or at least 1, got {n_repeats!r}.")
    if n_repeats > 1 and not can_repeat(cv):
        raise UsageError(
            f"n_repeats={n_repeats} needs folds that can be redrawn, and this cv is not an int or a"
            " splitter with shuffle=True. Give such a cv, or n_repeats=1."
        )
    return int(n_repeats)


def make_works(problem: Problem, means: Means, rows: Iterable[Any] | None = None) -> Iterator[Work]:
    """Give what is fitted and scored on each input; `rows` are those of `problem.acts` if None."""
    scorer, name = problem.scoring.scorer, problem.scoring.name
    groups = problem.groups if problem.needs_groups else None
    rows = _make_rows(problem, elsewhere=is_on_cluster()) if rows is None else rows
    for spec, X, solves in zip(problem.inputs, rows, means.solves, strict=True):
        model = problem.model_for(spec)
        yield Work(model, problem.candidates, scorer, name, X, groups, solves, means.device)


def run_all(
    tasks: Iterator[Task], total: int, means: Means, n_jobs: int | None, show_progress: bool | None
) -> list[Any]:
    """Run tasks with a progress bar; give the results in their order."""
    if means.device is not None:
        n_jobs = 1  # there is one device, and one task keeps it busy
    solves = all(means.solves)
    pay = PROCESSES_PAY_SOLVER if solves else PROCESSES_PAY_SECONDS
    bar = _with_progress(tasks, total, show_progress)
    return run_tasks(bar, total, n_jobs, processes_pay_seconds=pay, start_alone=not solves)


def describe_run(problem: Problem, cv: Any, seed: int) -> dict[str, str]:
    """Name what the results of a sweep with the usual inner folds depend on."""
    return {
        "estimator": " ".join(repr(problem.model).split()),
        "folds": describe_cv(cv),
        "inner_folds": describe_inner(read_inner_cv("auto", cv)),
        "seed": str(seed),
        "versions": name_versions(),
    }


def name_versions() -> str:
    """Name the versions that a result depends on."""
    return (
        f"sklprep {__version__}, scikit-learn {sklearn.__version__}, numpy {np.__version__},"
        f" Python {platform.python_version()}"
    )


def _make_rows(problem: Problem, *, elsewhere: bool) -> Iterator[Any]:
    """Give the rows of each input; for a cluster, how to read them."""
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
