"""Forged skops files: good dumps with edited schemas, nodes of bad kinds, foreign objects."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from joblib import Memory
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_regression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from sklprep import ActivationNormalizer

X = np.random.default_rng(0).normal(size=(30, 6))
Y = np.arange(30) % 2


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def edited(data: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the schema of a dump in place."""
    members = members_of(data)
    schema = json.loads(members["schema.json"])
    edit(schema)
    return zipped({**members, "schema.json": json.dumps(schema).encode()})


def attributes(schema: dict[str, Any], *steps: int) -> dict[str, Any]:
    """The attributes of the pipeline, or of the step at this (nested) position."""
    node = schema["content"]["content"]
    for number in steps:
        node = node["steps"]["content"][number]["content"][1]["content"]["content"]
    return node


def set_attribute(key: str, value: Any, *steps: int) -> Callable[[dict[str, Any]], None]:
    """An edit that adds an attribute, with its key type."""

    def edit(schema: dict[str, Any]) -> None:
        holder = schema["content"]
        for number in steps:
            holder = holder["content"]["steps"]["content"][number]["content"][1]["content"]
        if key not in holder["content"]:
            holder["key_types"]["content"].append(node("TypeNode", "builtins.str"))
        holder["content"][key] = value

    return edit


def node(loader: str, kind: str, **fields: Any) -> dict[str, Any]:
    module, _, name = kind.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": name, **fields}


def plain(value: Any) -> dict[str, Any]:
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def listed(*items: Any) -> dict[str, Any]:
    return node("ListNode", "builtins.list", content=list(items))


EVIL = [
    node("ObjectNode", "planted.Evil", content=None),
    node("ObjectNode", "builtins.eval", content=None),
    node("FunctionNode", "os.system"),
    node("FunctionNode", "planted.evil"),
    node("TypeNode", "planted.Evil"),
    node("TypeNode", "os.system"),
    node("NdArrayNode", "planted.Evil", type="numpy", file="0.npy"),
    node("DictNode", "planted.Evil", content={}, key_types=listed()),
    node("ListNode", "planted.Evil", content=[]),
    node("TupleNode", "planted.Evil", content=[]),
    node("ConstructorFromReduceNode", "planted.Evil", content=listed()),
    node("PartialNode", "functools.partial", content={"func": node("TypeNode", "os.system")}),
    node("OperatorFuncNode", "operator.methodcaller", attrs=listed(plain("system"))),
    node("OperatorFuncNode", "operator.call", attrs=listed(node("TypeNode", "planted.Evil"))),
    node("OperatorFuncNode", "builtins.str", attrs=listed()),
    node("MethodNode", "builtins.str", content={"obj": plain("id"), "func": "format"}),
    node(
        "MethodNode",
        "sklearn.preprocessing._data.StandardScaler",
        content={"obj": plain("id"), "func": "__reduce__"},
    ),
    node("FunctionNode", "builtins.str", content={"module_path": "os", "function": "system"}),
    node("ReduceNode", "planted.Evil", __reduce__={"args": listed()}, content=listed()),
    node("TreeNode", "sklearn.tree._tree.Tree", __reduce__={"args": listed()}, content=listed()),
    node("LossNode", "planted.Evil", __reduce__={"args": listed()}, content=listed()),
    node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="0.npy"),
    node("CachedNode", "builtins.str", cached=1),
    node("BytesNode", "builtins.bytes", file="0.npy"),
    {"__loader__": "ObjectNode", "__module__": "sklprep", "__class__": "load_dataset"},
    {
        "__loader__": "ObjectNode",
        "__module__": "sklearn.preprocessing",
        "__class__": "_data.StandardScaler",
        "content": None,
    },
    {"__loader__": ["ObjectNode"], "__module__": {}, "__class__": None},
    {"__id__": 1},
    [],
    None,
    "text",
]


def planted_everywhere(data: bytes, evil: Any) -> Iterator[bytes]:
    """Put a node in all sorts of places of a dump of a selector and a normalizer."""

    def at_key_type(schema: dict[str, Any]) -> None:
        schema["content"]["key_types"]["content"][0] = evil

    def at_root(schema: dict[str, Any]) -> None:
        root = evil if isinstance(evil, dict) else {}
        schema.clear()
        schema.update(root, protocol=2, _skops_version="0.16.0")

    def as_step(schema: dict[str, Any]) -> None:
        attributes(schema)["steps"]["content"][1]["content"][1] = evil

    def as_attributes(schema: dict[str, Any]) -> None:
        schema["content"] = evil

    for edit in (
        at_key_type,
        at_root,
        as_step,
        as_attributes,
        set_attribute("verbose", evil),
        set_attribute("memory", evil),
        set_attribute("score_func", evil, 1),
        set_attribute("scaler_", evil, 1),
        set_attribute("layers_", evil, 0),
    ):
        yield edited(data, edit)


def normalizer_holding(scaler: Any, method: str = "standardize") -> Pipeline:
    pipeline = make_pipeline(ActivationNormalizer(method)).fit(X)
    pipeline[0].scaler_ = scaler
    return pipeline


def step_with(**state: Any) -> Pipeline:
    pipeline = make_pipeline(StandardScaler()).fit(X)
    vars(pipeline[0]).update(state)
    return pipeline


FOREIGN: list[tuple[Callable[[], Any], str]] = [
    (lambda: make_pipeline(FunctionTransformer(np.log1p)).fit(X), "FunctionTransformer"),
    (lambda: make_pipeline(StandardScaler(), SVC()).fit(X, Y), "SVC"),
    (lambda: make_pipeline(RandomForestClassifier(2)).fit(X, Y), "RandomForestClassifier"),
    (lambda: Pipeline([("s", StandardScaler())], memory="/tmp/x").fit(X), "names a folder"),
    (lambda: Pipeline([("s", StandardScaler())], memory=Memory(None)).fit(X), "memory.Memory"),
    (lambda: normalizer_holding(FunctionTransformer(np.log1p)), "FunctionTransformer"),
    (lambda: normalizer_holding(StandardScaler().fit(X), "minmax"), "MinMaxScaler"),
    (lambda: normalizer_holding(StandardScaler().fit(X), "none"), "expected None"),
    (lambda: normalizer_holding(StandardScaler().fit(X), "maxabs"), "MaxAbsScaler"),
    (lambda: normalizer_holding(None), "NoneType"),
    (lambda: normalizer_holding(PCA(2).fit(X)), "PCA"),
    (lambda: make_pipeline(StandardScaler()).fit(pd.DataFrame(X).add_prefix("x")), "'json'"),
    (lambda: step_with(mean_=np.array([1, "a"], object)), "'json'"),
    (lambda: step_with(mean_=np.array(["a"] * 6)), "'<U1'"),
    (lambda: step_with(mean_=np.zeros(6, complex)), "'<c16'"),
    (lambda: step_with(mean_=np.zeros(6, [("a", "f8")])), "dtype"),
    (lambda: step_with(mean_=np.ma.zeros(6)), "MaskedArray"),
    (lambda: step_with(mean_=np.dtype("f8")), "DTypeNode"),
    (lambda: step_with(mean_=b"bytes"), "BytesNode"),
    (lambda: step_with(mean_={1, 2}), "SetNode"),
    (lambda: step_with(mean_=slice(3)), "SliceNode"),
    (lambda: step_with(mean_=np.random.default_rng(0)), "RandomGeneratorNode"),
    (lambda: step_with(transform=f_regression), "function f_regression"),
    (lambda: step_with(transform=str), "TypeNode builtins.str"),
    (lambda: step_with(transform=3), "overrides"),
    (lambda: step_with(__sklearn_is_fitted__=3), "__sklearn_is_fitted__"),
    (lambda: step_with(mean_={1: 2}), ""),
    (lambda: step_with(feature_names_in_=np.zeros(6)), "feature names"),
    (lambda: make_pipeline(StandardScaler()).set_output(transform="pandas").fit(X), "frames"),
    (lambda: step_with(mean_=np.zeros(5)), "fails to transform"),
    (lambda: step_with(n_features_in_=7), "fails to transform"),
    (lambda: step_with(n_features_in_=10**12), "1000000000000"),
    (lambda: step_with(n_features_in_=True), "True"),
    (lambda: make_pipeline(StandardScaler()), "n_features_in_"),
    (lambda: Pipeline([]), "named []"),
    (lambda: StandardScaler().fit(X), "StandardScaler; expected a scikit-learn Pipeline"),
    (lambda: [1], "list; expected a scikit-learn Pipeline"),
]
"""Objects that skops would write and load, and what the gate says of them."""


STRANGE = [
    None,
    True,
    -1,
    0,
    3,
    1e308,
    10**30,
    "",
    "x",
    "null",
    "true",
    "-1",
    "0",
    "7",
    "2.5",
    "1e400",
    '"x"',
    "NaN",
    "[]",
    [],
    {},
    [[]],
    "\ud800\n\x00",
    "numpy",
    "json",
    "0.npy",
    "2.npy",
    "list",
    "tuple",
    "ndarray",
    "ListNode",
    "TupleNode",
    "JsonNode",
    "ObjectNode",
    "sklearn.preprocessing._data",
    "StandardScaler",
    "MinMaxScaler",
    '"minmax"',
    '"none"',
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(items):
        yield value, key
        if isinstance(child, dict | list):
            yield from places(child)
