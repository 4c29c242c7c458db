"""The gate for embedded pipelines: an explicit list of what they may contain, and its checks.

A skops file names types to import and functions to call, and skops trusts nearly all of
scikit-learn. Here the ``schema.json`` of the file is copied node by node; the first node that is
not on the list below is refused. The pipeline that is loaded from the copy is checked again before
it is used.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from sklprep.files.npy_file import parse_npy_header
from sklprep.transformers.normalization_methods import METHODS

MAX_PIPELINE_BYTES = 128 << 20
"""For 26 layers of width 2,304 (59,904 columns), means and scales take 1.4 MB, and a PCA with 256
components takes 123 MB in float64."""

MAX_SCHEMA_BYTES = 4 << 20
"""The schema of one step takes 4 kB, those of the pipelines in the tests at most 11 kB."""

MAX_MEMBERS = 1024
"""The pipelines in the tests have up to 12 members."""

_MAX_DEPTH = 30
"""Depth in nodes of two levels of JSON each: a step is 6 deep in a pipeline, and 4 deeper in a
nested one; Python limits recursion to a thousand."""

_MAX_COLUMNS = 1 << 22
"""A row of zeros of this width, 70 times that of all layers of Gemma-2-2B, takes 16 MB."""

OLDEST_PROTOCOL = 2
"""That of skops 0.16; with an older one, skops would use old loaders."""

PIPELINE = ("sklearn.pipeline", "Pipeline")
_SELECTOR = ("sklprep", "LayerSelector")
_SAE_SELECTOR = ("sklprep", "SAEFeatureSelector")
NORMALIZER = ("sklprep", "ActivationNormalizer")
STEPS = (
    PIPELINE,
    _SELECTOR,
    _SAE_SELECTOR,
    NORMALIZER,
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
_STR_TYPE = ("TypeNode", "builtins", "str")  # allowed only as the type of attribute names
ALLOWED_NODES = {
    *(("ObjectNode", *kind) for kind in STEPS),
    *(("FunctionNode", *kind) for kind in _SCORE_FUNCTIONS),
    ("DictNode", "builtins", "dict"),
    ("ListNode", "builtins", "list"),
    ("TupleNode", "builtins", "tuple"),
    ("JsonNode", "builtins", "str"),
    *(("NdArrayNode", "numpy", name) for name in ("ndarray", "float32", "float64")),
    *(("NdArrayNode", "numpy", name) for name in ("int32", "int64")),
}
TRUSTED = [".".join(kind) for kind in (_SELECTOR, _SAE_SELECTOR, NORMALIZER, *_SCORE_FUNCTIONS)]
_SCALERS = {
    name: method.scaler and ("sklearn.preprocessing._data", method.scaler)
    for name, method in METHODS.items()
}
ARRAYS_OUT = {"transform": "default"}
_STEP_NAMES = ", ".join(name for _, name in STEPS)


class RefusedError(Exception):
    """The fault of a pipeline, without the name of its file."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found}; expected {expected}")


def show(value: Any) -> str:
    """Return a value of a file as one line of bounded length."""
    text = ascii(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def kind_of(value: Any) -> tuple[str, str]:
    """Return the module and the qualified name of the type of a value."""
    return type(value).__module__, type(value).__qualname__


def _type_name(value: Any) -> str:
    return ".".join(kind_of(value))


class SchemaCopy:
    """Copies a skops schema node by node, and refuses the first node that is not allowed.

    Only the fields that are needed are copied. Each copy gets a new id and a separate array, so
    that nodes cannot refer to other nodes, and many nodes cannot expand a single array.
    """

    def __init__(self, members: dict[str, bytes]) -> None:
        self.used: set[str] = set()
        self.arrays: list[bytes] = []
        self._members = members
        self._n_bytes = 0
        self._n_nodes = 0

    def node(self, node: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """Copy a node and everything below it; `path` is its name in messages."""
        kind = loader, module, name = node["__loader__"], node["__module__"], node["__class__"]
        if kind not in ALLOWED_NODES:
            found = show(f"{loader} {module}.{name}")
            expected = (
                f"{_STEP_NAMES}, f_classif, f_regression, numbers, text, lists, numeric arrays"
            )
            raise RefusedError(f"{path} is a {found}", f"only {expected}")
        if depth > _MAX_DEPTH:
            raise RefusedError(f"{path} is nested too deeply", f"at most {_MAX_DEPTH} levels")
        twin = self._start(kind)
        match loader:
            case "ObjectNode":
                twin["content"] = self.node(node["content"], path, depth + 1)
                if twin["content"]["__loader__"] != "DictNode":
                    raise RefusedError(f"{path} has no attributes", "a DictNode")
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
                raise RefusedError(f"{path} is the function {name}", "functions as score_func")
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
                raise RefusedError(f"{path} has an attribute {show(key)}", "a plain name")
            content[key] = self.node(item, f"{path}.{key}", depth)
        if content.get("memory", {}).get("content", "null") != "null":
            raise RefusedError(f"{path}.memory names a folder", "None")
        key_types = [
            (key_type["__loader__"], key_type["__module__"], key_type["__class__"])
            for key_type in node["key_types"]["content"]
        ]
        if key_types != [_STR_TYPE] * len(content):
            raise RefusedError(f"{path} has keys of other types", "text")
        types = self._start(("ListNode", "builtins", "list"))
        types["content"] = [self._start(_STR_TYPE) for _ in content]
        return {"content": content, "key_types": types}

    def _array(self, node: dict[str, Any], path: str) -> str:
        if node["type"] != "numpy":
            raise RefusedError(f"{path} is an array of {show(node['type'])}", "numbers")
        payload = self._members[node["file"]]
        self.used.add(node["file"])
        self._n_bytes += len(payload)
        if self._n_bytes > MAX_PIPELINE_BYTES or len(self.arrays) >= MAX_MEMBERS:
            expected = f"at most {MAX_MEMBERS:,} arrays of {MAX_PIPELINE_BYTES:,} bytes in total"
            raise RefusedError(f"{path} is one array too many", expected)
        _require_numbers(payload, path)
        self.arrays.append(payload)
        return f"{len(self.arrays) - 1}.npy"


def _scalar(text: str, path: str) -> str:
    value = json.loads(text)
    if isinstance(value, dict | list):
        raise RefusedError(f"{path} is {show(value)}", "a number, a text, true, false or null")
    return json.dumps(value)


def _require_numbers(payload: bytes, path: str) -> None:
    """Require an array of numbers with as many bytes as its header says."""

    def fault(found: str, expected: str, _: str = "") -> RefusedError:
        return RefusedError(f"{path} {found}", expected)

    header = parse_npy_header(payload, fault, fortran=True)
    if payload[6:8] != b"\x01\x00":
        raise fault(f"has npy version {show(payload[6:8])}", "version 1.0")
    if header.dtype.kind not in "fiu":
        raise fault(f"has dtype {show(header.dtype.str)}", "integers or floats")
    if header.n_bytes != len(payload) - header.data_offset:
        raise fault(f"has shape {show(header.shape)}", "a shape that fits its bytes")


def list_steps(pipeline: Any) -> list[Any]:
    """Check a pipeline, and list its transformers, including those of nested pipelines."""
    if kind_of(pipeline) != PIPELINE:
        raise RefusedError(f"is a {_type_name(pipeline)}", "a scikit-learn Pipeline")
    _require_plain_state(pipeline, "pipeline")
    names = [name for name, _ in pipeline.steps]
    if not names or len(set(names)) < len(names) or {type(name) for name in names} != {str}:
        raise RefusedError(f"has steps named {show(names)}", "a different name for each step")
    leaves = []
    for name, step in pipeline.steps:
        if kind_of(step) == PIPELINE:
            leaves += list_steps(step)
        elif step is not None and not (type(step) is str and step == "passthrough"):
            if kind_of(step) not in STEPS:
                raise RefusedError(
                    f"step {show(name)} is a {_type_name(step)}",
                    f"{_STEP_NAMES} or 'passthrough'",
                )
            _require_plain_state(step, name)
            leaves.append(step)
    return leaves


def _require_plain_state(estimator: Any, name: str) -> None:
    """Refuse attributes that change the behaviour of an estimator."""
    state = vars(estimator)
    if hidden := [attribute for attribute in state if hasattr(type(estimator), attribute)]:
        raise RefusedError(f"step {show(name)} overrides {show(hidden)}", "fitted state")
    if "feature_names_in_" in state:
        raise RefusedError(f"step {show(name)} has feature names", "one fitted on arrays")
    if state.get("_sklearn_output_config", ARRAYS_OUT) != ARRAYS_OUT:
        raise RefusedError(f"step {show(name)} returns data frames", "one that returns arrays")
    if kind_of(estimator) == NORMALIZER:
        scaler, expected = state.get("scaler_"), _SCALERS[estimator.method]
        if (None if scaler is None else kind_of(scaler)) != expected:
            raise RefusedError(
                f"step {show(name)} has a {_type_name(scaler)} in scaler_",
                f"{expected and expected[1]} for method {estimator.method!r}",
            )
        if scaler is not None:
            _require_plain_state(scaler, name)


def require_transform(pipeline: Any, leaves: list[Any]) -> None:
    """Require that the pipeline transforms a row of zeros."""
    from sklearn import config_context

    row = _one_row(leaves[0]) if leaves else np.zeros((1, 1))
    try:
        with config_context(transform_output="default"), np.errstate(all="ignore"):
            row = pipeline.transform(row)
    except Exception as error:
        found = f"fails to transform a row of zeros ({show(error)})"
        raise RefusedError(found, "fitted steps that fit together") from error
    if type(row).__module__.startswith("scipy.sparse."):
        row = row.toarray()
    if type(row) is not np.ndarray or row.ndim != 2 or len(row) != 1:
        raise RefusedError(f"turns one row into {show(row)}", "one row of numbers")


def _one_row(step: Any) -> Any:
    """Return zeros as input for the first transformer of a pipeline."""
    if kind_of(step) not in (_SELECTOR, _SAE_SELECTOR):
        return np.zeros((1, _checked_width(step, "n_features_in_")), np.float32)
    from sklprep.activations.activation_set import ActivationSet

    if kind_of(step) == _SAE_SELECTOR:
        return _one_sae_row(step)
    width = _checked_width(step, "hidden_size_")
    n_layers = len(step.layers_)
    if not n_layers:
        return ActivationSet.from_arrays(embeddings=np.zeros((1, width), np.float32))
    if n_layers * width > _MAX_COLUMNS:
        raise RefusedError(f"selects {n_layers} layers of {width}", f"up to {_MAX_COLUMNS} columns")
    zeros = np.zeros((1, n_layers, width), np.float32)
    return ActivationSet.from_arrays(hidden_states=zeros, layers=step.layers_)


def _one_sae_row(step: Any) -> Any:
    from scipy.sparse import csr_array

    from sklprep.activations.activation_set import ActivationSet

    width, n_saes = _checked_width(step, "n_sae_features_"), len(step.sae_layers_)
    if n_saes > MAX_MEMBERS or max(n_saes * width, step.n_features_out_) > _MAX_COLUMNS:
        raise RefusedError(
            f"selects {n_saes} SAEs of {width} features", f"up to {_MAX_COLUMNS} columns"
        )
    if len(step.has_siblings_) != n_saes:
        raise RefusedError(f"describes {len(step.has_siblings_)} of {n_saes} SAEs", "all of them")
    return ActivationSet.from_arrays(
        activations=[csr_array((1, width), dtype=np.float32) for _ in range(n_saes)],
        sae_layers=step.sae_layers_,
        average_l0s=step.average_l0s_,
    )


def _checked_width(step: Any, attribute: str) -> int:
    width = getattr(step, attribute, None)
    if type(width) is not int or not 1 <= width <= _MAX_COLUMNS:
        found = f"has {kind_of(step)[1]}.{attribute} = {show(width)}"
        raise RefusedError(found, f"a fitted step, of 1 to {_MAX_COLUMNS:,} columns")
    return width
