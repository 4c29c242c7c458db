"""The solver of `sklprep.sweeps` against scikit-learn's, fit by fit.

Each figure is measured in a fresh process, on one BLAS thread, with the default stopping rules on
both sides: ``python -m tests.benchmarks.solving NAME JSON`` calls one function here and prints what
it returns as JSON. Ours includes normalizing and the Gram matrix. scikit-learn's lockstep baseline
gets rows that are normalized already; of its many equal fits a sample is timed.

Rows are of two kinds: `correlated`, as hidden states are (low rank, noise, a few massive
dimensions), where training is hard; and white `noise`, where it is easy.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .measure import peak_memory, run_measured
from .table import Row, Run, at_least, at_most

KINDS = ("correlated", "noise")
N_FOLDS, N_LAYERS, N_LABELINGS = 5, 3, 101
SAMPLED = 3
"""Labelings a fold that scikit-learn is timed on, and ours one by one."""

N_ALTERNATIONS = 3
GROWN = {"n": 1_000, "d": 1_000, "classes": 4, "labelings": 20}


def sweep(run: Run) -> Iterator[Row]:
    """The solver in lockstep, in sweeps, fit by fit and in two jobs; its growth and memory."""
    small = run.data.shapes.d_model < 1_000
    d = 64 if small else 2_304
    sizes = (60, 120) if small else (260, 1_020)
    for n in sizes:
        for kind in KINDS:
            yield _lockstep_row(kind, n, d)
    yield _nested_row(sizes[0], d, 3, 5, goal=5)
    yield _nested_row(sizes[1], d, 2, 3, goal=3)
    yield _command_row(run, 0, 0)
    yield _command_row(run, 20 if small else 1_000, 2 if small else 100)
    yield from _single_rows(d)
    yield _two_jobs_row(sizes[1], d)
    yield from _growth_rows(small)
    yield _memory_row(sizes[1], d)


def _lockstep_row(kind: str, n: int, d: int) -> Row:
    found = _measure("lockstep", kind=kind, n=n, d=d)
    figure = (
        f"{N_LAYERS} layers x {N_FOLDS} folds x {N_LABELINGS} labelings, 4 classes, {n:,} x {d:,}"
        f" of {kind}, against newton-cg"
    )
    return at_least(
        figure,
        found["theirs"] / found["ours"],
        20,
        f"{found['ours'] * 1e3:.1f} ms a fit against {found['theirs'] * 1e3:.1f} ms, without"
        f" lockstep {found['alone'] * 1e3:.1f} ms, CPU; sampled {SAMPLED} labelings a fold; test"
        f" rows unlike the optimum: ours {found['wrong']:.2%}, newton-cg"
        f" {found['wrong_theirs']:.2%}",
    )


def _nested_row(n: int, d: int, n_layers: int, n_folds: int, goal: float) -> Row:
    found = _measure("nested", n=n, d=d, n_layers=n_layers, n_folds=n_folds)
    return at_least(
        f"nested layer_sweep without permutations, {n_layers} layers, {n_folds} x {n_folds} folds,"
        f' 4 classes, {n:,} x {d:,}, against solver="scikit-learn"',
        found["theirs"] / found["ours"],
        goal,
        f"{found['ours']:.2f} s against {found['theirs']:.2f} s, CPU; honest score"
        f" {found['score']:.3f} and {found['score_theirs']:.3f}",
    )


def _command_row(run: Run, n_permutations: int, n_theirs: int) -> Row:
    """The command's own process, against the sweep that version 0.1.0 made, imports included."""
    folder = str(run.data.sweep_files())
    small = run.data.shapes.d_model < 1_000
    command = ["-m", "sklprep", "sweep", folder, "--permutations", str(n_permutations), "--quiet"]
    ours = run_measured([sys.executable, *command])
    arguments = json.dumps({"folder": folder, "n_permutations": n_theirs})
    before = [sys.executable, "-m", "tests.benchmarks.solving", "files_sweep", arguments]
    theirs = run_measured(before)
    return at_least(
        f"sklprep sweep, 10 repeats, {n_permutations:,} permutations,"
        f" {'40 x 32 x 7' if small else '200 x 384 x 7'} inputs, against one repeat of scikit-learn"
        f" with {n_theirs} permutations, wall",
        theirs.wall / ours.wall,
        1,
        f"{ours.wall:.1f} s against {theirs.wall:.1f} s, CPU {ours.cpu:.1f} s and"
        f" {theirs.cpu:.1f} s; one BLAS thread for scikit-learn",
    )


def _single_rows(d: int) -> Iterator[Row]:
    for found in _measure("singles", d=d)["found"]:
        best = min(("lbfgs", "newton-cg"), key=lambda solver: found[solver])
        yield at_least(
            f"a single fit, {found['classes']} classes, {found['n']:,} x {found['d']:,} of"
            f" {found['kind']}, against the faster of scikit-learn's",
            found[best] / found["ours"],
            1,
            f"{found['ours'] * 1e3:.0f} ms against {found['lbfgs'] * 1e3:.0f} (lbfgs) and"
            f" {found['newton-cg'] * 1e3:.0f} (newton-cg), CPU, with normalizing; test rows unlike"
            f" the optimum: {found['wrong']} against {found['wrong_lbfgs']} and"
            f" {found['wrong_newton-cg']}",
        )


def _two_jobs_row(n: int, d: int) -> Row:
    found = _measure("two_jobs", n=n, d=d)
    return at_least(
        f"{N_LAYERS * N_FOLDS} binary fits, {n:,} x {d:,}, two jobs, against lbfgs on one thread",
        found["theirs"] / found["ours"],
        1.5,
        f"{found['ours']:.2f} s against {found['theirs']:.2f} s, wall",
    )


def _growth_rows(small: bool) -> Iterator[Row]:
    axes: dict[str, list[int]] = {
        "n": [50, 100] if small else [100, 300, 1_000, 2_500, 5_000],
        "d": [32, 64] if small else [144, 576, 2_304, 9_216],
        "classes": [2, 4] if small else [2, 4, 8, 16],
        "labelings": [4, 8] if small else [10, 100, 1_000],
    }
    base = {"n": 60, "d": 64, "classes": 4, "labelings": 4} if small else GROWN
    names = {"n": "rows", "d": "columns", "classes": "classes", "labelings": "labelings"}
    found = _measure("growth", axes=axes, base=base)
    for axis, sizes in axes.items():
        seconds = found[axis]
        slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        others = ", ".join(f"{base[other]:,} {names[other]}" for other in axes if other != axis)
        yield Row(
            f"growth of the solver's CPU time with {names[axis]} {sizes[0]:,} to {sizes[-1]:,}"
            f" ({others}; correlated)",
            f"{slope:.2f} as exponent",
            f"{', '.join(f'{value:.3g}' for value in seconds)} s at"
            f" {', '.join(f'{size:,}' for size in sizes)}",
        )


def _memory_row(n: int, d: int) -> Row:
    peaks = {
        n_labelings: _measure("memory", n=n, d=d, n_labelings=n_labelings)["layers"]
        for n_labelings in (101, 1_001)
    }
    return at_most(
        f"peak memory of the solver above its input, {n:,} x {d:,}, 1,001 labelings",
        peaks[1_001],
        4,
        "layers in float64",
        f"{peaks[101]:.2f} with 101 labelings; predictions of all are kept",
    )


def _measure(name: str, **arguments: Any) -> dict[str, Any]:
    argv = [sys.executable, "-m", "tests.benchmarks.solving", name, json.dumps(arguments)]
    return json.loads(run_measured(argv).output)


def make_layer(kind: str, n: int, d: int, classes: int, seed: int) -> tuple[Any, Any]:
    """One layer in float32, and labels that some of its directions know."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, min(60, n, d))) / np.sqrt(np.arange(1, min(60, n, d) + 1))
    score = latent[:, :3].sum(axis=1) + 0.5 * rng.standard_normal(n)
    y = np.searchsorted(np.quantile(score, np.arange(1, classes) / classes), score)
    X = rng.standard_normal((n, d))
    if kind == "correlated":
        X = 2 * latent @ rng.standard_normal((latent.shape[1], d)) + 0.5 * X
        X += rng.standard_normal(d)
        X[:, :3] = 3_000 + 200 * X[:, :3]
    return X.astype(np.float32), y


def lockstep(kind: str, n: int, d: int) -> dict[str, float]:
    """Seconds a fit, together and one by one, and test rows that differ from the optimum."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from sklprep.sweeps.solver import Split, fit_logistic

    rng = np.random.default_rng(0)
    spent = {"ours": 0.0, "alone": 0.0, "theirs": 0.0}
    wrong, wrong_theirs = [], []
    sampled = np.linspace(0, N_LABELINGS - 1, SAMPLED).astype(int)
    for layer in range(N_LAYERS):
        X, y = make_layer(kind, n, d, 4, layer)
        labelings = np.stack([y] + [rng.permutation(y) for _ in range(N_LABELINGS - 1)])
        for train, test in _folds(n):
            rows = np.arange(len(test))
            with _adding(spent, "ours"):
                (fits,) = fit_logistic(Split(X, train, test), labelings)
            scaler = StandardScaler().fit(X[train])
            fit, answer = scaler.transform(X[train]), scaler.transform(X[test])
            (exact,) = fit_logistic(Split(X, train, test), labelings[sampled], tol=1e-7)
            split = Split(X, train, test)
            for which, best in zip(sampled, exact, strict=True):
                with _adding(spent, "alone"):
                    fit_logistic(split, labelings[which])
                with _adding(spent, "theirs"):
                    model = LogisticRegression(solver="newton-cg")
                    model.fit(fit, labelings[which][train])
                wrong.append(np.mean(fits[which].predict(rows) != best.predict(rows)))
                wrong_theirs.append(np.mean(model.predict(answer) != best.predict(rows)))
    n_splits = N_LAYERS * N_FOLDS
    return {
        "ours": spent["ours"] / (n_splits * N_LABELINGS),
        "alone": spent["alone"] / (n_splits * SAMPLED),
        "theirs": spent["theirs"] / (n_splits * SAMPLED),
        "wrong": float(np.mean(wrong)),
        "wrong_theirs": float(np.mean(wrong_theirs)),
    }


def nested(n: int, d: int, n_layers: int, n_folds: int) -> dict[str, float]:
    """CPU seconds and scores of a nested sweep, one job, by both solvers."""
    from sklprep import layer_sweep

    layers = [make_layer("correlated", n, d, 4, seed) for seed in range(n_layers)]
    X, y = np.stack([X for X, _ in layers], axis=1), layers[0][1]
    layer_sweep(None, X[:60, :, :20], y[:60], n_jobs=1, show_progress=False)
    found = {}
    for suffix, solver in (("", "auto"), ("_theirs", "scikit-learn")):
        start = time.process_time()
        options = {"cv": n_folds, "inner_cv": n_folds, "n_repeats": 1}
        swept = layer_sweep(None, X, y, solver=solver, n_jobs=1, show_progress=False, **options)
        found["ours" if solver == "auto" else "theirs"] = time.process_time() - start
        found[f"score{suffix}"] = float(swept.nested_score)
    return found


def files_sweep(folder: str, n_permutations: int) -> dict[str, float]:
    """What `sklprep sweep` did in version 0.1.0: one repeat, inner folds of their own."""
    from sklprep import layer_sweep, load_activations

    acts = load_activations(folder)
    options = {"solver": "scikit-learn", "n_permutations": n_permutations, "n_jobs": -1}
    options |= {"n_repeats": 1, "inner_cv": 5}
    layer_sweep(None, acts, acts.labels, show_progress=False, **options)
    return {}


def singles(d: int) -> dict[str, Any]:
    """Seconds of one fit and its predictions, by ours and by two of scikit-learn's solvers."""
    found = []
    for kind in KINDS:
        for n, columns in ((d * 4 // 9, d), (d // 2, d // 4), (d * 5 // 2, d // 4)):
            found += [_single(kind, n, columns, classes) for classes in (2, 4, 10)]
    return {"found": found}


def _single(kind: str, n: int, d: int, classes: int) -> dict[str, Any]:
    from sklprep.sweeps.solver import Split, fit_logistic

    X, y = make_layer(kind, n, d, classes, 0)
    train, test = next(_folds(n))
    rows = np.arange(len(test))

    def ours(**options: Any) -> Any:
        return fit_logistic(Split(X, train, test), y, **options)[0][0].predict(rows)

    exact = ours(tol=1e-7)
    ways: dict[str, Callable[[], Any]] = {"ours": ours} | {
        solver: lambda solver=solver: _pipeline(solver, X, y, train, test)
        for solver in ("lbfgs", "newton-cg")
    }
    found: dict[str, Any] = {"kind": kind, "n": n, "d": d, "classes": classes}
    found |= dict.fromkeys(ways, np.inf)
    for _ in range(N_ALTERNATIONS):
        for name, way in ways.items():
            start = time.process_time()
            predictions = way()
            found[name] = min(found[name], time.process_time() - start)
            suffix = "" if name == "ours" else f"_{name}"
            found[f"wrong{suffix}"] = int(np.sum(predictions != exact))
        if min(found["lbfgs"], found["newton-cg"]) > 1:
            break  # nothing that lasts a second needs the best of several
    return found


def two_jobs(n: int, d: int) -> dict[str, float]:
    """Wall seconds of all folds of all layers: ours in two threads, lbfgs in one."""
    from joblib import Parallel, delayed

    from sklprep.sweeps.solver import Split, fit_logistic

    layers = [make_layer("correlated", n, d, 2, seed) for seed in range(N_LAYERS)]
    jobs = [(X, y, train, test) for X, y in layers for train, test in _folds(n)]

    def fit(X: Any, y: Any, train: Any, test: Any) -> Any:
        return fit_logistic(Split(X, train, test), y)[0][0].predict(np.arange(len(test)))

    fit(*jobs[0])
    start = time.perf_counter()
    Parallel(n_jobs=2, prefer="threads")(delayed(fit)(*job) for job in jobs)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    for X, y, train, test in jobs:
        _pipeline("lbfgs", X, y, train, test)
    return {"ours": ours, "theirs": time.perf_counter() - start}


def _pipeline(solver: str, X: Any, y: Any, train: Any, test: Any) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(solver=solver, max_iter=1_000))
    return model.fit(X[train], y[train]).predict(X[test])


def _folds(n: int) -> Iterator[tuple[Any, Any]]:
    order = np.random.default_rng(1).permutation(n) % N_FOLDS
    for fold in range(N_FOLDS):
        yield np.flatnonzero(order != fold), np.flatnonzero(order == fold)


def growth(axes: dict[str, list[int]], base: dict[str, int]) -> dict[str, list[float]]:
    """CPU seconds of all labelings of one split, one size varied at a time."""
    from sklprep.sweeps.solver import Split, fit_logistic

    found: dict[str, list[float]] = {}
    for axis, sizes in axes.items():
        found[axis] = []
        for size in sizes:
            at = base | {axis: size}
            X, y = make_layer("correlated", at["n"], at["d"], at["classes"], 0)
            rng = np.random.default_rng(0)
            labelings = np.stack([y] + [rng.permutation(y) for _ in range(at["labelings"] - 1)])
            train, test = next(_folds(at["n"]))
            start = time.process_time()
            fit_logistic(Split(X, train, test), labelings)
            found[axis].append(time.process_time() - start)
    return found


def memory(n: int, d: int, n_labelings: int) -> dict[str, float]:
    """Peak memory above the loaded input, in layers of float64."""
    from sklprep.sweeps.solver import Split, fit_logistic

    X, y = make_layer("correlated", n, d, 4, 0)
    rng = np.random.default_rng(0)
    labelings = np.stack([y] + [rng.permutation(y) for _ in range(n_labelings - 1)])
    train, test = next(_folds(n))
    fit_logistic(Split(X[:, :20], train[:20], test[:5]), y)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of making the data
    before = peak_memory()
    fit_logistic(Split(X, train, test), labelings)
    return {"layers": (peak_memory() - before) * 1e6 / (8 * n * d)}


@contextmanager
def _adding(spent: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    spent[name] += time.process_time() - start


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (lockstep, nested, files_sweep, singles, two_jobs, growth, memory)
}

if __name__ == "__main__":
    import scipy.linalg  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import threadpool_limits

    warnings.simplefilter("ignore")  # models that stop at max_iter
    with threadpool_limits(1, user_api="blas"):
        print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
