"""Fitted pipelines as canonical skops bytes, checked when they are written and read.

A skops file records memory addresses and the time of writing. The copy made by `pipeline_gate` does
not: written to a dataset, its bytes are the same in every process; read from a dataset, it is the
only thing that skops sees.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sklprep.datasets.pipeline_gate import (
    ARRAYS_OUT,
    MAX_MEMBERS,
    MAX_PIPELINE_BYTES,
    MAX_SCHEMA_BYTES,
    NORMALIZER,
    OLDEST_PROTOCOL,
    PIPELINE,
    TRUSTED,
    RefusedError,
    SchemaCopy,
    kind_of,
    list_steps,
    require_transform,
    show,
)
from sklprep.exceptions import PipelineError, SklprepWarning

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def dumps_pipeline(pipeline: Pipeline) -> bytes:
    """Write a fitted pipeline as bytes that are the same in every process.

    Settings that are not part of the fitted state are left out: the folder in `memory`, which
    caches fits, and what `set_output` and fitting on data frames add. The loaded pipeline takes and
    returns arrays.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted, with steps that `loads_pipeline` accepts. It is not changed.

    Returns
    -------
    bytes
        An uncompressed skops file.

    Raises
    ------
    PipelineError
        If `loads_pipeline` would refuse the bytes.

    Notes
    -----
    Arrays that are neither in C nor in Fortran order, such as the components of a randomized PCA,
    are stored in C order, and a product with them may differ in its last bit. To get an X that
    equals that of the stored pipeline bit by bit, compute it with the loaded pipeline.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> pipeline = make_pipeline(StandardScaler()).fit([[0.0], [2.0]])
    >>> data = dumps_pipeline(pipeline)
    >>> data == dumps_pipeline(loads_pipeline(data, where="data"))
    True
    """
    return freeze_pipeline(pipeline)[0]


def freeze_pipeline(pipeline: Pipeline) -> tuple[bytes, Pipeline]:
    """Return the bytes of `dumps_pipeline`, and the pipeline as it is loaded from them."""
    import skops.io

    with _refusing("This pipeline", "Use other steps, or fit them first."):
        twin = _without_settings(pipeline)
        list_steps(twin)  # names a refused step; the schema has only its path
        data = _canonical(skops.io.dumps(twin))
        loaded, _ = _load_canonical(data)
    return data, loaded


def loads_pipeline(data: bytes, *, where: str, do: str = "Generate the dataset again.") -> Pipeline:
    """Load a pipeline from bytes that may be damaged or malicious.

    Nothing that the bytes name is imported or called before all of them were checked against the
    list of allowed types, and a pipeline is returned only if it can transform.

    Parameters
    ----------
    data : bytes
        A skops file, as `dumps_pipeline` writes it.
    where : str
        Its name in messages, such as ``"dataset.npz, member 'pipeline'"``.
    do : str
        Advice in the message of a refusal.

    Returns
    -------
    Pipeline
        Fitted. Its steps are `LayerSelector`, `SAEFeatureSelector`, `ActivationNormalizer`,
        `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`, `RobustScaler`, `Normalizer`, `PCA`,
        `TruncatedSVD`, `SelectKBest` (by `f_classif` or `f_regression`), `VarianceThreshold`,
        `Pipeline` (of these) or ``"passthrough"``.

    Raises
    ------
    PipelineError
        If the bytes are damaged, contain anything else, or the pipeline fails to transform.

    Warns
    -----
    SklprepWarning
        If the pipeline was written by another version of scikit-learn.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> data = dumps_pipeline(make_pipeline(StandardScaler()).fit([[0.0], [2.0]]))
    >>> loads_pipeline(data, where="data").transform([[4.0]])
    array([[3.]])
    >>> loads_pipeline(data[:-1], where="data")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    sklprep.exceptions.PipelineError: data: is not a usable pipeline (BadZipFile(...
    """
    from sklearn.exceptions import InconsistentVersionWarning

    with _refusing(where, do):
        pipeline, caught = _load_canonical(_canonical(data))
    skews = [w.message for w in caught if isinstance(w.message, InconsistentVersionWarning)]
    if skews:
        warnings.warn(
            f"{where}: was fitted with scikit-learn {show(skews[0].original_sklearn_version)},"
            f" and this is {skews[0].current_sklearn_version!r}. It can be used, but results"
            " may differ; to be sure, generate the dataset again.",
            SklprepWarning,
            stacklevel=2,
        )
    return pipeline


@contextlib.contextmanager
def _refusing(where: str, do: str) -> Iterator[None]:
    """Turn every exception into a `PipelineError`, because a malicious file can cause any."""
    try:
        yield
    except RefusedError as error:
        raise PipelineError(f"{where}: {error}. {do}") from error
    except Exception as error:
        raise PipelineError(
            f"{where}: is not a usable pipeline ({show(error)}); expected a fitted Pipeline in"
            f" skops format. {do}"
        ) from error


def _without_settings(estimator: Any) -> Any:
    """Copy an estimator, sharing its arrays, without the settings that are left out."""
    twin = copy.copy(estimator)
    state: dict[str, Any] = getattr(twin, "__dict__", {})
    for attribute in ("feature_names_in_", "_siblings"):
        state.pop(attribute, None)
    if "_sklearn_output_config" in state:
        state["_sklearn_output_config"] = ARRAYS_OUT
    if kind_of(twin) == PIPELINE:
        twin.memory = None
        twin.steps = [(name, _without_settings(step)) for name, step in twin.steps]
    elif kind_of(twin) == NORMALIZER and "scaler_" in state:
        twin.scaler_ = _without_settings(twin.scaler_)
    return twin


def _load_canonical(data: bytes) -> tuple[Any, list[warnings.WarningMessage]]:
    """Load the result of `_canonical` and try it; also return the warnings."""
    import skops.io

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = skops.io.loads(data, trusted=TRUSTED)
        leaves = list_steps(pipeline)
        for step in leaves:
            _add_new_parameters(step)
        require_transform(pipeline, leaves)
    return pipeline, caught


def _add_new_parameters(step: Any) -> None:
    """Add parameters that are new since the version of a step, with their defaults."""
    for estimator in (step, vars(step).get("scaler_")):
        if estimator is not None:
            state = vars(estimator)
            state |= type(estimator)().get_params(deep=False) | state


def _canonical(data: bytes) -> bytes:
    """Copy a skops file, with only the allowed content and without varying metadata."""
    import skops

    members = _read_members(data)
    schema = json.loads(members.pop("schema.json"))
    protocol = schema["protocol"]
    if type(protocol) is not int or protocol < OLDEST_PROTOCOL:
        raise RefusedError(f"has skops protocol {show(protocol)}", f"{OLDEST_PROTOCOL} or later")
    twin = SchemaCopy(members)
    root = twin.node(schema, "pipeline", 1)
    if stray := members.keys() - twin.used:
        raise RefusedError(f"has the stray member {show(min(stray))}", "only arrays in use")
    root |= {"protocol": protocol, "_skops_version": skops.__version__}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, array in enumerate(twin.arrays):
            archive.writestr(_entry(f"{number}.npy"), array)
        text = json.dumps(root, sort_keys=True, separators=(",", ":"))
        archive.writestr(_entry("schema.json"), text)
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    return entry


def _read_members(data: bytes) -> dict[str, bytes]:
    """Read a zip archive whose members do not need more memory than the archive itself."""
    if len(data) > MAX_PIPELINE_BYTES:
        raise RefusedError(f"has {len(data):,} bytes", f"at most {MAX_PIPELINE_BYTES:,}")
    n_entries = data.count(b"PK\x01\x02")
    if n_entries > MAX_MEMBERS:
        raise RefusedError(f"has {n_entries:,} members", f"at most {MAX_MEMBERS:,}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise RefusedError("has two members of the same name", "one of each name")
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise RefusedError(f"has the compressed member {show(name)}", "stored members")
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise RefusedError("has members larger than the archive", "sizes that add up")
        if entries["schema.json"].file_size > MAX_SCHEMA_BYTES:
            raise RefusedError("has an oversized schema.json", f"{MAX_SCHEMA_BYTES:,} bytes")
        return {name: archive.read(entry) for name, entry in entries.items()}
