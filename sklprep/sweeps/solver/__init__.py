"""Exact fits of L2-penalised linear models, for all labelings and penalties of a split at once.

::

    model = recognise(LogisticRegression(C=0.1))               # None: fit it the general way
    split = Split(X, train, test, fit_intercept=model.fit_intercept)
    for penalty, fits in zip(grid, model.fit(split, labelings, grid)):
        scores = [scorer(fit, np.arange(split.n_test), y[test]) for fit in fits]
"""

from sklprep.sweeps.solver.arrays import require_device
from sklprep.sweeps.solver.fits import ClassifierFit, LogisticFit, RegressorFit
from sklprep.sweeps.solver.logistic import fit_logistic, fit_logistic_each
from sklprep.sweeps.solver.models import LinearModel, recognise, recognise_scaler
from sklprep.sweeps.solver.pipelines import Candidates, recognise_all, recognise_pipeline
from sklprep.sweeps.solver.ridge import fit_ridge, fit_ridge_classifier
from sklprep.sweeps.solver.split import Split
from sklprep.sweeps.solver.stacks import count_stacked

__all__ = [
    "Candidates",
    "ClassifierFit",
    "LinearModel",
    "LogisticFit",
    "RegressorFit",
    "Split",
    "count_stacked",
    "fit_logistic",
    "fit_logistic_each",
    "fit_ridge",
    "fit_ridge_classifier",
    "recognise",
    "recognise_all",
    "recognise_pipeline",
    "recognise_scaler",
    "require_device",
]
