"""Forged skops files: the members and the schema of a good dump, edited; nodes of bad kinds."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any


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
