"""Fitted pipelines as canonical skops bytes, and the gate such bytes pass before they are used.

A skops dump records where objects lay in memory and when it was written, and skops trusts nearly
all of scikit-learn. Here one walk over the dump's ``schema.json`` serves both directions: it
copies what stands on the list below, node by node, into a new dump that holds nothing else.
Written to a dataset, that copy is the same in every process; read from one, it is all that skops
gets to see.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import warnings
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sklprep.exceptions import PipelineError, SklprepWarning
from sklprep.transformers.methods import METHODS

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# 59,904 columns (26 layers of 2304): 1.4 MB of means and scales, and 123 MB for a PCA to 256
# components in float64.
MAX_PIPELINE_BYTES = 128 << 20

_MAX_SCHEMA_BYTES = 4 << 20
_MAX_MEMBERS = 1024
_MAX_DEPTH = 30  # nodes; each is two levels of JSON
_MAX_COLUMNS = 1 << 22
_OLDEST_PROTOCOL = 2  # of skops 0.16; a file that claims an older one brings old loaders back

_PIPELINE = ("sklearn.pipeline", "Pipeline")
_SELECTOR = ("sklprep", "LayerSelector")
_SAE_SELECTOR = ("sklprep", "SAEFeatureSelector")
_NORMALIZER = ("sklprep", "ActivationNormalizer")
_STEPS = (
    _PIPELINE,
    _SELECTOR,
    _SAE_SELECTOR,
    _NORMALIZER,
    ("sklearn.preprocessing._data", "StandardScaler"),
    ("sklearn.preprocessing._data", "MinMaxScaler"),
    ("sklearn.preprocessing._data", "MaxAbsScaler"),
    ("sklearn.preprocessing._data", "RobustScaler"),
    ("sklearn.preprocessing._data", "Normalizer"),
    ("sklearn.decomposition._pca", "PCA"),
    ("sklearn.decomposition._truncated_svd", "TruncatedSVD"),
    ("sklearn.feature_selection._univariate_selection", "SelectKBest"),
    ("sklearn.feature_selection._variance_threshold", "VarianceThreshold"),
)
_SCORE_FUNCTIONS = (
    ("sklearn.feature_selection._univariate_selection", "f_classif"),
    ("sklearn.feature_selection._univariate_selection", "f_regression"),
)
_STR_TYPE = ("TypeNode", "builtins", "str")  # only as the type of attribute names
_ALLOWED_NODES = {
    *(("ObjectNode", *kind) for kind in _STEPS),
    *(("FunctionNode", *kind) for kind in _SCORE_FUNCTIONS),
    ("DictNode", "builtins", "dict"),
    ("ListNode", "builtins", "list"),
    ("TupleNode", "builtins", "tuple"),
    ("JsonNode", "builtins", "str"),
    *(("NdArrayNode", "numpy", name) for name in ("ndarray", "float32", "float64")),
    *(("NdArrayNode", "numpy", name) for name in ("int32", "int64")),
}
_TRUSTED = [".".join(kind) for kind in (_SELECTOR, _SAE_SELECTOR, _NORMALIZER, *_SCORE_FUNCTIONS)]
_DTYPES = {"|i1", "|u1", *(f"<{kind}{size}" for kind in "fiu" for size in (2, 4, 8))}
_SCALERS = {
    name: method.scaler and ("sklearn.preprocessing._data", method.scaler)
    for name, method in METHODS.items()
}
_ARRAYS_OUT = {"transform": "default"}
_STEP_NAMES = ", ".join(name for _, name in _STEPS)


def dumps_pipeline(pipeline: Pipeline) -> bytes:
    """Write a fitted pipeline as bytes that are the same in every process.

    What does not belong to the fitted state is left out: the folder in `memory`, which caches fits
    and means nothing elsewhere, and what `set_output` and a fit on data frames leave behind. The
    loaded pipeline takes and gives arrays.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted, and of steps that `loads_pipeline` accepts. It is not changed.

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
    come back equal but in C order, and a product with them may differ in its last bit. To keep X
    and the stored pipeline equal to the bit, compute X with the loaded pipeline.

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
    """Give the bytes of `dumps_pipeline`, and the pipeline that `loads_pipeline` makes of them."""
    import skops.io

    with _refusing("This pipeline", "Use other steps, or fit them first."):
        twin = _without_settings(pipeline)
        _leaf_steps(twin)
        data = _canonical(skops.io.dumps(twin))
        loaded, _ = _load_canonical(data)
    return data, loaded


def loads_pipeline(data: bytes, *, where: str, do: str = "Generate the dataset again.") -> Pipeline:
    """Load a pipeline from bytes that may be broken or hostile.

    Nothing that the bytes name is imported or called before all of them have passed the list of
    allowed types, and no pipeline is returned that fails to transform.

    Parameters
    ----------
    data : bytes
        A skops file, as `dumps_pipeline` writes it.
    where : str
        What messages call it, such as ``"dataset.npz, member 'pipeline'"``.
    do : str
        What the message of a refusal advises.

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
        If the bytes are damaged, hold anything else, or give a pipeline that fails to transform.

    Warns
    -----
    SklprepWarning
        If another scikit-learn version wrote the pipeline.

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
    sklprep.exceptions.PipelineError: data: is no usable pipeline (BadZipFile(...
    """
    from sklearn.exceptions import InconsistentVersionWarning

    with _refusing(where, do):
        pipeline, caught = _load_canonical(_canonical(data))
    skews = [w.message for w in caught if isinstance(w.message, InconsistentVersionWarning)]
    if skews:
        warnings.warn(
            f"{where}: was fitted with scikit-learn {_brief(skews[0].original_sklearn_version)},"
            f" and this is {skews[0].current_sklearn_version!r}. It transforms, but its numbers"
            " may differ; to be sure, generate the dataset again.",
            SklprepWarning,
            stacklevel=2,
        )
    return pipeline


class _RefusedError(Exception):
    """What is wrong with a pipeline, without the name of the file that holds it."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found}; expected {expected}")


@contextlib.contextmanager
def _refusing(where: str, do: str) -> Iterator[None]:
    """Turn every exception into a `PipelineError`: a hostile file chooses which one it causes."""
    try:
        yield
    except _RefusedError as error:
        raise PipelineError(f"{where}: {error}. {do}") from error
    except Exception as error:
        raise PipelineError(
            f"{where}: is no usable pipeline ({_brief(error)}); expected a fitted Pipeline in skops"
            f" format. {do}"
        ) from error


def _brief(value: Any) -> str:
    """Show what a file holds on one line of bounded length."""
    text = ascii(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _kind(value: Any) -> tuple[str, str]:
    return type(value).__module__, type(value).__qualname__


def _type_name(value: Any) -> str:
    return ".".join(_kind(value))


def _without_settings(estimator: Any) -> Any:
    """Copy an estimator, sharing its arrays, without what `dumps_pipeline` leaves out."""
    twin = copy.copy(estimator)
    state: dict[str, Any] = getattr(twin, "__dict__", {})
    for attribute in ("feature_names_in_", "_siblings"):
        state.pop(attribute, None)
    if "_sklearn_output_config" in state:
        state["_sklearn_output_config"] = _ARRAYS_OUT
    if _kind(twin) == _PIPELINE:
        twin.memory = None
        twin.steps = [(name, _without_settings(step)) for name, step in twin.steps]
    elif _kind(twin) == _NORMALIZER and "scaler_" in state:
        twin.scaler_ = _without_settings(twin.scaler_)
    return twin


def _load_canonical(data: bytes) -> tuple[Any, list[warnings.WarningMessage]]:
    """Load what `_canonical` made and try it; also return the warnings that it gave."""
    import skops.io

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = skops.io.loads(data, trusted=_TRUSTED)
        leaves = _leaf_steps(pipeline)
        for step in leaves:
            _add_new_parameters(step)
        _try_transform(pipeline, leaves)
    return pipeline, caught


def _add_new_parameters(step: Any) -> None:
    """Give a step of an older version the parameters that came since, at their defaults."""
    for estimator in (step, vars(step).get("scaler_")):
        if estimator is not None:
            state = vars(estimator)
            state |= type(estimator)().get_params(deep=False) | state


def _canonical(data: bytes) -> bytes:
    """Copy a skops file into one that holds only what is allowed and depends on nothing else."""
    import skops

    members = _read_members(data)
    schema = json.loads(members.pop("schema.json"))
    protocol = schema["protocol"]
    if type(protocol) is not int or protocol < _OLDEST_PROTOCOL:
        raise _RefusedError(f"has skops protocol {_brief(protocol)}", f"{_OLDEST_PROTOCOL} or up")
    twin = _SchemaCopy(members)
    root = twin.node(schema, "pipeline", 1)
    if stray := members.keys() - twin.used:
        raise _RefusedError(f"has the stray member {_brief(min(stray))}", "only arrays in use")
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
    """Read a zip archive whose members take no more memory than the archive itself."""
    if len(data) > MAX_PIPELINE_BYTES:
        raise _RefusedError(f"has {len(data):,} bytes", f"at most {MAX_PIPELINE_BYTES:,}")
    n_entries = data.count(b"PK\x01\x02")
    if n_entries > _MAX_MEMBERS:
        raise _RefusedError(f"has {n_entries:,} members", f"at most {_MAX_MEMBERS:,}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise _RefusedError("has two members of the same name", "one of each name")
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise _RefusedError(f"has the compressed member {_brief(name)}", "stored members")
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise _RefusedError("has members larger than the whole", "sizes that add up")
        if entries["schema.json"].file_size > _MAX_SCHEMA_BYTES:
            raise _RefusedError("has an oversized schema.json", f"{_MAX_SCHEMA_BYTES:,} bytes")
        return {name: archive.read(entry) for name, entry in entries.items()}


class _SchemaCopy:
    """Copies a skops schema node by node, and refuses the first node that is not allowed.

    Only fields that are needed are copied. Each copy has an id and an array of its own, so that
    no node can stand for another one, nor many nodes unfold one array.
    """

    def __init__(self, members: dict[str, bytes]) -> None:
        self.used: set[str] = set()
        self.arrays: list[bytes] = []
        self._members = members
        self._n_bytes = 0
        self._n_nodes = 0

    def node(self, node: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """Copy a node and all below it; `path` is what messages call it."""
        kind = loader, module, name = node["__loader__"], node["__module__"], node["__class__"]
        if kind not in _ALLOWED_NODES:
            found = _brief(f"{loader} {module}.{name}")
            expected = (
                f"{_STEP_NAMES}, f_classif, f_regression, numbers, text, lists, numeric arrays"
            )
            raise _RefusedError(f"{path} is a {found}", f"only {expected}")
        if depth > _MAX_DEPTH:
            raise _RefusedError(f"{path} is nested too deeply", f"at most {_MAX_DEPTH} levels")
        twin = self._start(kind)
        match loader:
            case "ObjectNode":
                twin["content"] = self.node(node["content"], path, depth + 1)
                if twin["content"]["__loader__"] != "DictNode":
                    raise _RefusedError(f"{path} has no attributes", "a DictNode")
            case "DictNode":
                twin |= self._attributes(node, path, depth + 1)
            case "ListNode" | "TupleNode":
                twin["content"] = [
                    self.node(item, f"{path}[{number}]", depth + 1)
                    for number, item in enumerate(node["content"])
                ]
            case "JsonNode":
                twin |= {"content": _scalar(node["content"], path), "is_json": True}
            case "NdArrayNode":
                twin |= {"type": "numpy", "file": self._array(node, path)}
            case "FunctionNode" if not path.endswith(".score_func"):
                raise _RefusedError(f"{path} is the function {name}", "functions as score_func")
        return twin

    def _start(self, kind: tuple[str, str, str]) -> dict[str, Any]:
        self._n_nodes += 1
        loader, module, name = kind
        return {
            "__class__": name,
            "__module__": module,
            "__loader__": loader,
            "__id__": self._n_nodes,
        }

    def _attributes(self, node: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        content = {}
        for key, item in sorted(node["content"].items()):
            if not (key.isascii() and key.isidentifier() and len(key) <= 64) or key[:2] == "__":
                raise _RefusedError(f"{path} has an attribute {_brief(key)}", "a plain name")
            content[key] = self.node(item, f"{path}.{key}", depth)
        if content.get("memory", {}).get("content", "null") != "null":
            raise _RefusedError(f"{path}.memory names a folder", "None")
        key_types = [
            (key_type["__loader__"], key_type["__module__"], key_type["__class__"])
            for key_type in node["key_types"]["content"]
        ]
        if key_types != [_STR_TYPE] * len(content):
            raise _RefusedError(f"{path} has keys of other types", "text")
        types = self._start(("ListNode", "builtins", "list"))
        types["content"] = [self._start(_STR_TYPE) for _ in content]
        return {"content": content, "key_types": types}

    def _array(self, node: dict[str, Any], path: str) -> str:
        if node["type"] != "numpy":
            raise _RefusedError(f"{path} is an array of {_brief(node['type'])}", "numbers")
        payload = self._members[node["file"]]
        self.used.add(node["file"])
        self._n_bytes += len(payload)
        if self._n_bytes > MAX_PIPELINE_BYTES or len(self.arrays) >= _MAX_MEMBERS:
            raise _RefusedError(f"{path} is one array too many", f"{MAX_PIPELINE_BYTES:,} bytes")
        _check_npy(payload, path)
        self.arrays.append(payload)
        return f"{len(self.arrays) - 1}.npy"


def _scalar(text: str, path: str) -> str:
    value = json.loads(text)
    if isinstance(value, dict | list):
        raise _RefusedError(f"{path} is {_brief(value)}", "a number, a text, true, false or null")
    return json.dumps(value)


def _check_npy(payload: bytes, path: str) -> None:
    """Require numbers, and as many bytes of them as the header says."""
    stream = io.BytesIO(payload)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise _RefusedError(f"{path} has npy version {version}", "version (1, 0)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a header that only Python 2 could have written
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=4096)
    if dtype.str not in _DTYPES:
        raise _RefusedError(f"{path} has dtype {_brief(dtype.str)}", "integers or floats")
    n_bytes = math.prod(shape) * dtype.itemsize
    if any(type(n) is not int or n < 0 for n in shape) or n_bytes != len(payload) - stream.tell():
        raise _RefusedError(f"{path} has shape {_brief(shape)}", "a shape that fits its bytes")


def _leaf_steps(pipeline: Any) -> list[Any]:
    """List the transformers of a pipeline and of pipelines in it, once all are as expected."""
    if _kind(pipeline) != _PIPELINE:
        raise _RefusedError(f"is a {_type_name(pipeline)}", "a scikit-learn Pipeline")
    _check_state(pipeline, "pipeline")
    names = [name for name, _ in pipeline.steps]
    if not names or len(set(names)) < len(names) or {type(name) for name in names} != {str}:
        raise _RefusedError(f"has steps named {_brief(names)}", "a name of its own for each step")
    leaves = []
    for name, step in pipeline.steps:
        if _kind(step) == _PIPELINE:
            leaves += _leaf_steps(step)
        elif step is not None and not (type(step) is str and step == "passthrough"):
            if _kind(step) not in _STEPS:
                raise _RefusedError(
                    f"step {_brief(name)} is a {_type_name(step)}",
                    f"{_STEP_NAMES} or 'passthrough'",
                )
            _check_state(step, name)
            leaves.append(step)
    return leaves


def _check_state(estimator: Any, name: str) -> None:
    """Refuse attributes that change what the methods of an estimator do."""
    state = vars(estimator)
    if hidden := [attribute for attribute in state if hasattr(type(estimator), attribute)]:
        raise _RefusedError(f"step {_brief(name)} overrides {_brief(hidden)}", "fitted state")
    if "feature_names_in_" in state:
        raise _RefusedError(f"step {_brief(name)} has feature names", "one fitted on arrays")
    if state.get("_sklearn_output_config", _ARRAYS_OUT) != _ARRAYS_OUT:
        raise _RefusedError(f"step {_brief(name)} gives data frames", "one that gives arrays")
    if _kind(estimator) == _NORMALIZER:
        scaler, expected = state.get("scaler_"), _SCALERS[estimator.method]
        if (None if scaler is None else _kind(scaler)) != expected:
            raise _RefusedError(
                f"step {_brief(name)} has a {_type_name(scaler)} in scaler_",
                f"{expected and expected[1]} for method {estimator.method!r}",
            )
        if scaler is not None:
            _check_state(scaler, name)


def _try_transform(pipeline: Any, leaves: list[Any]) -> None:
    """Send one row of zeros through the pipeline."""
    from sklearn import config_context

    row = _one_row(leaves[0]) if leaves else np.zeros((1, 1))
    try:
        with config_context(transform_output="default"), np.errstate(all="ignore"):
            row = pipeline.transform(row)
    except Exception as error:
        found = f"fails to transform a row of zeros ({_brief(error)})"
        raise _RefusedError(found, "fitted steps that fit together") from error
    if type(row).__module__.startswith("scipy.sparse."):
        row = row.toarray()
    if type(row) is not np.ndarray or row.ndim != 2 or len(row) != 1:
        raise _RefusedError(f"turns one row into {_brief(row)}", "one row of numbers")


def _one_row(step: Any) -> Any:
    """Zeros for the first transformer of a pipeline, as wide as it says."""
    if _kind(step) not in (_SELECTOR, _SAE_SELECTOR):
        return np.zeros((1, _checked_width(step, "n_features_in_")), np.float32)
    from sklprep.activations.activation_set import ActivationSet

    if _kind(step) == _SAE_SELECTOR:
        return _one_sae_row(step)
    width = _checked_width(step, "hidden_size_")
    n_layers = len(step.layers_)
    if not n_layers:
        return ActivationSet.from_arrays(embeddings=np.zeros((1, width), np.float32))
    if n_layers * width > _MAX_COLUMNS:
        raise _RefusedError(
            f"selects {n_layers} layers of {width}", f"up to {_MAX_COLUMNS} columns"
        )
    zeros = np.zeros((1, n_layers, width), np.float32)
    return ActivationSet.from_arrays(hidden_states=zeros, layers=step.layers_)


def _one_sae_row(step: Any) -> Any:
    from scipy.sparse import csr_array

    from sklprep.activations.activation_set import ActivationSet

    width, n_saes = _checked_width(step, "n_sae_features_"), len(step.sae_layers_)
    if n_saes > _MAX_MEMBERS or max(n_saes * width, step.n_features_out_) > _MAX_COLUMNS:
        raise _RefusedError(
            f"selects {n_saes} SAEs of {width} features", f"up to {_MAX_COLUMNS} columns"
        )
    if len(step.has_siblings_) != n_saes:
        raise _RefusedError(f"tells of {len(step.has_siblings_)} of {n_saes} SAEs", "of all")
    return ActivationSet.from_arrays(
        activations=[csr_array((1, width), dtype=np.float32) for _ in range(n_saes)],
        sae_layers=step.sae_layers_,
        average_l0s=step.average_l0s_,
    )


def _checked_width(step: Any, attribute: str) -> int:
    width = getattr(step, attribute, None)
    if type(width) is not int or not 1 <= width <= _MAX_COLUMNS:
        found = f"has {_kind(step)[1]}.{attribute} = {_brief(width)}"
        raise _RefusedError(found, f"a fitted step, of 1 to {_MAX_COLUMNS:,} columns")
    return width
