"""Canonical skops bytes, and the gate they pass before use.

Hostile files are made in two ways: by skops itself from objects that the gate must not load, and
by editing the schema or the members of a good file.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from forged_pipelines import (
    EVIL,
    FOREIGN,
    STRANGE,
    X,
    Y,
    edited,
    listed,
    members_of,
    node,
    places,
    plain,
    planted_everywhere,
    set_attribute,
    zipped,
)
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.decomposition import PCA, KernelPCA, TruncatedSVD
from sklearn.feature_selection import (
    SelectKBest,
    VarianceThreshold,
    f_regression,
    mutual_info_classif,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC
from skops.io._audit import NODE_TYPE_MAPPING

import sklprep
from sklprep import ActivationNormalizer, LayerSelector, SAEFeatureSelector
from sklprep.datasets import pipeline_bytes, pipeline_gate
from sklprep.datasets.pipeline_bytes import dumps_pipeline, loads_pipeline
from sklprep.datasets.pipeline_gate import MAX_PIPELINE_BYTES
from sklprep.exceptions import LayerNotFoundError, PipelineError, SklprepWarning

WHERE = "dataset.npz, member 'pipeline'"
SEED = 20240229

PIPELINES = {
    "standardize": make_pipeline(LayerSelector("0-2,4"), ActivationNormalizer()),
    "minmax": make_pipeline(LayerSelector([3]), ActivationNormalizer("minmax")),
    "embeddings": make_pipeline(LayerSelector("embeddings"), ActivationNormalizer("none")),
    "selector": make_pipeline(LayerSelector()),
    "pca": make_pipeline(LayerSelector(1), ActivationNormalizer(), PCA(3, random_state=0)),
    "k_best": make_pipeline(LayerSelector(1), "passthrough", SelectKBest(k=4)),
    "regression": make_pipeline(LayerSelector(1), SelectKBest(f_regression, k=4)),
    "svd": make_pipeline(LayerSelector(1), TruncatedSVD(3, random_state=0)),
    "nested": make_pipeline(make_pipeline(LayerSelector(2), StandardScaler()), MinMaxScaler()),
    "scalers": make_pipeline(LayerSelector(2), MaxAbsScaler(), RobustScaler(), Normalizer()),
    "sae": make_pipeline(SAEFeatureSelector("0-2"), ActivationNormalizer("maxabs")),
    "sae_k_best": make_pipeline(SAEFeatureSelector([1, 3], features=[5, 2, 7]), SelectKBest(k=4)),
    "variance": make_pipeline(LayerSelector(2), VarianceThreshold(1e-9)),
}

ACTS = sklprep.make_activations(40, n_layers=5, d_model=8, n_features=8, random_state=0)


def fitted(name: str = "standardize") -> Pipeline:
    return clone(PIPELINES[name]).fit(ACTS, ACTS.labels)


def dense(X: Any) -> Any:
    return X.toarray() if issparse(X) else X


def good_bytes(name: str = "standardize") -> bytes:
    return dumps_pipeline(fitted(name))


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def refusal(data: bytes) -> str:
    """The message of the refusal, which the caller must be able to print on one line."""
    with pytest.raises(PipelineError) as caught:
        loads_pipeline(data, where=WHERE)
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: ")
    assert "; expected " in message
    assert message.endswith("Generate the dataset again.")
    assert message.isprintable()
    assert len(message) < 1000
    return message


# Canonical bytes


def test_bytes_do_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = fitted()
    before = dumps_pipeline(pipeline)
    monkeypatch.setattr(time, "time", lambda: 2e9)

    assert before == dumps_pipeline(pipeline)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_loaded_pipeline_has_the_bytes_it_was_loaded_from(name: str) -> None:
    data = good_bytes(name)

    assert data == dumps_pipeline(loads_pipeline(data, where=WHERE))


def test_bytes_do_not_depend_on_which_values_share_an_object() -> None:
    shared = fitted()
    mean = shared[1].scaler_.mean_
    shared[1].scaler_.var_ = mean
    separate = copy.deepcopy(shared)
    separate[1].scaler_.var_ = mean.copy()

    assert dumps_pipeline(separate) == dumps_pipeline(shared)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_loaded_pipeline_transforms_equal_to_the_bit(name: str) -> None:
    pipeline = fitted(name)
    loaded = loads_pipeline(dumps_pipeline(pipeline), where=WHERE)

    expected, actual = (dense(each.transform(ACTS)) for each in (pipeline, loaded))
    np.testing.assert_array_equal(expected, actual, strict=True)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_gate_also_takes_what_skops_itself_writes(name: str) -> None:
    pipeline = fitted(name)
    loaded = loads_pipeline(skops.io.dumps(pipeline), where=WHERE)

    assert dumps_pipeline(pipeline) == dumps_pipeline(loaded)


def test_canonical_bytes_are_a_skops_file_of_stored_members() -> None:
    data = good_bytes()

    assert isinstance(skops.io.loads(data, trusted=pipeline_gate.TRUSTED), Pipeline)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {zipfile.ZIP_STORED} == {entry.compress_type for entry in archive.infolist()}


def test_every_allowed_step_is_tried_by_these_tests() -> None:
    def names(pipeline: Pipeline) -> Iterator[str]:
        yield type(pipeline).__name__
        for step in pipeline:
            if isinstance(step, Pipeline):
                yield from names(step)
            elif step != "passthrough":
                yield type(step).__name__

    tried = {name for pipeline in PIPELINES.values() for name in names(pipeline)}
    assert {name for _, name in pipeline_gate.STEPS} == tried


def test_the_cache_folder_is_left_out_and_the_pipeline_of_the_caller_keeps_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = fitted("nested").set_params(memory=folder, pipeline__memory=folder)
        loaded = loads_pipeline(dumps_pipeline(pipeline), where=WHERE)

        assert (folder, folder) == (pipeline.memory, pipeline[0].memory)
        assert (loaded.memory, loaded[0].memory) == (None, None)


def test_names_from_data_frames_are_left_out_and_the_pipeline_of_the_caller_keeps_them() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    pipeline = make_pipeline(StandardScaler(), PCA(2)).set_output(transform="pandas").fit(frame)
    loaded = loads_pipeline(dumps_pipeline(pipeline), where=WHERE)

    assert list(pipeline[0].feature_names_in_) == ["a", "b", "c", "d", "e", "f"]
    assert isinstance(pipeline.transform(frame), pd.DataFrame)
    assert not hasattr(loaded[0], "feature_names_in_")
    assert isinstance(loaded.transform(X), np.ndarray)
    np.testing.assert_array_equal(pipeline.transform(frame), loaded.transform(X))


def test_59904_columns_with_a_pca_fit_under_the_cap() -> None:
    d, k = 59_904, 24
    scaler = StandardScaler().fit(np.zeros((2, d)))
    pca = PCA(k)
    pca.__dict__.update(
        components_=np.ones((k, d)),
        mean_=np.zeros(d),
        explained_variance_=np.ones(k),
        n_components_=k,
        n_features_in_=d,
    )
    data = dumps_pipeline(make_pipeline(scaler, pca))

    per_component = d * 8
    assert len(data) + (256 - k) * per_component < MAX_PIPELINE_BYTES


# Pipelines that are refused before they are written


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        (make_pipeline(FunctionTransformer(np.log1p)), "step 'functiontransformer' is a sklearn."),
        (make_pipeline(StandardScaler(), SVC()), "step 'svc' is a sklearn.svm._classes.SVC"),
        (make_pipeline(KernelPCA(2)), "step 'kernelpca' is a sklearn."),
        (make_pipeline(make_pipeline(SVC())), "step 'svc' is a sklearn.svm._classes.SVC"),
        (make_pipeline(SelectKBest(mutual_info_classif, k=2)), "_mutual_info.mutual_info_classif"),
        (make_pipeline(SelectKBest(partial(f_regression, center=False), k=2)), "functools.partial"),
        (make_pipeline(PCA(2, random_state=np.random.RandomState(0))), "RandomState"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value.steps[-1][0]),
)
def test_a_step_that_cannot_be_loaded_is_not_written(pipeline: Pipeline, found: str) -> None:
    with pytest.raises(PipelineError, match=r"^This pipeline: ") as caught:
        dumps_pipeline(clone(pipeline).fit(X, Y))

    assert found in str(caught.value)
    assert "StandardScaler" in str(caught.value).partition("expected")[2]


def test_a_subclass_of_an_allowed_step_is_not_written() -> None:
    class MyScaler(StandardScaler):
        pass

    with pytest.raises(PipelineError, match=r"step 'myscaler' is a .*MyScaler"):
        dumps_pipeline(make_pipeline(MyScaler()).fit(X))


@pytest.mark.parametrize(
    "unfitted",
    [make_pipeline(StandardScaler()), make_pipeline(Normalizer()), PIPELINES["standardize"]],
    ids=["scaler", "stateless", "selector"],
)
def test_an_unfitted_pipeline_is_not_written(unfitted: Pipeline) -> None:
    with pytest.raises(PipelineError, match="Use other steps, or fit them first"):
        dumps_pipeline(clone(unfitted))


@pytest.mark.parametrize("foreign", [None, 3, "pipeline", StandardScaler().fit(X), [1]])
def test_what_is_no_pipeline_is_not_written(foreign: Any) -> None:
    with pytest.raises(PipelineError, match="expected a scikit-learn Pipeline"):
        dumps_pipeline(foreign)


def test_a_pipeline_above_the_cap_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_bytes, "MAX_PIPELINE_BYTES", 1000)

    with pytest.raises(PipelineError, match="bytes; expected at most 1,000"):
        dumps_pipeline(fitted())


# Objects that skops would load


@pytest.mark.parametrize(("build", "found"), FOREIGN)
def test_a_file_with_anything_else_is_refused(build: Callable[[], Any], found: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = skops.io.dumps(build())

    assert found in refusal(data)


def test_a_selector_that_could_not_name_its_columns_is_refused() -> None:
    pipeline = fitted("sae")
    pipeline[0].has_siblings_ = pipeline[0].has_siblings_[:2]

    assert "describes 2 of 3 SAEs; expected all of them" in refusal(skops.io.dumps(pipeline))


def test_steps_of_one_name_are_refused() -> None:
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler()).fit(X)
    pipeline.steps = [("same", step) for _, step in pipeline.steps]

    assert "['same', 'same']" in refusal(skops.io.dumps(pipeline))


# Edited schemas: what the known holes of skops looked like


@pytest.fixture
def planted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that would show that it was imported; the test fails if it was."""
    marker = tmp_path / "imported"
    (tmp_path / "planted.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\ndef evil(*args): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("os.system was called"))
    yield
    assert "planted" not in sys.modules
    assert not marker.exists()


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("evil", EVIL, ids=lambda evil: json.dumps(evil)[:60])
def test_a_node_of_another_kind_is_refused_wherever_it_stands(evil: Any) -> None:
    for data in planted_everywhere(good_bytes(), evil):
        refusal(data)


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("loader", sorted({loader for loader, _ in NODE_TYPE_MAPPING}))
def test_a_type_is_refused_under_every_loader_but_its_own(loader: str) -> None:
    """CVE-2025-54412 and -54413: the type that is shown and trusted is not the one in use."""
    data = good_bytes()
    kinds = {(module, name) for _, module, name in pipeline_gate.ALLOWED_NODES}
    foreign = [("planted", "Evil"), ("os", "system"), ("operator", "call"), ("builtins", "eval")]
    refused = 0
    for kind in [*sorted(kinds), *foreign]:
        if (loader, *kind) not in pipeline_gate.ALLOWED_NODES:
            evil = node(loader, ".".join(kind), content=listed(), attrs=listed(), file="0.npy")
            message = refusal(edited(data, set_attribute("scaler_", evil, 1)))
            assert f"pipeline.steps[1][1].scaler_ is a '{loader} {'.'.join(kind)}'" in message
            refused += 1
    assert refused >= len(foreign)


class Pickled:
    """What pickle and joblib turn into a call."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def test_nothing_foreign_is_imported_or_called_in_a_new_interpreter(
    tmp_path: Any, run_python: Callable[..., str]
) -> None:
    """CVE-2024-37065, CVE-2025-54886 and the like, and what each does where nobody refuses it."""
    markers = [str(tmp_path / name) for name in ("imported", "unpickled")]
    (tmp_path / "planted.py").write_text(
        f"open({markers[0]!r}, 'w').close()\nclass Evil: pass\ndef evil(*args): pass\n"
    )
    good = good_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = [skops.io.dumps(build()) for build, _ in FOREIGN]
    bad += [edited(good, set_attribute("scaler_", evil, 1)) for evil in EVIL]
    pickled = pickle.dumps(Pickled(markers[1]))
    joblib.dump(Pickled(markers[1]), buffer := io.BytesIO(), compress=3)
    members = members_of(good)
    bad += [pickled, buffer.getvalue(), zipped({**members, "schema.json": pickled})]
    bad += [zipped({**members, name: pickled}) for name in members]
    for number, data in enumerate(bad):
        (tmp_path / f"{number}.bad").write_bytes(data)
    (tmp_path / "good").write_bytes(good)
    object_node = edited(good, set_attribute("verbose", EVIL[0]))
    (tmp_path / "object_node").write_bytes(object_node)
    (tmp_path / "pickled").write_bytes(pickled)

    out = run_python(
        """
import pickle, sys
from pathlib import Path
import sklearn.decomposition, sklearn.feature_selection, skops.io
from sklprep.exceptions import PipelineError
from sklprep.datasets.pipeline_bytes import loads_pipeline

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
loads_pipeline((folder / "good").read_bytes(), where="good")
bad = [path.read_bytes() for path in folder.glob("*.bad")]
before, heard = set(sys.modules), []
harmless = {"compile", "object.__getattr__", "builtins.id", "sys._getframe"}
sys.addaudithook(lambda event, _: heard.append(event) if event not in harmless else None)
refused = 0
for data in bad:
    try:
        loads_pipeline(data, where="bad")
    except PipelineError:
        refused += 1
print(refused, sorted(set(sys.modules) - before), set(heard))
there = lambda: [name for name in ("imported", "unpickled") if (folder / name).exists()]
print(there())
data = (folder / "object_node").read_bytes()
skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
pickle.loads((folder / "pickled").read_bytes())
print(there())
""",
        tmp_path,
    )
    assert out.splitlines() == [f"{len(bad)} [] set()", "[]", "['imported', 'unpickled']"]


@pytest.mark.parametrize("protocol", [0, 1, -1, True, None, "2", 2.0, [2], 10**6])
def test_a_file_that_claims_another_protocol_is_refused(protocol: Any) -> None:
    refusal(edited(good_bytes(), lambda schema: schema.update(protocol=protocol)))


def test_memory_is_refused_in_a_pipeline_in_a_pipeline() -> None:
    for value in ("/tmp/x", "", 0, False, [], {}):
        edit = set_attribute("memory", plain(value), 0)
        refusal(edited(good_bytes("nested"), edit))


@pytest.mark.parametrize("text", ["[1]", "{}", "[", "", "nul", "[" * 100_000, "9" * 10_000, 5])
def test_a_plain_value_that_is_none_is_refused(text: Any) -> None:
    bad = node("JsonNode", "builtins.str", content=text, is_json=True)

    refusal(edited(good_bytes(), set_attribute("n_features_in_", bad, 1)))


@pytest.mark.parametrize("key", ["a b", "a\nb", "__class__", "__dict__", "é", "", "a" * 100])
def test_an_attribute_without_a_plain_name_is_refused(key: str) -> None:
    refusal(edited(good_bytes(), set_attribute(key, plain(1), 1)))


def test_nodes_that_stand_for_others_do_not_unfold() -> None:
    """Lists of lists by id: 2 ** 12 nodes in 13 levels to a loader that follows the ids."""

    def edit(schema: dict[str, Any]) -> None:
        level = plain(1) | {"__id__": 10**9}
        for number in range(13):
            again = plain(1) | {"__id__": level["__id__"]}
            level = listed(level, again) | {"__id__": 10**9 + 1 + number}
        set_attribute("verbose", level)(schema)

    loaded = loads_pipeline(edited(good_bytes(), edit), where=WHERE)

    innermost = loaded.verbose
    for _ in range(12):
        assert innermost[1] == 1
        innermost = innermost[0]
    assert innermost == [1, 1]


def test_one_array_cannot_be_unfolded_into_many() -> None:
    big = npy(np.zeros(1 << 20))
    again = node("NdArrayNode", "numpy.ndarray", type="numpy", file="big.npy")
    members = members_of(edited(good_bytes(), set_attribute("verbose", listed(*[again] * 999))))
    data = zipped({**members, "big.npy": big})
    tracemalloc.start()
    message = refusal(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "one array too many" in message
    assert peak < 100 << 20


def test_deep_nesting_is_refused() -> None:
    def nested(depth: int) -> dict[str, Any]:
        value = plain(1)
        for _ in range(depth):
            value = listed(value)
        return value

    loads_pipeline(edited(good_bytes(), set_attribute("verbose", nested(20))), where=WHERE)
    message = refusal(edited(good_bytes(), set_attribute("verbose", nested(40))))
    assert "nested too deeply" in message
    refusal(zipped({"schema.json": b'{"content":' * 100_000}))
    refusal(zipped({"schema.json": b"[" * 1_000_000}))


# Zip archives and arrays that are not what they seem


def test_compressed_members_are_refused() -> None:
    members = members_of(good_bytes())

    assert "compressed" in refusal(zipped(members, zipfile.ZIP_DEFLATED))
    assert "compressed" in refusal(zipped(members, zipfile.ZIP_BZIP2))
    assert "compressed" in refusal(zipped(members, zipfile.ZIP_LZMA))


def test_a_zip_bomb_is_refused_without_inflating_it() -> None:
    bomb = zipped({"schema.json": b" " * (50 << 20)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    refusal(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1 << 20


def test_a_huge_schema_is_refused() -> None:
    schema = members_of(good_bytes())["schema.json"]
    bloated = {**members_of(good_bytes()), "schema.json": schema + b" " * (4 << 20)}

    assert "oversized schema.json" in refusal(zipped(bloated))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused() -> None:
    members = members_of(good_bytes())
    buffer = io.BytesIO(zipped(members))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("schema.json", members["schema.json"])

    assert "same name" in refusal(buffer.getvalue())


def test_stray_missing_and_too_many_members_are_refused() -> None:
    members = members_of(good_bytes())

    assert "'evil.pkl'" in refusal(zipped({**members, "evil.pkl": b"x"}))
    assert "1,1" in refusal(zipped({**members, **{f"{i}.x": b"" for i in range(1100)}}))
    for name in members:
        refusal(zipped({other: members[other] for other in members if other != name}))


def test_overlapping_members_are_refused() -> None:
    """Every directory entry points at the same local header."""
    members = {f"{number}.npy": b"x" * 5000 for number in range(9)}
    data = bytearray(zipped(members | {"schema.json": b"{}"}))
    body = data[: 30 + len("0.npy") + 5000]
    directory = data[data.index(b"PK\x01\x02") :]
    position = 0
    while (position := directory.find(b"PK\x01\x02", position)) >= 0:
        directory[position + 42 : position + 46] = struct.pack("<L", 0)
        position += 4
    directory[-6:-2] = struct.pack("<L", len(body))

    assert "sizes that add up" in refusal(bytes(body + directory))


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(good_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1

    assert "encrypted" in refusal(bytes(data))


def test_bytes_above_the_cap_are_refused_unread() -> None:
    assert "at most 134,217,728" in refusal(bytes(MAX_PIPELINE_BYTES + 1))


def header(text: str, data: bytes = b"\0" * 256, version: bytes = b"\1\0") -> bytes:
    raw = text.encode()
    length = len(raw).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + raw + data


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80\x04N.",
        npy(np.zeros(32))[:-1],
        npy(np.zeros(32)) + b"\0",
        npy(np.zeros(32)).replace(b"(32,)", b"(31,)"),
        npy(np.zeros(32, ">f8")),
        npy(np.zeros(32, bool)),
        npy(np.zeros(32, np.longdouble)),
        npy(np.zeros(32, "S8")),
        npy(np.zeros(0, "S0")),
        npy(np.zeros(32, "M8[s]")),
        npy(np.array([print, {}], object), allow_pickle=True),
        npy(np.zeros((2, 16))),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-4, -8), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 32), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': 32, }"),
        header("{'descr': ('<f8', (32,)), 'fortran_order': False, 'shape': (1,), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (32,), }"),
        header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (32,), }"),
        header("(" * 3000),
        header("-" * 4000 + "1"),
        header(" " * 60_000),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (32,), }", version=b"\2\0"),
        header(" " * 100_000, version=b"\3\0"),
        header("{}", version=b"\x09\0"),
    ],
    ids=range(26),
)
def test_an_array_that_is_not_a_plain_numeric_one_is_refused(payload: bytes) -> None:
    members = members_of(good_bytes())
    for name, content in members.items():
        if content.startswith(b"\x93NUMPY") and b"(32,)" in content:
            refusal(zipped({**members, name: payload}))
            return
    pytest.fail("no member to replace")


def test_a_header_of_python_2_is_refused_without_a_warning() -> None:
    raw = header("{'descr': '<f8', 'fortran_order': False, 'shape': (32L,), }")
    members = members_of(good_bytes())
    name = next(name for name, content in members.items() if b"(32,)" in content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refusal(zipped({**members, name: raw}))

    assert [] == caught


@pytest.mark.parametrize(
    "file", ["schema.json", "../0.npy", "/etc/passwd", "99.npy", None, 7, ["0.npy"]]
)
def test_an_array_that_is_not_in_the_file_is_refused(file: Any) -> None:
    array = node("NdArrayNode", "numpy.ndarray", type="numpy", file=file)

    refusal(edited(good_bytes(), set_attribute("verbose", array)))


# Files of another scikit-learn version


def with_version(version: Any, name: str = "standardize") -> bytes:
    def edit(value: Any) -> None:
        if isinstance(value, dict):
            if "_sklearn_version" in value:
                value["_sklearn_version"]["content"] = json.dumps(version)
            for child in value.values():
                edit(child)
        elif isinstance(value, list):
            for child in value:
                edit(child)

    return edited(good_bytes(name), edit)


def test_another_scikit_learn_version_gives_one_warning_with_both_versions() -> None:
    import sklearn

    with pytest.warns(SklprepWarning) as caught:
        loaded = loads_pipeline(with_version("1.6.1"), where=WHERE)

    np.testing.assert_array_equal(fitted().transform(ACTS), loaded.transform(ACTS))
    (warning,) = caught
    assert str(warning.message).startswith(f"{WHERE}: was fitted with scikit-learn '1.6.1'")
    assert sklearn.__version__ in str(warning.message)
    assert __file__ == warning.filename


@pytest.mark.parametrize("version", ["1\n2\x1b[31m", "x" * 10_000, None, 5])
def test_the_version_in_a_hostile_file_stays_on_one_short_line(version: Any) -> None:
    with pytest.warns(SklprepWarning) as caught:
        loads_pipeline(with_version(version), where=WHERE)

    assert str(caught[0].message).isprintable()
    assert len(str(caught[0].message)) < 500


def test_a_pipeline_of_another_version_that_fails_is_refused_without_a_warning() -> None:
    data = with_version("1.6.1")

    refusal(edited(data, set_attribute("n_features_in_", plain(7), 1)))


# Mutants: each gives a pipeline that transforms, or a PipelineError


def check_mutant(data: bytes, what: str) -> bool:
    """Load, and use what was loaded; True if it was accepted.

    A layer that the data does not have is the one mistake the gate cannot know of.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklprepWarning)
        try:
            loaded = loads_pipeline(data, where=WHERE)
        except PipelineError:
            return False
        except Exception as error:
            raise AssertionError(f"{what} raised {error!r}") from error
    try:
        with np.errstate(all="ignore"):
            assert (len(ACTS),) == loaded.transform(ACTS).shape[:1], what
    except LayerNotFoundError:
        return True
    except Exception as error:
        raise AssertionError(f"{what} was loaded and then raised {error!r}") from error
    return True


@pytest.mark.parametrize("name", ["standardize", "pca"])
def test_a_file_cut_short_is_refused(name: str) -> None:
    data = good_bytes(name)

    for length in {0, 1, 21, 22, len(data) - 1, *range(0, len(data), 97)}:
        refusal(data[:length])


@pytest.mark.parametrize("name", ["standardize", "pca"])
def test_files_with_changed_bytes_transform_or_are_refused(name: str) -> None:
    rng = random.Random(SEED)
    good = good_bytes(name)
    for number in range(250):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] ^= 1 << rng.randrange(8)
                case 1:
                    data[at] = rng.randrange(256)
                case 2:
                    del data[at : at + rng.randrange(1, 40)]
                case 3:
                    data[at:at] = rng.randbytes(rng.randrange(1, 40))
        check_mutant(bytes(data), f"byte mutant {number} of {name}, seed {SEED}")


def test_files_with_changed_arrays_transform_or_are_refused() -> None:
    """The checksums are right, the headers or the numbers are not."""
    rng = random.Random(SEED)
    members = members_of(good_bytes("pca"))
    arrays = [name for name in members if name.endswith(".npy")]
    for number in range(250):
        name = rng.choice(arrays)
        array = bytearray(members[name])
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(rng.choice([128, len(array)]))
            array[at] = (
                rng.choice(b"0123456789(),'<>|fiuOSUVT-") if at < 128 else rng.randrange(256)
            )
        check_mutant(zipped({**members, name: bytes(array)}), f"array mutant {number}, seed {SEED}")


@pytest.mark.parametrize("name", ["standardize", "pca", "nested"])
def test_files_with_changed_schemas_transform_or_are_refused(name: str) -> None:
    rng = random.Random(SEED)
    members = members_of(good_bytes(name))
    schema = json.loads(members["schema.json"])
    accepted = 0
    for number in range(300):
        mutant = copy.deepcopy(schema)
        spots = list(places(mutant))
        container, key = rng.choice(spots)
        match rng.randrange(4):
            case 0:
                del container[key]
            case 1:
                other, other_key = rng.choice(spots)
                container[key] = copy.deepcopy(other[other_key])
            case _:
                container[key] = rng.choice(STRANGE)
        data = zipped({**members, "schema.json": json.dumps(mutant).encode()})
        accepted += check_mutant(data, f"schema mutant {number} of {name}, seed {SEED}")
    assert 0 < accepted < 300


@pytest.mark.parametrize("name", ["standardize", "pca", "nested"])
def test_files_with_changed_values_transform_or_are_refused(name: str) -> None:
    """Each attribute of each step, one after the other, replaced by valid nodes."""
    members = members_of(good_bytes(name))
    text = members["schema.json"]
    holders = [
        number
        for number, (container, key) in enumerate(places(json.loads(text)))
        if key == "content" and isinstance(container[key], str)
    ]
    rng = random.Random(SEED)
    values = ["null", "true", "-3", "0", "9", "2.5", "NaN", '"x"', '"auto"', '"full"', "1e999"]
    for number in holders:
        for value in rng.sample(values, 4):
            mutant = json.loads(text)
            container, key = list(places(mutant))[number]
            container[key] = value
            data = zipped({**members, "schema.json": json.dumps(mutant).encode()})
            check_mutant(data, f"value mutant {number} -> {value} of {name}, seed {SEED}")


# The module


def test_importing_the_module_imports_neither_skops_nor_scikit_learn() -> None:
    code = (
        "import sys, sklprep.datasets.pipeline_bytes;"
        "sys.exit(bool({'sklearn', 'skops', 'scipy', 'pandas'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
