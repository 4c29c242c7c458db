"""Exact fits of L2-penalised linear models, of all labelings and penalties of a split at once."""

from sklprep.sweeps.solver.logistic import fit_logistic
from sklprep.sweeps.solver.split import Split

__all__ = ["Split", "fit_logistic"]
