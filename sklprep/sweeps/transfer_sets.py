"""The sets of a transfer matrix, read and checked, and joined row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse, vstack

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.values import read_values
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.formats.texts import merge_by_text
from sklprep.sweeps.inputs import members_of
from sklprep.sweeps.problem import Problem, read_problem
from sklprep.sweeps.scoring import Scoring, read_scorings
from sklprep.sweeps.wording import name_input

_FEWEST_SETS = 2


@dataclass(frozen=True)
class JoinedSets:
    """Several sets as one.

    Attributes
    ----------
    names : list of str
    acts : list of ActivationSet or ndarray
    members : list of ndarray of int
        Positions of the rows of each set.
    problem : Problem
        The problem of all rows; its acts are those of the first set only.
    """

    names: list[str]
    acts: list[Any]
    members: list[NDArray[np.int64]]
    problem: Problem

    def rows(self) -> Iterator[Any]:
        """Give the rows of each input, set by set."""
        inputs = self.problem.inputs
        for acts in self.acts:
            if isinstance(acts, ActivationSet):
                acts.rows.source.read(members_of(inputs, acts))
        for spec in inputs:
            parts = [spec.select(acts) for acts in self.acts]
            for name, part in zip(self.names, parts, strict=True):
                if part.shape[1] != parts[0].shape[1]:
                    raise UsageError(
                        f"{self.names[0]} has {parts[0].shape[1]} columns at"
                        f" {name_input(spec.name)}, {name} has {part.shape[1]}; expected sets of"
                        " one model."
                    )
            join = partial(vstack, format="csr") if issparse(parts[0]) else np.concatenate
            yield join(parts)


def join_sets(
    estimator: Any,
    sets: Mapping[str, tuple[Any, Any]],
    layers: Any,
    groups: Mapping[str, Any] | None,
    scoring: Any,
) -> JoinedSets:
    """Read the arguments of `transfer_matrix` that say what is asked."""
    if not isinstance(sets, Mapping) or len(sets) < _FEWEST_SETS:
        raise UsageError(
            "sets must be a mapping of at least two names to pairs, such as {'honest': (acts, y),"
            f" 'devious': (others, z)}}, got {type(sets).__name__}."
        )
    if groups is not None and (not isinstance(groups, Mapping) or set(groups) != set(sets)):
        raise UsageError(f"groups must be a mapping with the names of the sets: {', '.join(sets)}.")
    problems: dict[str, Problem] = {}
    for name, pair in sets.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(f"sets[{name!r}] must be a pair (acts, y), got {type(pair).__name__}.")
        of_set = None if groups is None else groups[name]
        try:
            problems[name] = read_problem(estimator, *pair, layers, of_set, scoring, None)
        except (InsufficientDataError, UsageError) as error:
            if type(error) not in (InsufficientDataError, UsageError):
                raise
            raise type(error)(f"sets[{name!r}]: {error}") from None
    _require_alike(problems)
    first = next(iter(problems.values()))
    counts = [len(one.y) for one in problems.values()]
    y = np.concatenate([one.y for one in problems.values()])
    return JoinedSets(
        names=[str(name) for name in sets],
        acts=[one.acts for one in problems.values()],
        members=np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]),
        problem=replace(
            first,
            y=y,
            scoring=_choose_scoring(scoring, first, y),
            other_scorings=[],
            groups=_join_groups(problems, groups),
        ),
    )


def _choose_scoring(scoring: Any, problem: Problem, y: NDArray[Any]) -> Scoring:
    """Give the score of all cells, by default one that suits the rows of all sets."""
    if isinstance(scoring, list | tuple):
        raise UsageError(f"scoring must be a single score for all cells, got {scoring!r}.")
    options: dict[str, Any] = {"classify": problem.classify}
    lead = read_scorings(scoring, problem.model, y, **options).lead
    if lead.fpr is not None:
        raise UsageError(
            f"scoring={lead.name!r} needs a threshold, which a transfer matrix does not calibrate."
            " Use 'roc_auc'."
        )
    if not lead.is_pooled:
        return lead
    if scoring is not None:
        raise UsageError(f"scoring={scoring!r} is not defined for single folds; use 'spearman'.")
    return read_scorings("spearman", problem.model, y, **options).lead


def _require_alike(problems: dict[str, Problem]) -> None:
    (first_name, first), *others = problems.items()
    for name, one in others:
        if _kind(one) != _kind(first):
            raise UsageError(
                f"y of {first_name} is {_kind(first)}, that of {name} {_kind(one)}; expected the"
                " same kind."
            )
        if one.inputs != first.inputs:
            raise UsageError(
                f"{first_name} has the inputs {', '.join(map(str, first.inputs))}, {name} has"
                f" {', '.join(map(str, one.inputs))}; expected the same. Name those that all sets"
                " have with layers=[...]."
            )


def _kind(problem: Problem) -> str:
    if not problem.classify:
        return "a quantity"
    return "labels that are text" if problem.y.dtype.kind == "U" else "labels"


def _join_groups(
    problems: dict[str, Problem], groups: Mapping[str, Any] | None
) -> NDArray[np.int64]:
    """Number the groups of all sets: equal where given so, or where sets share a text."""
    if groups is not None:
        values = [read_values(groups[name], "groups") for name in problems]
        return np.unique(np.concatenate(values), return_inverse=True)[1].reshape(-1)
    offset, numbers, texts = 0, [], []
    for one in problems.values():
        numbers.append(one.groups + offset)
        offset += int(one.groups.max()) + 1
        sentences = one.acts.sentences if isinstance(one.acts, ActivationSet) else None
        texts.append(np.zeros(len(one.y), np.str_) if sentences is None else sentences)
    return merge_by_text(np.concatenate(numbers), np.concatenate(texts))
