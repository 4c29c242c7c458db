"""The scores of a sweep, and whether they can score it, checked before anything is fitted."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names

from sklprep.exceptions import UsageError
from sklprep.sweeps.estimator import GRIDS
from sklprep.sweeps.fitting import METHODS, Answers, Scorer, is_made_scorer
from sklprep.sweeps.folds import Fold, FoldsError
from sklprep.sweeps.operating_point import read_rate
from sklprep.sweeps.scorers import find_scorer, score_of

_MOST_OF_ONE_VALUE = 0.6
"""Share of the commonest value of y beyond which accuracy and R2 are not the default. With rare
positives, the permutation control of accuracy has a power of 0.04 to 0.08, that of ROC AUC one of
0.16 to 0.19; R2 of folds with few active rows varies four times as much as pooled R2."""

_OF_LABELS = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "roc_auc_ovr")
_OF_NUMBERS = (
    "r2",
    "pooled_r2",
    "neg_mean_absolute_error",
    "neg_root_mean_squared_error",
    "spearman",
)
"""What is suggested where another score does not apply."""


class Scorings(NamedTuple):
    """The scores of a sweep.

    Attributes
    ----------
    lead : Scoring
        Chooses layers and parameters, and is permuted.
    others : list of Scoring
        Scored on the same fits.
    reason : str
        Why the default is not accuracy or R2; otherwise empty.
    """

    lead: Scoring
    others: list[Scoring]
    reason: str = ""


def read_scorings(scoring: Any, model: Any, y: NDArray[Any], *, classify: bool) -> Scorings:
    """Read the parameter `scoring` of a sweep, or choose scores that suit y.

    Raises
    ------
    UsageError
        If one could score no fold of y.
    """
    reason = ""
    if scoring is None:
        names, reason = _choose(model, y, classify=classify)
    else:
        names = list(scoring) if isinstance(scoring, list | tuple) else [scoring]
    if not names:
        raise UsageError("scoring is an empty list; expected scorers or their names.")
    rates = [name for name in names if read_rate(name) is not None]
    if rates and len(names) > 1:
        raise UsageError(f"scoring={rates[0]!r} must be the only score: leave out the others.")
    names = [name for i, name in enumerate(names) if name not in names[:i]]
    lead, *others = [Scoring(name, model, y, classify=classify) for name in names]
    if len(np.unique(y)) > 1:  # otherwise no folds can be drawn, which is the better message
        for one in [lead, *others]:
            one.require_fit(y)
    return Scorings(lead, others, reason)


def _choose(model: Any, y: NDArray[Any], *, classify: bool) -> tuple[list[Any], str]:
    """Name the scores that suit y, and say why they are not the usual one."""
    values, counts = np.unique(y, return_counts=True)
    share, value = counts.max() / len(y), values[counts.argmax()]
    if share <= _MOST_OF_ONE_VALUE or len(values) == 1:
        return ["accuracy" if classify else "r2"], ""
    if not classify:
        if value != 0:
            return ["r2"], ""
        return ["pooled_r2", "spearman", "roc_auc_active"], (
            f"{share:.0%} of the values of y are 0, and the R2 of a fold with few others is"
            " unreliable"
        )
    ranks = any(_may_have(model, method) for method in METHODS if method != "predict")
    return ["roc_auc" if len(values) == 2 and ranks else "balanced_accuracy"], (
        f"{share:.0%} of the rows are of class {value}, and always predicting it has an accuracy of"
        f" {share:.2f}"
    )


def _name_function(scoring: Any) -> str:
    """Name a callable so that it cannot be taken for one of scikit-learn's scorers."""
    name = getattr(scoring, "__name__", repr(scoring))
    return f"{name} (own function)" if name in get_scorer_names() else name


class Scoring:
    """A scorer and its name, for one kind of y and model.

    Whether it can score a fold depends only on which classes the training and the test rows hold.
    So it is tried on made-up correct answers, once for each such pattern.

    Parameters
    ----------
    scoring : str or callable
    model : estimator
        Unfitted; only its methods matter.
    y : ndarray of shape (n_samples,)
    classify : bool

    Attributes
    ----------
    fpr : float or None
        The false-positive rate of ``"recall_at_fpr"``; None for other scores. The scorer of ROC AUC
        stands in for it until there is a threshold: it has the same needs, two classes and
        decisions about rows of both.
    """

    def __init__(self, scoring: Any, model: Any, y: NDArray[Any], *, classify: bool) -> None:
        if not (isinstance(scoring, str) or callable(scoring)):
            raise UsageError(
                f"scoring must be a scorer, its name, a callable or a list of them, got"
                f" {scoring!r}."
            )
        self._model = model
        self._y = y
        self._classify = classify
        self._found: dict[Any, str] = {}
        try:
            self.fpr = read_rate(scoring)
            found = self._find(scoring) if self.fpr is None else "roc_auc"
            self.scorer: Scorer = check_scoring(model, found)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self.name: str = scoring if isinstance(scoring, str) else _name_function(scoring)

    @property
    def is_pooled(self) -> bool:
        """Whether `pool` turns what it gives into scores."""
        return score_of(self.name).is_pooled

    def require_fit(self, y: NDArray[Any]) -> None:
        """Raise `UsageError` if it can score no fold of y; name scores that can."""
        reason = self._why_not(y, y)
        if not reason:
            return
        names = [name for name in get_scorer_names() if name.startswith(f"{self.name}_")]
        names = self._working(names, y, y)[:4] or self._working(self._usual, y, y)
        n_classes = len(np.unique(y))
        if self._classify and n_classes > 2:
            two_classes = np.arange(len(y)) % 2
            if not self._why_not(two_classes, two_classes):
                reason = f"it is for two classes, and y has {n_classes}"
        do = f"Use {' or '.join(names)}" if names else "Choose another scoring"
        raise UsageError(f"scoring={self.name!r} does not fit y: {reason}. {do}.")

    def require_scorable(self, y: NDArray[Any], fold: Fold, where: str) -> None:
        """Raise `FoldsError` if a fold of y has no score, whatever the model."""
        train, test = y[fold[0]], y[fold[1]]
        pattern = self._pattern(train, test)
        if pattern not in self._found:
            self._found[pattern] = self._why_not(train, test)
        reason = self._found[pattern]
        if reason:
            names = self._working(self._usual, train, test)[:1]
            raise FoldsError(
                f"{self.name} cannot score {where}: {reason}.",
                tuple(f"use scoring={name!r}" for name in names),
            )

    def _find(self, scoring: Any) -> Any:
        """Give a scorer of `sklprep.sweeps.scorers`, or what scikit-learn takes, as it is."""
        if not isinstance(scoring, str):
            return scoring
        return find_scorer(scoring, self._y, classify=self._classify) or scoring

    @property
    def _usual(self) -> tuple[str, ...]:
        return _OF_LABELS if self._classify else _OF_NUMBERS

    def _pattern(self, train: NDArray[Any], test: NDArray[Any]) -> Any:
        if self._classify:
            return (*map(tuple, map(np.unique, (train, test))), len(test) == 1)
        signs = (np.any(test < 0), np.any(test == 0), np.any(test > 0))
        return (len(test) == 1, len(np.unique(test)) == 1, *map(bool, signs))

    def _working(self, names: Iterable[str], train: NDArray[Any], test: NDArray[Any]) -> list[str]:
        return [name for name in names if not self._why_not(train, test, name)]

    def _why_not(self, train: NDArray[Any], test: NDArray[Any], name: str = "") -> str:
        """Say why it, or another scorer, has no score for models that do well; else nothing."""
        scorer = get_scorer(self._find(name)) if name else self.scorer
        if not is_made_scorer(scorer) or not hasattr(self._model, "__sklearn_tags__"):
            return ""  # it may look at the model and at X
        values = np.unique(test)
        is_of_spread = score_of(name or self.name).is_of_spread
        if len(values) == 1 and not self._classify and is_of_spread:
            return f"{_name_rows(test)} the value {values[0]:g}"
        reason = ""
        for predicted in (test, _swap_two(test)):  # likelihood ratios need some error
            answers = _imagine_answers(self._model, train, test, predicted, classify=self._classify)
            reason = _why_no_score(scorer, answers, test)
            if not reason:
                return ""
        one_class = self._classify and len(values) == 1
        return f"{_name_rows(test)} the class {values[0]}" if one_class else reason


def _name_rows(rows: NDArray[Any]) -> str:
    return f"all {len(rows)} test rows have" if len(rows) > 1 else "its one test row has"


def _why_no_score(scorer: Scorer, answers: Answers, y: NDArray[Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", UndefinedMetricWarning)
        warnings.filterwarnings("error", "No positive class found")
        try:
            score = scorer(answers, np.arange(len(y)), y)
        except AttributeError:
            missing = [name for name in METHODS if name not in answers.given]
            return f"{type(answers.model).__name__} has no {' or '.join(missing)}"
        except (ValueError, UserWarning) as error:
            return " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return "it is undefined" if np.isnan(score) else ""


def _swap_two(y: NDArray[Any]) -> NDArray[Any]:
    """Swap the first value with another one, if there is any."""
    other = int(np.argmax(y != y[0]))
    swapped = y.copy()
    swapped[[0, other]] = y[[other, 0]]
    return swapped


def _imagine_answers(
    model: Any, train: NDArray[Any], test: NDArray[Any], predicted: NDArray[Any], *, classify: bool
) -> Answers:
    """What the model would answer about the test rows, had it learnt to predict this."""
    answers = Answers(model, None)
    given: dict[str, NDArray[Any]] = {"predict": predicted}
    if classify:
        answers.classes_ = np.unique(train)
        votes = (predicted[:, np.newaxis] == answers.classes_).astype(float)
        sure = votes + 0.01  # classes that were not in training are equally unlikely
        given["predict_proba"] = sure / sure.sum(axis=1, keepdims=True)
        given["decision_function"] = votes[:, 1] - 0.5 if votes.shape[1] == 2 else votes
    answers.given = {name: value for name, value in given.items() if _may_have(model, name)}
    return answers


def _may_have(model: Any, method: str) -> bool:
    """Whether it may have a method once it is fitted."""
    # stacking knows when it is fitted, and a search may put another model in
    unknown = not hasattr(model, "predict") or any(hasattr(model, grids) for grids in GRIDS)
    return unknown or hasattr(model, method)
