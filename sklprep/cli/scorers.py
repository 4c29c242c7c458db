"""The scorers that ``--scoring`` names."""

from __future__ import annotations

from sklprep.exceptions import UsageError

SCORING_HELP = (
    "scorer: one of scikit-learn's, quadratic_kappa, spearman, pooled_r2, roc_auc_active, or"
    " recall_at_fpr (recall at 1 %% false positives; recall_at_fpr=0.05 at 5 %%); where over 60 %%"
    " of y are one value, the default is a scorer that suits such y; default: accuracy or r2"
)
_MOST_SHOWN = 5  # all that begin with "balanced", "roc_auc" or "f1"


def require_scorer(name: str) -> None:
    """Refuse a name that is not a scorer's, and suggest some that are."""
    from difflib import get_close_matches

    from sklprep.sweeps.operating_point import NAME, read_rate
    from sklprep.sweeps.scorers import scorer_names

    names = [*scorer_names(), NAME]
    if name not in names and read_rate(name) is None:
        near = [known for known in names if known.startswith(name)][:_MOST_SHOWN]
        near = near or get_close_matches(name, names) or ["accuracy", "balanced_accuracy", "r2"]
        raise UsageError(f"--scoring {name} is not a scorer; choose one such as {', '.join(near)}.")
