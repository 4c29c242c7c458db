"""Sets written out, as packs and as sentence files: what comes back, and what is refused."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from scipy.sparse import csr_array
from sentence_files import damage, rewrite, write_folder, write_sentence

from sklprep import (
    ActivationSet,
    from_hidden_states,
    generate_dataset,
    load_activations,
    make_strategy,
)
from sklprep.cli.main import main
from sklprep.exceptions import DataError, FileFormatError, OutputError, UsageError
from sklprep.formats.pack_reader import Pack
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.rows import Rows
from sklprep.formats.sentence_folder import SentenceFolder

CONFIGS = (5, 2, 2, 0)  # not ascending, and two SAE configs of layer 2


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    """These tests kill processes, not machines: they need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """Nine sentence files in float16 and a pack of their tokens: not to change."""
    place = tmp_path_factory.mktemp("written")
    write_folder(place / "dumps", 9, layers=CONFIGS, dtype="float16")
    build_pack(SentenceFolder(place / "dumps", pooling="none"), place / "tokens")
    build_pack(SentenceFolder(place / "dumps"), place / "pack")
    lines = [f"{i},{7 + i % 3},{i // 2}" for i in range(9)]
    (place / "joined.csv").write_text("\n".join(["sentence_index,label,group", *lines, ""]))
    return place


def arrays(**changes):
    """What `from_arrays` takes: 6 rows, 3 layers, SAEs of two of them, groups of two rows."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 3, 5)) * (rng.random((6, 3, 5)) < 0.4)
    given = {
        "hidden_states": rng.normal(size=(6, 3, 4)).astype(np.float32),
        "embeddings": rng.normal(size=(6, 2)),
        "activations": features,
        "labels": [2, 0, 3, 1, 0, 0],
        "layers": [7, 1, 4],
        "sae_layers": [4, 7, 1],
        "average_l0s": [2.5, 30, 71],
        "sentences": [f"Sentence {i % 5}." for i in range(6)],
        "groups": [50, 50, 7, 7, 20, 20],
    } | changes
    return {name: value for name, value in given.items() if value is not None}


def bare(**more):
    return ActivationSet.from_arrays(hidden_states=arrays()["hidden_states"], **more)


def odd_matrices():
    """CSR with columns out of order and a zero that is stored."""
    matrix = csr_array(
        (np.float32([3, 0, 1, 2]), np.int32([4, 1, 2, 0]), np.int32([0, 2, 2, 4, 4])),
        shape=(4, 5),
    )
    return ActivationSet.from_arrays(activations=[matrix, 2 * matrix], sae_layers=[3, 3])


def returned(pooling, **more):
    """Of a model, for two batches of 2 and 1 sentences of at most 4 tokens."""
    rng = np.random.default_rng(1)
    batches = [tuple(rng.normal(size=(n, 4, 6)) for _ in range(3)) for n in (2, 1)]
    masks = [[[1, 1, 1, 1], [0, 1, 1, 0]], [[1, 1, 1, 0]]]
    return from_hidden_states(batches, masks, pooling=pooling, **more)


def opened(place, pooling="final", **options):
    return load_activations(place / "dumps", pooling=pooling, **options)


def packed(place, name="pack"):
    return load_activations(place / name, pooling="none" if name == "tokens" else "final")


def without(acts, *numbers):
    fault = FileFormatError("It is at fault.")
    return acts.without({f"sentence_{number:06d}.npz": fault for number in numbers})


SETS = {
    "arrays": lambda place: ActivationSet.from_arrays(**arrays()),
    "rows of arrays": lambda place: ActivationSet.from_arrays(**arrays())[[4, 1, 1, 0]],
    "hidden states alone": lambda place: bare(),
    "embeddings alone": lambda place: ActivationSet.from_arrays(embeddings=np.eye(3)),
    "odd matrices": lambda place: odd_matrices(),
    "labels of text": lambda place: bare(labels=list("yes no")),
    "labels of floats": lambda place: bare(labels=[0.25, np.nan, -1e300, np.inf, 0, 1]),
    "labels of booleans": lambda place: bare(labels=np.arange(6) % 2 == 0),
    "labels of small integers": lambda place: bare(labels=np.arange(-3, 3, dtype=np.int16)),
    "a model's rows": lambda place: returned("mean", labels=[0, 9, 4]),
    "a model's tokens": lambda place: returned("none", sentences=["a", "b", "a"], groups=[5, 5, 1]),
    "a folder": lambda place: opened(place),
    "means of a folder": lambda place: opened(place, "mean"),
    "tokens of a folder": lambda place: opened(place, "none"),
    "rows of a folder": lambda place: opened(place)[[8, 2, 3, 0]],
    "rows of a folder, repeated": lambda place: opened(place)[[3, 2, 3, 3]],
    "tokens of sentences": lambda place: opened(place, "none")[opened(place, "none").groups > 6],
    "tokens of a folder, shuffled": lambda place: opened(place, "none")[::-3],
    "a folder with a CSV": lambda place: opened(
        place, labels=place / "joined.csv", groups=place / "joined.csv"
    ),
    "rows of a folder with a CSV": lambda place: opened(
        place, "none", labels=place / "joined.csv", groups=place / "joined.csv"
    )[5:30],
    "a pack": lambda place: packed(place),
    "tokens of a pack": lambda place: packed(place, "tokens")[4:20],
    "a mask of a pack": lambda place: packed(place)[packed(place).labels > 1],
    "a folder without a file": lambda place: without(opened(place), 3),
    "rows of a folder without a file": lambda place: without(opened(place, "none"), 3)[8:],
    "a pack without a file": lambda place: without(packed(place, "tokens"), 0),
    "no rows": lambda place: opened(place)[[]],
}


def assert_same(expected, actual, *, besides=()):
    """All that a user can ask of the two sets is equal, to the bit and the dtype."""
    assert repr(expected) == repr(actual)
    names = {"sentence_indices", "groups", "sentences", "layers", "sae_layers", "labels"}
    for name in names - set(besides):
        compare(name, expected, actual)
    n = len(expected.sae_layers)  # files have average_l0s even without activations
    np.testing.assert_array_equal(expected.average_l0s[:n], actual.average_l0s[:n])
    for name, width in zip(
        ("embeddings", "hidden_states"),
        (expected.rows.source.d_embed, expected.rows.source.d_model),
        strict=True,
    ):
        if width is not None:
            compare(name, expected, actual)
    for one, other in zip(expected.activations, actual.activations, strict=True):
        for part in ("data", "indices", "indptr"):
            compare(part, one, other)


def compare(name, expected, actual):
    try:
        value = getattr(expected, name)
    except DataError:
        with pytest.raises(DataError, match="no labels"):
            getattr(actual, name)
        return
    found = getattr(actual, name)
    if value is None:
        assert found is None
    else:
        np.testing.assert_array_equal(value, found)
        assert value.dtype.kind in ("U", found.dtype.kind)
        assert value.dtype.kind == "U" or value.dtype == found.dtype


def content_of(folder):
    """Every file below a folder by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestPack:
    @pytest.mark.parametrize("kind", SETS)
    def test_it_gives_the_set_again(self, dumps, tmp_path, kind):
        acts = SETS[kind](dumps)

        assert acts.to_pack(tmp_path / "new" / "pack") is None

        read = load_activations(tmp_path / "new" / "pack", pooling=acts.pooling)
        assert_same(acts, read)
        for name in ("is_pooled", "stored_dtype"):
            assert getattr(acts.rows.source, name) == getattr(read.rows.source, name)
        for name in ("name", "fingerprint"):
            assert getattr(acts, name) == getattr(read, name)
        assert read.rows.file_names.tolist() == acts.rows.file_names.tolist()
        assert list(read.left_out) == list(acts.left_out)
        n = len(acts) // 2
        assert_same(acts[n:], read[n:])
        assert Pack(tmp_path / "new" / "pack", pooling=None).verify() == []
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["pack"]

    def test_it_is_plain_numpy(self, tmp_path):
        given = arrays()
        ActivationSet.from_arrays(**given)[[5, 4, 0]].to_pack(tmp_path / "pack")

        def load(name):
            return np.load(tmp_path / "pack" / f"{name}.npy")

        for layer, position in ((7, 0), (1, 1), (4, 2)):
            expected = given["hidden_states"][[5, 4, 0], position]
            np.testing.assert_array_equal(expected, load(f"hidden_states/L{layer}"), strict=True)
        expected = given["embeddings"][[5, 4, 0]].astype(np.float32)
        np.testing.assert_array_equal(expected, load("embeddings"), strict=True)
        for number, stem in enumerate(("000_L4_l0_2.5", "001_L7_l0_30", "002_L1_l0_71")):
            triplet = [load(f"activations/{stem}_{part}") for part in ("data", "indices", "indptr")]
            expected = given["activations"][[5, 4, 0], number].astype(np.float32)
            np.testing.assert_array_equal(expected, csr_array(tuple(triplet), (3, 5)).toarray())
        assert load("labels").tolist() == [0, 0, 2]
        assert load("groups").tolist() == load("sentence_indices").tolist() == [1, 1, 2]
        sentence_of_row = load("sentence_of_row")
        assert sentence_of_row.tolist() == [0, 1, 2]
        expected = ["Sentence 0.", "Sentence 4.", "Sentence 0."]
        assert load("sentences")[sentence_of_row].tolist() == expected
        assert json.loads((tmp_path / "pack" / "manifest.json").read_text())["n_sentences"] == 3

    @pytest.mark.filterwarnings("ignore::sklprep.exceptions.SklprepWarning")
    @pytest.mark.parametrize(
        ("kind", "layers"),
        [
            ("arrays", "1,7"),
            ("a folder with a CSV", "2"),
            ("tokens of sentences", "0,5"),
            ("rows of a folder without a file", "5"),
        ],
    )
    def test_a_dataset_of_it_has_the_bytes_of_the_one_of_the_set(
        self, dumps, tmp_path, kind, layers
    ):
        acts = SETS[kind](dumps)
        acts.to_pack(tmp_path / "pack")
        read = load_activations(tmp_path / "pack", pooling=acts.pooling)
        for name, one in (("set", acts), ("pack", read)):
            pipeline, target = make_strategy("hidden-to-concept", layers=layers)
            generate_dataset(one, pipeline, target, output=tmp_path / f"{name}.npz")
        assert (tmp_path / "set.npz").read_bytes() == (tmp_path / "pack.npz").read_bytes()

    def test_equal_rows_give_equal_bytes_whatever_holds_them(self, tmp_path):
        given = arrays()
        turned = np.asfortranarray(given["hidden_states"].astype(np.float64))
        ActivationSet.from_arrays(**given).to_pack(tmp_path / "a")
        ActivationSet.from_arrays(**given | {"hidden_states": turned}).to_pack(tmp_path / "b" / "c")
        load_activations(tmp_path / "a").to_pack(tmp_path / "d")
        expected = content_of(tmp_path / "a")
        assert expected == content_of(tmp_path / "b" / "c") == content_of(tmp_path / "d")

    def test_of_a_whole_folder_it_is_what_sklprep_pack_makes(self, dumps, tmp_path):
        opened(dumps).to_pack(tmp_path / "pack")
        assert content_of(tmp_path / "pack") == content_of(dumps / "pack")

    def test_rows_that_are_in_no_order_of_files_are_taken_from_memory(self, tmp_path):
        write_folder(tmp_path / "dumps", 3)
        tokens = load_activations(tmp_path / "dumps", pooling="none")
        tokens.prefetch(embeddings=True, layers=[0, 1, 2], configs=[0, 1, 2])
        shutil.rmtree(tmp_path / "dumps")  # each of its files would be inflated many times
        rows = np.random.default_rng(0).permutation(len(tokens))
        tokens[rows].to_pack(tmp_path / "pack")
        assert_same(tokens[rows], load_activations(tmp_path / "pack", pooling="none"))

    def test_float16_stays_float16(self, dumps, tmp_path):
        opened(dumps)[1:5].to_pack(tmp_path / "pack")
        stored = np.load(tmp_path / "pack" / "hidden_states" / "L2.npy")
        assert stored.dtype == np.float16

    def test_it_does_not_grow(self, dumps, tmp_path):
        opened(dumps)[:4].to_pack(tmp_path / "pack")
        before = content_of(tmp_path / "pack")
        with pytest.raises(
            UsageError, match=r"pack was packed from rows of an ActivationSet.* new folder"
        ):
            build_pack(SentenceFolder(dumps / "dumps"), tmp_path / "pack")
        assert content_of(tmp_path / "pack") == before

    def test_its_files_can_be_left_out(self, dumps, tmp_path):
        acts = opened(dumps)[[5, 2, 7, 3]]
        acts.to_pack(tmp_path / "pack")
        read = load_activations(tmp_path / "pack")
        fewer = without(read, 2, 7)
        assert_same(read[[0, 3]], fewer)
        assert list(fewer.left_out) == ["sentence_000002.npz", "sentence_000007.npz"]
        assert fewer.fingerprint == without(without(read, 7), 2).fingerprint
        assert len({one.fingerprint for one in (read, without(read, 7), fewer)}) == 3
        assert without(read).fingerprint == read.fingerprint
        fewer.to_pack(tmp_path / "fewer")
        again = load_activations(tmp_path / "fewer")
        assert (list(again.left_out), again.fingerprint) == (
            list(fewer.left_out),
            fewer.fingerprint,
        )

    def test_a_bad_value_names_the_row_and_its_file_or_else_its_sentence(self, tmp_path):
        states = arrays()["hidden_states"].copy()
        states[4, 1] = np.nan
        ActivationSet.from_arrays(hidden_states=states)[3:].to_pack(tmp_path / "a")
        with pytest.raises(DataError, match=r"a \(row 1, sentence_index 4\).*layer 1"):
            load_activations(tmp_path / "a").layer(1)

        write_folder(tmp_path / "dumps", 3)
        bad = np.load(tmp_path / "dumps" / "sentence_000002.npz")["hidden_states"] * np.inf
        rewrite(tmp_path / "dumps" / "sentence_000002.npz", hidden_states=bad)
        load_activations(tmp_path / "dumps")[1:].to_pack(tmp_path / "b")
        with pytest.raises(DataError, match=r"b \(row 1, from sentence_000002.npz\)"):
            load_activations(tmp_path / "b").layer(1)

    def test_what_is_wrong_with_labels_is_told_without_the_place(self, tmp_path):
        write_folder(tmp_path / "dumps", 3, changes={1: {"omit": ("concept_strength_label",)}})
        load_activations(tmp_path / "dumps")[:2].to_pack(tmp_path / "a")
        load_activations(tmp_path / "a")[:1].to_pack(tmp_path / "b")
        with pytest.raises(DataError, match=r"/b has no labels: sentence_000001.npz: member"):
            _ = load_activations(tmp_path / "b").labels

    @pytest.mark.parametrize(
        "labels", [np.array([{}] * 6), np.ones(6, complex), np.zeros(6, "M8[D]")]
    )
    def test_labels_that_are_neither_numbers_nor_text_are_refused(self, tmp_path, labels):
        with pytest.raises(UsageError, match=r"Labels of dtype .* cannot be packed"):
            bare(labels=labels).to_pack(tmp_path / "pack")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["labels", "sentence_of_row"])
    def test_damage_to_the_arrays_of_a_set_is_found(self, tmp_path, name):
        ActivationSet.from_arrays(**arrays(labels=np.arange(6) < 3)).to_pack(tmp_path / "pack")
        path = tmp_path / "pack" / f"{name}.npy"
        content = bytearray(path.read_bytes())
        content[-8 if name != "labels" else -1] = 99
        path.write_bytes(content)
        acts = load_activations(tmp_path / "pack")
        with pytest.raises(FileFormatError, match=rf"{name}.npy"):
            _ = acts.labels, acts.sentences
        assert acts.rows.source.verify()

    @pytest.mark.parametrize("name", ["groups", "sentence_of_row", "sentences", "hidden_states/L4"])
    def test_an_array_of_another_kind_than_its_name_says_is_refused(self, tmp_path, name):
        ActivationSet.from_arrays(**arrays()).to_pack(tmp_path / "pack")
        path = tmp_path / "pack" / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["arrays"][name]["dtype"] = "<i4"
        path.write_text(json.dumps(manifest))
        with pytest.raises(FileFormatError, match=rf"manifest.json: member '{name}' has dtype <i4"):
            load_activations(tmp_path / "pack")

    def test_inspect_describes_it(self, dumps, tmp_path, capsys):
        tokens = opened(dumps, "none")
        tokens[tokens.groups > 5].to_pack(tmp_path / "pack")
        assert main(["inspect", str(tmp_path / "pack"), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        lengths = np.bincount(tokens.groups)[6:]
        assert facts["tokens"] == {
            "min": lengths.min(),
            "median": np.median(lengths),
            "max": lengths.max(),
            "sum": lengths.sum(),
        }
        assert (facts["n_sentences"], facts["n_rows"]) == (3, lengths.sum())

    def test_packing_a_pack_on_the_command_line_says_what_to_do(self, dumps, tmp_path, capsys):
        assert main(["pack", str(dumps / "pack"), str(tmp_path / "out")]) == 2
        message = capsys.readouterr().err
        assert re.fullmatch(r"Error: .*/pack is a pack already: .*--verify.*\n", message)
        assert list(tmp_path.iterdir()) == []


DISTINCT = {"sentences": None, "groups": None}
IN_FILES = {
    "arrays": lambda place: ActivationSet.from_arrays(**arrays(**DISTINCT)),
    "rows of arrays": lambda place: ActivationSet.from_arrays(**arrays(**DISTINCT))[[4, 1, 0]],
    "hidden states alone": lambda place: bare(labels=[0.0, 1.0, 2.0, 3.0, 0.0, 1.0]),
    "a model's rows": lambda place: returned("max", labels=[0, 3, 1], sentences=["a", "b", "c"]),
    "a model's tokens": lambda place: returned("none", labels=[0, 3, 1]),
    **{
        kind: SETS[kind]
        for kind in (
            "a folder",
            "means of a folder",
            "tokens of a folder",
            "rows of a folder",
            "tokens of sentences",
            "a pack",
            "a mask of a pack",
        )
    },
    "tokens of a pack": lambda place: packed(place, "tokens"),
    "one label for all": lambda place: opened(place)[opened(place).labels == 1],
}


def relabelled(place, **joined):
    """Tokens of a folder with other values for each row."""
    source = SentenceFolder(place / "dumps", pooling="none")
    return ActivationSet(Rows(source, joined=joined))


REFUSED = {
    "no labels": (lambda place: bare(), "This set has no labels"),
    "labels out of range": (
        lambda place: bare(labels=[0, 1, 2, 4, 0, 5]),
        "Row 3 has the label 4; expected 0, 1, 2 or 3",
    ),
    "labels between": (lambda place: bare(labels=[0, 1, 2, 3, 0, 0.5]), "Row 5 has the label"),
    "labels of text": (lambda place: bare(labels=list("012301")), "Row 0 has the label '0'"),
    "no hidden states": (
        lambda place: ActivationSet.from_arrays(embeddings=np.eye(3), labels=[0, 1, 2]),
        "The set has no hidden states",
    ),
    "an SAE without hidden states": (
        lambda place: ActivationSet.from_arrays(**arrays(sae_layers=[1, 7, 9])),
        "Layer 4 has hidden states but no SAE features",
    ),
    "hidden states without an SAE": (
        lambda place: ActivationSet.from_arrays(**arrays(sae_layers=[0, 7, 1])),
        "Layer 0 has SAE features but no hidden states",
    ),
    "groups of several rows": (
        lambda place: ActivationSet.from_arrays(**arrays()),
        "Rows 0 and 1 share the sentence_index 2; expected a different one in each row",
    ),
    "equal texts": (
        lambda place: returned("mean", labels=[0, 1, 2], sentences=["a", "b", "a"]),
        "Rows 0 and 2 share the group 0; expected a different one in each row",
    ),
    "a row twice": (
        lambda place: opened(place)[[0, 3, 1, 3]],
        "Rows 1 and 3 share the sentence_index 3",
    ),
    "a sentence in two places": (
        lambda place: returned("none", labels=[0, 3, 1])[[0, 4, 5, 1, 2, 3]],
        "Rows 0 and 3 share the sentence_index 0; .* in each sentence, whose rows must be",
    ),
    "groups of several sentences": (
        lambda place: opened(place, "none", groups=place / "joined.csv"),
        r"Rows 0 and \d+ share the group 0; expected a different one in each sentence, whose",
    ),
    "groups within a sentence": (
        lambda place: relabelled(place, groups=np.arange(len(opened(place, "none")))),
        "Sentence 0 has rows with the groups 0 and 1; expected one group",
    ),
    "labels within a sentence": (
        lambda place: relabelled(place, labels=np.arange(len(opened(place, "none"))) % 4),
        "Sentence 0 has rows with the labels 0 and 1; expected one label",
    ),
    "no final token": (
        lambda place: packed(place, "tokens")[:-1],
        "Sentence 8 has 0 final tokens among its rows; expected 1. Keep whole sentences",
    ),
    "no rows": (lambda place: opened(place)[[]], "The set has no rows"),
}


class TestSentenceFiles:
    @pytest.mark.parametrize("kind", IN_FILES)
    def test_they_give_the_rows_again(self, dumps, tmp_path, kind):
        acts = IN_FILES[kind](dumps)

        assert acts.to_sentence_files(tmp_path / "new" / "files") is None

        pooling = "none" if acts.pooling == "none" else "final"
        read = load_activations(tmp_path / "new" / "files", pooling=pooling)
        for name in ("embeddings", "hidden_states"):
            source = acts.rows.source
            if {"embeddings": source.d_embed, "hidden_states": source.d_model}[name] is not None:
                compare(name, acts, read)
        for one, other in zip(acts.activations, read.activations, strict=True):
            np.testing.assert_array_equal(one.toarray(), other.toarray(), strict=True)
        for name in ("sentence_indices", "sentences", "layers", "sae_layers"):
            compare(name, acts, read)
        assert read.labels.dtype == np.int64
        np.testing.assert_array_equal(acts.labels, read.labels)
        n = len(acts.sae_layers)
        np.testing.assert_array_equal(acts.average_l0s[:n], read.average_l0s[:n])
        numbers = {group: number for number, group in enumerate(dict.fromkeys(acts.groups))}
        assert read.groups.tolist() == [numbers[group] for group in acts.groups]
        assert read.rows.source.stored_dtype == acts.rows.source.stored_dtype
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["files"]

    def test_they_are_what_the_format_says(self, dumps, tmp_path):
        opened(dumps, "none").to_sentence_files(tmp_path / "files")
        names = sorted(path.name for path in (tmp_path / "files").iterdir())
        assert names == [f"sentence_{i:06d}.npz" for i in range(9)]
        for index, name in enumerate(names):
            with np.load(dumps / "dumps" / name) as old, np.load(tmp_path / "files" / name) as new:
                assert set(new.files) == {
                    "embeddings",
                    "hidden_states",
                    "activations",
                    "is_final_token",
                    "concept_strength_label",
                    "sentence_index",
                    "sentence",
                    "layers",
                    "average_l0s",
                }
                for member in new.files:
                    np.testing.assert_array_equal(old[member], new[member], strict=True)
                assert new["hidden_states"].dtype == np.float16
                assert new["sentence_index"] == index

    def test_a_pooled_row_is_one_final_token_and_hidden_states_repeat_with_the_configs(
        self, tmp_path
    ):
        given = arrays(sentences=None, groups=None, sae_layers=[4, 7, 1], activations=None)
        rng = np.random.default_rng(2)
        given |= {"activations": rng.random((6, 4, 5)), "sae_layers": [4, 7, 1, 4]}
        given["average_l0s"] = [9, 30, 71, 80]
        ActivationSet.from_arrays(**given).to_sentence_files(tmp_path / "files")
        with np.load(tmp_path / "files" / "sentence_000003.npz") as file:
            expected = given["hidden_states"][3][[2, 0, 1, 2], np.newaxis]
            np.testing.assert_array_equal(expected, file["hidden_states"], strict=True)
            assert file["is_final_token"].tolist() == [True]
            assert file["layers"].tolist() == [4, 7, 1, 4]
            assert file["average_l0s"].tolist() == [9, 30, 71, 80]
            expected = given["activations"][3][:, np.newaxis].astype(np.float32)
            np.testing.assert_array_equal(expected, file["activations"], strict=True)
            assert "sentence" not in file.files

    @pytest.mark.parametrize("pooling", ["final", "mean", "max"])
    def test_tokens_can_be_pooled_as_those_of_the_folder_they_came_from(
        self, dumps, tmp_path, pooling
    ):
        opened(dumps, "none").to_sentence_files(tmp_path / "dumps")
        assert_same(opened(dumps, pooling), load_activations(tmp_path / "dumps", pooling=pooling))

    def test_final_tokens_stay_final_through_packs_of_any_order(self, dumps, tmp_path):
        tokens = opened(dumps, "none")
        tokens[::-1].to_pack(tmp_path / "reversed")
        load_activations(tmp_path / "reversed", pooling="none")[::-1].to_pack(tmp_path / "again")
        again = load_activations(tmp_path / "again", pooling="none")
        again.to_sentence_files(tmp_path / "dumps")
        assert_same(opened(dumps), load_activations(tmp_path / "dumps"))

    def test_the_final_token_of_a_model_is_the_last_real_one(self, tmp_path):
        returned("none", labels=[0, 3, 1]).to_sentence_files(tmp_path / "files")
        expected = returned("final", labels=[0, 3, 1])
        assert_same(expected, load_activations(tmp_path / "files"))

    def test_equal_rows_give_equal_bytes(self, dumps, tmp_path):
        for number in range(2):
            packed(dumps)[2:5].to_sentence_files(tmp_path / str(number) / "files")
        expected = content_of(tmp_path / "0" / "files")
        assert len(expected) == 3
        assert expected == content_of(tmp_path / "1" / "files")

    @pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
    def test_what_they_cannot_say_is_one_clear_error_and_nothing_is_written(
        self, dumps, tmp_path, make, message
    ):
        with pytest.raises(DataError, match=f"^{message}") as error:
            make(dumps).to_sentence_files(tmp_path / "files")
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []

    def test_the_command_line_takes_them(self, dumps, tmp_path, capsys):
        returned("final", labels=[0, 3, 1]).to_sentence_files(tmp_path / "files")
        assert main(["pack", str(tmp_path / "files"), str(tmp_path / "pack")]) == 0
        assert capsys.readouterr() == (
            f"{tmp_path / 'pack'}: 3 sentences, 3 rows, pooling final\n",
            "",
        )


WRITE = {
    "pack": lambda acts, path: acts.to_pack(path),
    "files": lambda acts, path: acts.to_sentence_files(path),
}


@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
class TestPlace:
    def test_a_path_that_is_taken_is_refused_before_anything_is_read(self, dumps, tmp_path, write):
        shutil.copytree(dumps / "pack", tmp_path / "pack")
        (tmp_path / "file").write_text("mine")
        shutil.copytree(dumps / "dumps", tmp_path / "dumps")
        before = content_of(tmp_path)
        acts = load_activations(tmp_path / "dumps")
        for name in ("pack", "file", "dumps"):
            for rows in (acts, acts[1:4]):
                with pytest.raises(OutputError, match=f"Output .*/{name} is n.*does not exist yet"):
                    write(rows, tmp_path / name)
        with pytest.raises(OutputError, match=r"file is a file, not a folder"):
            write(acts[1:4], tmp_path / "file" / "below")
        assert content_of(tmp_path) == before
        assert len(list(tmp_path.iterdir())) == 3

    def test_an_empty_folder_a_link_and_missing_parents_are_fine(self, dumps, tmp_path, write):
        acts = opened(dumps)[:2]
        (tmp_path / "empty").mkdir()
        (tmp_path / "linked").mkdir()
        (tmp_path / "link").symlink_to("linked")
        paths = [tmp_path / "empty", tmp_path / "link", str(tmp_path / "a" / "b" / "c")]
        for path in paths:
            write(acts, path)
            assert len(load_activations(path)) == 2
        assert (tmp_path / "link").is_symlink()
        assert {path.name for path in tmp_path.iterdir()} == {"empty", "linked", "link", "a"}

    @pytest.mark.parametrize("rows", [slice(None), [0, 2]])
    def test_a_damaged_source_leaves_nothing_under_the_name(self, tmp_path, write, rows):
        write_folder(tmp_path / "dumps", 4)
        damage(tmp_path / "dumps" / "sentence_000002.npz", "hidden_states")
        acts = load_activations(tmp_path / "dumps")[rows]
        with pytest.raises(FileFormatError, match=r"sentence_000002\.npz"):
            write(acts, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["dumps"]


@pytest.mark.parametrize("method", ["to_pack", "to_sentence_files"])
class TestProcess:
    def test_killed_at_any_write_it_leaves_nothing_or_all(
        self, dumps, tmp_path, run_python, method
    ):
        """Each write, rename and removal is the last deed of one process, without a flush."""
        code = """
import os, pathlib, shutil, signal, sys
import sklprep, sklprep.formats.pack_writer
from sklprep.formats.pack_array import ArrayWriter

left = 1 << 60

def dying(function):
    def wrapper(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

for name in ("_write", "finish"):
    setattr(ArrayWriter, name, dying(getattr(ArrayWriter, name)))
for name in ("open", "replace", "rename", "mkdir"):
    setattr(pathlib.Path, name, dying(getattr(pathlib.Path, name)))
os.fsync = lambda fd: None
dumps, out, method = sys.argv[1:]
acts = sklprep.load_activations(dumps)[[7, 1, 3]]
acts.to_pack(f"{out}-first")  # so that all that is imported later is there
moment = 0
while True:
    if not (child := os.fork()):
        left = moment
        try:
            getattr(acts, method)(out)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended == 0:
        break
    assert ended == -signal.SIGKILL
    assert not os.path.exists(out), moment
    moment += 3
print(moment)
"""
        moments = int(run_python(code, dumps / "dumps", tmp_path / "out", method))
        assert moments > 6
        expected = opened(dumps)[[7, 1, 3]]
        read = load_activations(tmp_path / "out")
        np.testing.assert_array_equal(expected.hidden_states, read.hidden_states)
        assert read.labels.tolist() == [3, 1, 3]
        assert all(path.name.startswith((".out.", "out")) for path in tmp_path.iterdir())

    def test_the_rows_of_a_folder_are_never_all_in_memory(self, tmp_path, run_python, method):
        n, width = 60, 40_000
        for index in range(n):
            write_sentence(
                tmp_path / f"sentence_{index:06d}.npz",
                index=index,
                n_tokens=1,
                d_model=1,
                hidden_states=np.full((3, 1, width), index, np.float32),
                compress=False,
            )
        code = """
import os, sys
import sklprep
os.fsync = lambda fd: None
dumps, out, method = sys.argv[1:]
acts = sklprep.load_activations(dumps)
getattr(acts[:2], method)(out + "/small")
before = peak()
getattr(acts[::-1], method)(out + "/large")
print(peak() - before)
"""
        grown = float(run_python(code, tmp_path, tmp_path / "out", method))
        assert grown < 0.25 * n * 3 * width * 4 / 2**20
        read = load_activations(tmp_path / "out" / "large")
        assert read.layer(2)[:, 0].tolist() == list(range(n - 1, -1, -1))
