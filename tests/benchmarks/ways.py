"""Other ways to score than one sweep of one target: transfer, scores of tokens, many features.

Each figure is measured in a fresh process, in one thread: ``python -m tests.benchmarks.ways NAME
JSON`` calls one function here and prints what it returns as JSON.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .measure import run_measured
from .solving import make_layer
from .table import Row, Run, at_least, at_most

N_INPUTS, N_SETS, N_FEATURES = 7, 3, 20


def ways(run: Run) -> Iterator[Row]:
    """Many features against one, a transfer matrix against its sweeps, tokens of sentences."""
    small = run.data.shapes.d_model < 1_000
    n, d = (60, 32) if small else (200, 2_304)
    found = _fastest(run, "features", n=n, d=d)
    yield at_most(
        f"{N_FEATURES} features against a sweep of one, {N_INPUTS} inputs of {n:,} x {d:,}, CPU",
        found["many"] / found["one"],
        2,
        "times",
        f"{found['many']:.2f} s against {found['one']:.2f} s, without baselines",
    )
    found = _fastest(run, "transfer", n=n, d=d)
    yield at_most(
        f"{N_SETS} x {N_SETS} transfer against one sweep, {N_INPUTS} inputs of {n:,} x {d:,}, CPU",
        found["ours"] / found["sweep"],
        3,
        "times",
        f"{found['ours']:.2f} s against {found['sweep']:.2f} s, without baselines; with all"
        f" sets but one as a fourth row {found['left_out'] / found['sweep']:.2f} times",
    )
    n_sentences, n_tokens = (30, 4) if small else (1_000, 20)
    found = _fastest(run, "tokens", n_sentences=n_sentences, n_tokens=n_tokens, d=d)
    yield at_least(
        f"scores of {n_sentences:,} sentences of {n_tokens} tokens x {d:,}, nested, against as many"
        " fits by newton-cg, CPU",
        found["theirs"] / found["ours"],
        3,
        f"{found['ours']:.1f} s against {found['theirs']:.1f} s, of which one of 15 was timed",
    )


def _fastest(run: Run, name: str, **arguments: Any) -> dict[str, float]:
    argv = [sys.executable, "-m", "tests.benchmarks.ways", name, json.dumps(arguments)]
    results = [json.loads(run_measured(argv).output) for _ in range(run.repeats)]
    return {key: min(result[key] for result in results) for key in results[0]}


def features(n: int, d: int) -> dict[str, float]:
    """CPU seconds of `layer_sweep` of one feature, and of `feature_sweep` of many."""
    from sklprep import ActivationSet, feature_sweep, layer_sweep

    rng = np.random.default_rng(0)
    states = _states(n, d, seed=0)
    found = np.maximum(states[:, 0, -N_FEATURES:] + rng.standard_normal((n, N_FEATURES)), 0)
    acts = ActivationSet.from_arrays(
        hidden_states=states, activations=found[:, np.newaxis], sae_layers=[0]
    )
    wanted = [(0, i) for i in range(N_FEATURES)]
    y = acts.feature(0, 0)
    return {
        "one": _seconds(lambda: layer_sweep(None, acts, y, baselines=False)),
        "many": _seconds(lambda: feature_sweep(None, acts, wanted)),
    }


def transfer(n: int, d: int) -> dict[str, float]:
    """CPU seconds of one sweep, and of the matrix without and with the row of all but one."""
    from sklprep import layer_sweep, transfer_matrix

    labels = np.arange(n) % 2
    sets = {f"set {i}": (_states(n, d, seed=i), labels) for i in range(N_SETS)}
    sweeps = [
        _seconds(lambda acts=acts: layer_sweep(None, acts, labels, baselines=False))
        for acts, _ in sets.values()
    ]
    return {
        "sweep": float(np.mean(sweeps)),
        "ours": _seconds(lambda: transfer_matrix(None, sets, leave_one_out=False)),
        "left_out": _seconds(lambda: transfer_matrix(None, sets)),
    }


def tokens(n_sentences: int, n_tokens: int, d: int) -> dict[str, float]:
    """CPU seconds of a nested sweep of one layer, and of as many fits by scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from sklprep import layer_sweep

    n = n_sentences * n_tokens
    X, _ = make_layer("correlated", n, d, 2, 0)
    sentences = np.repeat(np.arange(n_sentences), n_tokens)
    y = np.random.default_rng(0).permutation(np.arange(n_sentences) % 2)[sentences]
    X[:, 3] += y
    options: dict[str, Any] = {"n_repeats": 1, "baselines": False, "aggregate": "rolling_mean_max"}
    ours = _seconds(lambda: layer_sweep(None, X, y, groups=sentences, scoring="roc_auc", **options))
    rows = sentences % 5 > 1  # as many as the models of the inner folds see

    def fit() -> None:
        Z = StandardScaler().fit_transform(X[rows])
        LogisticRegression(solver="newton-cg", max_iter=1_000).fit(Z, y[rows])

    return {"ours": ours, "theirs": 15 * _seconds(fit)}


def _states(n: int, d: int, seed: int) -> Any:
    layers = [make_layer("correlated", n, d, 2, 10 * seed + i)[0] for i in range(N_INPUTS)]
    return np.stack(layers, axis=1)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    function.__name__: function for function in (features, transfer, tokens)
}

if __name__ == "__main__":
    import scipy.linalg  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import threadpool_limits

    warnings.simplefilter("ignore")  # models that stop at max_iter
    with threadpool_limits(1, user_api="blas"):
        print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
