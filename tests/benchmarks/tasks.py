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

_SPARSE_RATIO = 16
"""Beyond it zlib-ng inflates faster than libdeflate."""


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

    from sklprep.activations.loading import load_activations

    with _clock() as total:
        with _clock() as opening:
            acts = load_activations(folder, n_jobs=n_jobs)
        with _clock() as reading:
            acts.prefetch(**members)
    return {**total, "opening": opening, "reading": reading}


def load_member(folder: str, member: str) -> Spent:
    """`numpy.load` of one member of each file: no more than what is needed, the plain way."""
    import numpy as np

    with _clock() as spent:
        for path in sorted(Path(folder).glob("sentence_*.npz")):
            with np.load(path) as file:
                rows = file[member]
                del rows
    return spent


def inflate(folder: str, members: list[str]) -> Spent:
    """The floor: inflate members once with the faster of two libraries, and keep nothing."""
    import zipfile

    import deflate
    from zlib_ng import zlib_ng

    def packed(path: Path) -> Iterator[tuple[bytes, int]]:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for name in members:
                entry = archive.getinfo(f"{name}.npy")
                file.seek(entry.header_offset + 26)
                lengths = file.read(4)
                file.seek(int.from_bytes(lengths[:2], "little"), 1)
                file.seek(int.from_bytes(lengths[2:], "little"), 1)
                yield file.read(entry.compress_size), entry.file_size

    def inflate_sparse(data: bytes) -> None:
        inflater = zlib_ng.decompressobj(-zlib_ng.MAX_WBITS)
        while not inflater.eof:
            inflater.decompress(data, 256 << 10)
            data = inflater.unconsumed_tail

    paths = sorted(Path(folder).glob("sentence_*.npz"))
    with _clock() as spent:
        for path in paths:
            for data, size in packed(path):
                if size > _SPARSE_RATIO * len(data):
                    inflate_sparse(data)
                else:
                    deflate.deflate_decompress(data, size)
    return spent


def command(argv: list[str]) -> Spent:
    """A command of sklprep in a process that has imported all it needs."""
    import joblib  # noqa: F401

    import sklprep.cli.main
    import sklprep.datasets.batch
    import sklprep.datasets.generation
    import sklprep.formats.pack_writer
    from sklprep.datasets.pipeline_bytes import dumps_pipeline, loads_pipeline
    from sklprep.datasets.strategies import make_strategy

    pipeline, _ = make_strategy("hidden-to-concept", layers=0)
    pipeline.fit(_two_rows())
    loads_pipeline(dumps_pipeline(pipeline), where="a pipeline, for skops to be imported")
    with _clock() as spent:
        code = sklprep.cli.main.main(argv)
    if code:
        raise RuntimeError(f"sklprep {' '.join(argv)} ended with exit code {code}.")
    return spent


def _two_rows() -> Any:
    import numpy as np

    return np.array([[[0.0], [1.0]], [[1.0], [0.0]]], dtype=np.float32)


def scale_and_save(X: str, y: str, output: str) -> Spent:
    """`StandardScaler` and `numpy.savez` of an X that lies in memory."""
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    rows, labels = np.load(X), np.load(y)
    with _clock() as spent:
        np.savez(output, X=StandardScaler().fit_transform(rows), y=labels)
    return spent


def scale_and_save_all(layers: list[str], y: str, output: str) -> Spent:
    """The same with the arrays of several layers, read and joined in memory."""
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    with _clock() as spent:
        rows = np.concatenate([np.load(layer) for layer in layers], axis=1)
        np.savez(output, X=StandardScaler().fit_transform(rows), y=np.load(y))
    return spent


def unpack_safetensors(path: str, output: str) -> Spent:
    """`safetensors` and numpy in one go: a file of bfloat16 as float32, an array a layer."""
    import numpy as np
    from safetensors import deserialize

    with _clock() as spent:
        folder = Path(output)
        folder.mkdir()
        for name, tensor in deserialize(Path(path).read_bytes()):
            if tensor["dtype"] == "BF16":
                bits = np.frombuffer(tensor["data"], "<u2").reshape(tensor["shape"])
                values = (bits.astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(tensor["data"], "<i8")
            np.save(folder / f"{name}.npy", values)
    return spent


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

    from sklprep.sweeps.sweep import layer_sweep
    from sklprep.transformers.normalizers import ActivationNormalizer

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


def fit_svm(folder: str, model: str, noise: bool, projected: bool) -> dict[str, Any]:
    """Fit on 4 of 5 rows, score the others: normalizing, the Gram matrix and all.

    Labels are two classes, the concept's strengths 0 and 1 against 2 and 3.
    """
    import numpy as np
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC, LinearSVC
    from threadpoolctl import threadpool_limits

    from sklprep.transformers.normalizers import ActivationNormalizer
    from sklprep.transformers.row_space import RowSpaceProjector

    X, y = (np.load(Path(folder, f"{name}.npy")) for name in "Xy")
    X, y = X.reshape(len(X), -1), y >= 2
    if noise:
        X = np.random.default_rng(0).standard_normal(X.shape, dtype=np.float32)
    train = len(X) * 4 // 5
    steps: list[Any] = [ActivationNormalizer()]
    if projected:
        steps.append(RowSpaceProjector(residual=model == "SVC", copy_X=False))
    steps.append(SVC() if model == "SVC" else LinearSVC(dual=True))
    pipeline = make_pipeline(*steps)
    with threadpool_limits(1, user_api="blas"), _clock() as spent:
        values = pipeline.fit(X[:train], y[:train]).decision_function(X[train:])
    return {**spent, "shape": X.shape, "train": train, "values": values.tolist()}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        load_everything,
        load_member,
        inflate,
        unpack_safetensors,
        read,
        command,
        scale_and_save,
        scale_and_save_all,
        plain_sweep,
        sweep,
        fit_svm,
    )
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # models that stop at max_iter, on both sides
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
