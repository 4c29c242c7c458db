"""Labels and groups of a CSV, joined by sentence: in Python, in `generate` and in `sweep`."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from sentence_files import write_folder

import sklprep.datasets.batch
from sklprep import LayerSelector, layer_sweep, load_activations, load_dataset
from sklprep.exceptions import FileFormatError
from sklprep.files.csv_tables import read_groups, read_labels
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.sentence_folder import SentenceFolder

N = 24
INDICES = [7 + 3 * position for position in range(N)]  # their own numbers, not positions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "joy_features"
    write_folder(path, N, changes={i: {"sentence_index": INDICES[i]} for i in range(N)})
    return path


@pytest.fixture(scope="module")
def pack(folder):
    return build_pack(SentenceFolder(folder, progress=False), folder.parent / "pack").path


def write_csv(path, column, value_of):
    """Write a value for each sentence, last sentence first, among columns that do not matter."""
    lines = [f"{index},{value_of(index)},x" for index in [*reversed(INDICES), 99_999]]
    path.write_text("\n".join([f"sentence_index,{column},note", *lines, ""]))
    return path


@pytest.fixture
def run(run_command):
    """Run a command; returns exit code, stdout, and stderr without the warnings of few rows."""

    def run(command, *arguments):
        words = shlex.split(" ".join(map(str, arguments)))
        code, out, err = run_command(command, "--jobs", 1, *words)
        lines = err.splitlines(keepends=True)
        return code, out, "".join(x for x in lines if not x.startswith("Warning: "))

    return run


# ---- in Python -------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["final", "none"])
def test_labels_and_groups_are_joined_by_sentence_index(folder, tmp_path, pooling):
    labels = write_csv(tmp_path / "labels.csv", "label", lambda index: index * 10)
    groups = write_csv(tmp_path / "groups.csv", "group", lambda index: f"pair {index // 6:03d}")
    plain = load_activations(folder, pooling=pooling)

    acts = load_activations(folder, pooling=pooling, labels=labels, groups=groups)

    expected = plain.sentence_indices * 10
    assert (np.int64, expected.tolist()) == (acts.labels.dtype, acts.labels.tolist())
    np.testing.assert_array_equal(np.unique(expected // 60, return_inverse=True)[1], acts.groups)
    np.testing.assert_array_equal(plain.hidden_states, acts.hidden_states)
    view = acts[::-2]
    assert expected[::-2].tolist() == view.labels.tolist()
    assert acts.groups[::-2].tolist() == view.groups.tolist()


def test_a_pack_takes_them_too(folder, pack, tmp_path):
    labels = write_csv(tmp_path / "labels.csv", "label", lambda index: index % 3)

    from_pack, from_folder = (load_activations(path, labels=labels) for path in (pack, folder))

    assert [index % 3 for index in INDICES] == from_pack.labels.tolist()
    assert from_folder.fingerprint == from_pack.fingerprint


@pytest.mark.parametrize("label", [None, "high", True, [1], 7, -1, np.nan])
def test_the_labels_of_the_files_are_not_needed(tmp_path, label):
    name = "concept_strength_label"
    its_own = {"omit": [name]} if label is None else {name: label}
    write_folder(tmp_path / "dump", 3, **its_own)
    labels = tmp_path / "labels.csv"
    labels.write_text("sentence_index,label\n0,4\n1,5\n2,6\n")

    assert [4, 5, 6] == load_activations(tmp_path / "dump", labels=labels).labels.tolist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", " 2", "-3"], "i", [1, 2, -3]),
        (["1", "2.5", "1e3"], "f", [1, 2.5, 1000]),
        (["1.0", "2.", "+3e0"], "i", [1, 2, 3]),
        (["9007199254740993", "0", "-1.0"], "i", [9007199254740993, 0, -1]),
        (["1", "0", "9" * 30], "f", [1, 0, 1e30]),
        (["1_0", "10_", "1__0"], "U", ["1_0", "10_", "1__0"]),  # names, although int() takes some
        (["NA", "None", "inf"], "U", ["NA", "None", "inf"]),
        (["2", "rude", " very polite "], None, None),
        (["rude", "rude", " very polite "], "U", ["rude", "rude", "very polite"]),
    ],
)
def test_labels_are_whole_numbers_numbers_or_text_but_no_mixture(tmp_path, values, kind, expected):
    path = tmp_path / "labels.csv"
    path.write_text("sentence_index,label\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))

    if kind is None:
        with pytest.raises(FileFormatError, match="line 3 has the label 'rude' where others are"):
            read_labels(path, np.arange(3))
    else:
        labels = read_labels(path, np.array([2, 0, 1, 2]))
        assert kind == labels.dtype.kind
        assert [expected[2], *expected] == labels.tolist()


def test_a_csv_of_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes('\ufefflabel,sentence_index\r\n3,0\r\n\r\n"1",1\r\n3,0\r\n'.encode())

    assert [3, 1] == read_labels(path, np.arange(2)).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column 'sentence_index' is missing; expected sentence_index, label, got an empty f"),
        (b"sentence_index;label\n0;1\n", "its columns are separated by semicolons; expected comm"),
        (b"sentence_index\tlabel\n0\t1\n", "its columns are separated by tabs; expected commas"),
        (b"sentence_index,group\n0,1\n", "column 'label' is missing; .* got sentence_index, group"),
        (b"sentence_index,label,label\n0,1,2\n", "column 'label' is not unique"),
        (b"sentence_index,label\n0,1\n", r"2 sentences have no label \(first: sentence_index 1\)"),
        (
            b"sentence_index,label\n9,1\n7,1\n",
            r"3 sentences have no label \(first: sentence_index 0\), and its lines are for"
            r" sentence_index 7 to 9; expected a line for each\."
            r" Number the lines as the data do\.$",
        ),
        (
            b"sentence_index,label\n0,1\n1,\n2\n",
            r"2 sentences have no label \(first: sentence_index 1\)",
        ),
        (b"sentence_index,label\n0.5,1\n", "line 2 has sentence_index '0.5'; expected a whole"),
        (b"sentence_index,label\n1_0,1\n", "line 2 has sentence_index '1_0'; expected a whole"),
        (b"sentence_index,label\n,1\n", "line 2 has sentence_index ''; expected a whole"),
        (b"sentence_index,label\n0,1\n1,1\n2,1\n0,2\n", "line 5 gives .* 0 the label '2', line 2 "),
        (
            b"sentence_index,label\n0,1\n1,nan\n2,1\n",
            r"1 sentence has no label \(first: sentence_index 1\)",
        ),
        (
            b"sentence_index,label\n0,a\n1,<NA>\n2,a\n",
            r"1 sentence has no label \(first: sentence_index 1\)",
        ),
        (b"sentence_index,label\n0,1\n1,inf\n2,1\n", "line 3 has the label 'inf' where others are"),
        (b"sentence_index,label\n0,\xff\xfe\n", "is not a CSV file in UTF-8"),
        (b"sentence_index,label\n0," + b"9" * 200_000, "is not a CSV file in UTF-8 .field larger"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)

    with pytest.raises(FileFormatError, match=message) as error:
        read_labels(path, np.array([0, 1, 1, 2]))
    assert str(error.value).startswith(f"{path}: ")
    assert 1 == len(str(error.value).splitlines())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "sentence_index,label\n100,1\n199,0\n",
            r"24 sentences have no label \(first: sentence_index 7\), and its lines are for"
            r" sentence_index 100 to 199; expected a line for each\. Number the lines as the data"
            r" do, or join by a column file or sentence\.$",
        ),
        (
            "file,label\nb.npz,1\na.npz,0\n",
            r" \(first: file sentence_0+\), and its first line is for 'b'; expected a line for"
            r" each\. Write each file as the data do, or join by a column sentence_index or"
            r" sentence\.$",
        ),
        ("file,other\nb,1\n", r"column 'label' is missing; expected file, label, got file, other"),
        (
            "id,label\n0,1\n",
            r"expected sentence_index \(or file or sentence\), label, got id, label",
        ),
    ],
)
def test_a_table_for_other_sentences_says_by_what_else_to_join(folder, tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_text(content)

    with pytest.raises(FileFormatError, match=message):
        load_activations(folder, labels=path)


def test_a_column_that_pandas_wrote_with_gaps_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "labels.csv"
    table = pandas.DataFrame({"sentence_index": [0.0, 1, None, 2], "label": [3.0, 1, 2, None]})
    table.dropna().to_csv(path)
    with path.open("a") as file:
        file.write("9,2.0,0\n")

    labels = read_labels(path, np.array([1, 2, 0]))

    assert (np.dtype(np.int64), [1, 0, 3]) == (labels.dtype, labels.tolist())


def test_groups_are_the_same_by_number_and_missing_ones_are_no_group(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("sentence_index,group\n0,1.0\n1,b\n2,1\n3,1_0\n4,10\n")
    assert [0, 1, 0, 2, 3] == read_groups(path, np.arange(5)).tolist()

    path.write_text("sentence_index,group\n0,a\n1,nan\n2,NaN\n")
    with pytest.raises(
        FileFormatError, match=r"2 sentences have no group \(first: sentence_index 1\)"
    ):
        read_groups(path, np.arange(3))


# ---- on the command line ---------------------------------------------------------------------


@pytest.mark.parametrize("spool", [1 << 40, 0])
def test_generate_stores_the_labels_and_groups_of_the_csv(
    run, folder, tmp_path, monkeypatch, spool
):
    monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", spool)
    labels = write_csv(tmp_path / "labels.csv", "label", lambda index: index % 6)
    groups = write_csv(tmp_path / "groups.csv", "group", lambda index: index // 6)
    output = tmp_path / "x.npz"

    code, _, err = run(
        "generate",
        f"--strategy hidden-to-concept --layer 1 --input {folder} --output {output}",
        f"--labels {labels} --groups {groups}",
    )

    assert (0, "") == (code, err)
    dataset = load_dataset(output)
    assert [index % 6 for index in INDICES] == dataset.y.tolist()
    assert np.unique(np.array(INDICES) // 6, return_inverse=True)[1].tolist() == (
        dataset.groups.tolist()
    )
    plain = LayerSelector(1).fit_transform(load_activations(folder))
    np.testing.assert_allclose(plain.std(axis=0), dataset.norm["norm_std"], rtol=1e-5)


def test_a_dataset_is_unchanged_only_while_its_labels_are(run, folder, tmp_path):
    labels = write_csv(tmp_path / "labels.csv", "label", lambda index: index % 3)
    arguments = f"--strategy hidden-to-concept --layer 1 --input {folder}"
    arguments += f" --output {tmp_path / 'x.npz'}"

    seen = []
    for change, extra in (
        (0, ""),
        (0, f"--labels {labels}"),
        (0, f"--labels {labels}"),
        (1, f"--labels {labels}"),
        (0, f"--groups {labels.with_name('groups.csv')}"),
        (0, ""),
    ):
        write_csv(labels, "label", lambda index, change=change: (index + change) % 3)
        write_csv(labels.with_name("groups.csv"), "group", lambda index: index // 6)
        code, out, _ = run("generate", arguments, extra)
        assert 0 == code
        seen.append(out.startswith("Unchanged"))

    assert [False, False, True, False, False, False] == seen


def test_text_labels_are_refused_by_generate_with_advice_and_taken_by_sweep(run, folder, tmp_path):
    names = ["mild", "rude"]
    labels = write_csv(tmp_path / "labels.csv", "label", lambda index: names[index % 2])
    acts = load_activations(folder)
    y = np.array([names[index % 2] for index in INDICES])
    expected = layer_sweep(None, acts, y, cv=3, layers=[1]).summary()

    output = f"--output {tmp_path / 'x.npz'} --layer 1"
    code, _, err = run(
        "generate", f"--strategy hidden-to-concept --input {folder} --labels {labels} {output}"
    )
    assert (1, 1) == (code, err.count("\n"))
    assert re.search(r"must be whole numbers, got 'rude'. Number them, .* \(--labels\)", err)

    code, out, err = run("sweep", f"{folder} --labels {labels} --cv 3 --layers 1 --quiet")
    assert (0, expected + "\n", "") == (code, out, err)


FEATURE = "--target-layer 1 --target-feature 3"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("generate --strategy hidden-to-concept --layer 1 {input} {input}", 2, "of one --input"),
        (
            f"generate --strategy hidden-to-feature {FEATURE} {{input}}",
            2,
            "is for a concept target",
        ),
        (f"sweep {{folder}} --strategy hidden-to-feature {FEATURE}", 2, "is for a concept target"),
        ("sweep {folder}", 1, "23 sentences have no label (first: sentence_index 10)"),
        (
            "generate --strategy hidden-to-concept --layer 1 {input}",
            1,
            "23 sentences have no label",
        ),
        (
            "generate --strategy hidden-to-concept --layer 1 {input} --dry-run",
            1,
            "23 sentences have no label",
        ),
    ],
)
def test_labels_that_do_not_fit_are_one_line(run, folder, tmp_path, arguments, code, message):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"sentence_index,label\n{INDICES[0]},1\n")
    command, rest = arguments.format(folder=folder, input=f"--input {folder}").split(" ", 1)
    output = tmp_path / "out" / "x"

    found, out, err = run(command, rest, f"--labels {labels} --output {output}")

    assert (code, "", 1) == (found, out, err.count("\n"))
    assert message in err
    assert not Path(output).exists()
