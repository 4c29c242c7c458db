"""Train a model on a dataset: the next stage, done right
========================================================

A dataset goes in; a model (skops) and its scores (JSON) come out. Nothing about the test rows leaks
into training: the rows are split by group, a fresh normalizer is fitted on the training rows, and a
dataset that was made with ``--test-size`` keeps its own split.

    python train_classifier.py h12_to_concept.npz --model logistic --output results/

Without arguments it makes a dataset of synthetic activations first.
"""

# %%
import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skops.io
from scipy.stats import pearsonr
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    StratifiedGroupKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR
from threadpoolctl import threadpool_limits

import sklprep
from sklprep.exceptions import InsufficientDataError, SklprepError

CLASSIFIERS = {
    "logistic": lambda seed: LogisticRegression(max_iter=2000, random_state=seed),
    "svm": lambda seed: SVC(kernel="linear", random_state=seed),
    "random-forest": lambda seed: RandomForestClassifier(random_state=seed),
}
REGRESSORS = {
    "ridge": lambda seed: Ridge(alpha=10.0, random_state=seed),
    "svm": lambda seed: SVR(kernel="linear"),
    "random-forest": lambda seed: RandomForestRegressor(random_state=seed),
}


# %%
# What kind of problem
# --------------------
# The dataset says what y is. Guessing from the values would take the few distinct activations of a
# dead feature for classes, so it is done only for files that do not say.
def is_classification(dataset):
    output_type = dataset.meta.get("meta_output_type")
    if output_type is not None:
        return output_type == "concept_label"
    values = np.unique(dataset.y)
    return len(values) <= 10 and np.all(np.mod(values, 1) == 0)


def check_scorable(dataset, classification, n_splits):
    y = dataset.y
    if classification:
        classes, counts = np.unique(y, return_counts=True)
        if len(classes) < 2 or counts.min() < n_splits:
            raise InsufficientDataError(
                f"Labels {classes.tolist()} have {counts.tolist()} samples, too few for"
                f" {n_splits} folds; expected two classes of at least {n_splits} samples each."
            )
    elif np.count_nonzero(y) < 10 or np.ptp(y) == 0:
        raise InsufficientDataError(
            f"The target is active in {np.count_nonzero(y)} of {len(y)} samples; expected at least"
            " 10 and some variation, or a score means nothing. Choose another feature."
        )


# %%
# Split
# -----
def split(dataset, classification, test_size, seed):
    if "meta_train_indices" in dataset.meta:
        return dataset.meta["meta_train_indices"], dataset.meta["meta_test_indices"]
    rows = np.arange(len(dataset.y))
    if len(np.unique(dataset.groups)) < len(rows):
        splitter = GroupShuffleSplit(1, test_size=test_size, random_state=seed)
        return next(splitter.split(rows, groups=dataset.groups))
    stratify = dataset.y if classification else None
    return train_test_split(rows, test_size=test_size, random_state=seed, stratify=stratify)


# %%
# Train and score
# ---------------
def scores_of_classifier(y, predicted, y_train, predicted_train):
    return {
        "test_accuracy": metrics.accuracy_score(y, predicted),
        "test_f1": metrics.f1_score(y, predicted, average="weighted", zero_division=0),
        "confusion_matrix": metrics.confusion_matrix(y, predicted).tolist(),
        "n_classes": len(np.unique(np.concatenate([y, y_train]))),
        "train_accuracy": metrics.accuracy_score(y_train, predicted_train),
    }


def scores_of_regressor(y, predicted, y_train, predicted_train):
    defined = np.ptp(y) > 0 and np.ptp(predicted) > 0
    r, p = map(float, pearsonr(y, predicted)) if defined else (None, None)
    mse = metrics.mean_squared_error(y, predicted)
    return {
        "test_mae": metrics.mean_absolute_error(y, predicted),
        "test_mse": mse,
        "test_rmse": float(np.sqrt(mse)),
        "test_r2": metrics.r2_score(y, predicted),
        "pearson_r": r,
        "pearson_p": p,
        "train_mae": metrics.mean_absolute_error(y_train, predicted_train),
        "train_r2": metrics.r2_score(y_train, predicted_train),
    }


def train(path, *, model=None, test_size=0.2, cv=5, random_state=42):
    """Fit a model on a dataset file; return the deployable pipeline and the results."""
    dataset = sklprep.load_dataset(path)
    classification = is_classification(dataset)
    check_scorable(dataset, classification, cv)
    models = CLASSIFIERS if classification else REGRESSORS
    model = model or next(iter(models))
    if model not in models:
        kind = "classification" if classification else "regression"
        raise SklprepError(f"{model} does not fit {kind}; choose one of {', '.join(models)}.")
    pipeline = dataset.make_pipeline(models[model](random_state))
    rows, test = split(dataset, classification, test_size, random_state)
    X, y = dataset.X, dataset.y
    folds = (
        StratifiedGroupKFold(cv, shuffle=True, random_state=random_state)
        if classification
        else GroupKFold(cv, shuffle=True, random_state=random_state)
    )
    with threadpool_limits(1, user_api="blas"):
        cv_scores = cross_val_score(
            pipeline, X[rows], y[rows], groups=dataset.groups[rows], cv=folds
        )
        start = time.perf_counter()
        pipeline.fit(X[rows], y[rows])
        seconds = time.perf_counter() - start
        predicted, predicted_train = pipeline.predict(X[test]), pipeline.predict(X[rows])
    score = scores_of_classifier if classification else scores_of_regressor
    results = {
        "n_samples_total": len(y),
        "n_samples_train": len(rows),
        "n_samples_test": len(test),
        "n_features": X.shape[1],
        "model_type": model,
        "training_time_sec": seconds,
        "cv_scores": cv_scores.tolist(),
        "cv_mean": float(cv_scores.mean()),
        "cv_std": float(cv_scores.std()),
        **score(y[test], predicted, y[rows], predicted_train),
        "config": {
            "model": model,
            "test_size": len(test) / len(y),
            "cv": cv,
            "random_state": random_state,
        },
        "metadata": {
            "dataset_path": str(path),
            "dataset_hash": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            "meta_strategy": dataset.meta.get("meta_strategy"),
        },
    }
    from_activations = [] if dataset.pipeline is None else dataset.pipeline.steps
    return Pipeline([*from_activations, ("probe", pipeline)]), results


# %%
# From the command line, or on synthetic activations
# --------------------------------------------------
def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--model", choices=sorted(CLASSIFIERS | REGRESSORS))
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir(), "sklprep_model"))
    parser.add_argument("--test-size", type=float, default=0.2)
    parser.add_argument("--cv", type=int, default=5)
    parser.add_argument("--random-state", type=int, default=42)
    arguments = parser.parse_args()
    if not 0 < arguments.test_size < 1 or arguments.cv < 2:
        parser.error("--test-size must be between 0 and 1, and --cv at least 2")
    return arguments


def main():
    arguments = parse_arguments()
    path = arguments.dataset
    if path is None:
        acts = sklprep.make_activations(200, n_layers=8, best_layer=5, random_state=0)
        path = Path(tempfile.mkdtemp(), "h5_to_concept.npz")
        strategy = sklprep.make_strategy("hidden-to-concept", layers=5)
        sklprep.generate_dataset(acts, *strategy, output=path, strategy="hidden-to-concept")
    deployable, results = train(
        path,
        model=arguments.model,
        test_size=arguments.test_size,
        cv=arguments.cv,
        random_state=arguments.random_state,
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    skops.io.dump(deployable, arguments.output / "model.skops")
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for key, value in results.items():
        print(f"{key:<18}{value}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, SklprepError, OSError) as error:
        sys.exit(f"Error: {error}")
