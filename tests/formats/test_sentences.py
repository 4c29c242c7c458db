"""Folders of sentence files: the rows that come out of sound ones, the errors of unsound ones."""

import os
import shutil
import struct
import threading
import zlib

import numpy as np
import pytest
from sentence_files import damage, data_position, rewrite, write_folder, write_sentence

from sklprep import load_activations
from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FeatureNotFoundError,
    FileFormatError,
    LayerNotFoundError,
    SklprepWarning,
    UsageError,
)

POOLINGS = ["final", "mean", "max", "none"]
CONFIGS = {"layers": (12, 3, 12, 0), "average_l0s": [70, 80, 141, 90]}
PLACE_OF_LAYER = {0: 3, 3: 1, 12: 0}


def pooled(values, members, pooling):
    """The rows of (n_tokens, width) values, by float64 arithmetic rounded once to float32."""
    values = values.astype(np.float64)
    if pooling == "final":
        values = values[members["is_final_token"]]
    elif pooling == "mean":
        values = values.mean(axis=0, keepdims=True)
    elif pooling == "max":
        values = values.max(axis=0, keepdims=True)
    return values.astype(np.float32)


def rows_of(files, pooling, member, place=None):
    """The rows of a member, at this place of its config axis, over all files."""
    return np.concatenate(
        [
            pooled(members[member] if place is None else members[member][place], members, pooling)
            for members in files
        ]
    )


def assert_rows(acts, files, pooling, places=PLACE_OF_LAYER):
    np.testing.assert_array_equal(rows_of(files, pooling, "embeddings"), acts.embeddings)
    states = [
        rows_of(files, pooling, "hidden_states", place) for _, place in sorted(places.items())
    ]
    np.testing.assert_array_equal(np.stack(states, axis=1), acts.hidden_states)
    for layer, expected in zip(sorted(places), states, strict=True):
        np.testing.assert_array_equal(expected, acts.layer(layer))
    assert len(acts.activations) == len(files[0]["layers"])
    for place, config in enumerate(acts.activations):
        expected = rows_of(files, pooling, "activations", place)
        np.testing.assert_array_equal(expected, config.toarray())
        assert config.nnz == np.count_nonzero(expected)
        assert config.dtype == np.float32
        assert config.format == "csr"
        assert config.has_sorted_indices
    assert acts.embeddings.dtype == acts.hidden_states.dtype == np.float32


def bytes_read():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def name_of(folder, number):
    return folder / f"sentence_{number:06d}.npz"


def assert_one_line(error, path, *parts):
    assert str(error.value).startswith(f"{path}:")
    for part in parts:
        assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False], ids=["deflated", "stored"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_are_those_of_float64_arithmetic_on_the_files(tmp_path, pooling, dtype, compress):
    files = write_folder(tmp_path, 6, dtype=dtype, compress=compress, seed=1, **CONFIGS)
    acts = load_activations(tmp_path, pooling=pooling)
    n_rows = [len(members["is_final_token"]) if pooling == "none" else 1 for members in files]
    assert len(acts) == sum(n_rows)
    assert acts.pooling == pooling
    assert acts.layers.tolist() == [0, 3, 12]
    assert acts.sae_layers.tolist() == [12, 3, 12, 0]
    assert acts.average_l0s.tolist() == [70, 80, 141, 90]
    assert (acts.d_embed, acts.d_model, acts.n_sae_features) == (5, 7, 40)
    assert_rows(acts, files, pooling)
    index = np.repeat(np.arange(6), n_rows)
    np.testing.assert_array_equal(index % 4, acts.labels)
    np.testing.assert_array_equal(index, acts.groups)
    np.testing.assert_array_equal(index, acts.sentence_indices)
    assert acts.sentences.tolist() == [f"This is sentence {i}." for i in index]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_sentences_wider_and_longer_than_a_block_are_pooled_alike(tmp_path, pooling):
    options = {"n_tokens": 200, "d_embed": 2900, "d_model": 3000, "n_features": 6000}
    files = write_folder(tmp_path, 2, layers=(1, 0), compress=False, dtype="float16", **options)
    acts = load_activations(tmp_path, pooling=pooling)
    assert_rows(acts, files, pooling, {0: 1, 1: 0})


def test_means_neither_overflow_nor_cancel(tmp_path):
    half = np.full((3, 20, 7), 60_000, np.float16)
    write_sentence(tmp_path / "sentence_0.npz", n_tokens=20, hidden_states=half, dtype="float16")
    assert (load_activations(tmp_path, pooling="mean").layer(0) == 60_000).all()
    single = np.array([1e8, 1, -1e8], np.float32)[:, np.newaxis].repeat(7, axis=1)
    write_sentence(tmp_path / "sentence_0.npz", n_tokens=3, hidden_states=np.stack([single] * 3))
    assert (load_activations(tmp_path, pooling="mean").layer(0) == np.float32(1 / 3)).all()


def test_maxima_of_negative_values_are_negative(tmp_path):
    values = np.full((3, 4, 7), -2.5, np.float32)
    write_sentence(
        tmp_path / "sentence_0.npz", n_tokens=4, hidden_states=values, activations=values
    )
    acts = load_activations(tmp_path, pooling="max")
    assert (acts.hidden_states == -2.5).all()
    assert (acts.activations[0].toarray() == -2.5).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_two_jobs_read_what_one_reads(tmp_path, pooling):
    files = write_folder(tmp_path, 12, seed=2)
    for n_jobs in (1, 2):
        acts = load_activations(tmp_path, pooling=pooling, n_jobs=n_jobs)
        assert_rows(acts, files, pooling, {0: 0, 1: 1, 2: 2})


def test_float64_is_rounded_to_float32(tmp_path):
    files = write_folder(tmp_path, 2, dtype="float64")
    assert_rows(load_activations(tmp_path), files, "final", {0: 0, 1: 1, 2: 2})


def test_rows_come_in_the_order_of_the_numbers_in_their_names(tmp_path):
    for name, index in (("10", 3), ("2", 1), ("1", 2), ("_b", 0), ("_a", 7)):
        write_sentence(tmp_path / f"sentence_{name}.npz", index=index)
    with pytest.warns(SklprepWarning):
        acts = load_activations(tmp_path)
    assert acts.sentence_indices.tolist() == [2, 1, 3, 7, 0]
    assert acts.sentences[1] == "This is sentence 1."
    assert acts.labels.tolist() == [2, 1, 3, 3, 0]
    assert acts.groups.tolist() == [0, 1, 2, 3, 4]


def test_other_files_in_the_folder_are_not_read(tmp_path):
    write_folder(tmp_path, 2)
    for name in (".sentence_000001.npz.0123.tmp", "sentence_000001.npy", "notes.txt", "x.npz"):
        (tmp_path / name).write_text("not mine")
    assert len(load_activations(str(tmp_path))) == 2


def test_a_file_without_optional_members_is_read(tmp_path):
    optional = ("fragments", "token_positions", "fragment_lengths", "num_features", "hidden_dim")
    files = write_folder(tmp_path, 2, omit=(*optional, "sentence", "sentence_index"))
    acts = load_activations(tmp_path, pooling="none")
    assert acts.sentences is None
    assert acts.sentence_indices.tolist() == acts.groups.tolist()
    assert_rows(acts, files, "none", {0: 0, 1: 1, 2: 2})


def test_a_large_sentence_index_keeps_all_its_digits(tmp_path):
    indices = [2**62 + 1, 2**62 + 2, -(2**62) - 1]
    for number, index in enumerate(indices):
        write_sentence(tmp_path / f"sentence_{number}.npz", sentence_index=index)
    assert load_activations(tmp_path).sentence_indices.tolist() == indices


# --- reading no more than needed ----------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False], ids=["deflated", "stored"])
@pytest.mark.parametrize("asked", ["embeddings", "hidden_states", "activations"])
def test_only_the_member_asked_for_is_read(tmp_path, asked, compress):
    options = {"n_tokens": 40, "d_embed": 2000, "d_model": 1000, "n_features": 2000}
    write_folder(tmp_path, 2, compress=compress, dtype="float16", **options)
    expected = load_activations(tmp_path)
    others = {"embeddings", "hidden_states", "activations"} - {asked}
    values = getattr(expected, asked)
    for member in others:
        damage(name_of(tmp_path, 1), member)
    acts = load_activations(tmp_path)
    if asked == "activations":
        for left, right in zip(values, acts.activations, strict=True):
            np.testing.assert_array_equal(left.toarray(), right.toarray())
    else:
        np.testing.assert_array_equal(values, getattr(acts, asked))
    for member in others:
        with pytest.raises(FileFormatError) as error:
            getattr(acts, member)
        assert_one_line(error, name_of(tmp_path, 1), f"'{member}'", "copy or extract it again")


def test_hidden_states_are_read_without_the_bytes_of_the_activations(tmp_path):
    write_folder(tmp_path, 3, n_tokens=10, n_features=20_000, compress=False)
    acts = load_activations(tmp_path)
    before = bytes_read()
    acts.prefetch(embeddings=True, layers=[0, 1, 2])
    assert bytes_read() - before < 300_000
    _, size = data_position(name_of(tmp_path, 0), "activations")
    assert size > 2_000_000


def test_what_was_read_stays_and_the_rest_is_read_when_asked_for(tmp_path):
    files = write_folder(tmp_path, 3, **CONFIGS)
    partly = load_activations(tmp_path).prefetch(embeddings=True, layers=[3], configs=[2])
    whole = load_activations(tmp_path)
    whole.layer(3), whole.embeddings, whole.sae_activations(3)
    shutil.rmtree(tmp_path)
    assert_rows(whole, files, "final")
    np.testing.assert_array_equal(rows_of(files, "final", "hidden_states", 1), partly.layer(3))
    np.testing.assert_array_equal(rows_of(files, "final", "embeddings"), partly.embeddings)
    expected = rows_of(files, "final", "activations", 2)
    np.testing.assert_array_equal(expected, partly.sae_activations(12, 141).toarray())
    for read in (lambda: partly.layer(0), lambda: partly.sae_activations(3)):
        with pytest.raises(FaultyFilesError, match="No such file"):
            read()


def test_a_member_read_in_parts_is_whole(tmp_path):
    files = write_folder(tmp_path, 3, **CONFIGS)
    acts = load_activations(tmp_path, pooling="none")
    acts.prefetch(layers=[12, 0], configs=[3, 1]).prefetch(layers=[0, 3], configs=[1, 0])
    acts.prefetch(layers=[12]).prefetch()
    assert_rows(acts, files, "none")


def test_threads_that_ask_at_once_get_the_same_rows(tmp_path):
    files = write_folder(tmp_path, 20, **CONFIGS)
    acts = load_activations(tmp_path)
    results = []
    threads = [
        threading.Thread(target=lambda layer=layer: results.append((layer, acts.layer(layer))))
        for layer in (0, 3, 12) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    for layer, states in results:
        expected = rows_of(files, "final", "hidden_states", PLACE_OF_LAYER[layer])
        np.testing.assert_array_equal(expected, states)


def test_one_layer_of_large_files_takes_little_memory(tmp_path, run_python):
    big = np.zeros((2, 20, 200_000), np.float32)
    big[:, :, ::1000] = 1
    write_folder(tmp_path, 4, n_tokens=20, layers=(0, 1), activations=big)
    code = """
import glob, joblib, numpy, scipy.sparse, sklprep
acts = sklprep.load_activations(sys.argv[1], n_jobs=1)
before = peak()
assert acts.layer(1).shape == (4, 7)
layer = peak() - before
assert (acts.feature(0, 1000) == 1).all()
feature = peak() - before
kept = [dict(numpy.load(path)) for path in glob.glob(sys.argv[1] + "/*")]
print(layer, feature, peak() - before)
"""
    layer, feature, everything = map(float, run_python(code, tmp_path).split())
    assert everything > 110
    assert layer < 15
    assert feature < 25


# --- folders ------------------------------------------------------------------------------------


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError) as error:
        load_activations(tmp_path)
    assert str(error.value).startswith(f"No sentence_*.npz files found in {tmp_path}: ")
    assert "Run the extraction first" in str(error.value)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda path: path.rmdir(), "there is no file or folder of that name"),
        (lambda path: (path.rmdir(), path.write_text("")), "it is a file"),
        (lambda path: (path / "layer_12_activations.npz").touch(), "the old layer-wise format"),
        (lambda path: write_folder(path / "deeper"), "Did you mean "),
    ],
)
def test_a_folder_without_sentence_files_says_what_it_is_instead(tmp_path, make, hint):
    path = tmp_path / "dump"
    path.mkdir()
    make(path)
    with pytest.raises(DataError) as error:
        load_activations(path)
    assert str(error.value).startswith(f"No sentence_*.npz files found in {path}: ")
    assert hint in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_pooling_is_refused_with_those_there_are(tmp_path):
    write_folder(tmp_path, 1)
    with pytest.raises(UsageError, match="one of final, mean, max, none, got 'median'"):
        load_activations(tmp_path, pooling="median")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2], None),
        ([1, 2, 3], None),
        ([0], None),
        ([1], None),
        ([0, 1, 3], "1 gaps in the numbering of {}, the first at 2: "),
        ([1, 5, 7], "4 gaps in the numbering of {}, the first at 2: "),
        ([2, 3], "1 gaps in the numbering of {}, the first at 1: "),
        ([5], "4 gaps in the numbering of {}, the first at 1: "),
        ([0, 1, 999_999_999], "999,999,997 gaps in the numbering of {}, the first at 2: "),
    ],
)
def test_a_gap_in_the_numbering_is_warned_about(tmp_path, recwarn, numbers, expected):
    for number in numbers:
        write_sentence(name_of(tmp_path, number), index=number)
    if expected is None:
        assert len(load_activations(tmp_path)) == len(numbers)
        return
    with pytest.warns(SklprepWarning) as caught:
        acts = load_activations(tmp_path)
    assert len(acts) == len(numbers)
    message = str(caught[0].message).replace("999999997", "999,999,997")
    assert message.startswith(expected.format(tmp_path))
    assert "the extraction may be unfinished" in message


@pytest.mark.parametrize("names", [["a", "b"], ["0x1", "-1"]])
def test_names_without_a_number_have_no_gaps(tmp_path, names):
    for index, name in enumerate(names):
        write_sentence(tmp_path / f"sentence_{name}.npz", index=index)
    assert len(load_activations(tmp_path)) == 2


# --- what is not needed may be missing ----------------------------------------------------------

NOT_NEEDED = {
    "average_l0s without SAE features": (["activations"], ["average_l0s"]),
    "average_l0s and layers of embeddings alone": (
        ["activations", "hidden_states"],
        ["average_l0s", "layers"],
    ),
}


@pytest.mark.parametrize(("omit", "not_needed"), NOT_NEEDED.values(), ids=NOT_NEEDED)
def test_members_that_describe_what_is_not_there_may_be_missing(tmp_path, omit, not_needed):
    files = write_folder(tmp_path / "dump", 4, omit=omit)
    expected = load_activations(tmp_path / "dump")
    write_folder(tmp_path / "bare", 4, omit=[*omit, *not_needed])
    some = {1: {"omit": [*omit, *not_needed]}, 2: {"omit": omit, "average_l0s": [1]}}
    write_folder(tmp_path / "mixed", 4, omit=omit, changes=some)

    for name in ("bare", "mixed"):
        acts = load_activations(tmp_path / name)
        acts.to_pack(tmp_path / f"{name} pack")
        pack = load_activations(tmp_path / f"{name} pack")
        for one in (acts, pack):
            assert repr(expected) == repr(one)
            assert one.sae_layers.tolist() == one.average_l0s.tolist() == []
            np.testing.assert_array_equal(rows_of(files, "final", "embeddings"), one.embeddings)
            for layer in expected.layers.tolist():
                rows = rows_of(files, "final", "hidden_states", layer)
                np.testing.assert_array_equal(rows, one.layer(layer))
        assert acts.fingerprint == pack.fingerprint != expected.fingerprint


# --- faults -------------------------------------------------------------------------------------

FAULTS = {
    "layers differ": ({"layers": (0, 1, 5)}, "layers", "layers (0, 1, 5); expected (0, 1, 2)"),
    "fewer layers": ({"layers": (0, 1)}, "layers", "layers (0, 1); expected (0, 1, 2)"),
    "other order": ({"layers": (1, 0, 2)}, "layers", "layers (1, 0, 2); expected (0, 1, 2)"),
    "average_l0s differ": (
        {"average_l0s": [70, 80, 91]},
        "average_l0s",
        "average_l0s (70, 80, 91); expected (70, 80, 90)",
    ),
    "d_embed differs": ({"d_embed": 6}, "embeddings", "embeddings width 6; expected 5"),
    "d_model differs": ({"d_model": 6}, "hidden_states", "hidden_states width 6; expected 7"),
    "n_features differs": ({"n_features": 41}, "activations", "activations width 41; expected 40"),
    "no embeddings": ({"omit": ["embeddings"]}, "embeddings", "width missing; expected 5"),
    "no hidden states": ({"omit": ["hidden_states"]}, "hidden_states", "missing; expected 7"),
    "no activations": ({"omit": ["activations"]}, "activations", "width missing; expected 40"),
    "no index": ({"omit": ["sentence_index"]}, "sentence_index", "missing; expected present"),
    "same index": ({"sentence_index": 0}, "sentence_index", "is 0, the same as in"),
}


@pytest.mark.parametrize(("change", "member", "found"), FAULTS.values(), ids=FAULTS)
def test_files_that_disagree_are_both_named(tmp_path, change, member, found):
    write_folder(tmp_path, 4, changes={2: change})
    with pytest.raises(FileFormatError) as error:
        load_activations(tmp_path)
    assert_one_line(error, name_of(tmp_path, 2), f"member '{member}'", found, "sentence_000000.npz")


BAD_FILES = {
    "no final token": ({"is_final_token": [False] * 4}, "is_final_token", "marks 0 final tokens"),
    "several final tokens": (
        {"is_final_token": [True, False, True, True]},
        "is_final_token",
        "marks 3 final tokens; expected 1",
    ),
    "final tokens too few": ({"is_final_token": [True]}, "is_final_token", "has shape (1,)"),
    "final tokens as ints": (
        {"is_final_token": [0, 0, 0, 1]},
        "is_final_token",
        "has shape (4,) of int64; expected booleans of shape (4,)",
    ),
    "no layers": ({"omit": ["layers"]}, "layers", "is missing"),
    "no average_l0s": ({"omit": ["average_l0s"]}, "average_l0s", "is missing"),
    "no is_final_token": ({"omit": ["is_final_token"]}, "is_final_token", "is missing"),
    "fewer average_l0s": ({"average_l0s": [1, 2]}, "average_l0s", "expected numbers of shape (3,)"),
    "layers of floats": ({"layers": np.arange(3.0)}, "layers", "of float64; expected integers"),
    "layers in two dimensions": ({"layers": [[0, 1, 2]]}, "layers", "shape (1, 3) of int64"),
    "layers beyond int64": (
        {"layers": np.array([0, 1, 2**63], np.uint64)},
        "layers",
        "has layer 9223372036854775808",
    ),
    "layers fewer than states": (
        {"layers": [0, 1], "average_l0s": [1, 2]},
        "hidden_states",
        "has shape (3, 4, 7); expected (2, 4, width)",
    ),
    "no configs": (
        {
            "layers": np.zeros(0, int),
            "average_l0s": np.zeros(0),
            "hidden_states": np.zeros((0, 4, 7)),
            "activations": np.zeros((0, 4, 40)),
        },
        "layers",
        "is empty; expected at least 1",
    ),
    "tokens of hidden states": (
        {"hidden_states": np.zeros((3, 5, 7))},
        "hidden_states",
        "has shape (3, 5, 7); expected (3, 4, width)",
    ),
    "tokens of activations": (
        {"activations": np.zeros((3, 3, 40))},
        "activations",
        "has shape (3, 3, 40); expected (3, 4, width)",
    ),
    "hidden states in two dimensions": (
        {"hidden_states": np.zeros((4, 7))},
        "hidden_states",
        "has shape (4, 7); expected (3, 4, width)",
    ),
    "embeddings in one dimension": ({"embeddings": np.zeros(4)}, "embeddings", "has shape (4,)"),
    "embeddings a number": ({"embeddings": 0.5}, "embeddings", "has shape ()"),
    "no width": ({"hidden_states": np.zeros((3, 4, 0))}, "hidden_states", "vectors of width 0"),
    "vast width": (
        {"embeddings": np.zeros((4, (1 << 20) + 1), np.float16)},
        "embeddings",
        "vectors of width 1,048,577; expected 1 to 1,048,576",
    ),
    "integers": ({"activations": np.zeros((3, 4, 40), int)}, "activations", "has dtype int64"),
    "booleans": ({"embeddings": np.zeros((4, 5), bool)}, "embeddings", "has dtype bool"),
    "bfloat16": (
        {"hidden_states": np.zeros((3, 4, 7), "V2")},
        "hidden_states",
        "Save it as float32 (bfloat16 included)",
    ),
    "Fortran order": (
        {"embeddings": np.asfortranarray(np.ones((4, 5)))},
        "embeddings",
        "is in Fortran order",
    ),
    "big-endian": ({"embeddings": np.ones((4, 5), ">f4")}, "embeddings", "dtype '>f4'"),
    "index as an array": (
        {"sentence_index": [1]},
        "sentence_index",
        "has shape (1,); expected one number, shape ()",
    ),
    "index as text": ({"sentence_index": "1"}, "sentence_index", "of <U1"),
    "index as a bool": ({"sentence_index": True}, "sentence_index", "of bool"),
    "half an index": ({"sentence_index": 0.5}, "sentence_index", "is 0.5; expected a whole number"),
    "index NaN": ({"sentence_index": np.nan}, "sentence_index", "is nan"),
    "index infinite": ({"sentence_index": np.inf}, "sentence_index", "is inf"),
    "index beyond int64": ({"sentence_index": 1e300}, "sentence_index", "is 1e+300"),
    "sentence as an array": ({"sentence": ["a"]}, "sentence", "has shape (1,) of <U1"),
    "sentence as a number": ({"sentence": 7}, "sentence", "of int64; expected text"),
    "a sentence of 4 MB": ({"sentence": "x" * (1 << 20)}, "sentence", "expected at most 1,048,576"),
}


@pytest.mark.parametrize(("change", "member", "found"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_at_fault_is_named_with_its_member(tmp_path, change, member, found):
    write_folder(tmp_path, 3, n_tokens=4)
    rewrite(name_of(tmp_path, 1), **change)
    with pytest.raises(FileFormatError) as error:
        load_activations(tmp_path)
    assert_one_line(error, name_of(tmp_path, 1), f"member '{member}'", found, "; expected ")


def test_a_file_without_any_activations_is_refused(tmp_path):
    write_folder(tmp_path, 1, omit=["embeddings", "hidden_states", "activations"])
    with pytest.raises(FileFormatError) as error:
        load_activations(tmp_path)
    assert_one_line(error, name_of(tmp_path, 0), "holds no activations; expected embeddings or")


def test_a_sentence_of_no_tokens_is_refused(tmp_path):
    write_sentence(
        tmp_path / "sentence_0.npz",
        embeddings=np.zeros((0, 5)),
        hidden_states=np.zeros((3, 0, 7)),
        activations=np.zeros((3, 0, 40)),
        is_final_token=np.zeros(0, bool),
    )
    with pytest.raises(FileFormatError) as error:
        load_activations(tmp_path)
    assert_one_line(error, tmp_path / "sentence_0.npz", "has no tokens; expected at least 1")


def test_a_sentence_that_is_not_unicode_is_refused(tmp_path):
    path = tmp_path / "sentence_0.npz"
    write_sentence(path, sentence="x", compress=False)
    start, length = data_position(path, "sentence")
    content = bytearray(path.read_bytes())
    old = bytes(content[start : start + length])
    new = old[:-4] + b"\xff\xff\xff\xff"
    old_crc, new_crc = (struct.pack("<I", zlib.crc32(raw)) for raw in (old, new))
    path.write_bytes(content.replace(old, new).replace(old_crc, new_crc))
    with pytest.raises(FileFormatError) as error:
        load_activations(tmp_path)
    assert_one_line(error, path, "member 'sentence' has characters beyond unicode")


def test_a_file_that_is_no_archive_is_named(tmp_path):
    write_folder(tmp_path, 3)
    name_of(tmp_path, 1).write_bytes(b"")
    for n_jobs in (1, 2):
        with pytest.raises(FileFormatError) as error:
            load_activations(tmp_path, n_jobs=n_jobs)
        assert_one_line(error, name_of(tmp_path, 1), "cannot be read as a zip archive")
    name_of(tmp_path, 1).unlink()
    name_of(tmp_path, 1).mkdir()
    with pytest.raises(FileFormatError, match="is not a regular file"):
        load_activations(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "max", "none"])
@pytest.mark.parametrize("final", [[False] * 4, [True] * 4])
def test_final_tokens_matter_to_the_final_pooling_only(tmp_path, pooling, final):
    files = write_folder(tmp_path, 2, n_tokens=4, changes={1: {"is_final_token": final}})
    acts = load_activations(tmp_path, pooling=pooling)
    assert_rows(acts, files, pooling, {0: 0, 1: 1, 2: 2})


@pytest.mark.parametrize("member", ["embeddings", "hidden_states", "activations"])
def test_a_member_that_no_file_has_is_missed_when_it_is_asked_for(tmp_path, member):
    write_folder(tmp_path, 2, omit=[member])
    acts = load_activations(tmp_path)
    asks = {
        "embeddings": [lambda: acts.embeddings, lambda: acts.d_embed],
        "hidden_states": [lambda: acts.layer(0), lambda: acts.hidden_states, lambda: acts.d_model],
        "activations": [lambda: acts.sae_activations(0), lambda: acts.feature(0, 0)],
    }
    for ask in asks.pop(member):
        with pytest.raises(FileFormatError) as error:
            ask()
        assert_one_line(error, name_of(tmp_path, 0), f"member '{member}' is missing")
    for others in asks.values():
        for ask in others:
            ask()
    assert acts.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("label", "found"),
    [(4, "is 4"), (-1, "is -1"), (1.5, "is 1.5"), (np.nan, "is nan"), (None, "is missing")],
)
def test_a_bad_label_is_an_error_when_labels_are_asked_for(tmp_path, label, found):
    change = {"omit": ["concept_strength_label"]}
    if label is not None:
        change = {"concept_strength_label": label}
    write_folder(tmp_path, 3, changes={2: change})
    acts = load_activations(tmp_path)
    assert acts.hidden_states.shape == (3, 3, 7)
    with pytest.raises(FileFormatError) as error:
        acts.labels  # noqa: B018
    assert_one_line(
        error,
        name_of(tmp_path, 2),
        f"member 'concept_strength_label' {found}; expected a label that is 0, 1, 2 or 3",
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float32"])
def test_labels_of_any_number_type_become_int64(tmp_path, dtype):
    write_folder(tmp_path, 2, concept_strength_label=np.array(3, dtype))
    labels = load_activations(tmp_path).labels
    assert (labels.dtype, labels.tolist()) == (np.int64, [3, 3])


# --- NaN and infinity ---------------------------------------------------------------------------


def write_with(folder, member, value, *places, dtype="float32"):
    """Three sentences of four tokens, the last one final; the second has this value at places."""
    final = np.arange(4) == 3
    content = write_folder(folder, 3, n_tokens=4, is_final_token=final, dtype=dtype)[1]
    for place in places:
        content[member][place] = value
    rewrite(name_of(folder, 1), **{member: content[member]})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nan_and_infinity_are_errors_where_they_are_used(tmp_path, value, dtype):
    write_with(tmp_path, "hidden_states", value, (2, 3, 4), (2, 3, 6), dtype=dtype)
    acts = load_activations(tmp_path)
    assert acts.layer(0).shape == acts.layer(1).shape == (3, 7)
    assert acts[[0, 2]].layer(2).shape == (2, 7)
    assert acts.embeddings.shape == (3, 5)
    for use in (lambda: acts.layer(2), lambda: acts[[2, 1]].layer(2), lambda: acts.hidden_states):
        with pytest.raises(DataError) as error:
            use()
        assert_one_line(
            error,
            name_of(tmp_path, 1),
            "member 'hidden_states' layer 2 has 2 NaN or infinite values; expected finite numbers",
            "Extract these sentences again in float32",
        )
    assert "(1 of 3 rows" in str(error.value)


def test_nan_in_a_token_that_is_not_final_is_used_by_other_poolings_only(tmp_path):
    write_with(tmp_path, "embeddings", np.nan, (0, 2))
    assert load_activations(tmp_path).embeddings.shape == (3, 5)
    for pooling in ("mean", "max", "none"):
        with pytest.raises(DataError, match=r"000001\.npz: member 'embeddings' has 1 NaN"):
            load_activations(tmp_path, pooling=pooling).embeddings  # noqa: B018


@pytest.mark.parametrize("pooling", ["mean", "max", "none"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_survive_every_pooling_without_a_warning(tmp_path, pooling, value):
    write_with(tmp_path, "hidden_states", value, (0, slice(None), 1), (1, slice(None), 1))
    with np.load(name_of(tmp_path, 1)) as file:
        states = file["hidden_states"]
    states[0, 1, 1] = np.inf
    rewrite(name_of(tmp_path, 1), hidden_states=states)
    acts = load_activations(tmp_path, pooling=pooling)
    for layer in (0, 1):
        with pytest.raises(DataError, match=f"'hidden_states' layer {layer} has 1 NaN or infinite"):
            acts.layer(layer)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_float64_beyond_float32_is_not_finite_and_no_warning(tmp_path, pooling):
    write_with(tmp_path, "hidden_states", 1e300, (0, slice(None), 1), dtype="float64")
    with pytest.raises(DataError, match="'hidden_states' layer 0 has 1 NaN or infinite values"):
        load_activations(tmp_path, pooling=pooling).layer(0)


def test_nan_in_an_activation_is_an_error_for_its_feature_only(tmp_path):
    write_with(tmp_path, "activations", np.nan, (1, 3, 30))
    acts = load_activations(tmp_path)
    assert acts.feature(1, 29).shape == acts.feature(0, 30).shape == (3,)
    assert acts[[0, 2]].feature(1, 30).shape == (2,)
    with pytest.raises(DataError) as error:
        acts.feature(1, 30)
    assert_one_line(
        error, name_of(tmp_path, 1), "member 'activations' layer 1, feature 30 has 1 NaN"
    )


# --- layers and configs that are not there ------------------------------------------------------


def test_an_unknown_layer_is_named_with_those_there_are(tmp_path):
    write_folder(tmp_path, 2, **CONFIGS)
    acts = load_activations(tmp_path)
    for ask in (
        acts.layer,
        acts.sae_activations,
        acts.rows.find_config,
        lambda layer: acts.feature(layer, 0),
        lambda layer: acts.prefetch(layers=[0, layer]),
    ):
        with pytest.raises(LayerNotFoundError) as error:
            ask(31)
        assert str(error.value).startswith("Layer 31 not found in data: it has layers 0,3,12.")


def test_a_repeated_layer_is_ambiguous_only_for_a_target(tmp_path):
    files = write_folder(tmp_path, 2, **CONFIGS)
    acts = load_activations(tmp_path)
    assert acts.layer(12).shape == (2, 7)
    assert [
        acts.rows.find_config(3),
        acts.rows.find_config(12, 70),
        acts.rows.find_config(12, 141),
    ] == [1, 0, 2]
    for place, average_l0 in ((0, 70), (2, 141)):
        expected = rows_of(files, "final", "activations", place)
        np.testing.assert_array_equal(expected, acts.sae_activations(12, average_l0).toarray())
    with pytest.raises(FeatureNotFoundError) as error:
        acts.rows.find_config(12)
    assert str(error.value).startswith("average_l0 mismatch: layer 12 has 2 SAE configs")
    assert "70, 141" in str(error.value)
    assert "Give average_l0=..." in str(error.value)


# --- change after loading -----------------------------------------------------------------------


def test_a_file_that_changed_after_loading_is_an_error_when_it_is_read(tmp_path):
    write_folder(tmp_path, 3)
    acts = load_activations(tmp_path)
    write_sentence(name_of(tmp_path, 2), index=2, seed=9)
    with pytest.raises(FileFormatError) as error:
        acts.layer(0)
    assert_one_line(error, name_of(tmp_path, 2), "has changed since its folder was opened")
    write_sentence(name_of(tmp_path, 2), index=2)
    assert acts.layer(0).shape == (3, 7)
    name_of(tmp_path, 1).unlink()
    with pytest.raises(FileFormatError) as error:
        acts.embeddings  # noqa: B018
    assert_one_line(error, name_of(tmp_path, 1), "cannot be read (No such file or directory)")


def test_the_fingerprint_is_of_the_content(tmp_path):
    write_folder(tmp_path / "a", 3)
    expected = load_activations(tmp_path / "a").fingerprint
    assert len(expected) == 64
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    for path in (tmp_path / "elsewhere" / "b").iterdir():
        os.utime(path, (1, 1))
    assert load_activations(tmp_path / "elsewhere" / "b").fingerprint == expected
    assert load_activations(tmp_path / "a", pooling="none", n_jobs=2).fingerprint == expected
    write_folder(tmp_path / "stored", 3, compress=False)
    assert load_activations(tmp_path / "stored").fingerprint == expected


@pytest.mark.parametrize("member", ["hidden_states", "activations", "concept_strength_label"])
def test_the_fingerprint_differs_when_one_value_does(tmp_path, member):
    (content, *_) = write_folder(tmp_path, 3)
    expected = load_activations(tmp_path).fingerprint
    content[member][(0,) * content[member].ndim] += 1
    rewrite(name_of(tmp_path, 0), **{member: content[member]})
    assert load_activations(tmp_path).fingerprint != expected


def test_the_fingerprint_differs_when_a_file_is_renamed_or_gone(tmp_path):
    write_folder(tmp_path, 3)
    prints = {load_activations(tmp_path).fingerprint}
    name_of(tmp_path, 2).rename(tmp_path / "sentence_2.npz")
    prints.add(load_activations(tmp_path).fingerprint)
    (tmp_path / "sentence_2.npz").unlink()
    prints.add(load_activations(tmp_path).fingerprint)
    assert len(prints) == 3


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False], ids=["deflated", "stored"])
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path, compress):
    options = {"n_tokens": 3, "layers": (4, 2), "n_features": 8, "compress": compress}
    files = write_folder(tmp_path, 2, **options)
    path = name_of(tmp_path, 1)
    content = path.read_bytes()
    rng = np.random.default_rng(8)
    noticed = 0
    for trial, bit in enumerate(rng.choice(8 * len(content), 120, replace=False).tolist()):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        message = str(path)
        try:
            acts = load_activations(tmp_path)
            assert acts.labels.tolist() == [0, 1]
            assert acts.sentence_indices.tolist() == [0, 1]
            assert acts.sentences is None or acts.sentences[1] == "This is sentence 1."
            assert_rows(acts, files, "final", {4: 0, 2: 1})
        except DataError as error:
            message = str(error)
            noticed += 1
        except Exception as error:
            raise AssertionError(f"seed 8, trial {trial}, bit {bit}") from error
        assert str(path) in message
    assert noticed > 40


class TestOrderAndExtentOfRows:
    def test_files_come_in_the_order_of_the_numbers_in_their_names(self, tmp_path):
        for index in (10, 2, 1, 0, 11):
            write_sentence(tmp_path / f"sentence_{index}.npz", index=index)

        with pytest.warns(SklprepWarning, match="gaps in the numbering"):
            acts = load_activations(tmp_path)

        assert acts.sentence_indices.tolist() == [0, 1, 2, 10, 11]

    def test_names_padded_with_zeros_keep_the_order_of_their_text(self, tmp_path):
        names = [f"sentence_{index:04d}.npz" for index in (0, 1, 2, 10, 100)]
        for index, name in enumerate(names):
            write_sentence(tmp_path / name, index=index)

        with pytest.warns(SklprepWarning, match="gaps"):
            acts = load_activations(tmp_path)

        assert acts.rows.file_names.tolist() == sorted(names)

    @pytest.mark.parametrize("name", ["a_{}", "part2_{}", "{}_of_12"])
    def test_other_names_come_in_the_order_of_all_their_numbers(self, tmp_path, name):
        for index in (9, 11, 100):
            write_sentence(tmp_path / f"sentence_{name.format(index)}.npz", index=index)

        assert load_activations(tmp_path).sentence_indices.tolist() == [9, 11, 100]

    @pytest.mark.parametrize("pooling", ["mean", "max", "none"])
    def test_tokens_behind_the_final_one_are_warned_about_where_they_count(self, tmp_path, pooling):
        write_folder(tmp_path, 3, n_tokens=5, changes={1: {"final": -3}})

        with pytest.warns(SklprepWarning) as seen:
            load_activations(tmp_path, pooling=pooling)

        (message,) = [str(one.message) for one in seen]
        assert message.startswith(f"1 of 3 files of {tmp_path} have tokens after the final one")
        assert "(first: sentence_000001.npz, 2)" in message

    def test_tokens_behind_the_final_one_do_not_matter_to_final_pooling(self, tmp_path):
        (content, *_) = write_folder(tmp_path, 3, n_tokens=5, final=-3)

        acts = load_activations(tmp_path)

        np.testing.assert_array_equal(content["embeddings"][2], acts.embeddings[0])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("acts.pt", "torch.load(sys.argv[1], weights_only=True)"),
        ("acts.pkl", "Pickles are not read"),
        ("acts.h5", "Give that file instead of the folder"),
        ("activations.npz", "ActivationSet.from_arrays"),
        ("data.parquet", "ActivationSet.from_arrays"),
    ],
)
def test_a_folder_of_other_files_says_how_to_bring_them_in(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"")

    with pytest.raises(DataError) as error:
        load_activations(tmp_path)

    assert str(error.value).startswith(f"No sentence_*.npz files found in {tmp_path}: it holds ")
    assert name in str(error.value)
    assert advice in str(error.value)
