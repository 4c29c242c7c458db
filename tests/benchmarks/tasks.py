"""The work that is measured inside a fresh process, its imports done before the clock starts.

``python -m tests.benchmarks.tasks NAME JSON`` calls one of these functions with the arguments in
JSON and prints what it returns as JSON.
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

from .measure import peak_memory

Spent = dict[str, float]


@contextmanager
def _clock() -> Iterator[Spent]:
    """Fill in ``wall`` and ``cpu`` seconds of the block, and the ``hwm`` of the process so far."""
    spent: Spent = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    spent["hwm"] = peak_memory()


def load_everything(folder: str) -> Spent:
    """The baseline: `numpy.load`, every member of every file kept, then the final token's rows."""
    import numpy as np

    with _clock() as spent:
        sentences = []
        for path in sorted(Path(folder).glob("sentence_*.npz")):
            with np.load(path) as file:
                sentences.append(dict(file))
        finals = [int(np.flatnonzero(members["is_final_token"])[0]) for members in sentences]
        for name in ("embeddings", "hidden_states", "activations"):
            np.stack([m[name][..., t, :] for m, t in zip(sentences, finals, strict=True)])
    return spent


def read(folder: str, n_jobs: int = 1, **members: Any) -> dict[str, Any]:
    """`load_activations`, then `prefetch` of some members: both together, and each by itself."""
    import joblib  # noqa: F401
    import scipy.sparse  # noqa: F401

    from sklprep.activations import load_activations

    with _clock() as total:
        with _clock() as opening:
            acts = load_activations(folder, n_jobs=n_jobs)
        with _clock() as reading:
            acts.prefetch(**members)
    return {**total, "opening": opening, "reading": reading}


def plain_sweep(folder: str, blas_threads: int | None) -> dict[str, Any]:
    """`cross_val_score` of StandardScaler and LogisticRegression on each layer in turn."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    X, y = (np.load(Path(folder, f"{name}.npy")) for name in "Xy")
    with threadpool_limits(blas_threads), _clock() as spent:
        scores = [
            cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), X[:, layer], y)
            for layer in range(X.shape[1])
        ]
    return {**spent, "scores": np.array(scores).tolist()}


def sweep(folder: str, n_jobs: int) -> dict[str, Any]:
    """The same through `layer_sweep`, on the same folds."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline

    from sklprep.normalizers import ActivationNormalizer
    from sklprep.sweep import layer_sweep

    X, y = (np.load(Path(folder, f"{name}.npy")) for name in "Xy")
    model = make_pipeline(ActivationNormalizer(), LogisticRegression())
    with _clock() as spent:
        found = layer_sweep(
            model,
            X,
            y,
            cv=StratifiedKFold(5),
            inner_cv=None,
            baselines=False,
            n_jobs=n_jobs,
            show_progress=False,
        )
    return {**spent, "scores": found.scores.tolist()}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (load_everything, read, plain_sweep, sweep)
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the baseline's models do not always converge
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
