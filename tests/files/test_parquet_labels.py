"""Labels and groups of Parquet files, and tables that are joined by other columns than an index."""

import re

import numpy as np
import pytest
from dump_files import safetensors, write_safetensors

from sklprep import load_activations
from sklprep.exceptions import FileFormatError

STATES = np.arange(24, dtype="<f4").reshape(6, 4)


def requests(folder):
    """A folder of files of one sentence each, in the layout of vLLM."""
    for number, row in enumerate(STATES):
        tensors = {"hidden_states": row[None, None], "token_ids": np.array([number])}
        write_safetensors(folder / f"request-{number}.safetensors", tensors)
    return folder


def parquet(path, columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("labels", [[3, 1, 2, 0, 1, 1], [0.5] * 6, ["a", "b"] * 3])
def test_labels_of_a_parquet_file_are_joined_by_index(tmp_path, labels):
    path = write_safetensors(tmp_path / "a.safetensors", {"layer_0": STATES})
    order = [5, 0, 3, 1, 4, 2]
    table = parquet(
        tmp_path / "table", {"sentence_index": order, "label": [labels[k] for k in order]}
    )

    assert labels == load_activations(path, labels=table).labels.tolist()


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_are_joined_by_the_name_of_the_file(tmp_path, kind, suffix):
    folder = requests(tmp_path / "data")
    names = [f"request-{number}{suffix}" for number in (4, 2, 0, 1, 3, 5)]
    labels = [4, 2, 0, 1, 3, 5]
    if kind == "csv":
        table = tmp_path / "labels.csv"
        lines = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
        table.write_text("\n".join(["file,label", *lines]))
    else:
        table = parquet(tmp_path / "labels.parquet", {"file": names, "label": labels})

    acts = load_activations(folder, labels=table, key="hidden_states[0]")

    assert list(range(6)) == acts.labels.tolist()


def test_groups_are_joined_by_the_text_of_the_sentence(tmp_path):
    path = tmp_path / "a.safetensors"
    texts = '["one", "two", "one", "three", "two", "four"]'
    path.write_bytes(safetensors({"layer_0": STATES}, {"sentences": texts}))
    (tmp_path / "groups.csv").write_text("sentence,group\none,x\ntwo,y\nthree,x\nfour,z\n")

    acts = load_activations(path, groups=tmp_path / "groups.csv")

    assert [0, 1, 0, 0, 1, 2] == acts.groups.tolist()


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"sentence_index": [0, 1], "label": [0, 1]}, "4 sentences have no label"),
        ({"sentence_index": range(6), "labels": range(6)}, "column 'label' is missing"),
        ({"sentence_index": [*range(5), 4], "label": range(6)}, "gives it '4'; expected one"),
        ({"sentence_index": ["a"] * 6, "label": range(6)}, "expected a whole number"),
    ],
)
def test_a_parquet_file_that_lacks_what_is_needed_is_refused(tmp_path, columns, found):
    path = write_safetensors(tmp_path / "a.safetensors", {"layer_0": STATES})
    table = parquet(tmp_path / "table.parquet", {k: list(v) for k, v in columns.items()})

    with pytest.raises(FileFormatError, match=re.escape(found)):
        load_activations(path, labels=table)


def test_a_damaged_parquet_file_gets_one_clear_error(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", {"layer_0": STATES})
    table = parquet(tmp_path / "t.parquet", {"sentence_index": range(6), "label": range(6)})
    table.write_bytes(table.read_bytes()[:-9])

    with pytest.raises(FileFormatError, match=r"t\.parquet: cannot be read .*expected a Parquet"):
        load_activations(path, labels=table)
