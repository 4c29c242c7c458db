"""Packs: what plain numpy finds in them, how they grow, and what kills and damage do to them."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from sentence_files import damage, rewrite, write_folder, write_sentence

import sklprep.datasets.batch
import sklprep.formats.pack_writer
from sklprep import (
    ActivationSet,
    generate_dataset,
    load_activations,
    load_dataset,
    make_activations,
    make_strategy,
)
from sklprep.exceptions import DataError, FileFormatError, OutputError, SklprepWarning, UsageError
from sklprep.files.npy_file import NpyFile
from sklprep.formats.members import Members
from sklprep.formats.pack_reader import Pack, is_pack
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.rows import Rows
from sklprep.formats.segments import SEGMENT_BYTES
from sklprep.formats.sentence_folder import SentenceFolder

POOLINGS = ("final", "mean", "max", "none")
CONFIGS = (0, 2, 2, 5)  # two SAE configs of layer 2
WIDE = ("embeddings", "hidden_states", "activations")
SMALL = ("labels", "sentence_indices", "groups", "sentences", "source_names", "source_digests")


def pack(folder, output, *, pooling="final", **options):
    return build_pack(SentenceFolder(folder, pooling=pooling), output, **options)


def content_of(folder):
    """Every file below a folder by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def pool(values, final, pooling):
    """Rows of one sentence from (..., n_tokens, width) values, in numpy's own arithmetic."""
    if pooling == "final":
        return values[..., np.flatnonzero(final), :]
    if pooling == "none":
        return values
    if pooling == "max":
        return values.max(axis=-2, keepdims=True)
    return values.astype(np.float64).mean(axis=-2, keepdims=True).astype(np.float32)


def expected_rows(sentences, member, pooling):
    """(..., n_rows, width) of all sentences."""
    parts = [pool(one[member], one["is_final_token"], pooling) for one in sentences]
    return np.concatenate(parts, axis=-2)


def dense(folder, stem, n_rows, n_features):
    """A sparse triplet, read with plain numpy, as a matrix."""
    data, indices, indptr = (
        np.load(Path(folder, "activations", f"{stem}_{part}.npy"))
        for part in ("data", "indices", "indptr")
    )
    matrix = np.zeros((n_rows, n_features), data.dtype)
    for row, (start, stop) in enumerate(itertools.pairwise(indptr)):
        matrix[row, indices[start:stop]] = data[start:stop]
    return matrix


def command(*arguments):
    return [sys.executable, "-m", "sklprep", "pack", *map(str, arguments), "--jobs", "1"]


def edit_manifest(folder, edit):
    path = Path(folder, "manifest.json")
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    """These tests kill processes, not machines: they need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder of sentence files of several configs and its packs, one a pooling: not to change."""
    place = tmp_path_factory.mktemp("packed")
    write_folder(place / "dumps", 7, layers=CONFIGS)
    for pooling in POOLINGS:
        pack(place / "dumps", place / pooling, pooling=pooling)
    return place


@pytest.fixture
def small(tmp_path):
    """A pack of five sentences, to break."""
    write_folder(tmp_path / "dumps", 5)
    pack(tmp_path / "dumps", tmp_path / "pack")
    return tmp_path / "pack"


class TestPlainNumpy:
    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_every_array_is_readable_with_numpy_and_holds_the_rows_of_the_files(
        self, tmp_path, pooling, dtype
    ):
        final = -1 if pooling in ("mean", "max") else None
        sentences = write_folder(tmp_path / "dumps", 6, layers=CONFIGS, dtype=dtype, final=final)
        out = tmp_path / "pack"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SklprepWarning)  # of tokens behind the final one
            pack(tmp_path / "dumps", out, pooling=pooling)
        stored = np.dtype("float32" if pooling == "mean" else dtype)
        counts = [len(one["embeddings"]) if pooling == "none" else 1 for one in sentences]
        n = sum(counts)

        embeddings = np.load(out / "embeddings.npy")
        assert embeddings.dtype == stored
        np.testing.assert_array_equal(embeddings, expected_rows(sentences, "embeddings", pooling))
        states = expected_rows(sentences, "hidden_states", pooling)
        for layer, position in ((0, 0), (2, 1), (5, 3)):
            values = np.load(out / "hidden_states" / f"L{layer}.npy")
            assert values.dtype == stored
            np.testing.assert_array_equal(values, states[position])
        features = expected_rows(sentences, "activations", pooling)
        for number, (layer, l0) in enumerate(zip(CONFIGS, (70, 80, 90, 100), strict=True)):
            matrix = dense(out, f"{number:03d}_L{layer}_l0_{l0}", n, 40)
            assert matrix.dtype == stored
            np.testing.assert_array_equal(matrix, features[number])

        sentence_of_row = np.repeat(np.arange(6), counts)
        small = {name: np.load(out / f"{name}.npy") for name in SMALL}
        np.testing.assert_array_equal(small["groups"], sentence_of_row)
        np.testing.assert_array_equal(small["labels"], sentence_of_row % 4)
        np.testing.assert_array_equal(small["sentence_indices"], sentence_of_row)
        assert small["sentences"].tolist() == [str(one["sentence"]) for one in sentences]
        assert small["source_names"].tolist() == [f"sentence_{i:06d}.npz" for i in range(6)]
        final = np.concatenate([one["is_final_token"] for one in sentences])
        if pooling == "none":  # the last tokens are not the final ones, as they mostly are
            np.testing.assert_array_equal(np.load(out / "is_final_token.npy"), final)
        n_arrays = 1 + 3 + 3 * len(CONFIGS) + len(small) + (pooling == "none")
        assert len(list(out.rglob("*.npy"))) == n_arrays
        assert len(list(out.rglob("*"))) == n_arrays + len(
            ["manifest", "hidden_states", "activations"]
        )

    def test_the_manifest_says_what_is_in_the_pack(self, packed):
        manifest = json.loads((packed / "mean" / "manifest.json").read_text())
        found = {key: manifest[key] for key in manifest.keys() - {"arrays", "digest"}}
        assert found == {
            "format": "sklprep pack",
            "format_version": 1,
            "source": "dumps",
            "fingerprint": load_activations(packed / "dumps").fingerprint,
            "pooling": "mean",
            "n_rows": 7,
            "n_sentences": 7,
            "layers": [0, 2, 5],
            "sae_layers": [0, 2, 2, 5],
            "average_l0s": [70, 80, 90, 100],
            "configs": [0, 1, 2, 3],
            "d_embed": 5,
            "d_model": 7,
            "n_features": 40,
            "labels_fault": "",
        }

    def test_one_float32_file_among_float16_makes_the_pack_float32(self, tmp_path):
        write_folder(tmp_path / "dumps", 3, dtype="float16", changes={1: {"dtype": "float32"}})
        pack(tmp_path / "dumps", tmp_path / "pack")
        assert np.load(tmp_path / "pack" / "embeddings.npy").dtype == np.float32

    @pytest.mark.parametrize("member", WIDE)
    def test_a_member_that_the_files_lack_is_not_in_the_pack_and_asking_for_it_is_an_error(
        self, tmp_path, member
    ):
        write_folder(tmp_path / "dumps", 4, omit=(member,))
        acts = ActivationSet(Rows(pack(tmp_path / "dumps", tmp_path / "pack")))
        kinds = {path.parent.name for path in (tmp_path / "pack").rglob("*.npy")}
        assert ("hidden_states" in kinds) == (member != "hidden_states")
        assert ("activations" in kinds) == (member != "activations")
        assert (tmp_path / "pack" / "embeddings.npy").exists() == (member != "embeddings")
        with pytest.raises(DataError, match=f"pack.* has no {member}"):
            {
                "embeddings": lambda: acts.embeddings,
                "hidden_states": lambda: acts.layer(0),
                "activations": lambda: acts.sae_activations(0),
            }[member]()

    def test_only_the_chosen_members_are_packed(self, packed, tmp_path):
        pack(packed / "dumps", tmp_path / "pack", members=Members(False, (5, 0), (2,)))
        names = {name for name in content_of(tmp_path / "pack") if "/" in name or "emb" in name}
        assert names == {
            "hidden_states/L0.npy",
            "hidden_states/L5.npy",
            *(f"activations/000_L2_l0_90_{part}.npy" for part in ("data", "indices", "indptr")),
        }
        acts, whole = load_activations(tmp_path / "pack"), load_activations(packed / "final")
        np.testing.assert_array_equal(acts.layer(5), whole.layer(5))
        expected = whole.sae_activations(2, 90).toarray()
        np.testing.assert_array_equal(acts.sae_activations(2).toarray(), expected)

    @pytest.mark.parametrize(
        "options",
        [
            {"omit": ("concept_strength_label",)},
            {"changes": {2: {"concept_strength_label": np.array(7)}}},
            {"changes": {2: {"omit": ("concept_strength_label",)}}},
        ],
        ids=["none at all", "out of range", "missing in one"],
    )
    def test_labels_that_are_missing_or_invalid_are_an_error_only_when_asked_for(
        self, tmp_path, options
    ):
        write_folder(tmp_path / "dumps", 4, **options)
        pack(tmp_path / "dumps", tmp_path / "pack")
        assert not (tmp_path / "pack" / "labels.npy").exists()
        acts = load_activations(tmp_path / "pack")
        assert acts.layer(1).shape == (4, 7)
        assert acts.sentence_indices.tolist() == [0, 1, 2, 3]
        with pytest.raises(DataError, match=r"pack has no labels: sentence_.*label"):
            _ = acts.labels

    def test_texts_may_hold_any_code_point(self, tmp_path):
        texts = [
            "",
            "nul \0 within",
            "half a pair \ud800",
            "\U0001d6fc and a newline\n",
            "x" * 5000,
        ]
        write_folder(tmp_path / "dumps", 5, changes={i: {"sentence": texts[i]} for i in range(5)})
        made = pack(tmp_path / "dumps", tmp_path / "pack")
        assert load_activations(tmp_path / "pack").sentences.tolist() == texts
        assert made.verify() == []

    def test_the_bytes_do_not_depend_on_where_the_folders_lie_or_on_jobs(self, packed, tmp_path):
        bad = {3: {"concept_strength_label": np.array(9)}}
        write_folder(tmp_path / "here" / "dumps", 5, changes=bad)
        shutil.copytree(tmp_path / "here", tmp_path / "elsewhere" / "there")
        pack(tmp_path / "here" / "dumps", tmp_path / "a")
        source = SentenceFolder(tmp_path / "elsewhere" / "there" / "dumps", n_jobs=2)
        build_pack(source, tmp_path / "other" / "b")
        assert content_of(tmp_path / "a") == content_of(tmp_path / "other" / "b")


class TestReading:
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_a_set_from_a_pack_equals_the_one_from_its_folder(self, packed, pooling):
        ours = load_activations(packed / pooling, pooling=pooling)
        theirs = load_activations(packed / "dumps", pooling=pooling)
        assert len(ours) == len(theirs)
        assert repr(ours) == repr(theirs)
        for name in ("name", "fingerprint", "pooling", "d_embed", "d_model", "n_sae_features"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in ("layers", "sae_layers", "average_l0s"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
        rng = np.random.default_rng(0)
        n = len(ours)
        keys = [
            slice(None),
            slice(2, 5),
            slice(None, None, -2),
            rng.random(n) < 0.5,
            np.zeros(n, bool),
            np.array([], np.int64),
            rng.permutation(n),
            rng.integers(-n, n, size=2 * n),
        ]
        for key in keys:
            self.check_equal(ours[key], theirs[key])
            self.check_equal(ours[key][::-1][1:], theirs[key][::-1][1:])
        self.check_equal(ours, theirs)

    def check_equal(self, ours, theirs):
        for name in ("labels", "groups", "sentences", "sentence_indices"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
        for name in ("embeddings", "hidden_states"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
        for one, other in zip(ours.activations, theirs.activations, strict=True):
            for part in ("data", "indices", "indptr"):
                np.testing.assert_array_equal(getattr(one, part), getattr(other, part), strict=True)
        feature = ours.feature(2, 3, 90)
        np.testing.assert_array_equal(feature, theirs.feature(2, 3, 90), strict=True)

    @pytest.mark.filterwarnings("ignore::sklprep.exceptions.SklprepWarning")
    @pytest.mark.parametrize("pooling", ["final", "mean", "none"])
    @pytest.mark.parametrize(
        ("strategy", "options"),
        [
            ("hidden-to-concept", {"layers": "0,5"}),
            ("hidden-to-feature", {"target_layer": 2, "target_feature": 3, "average_l0": 90}),
            ("embedding-to-feature", {"target_layer": 5, "target_feature": 4}),
        ],
    )
    def test_a_dataset_from_a_pack_has_the_bytes_of_the_one_from_sentence_files(
        self, packed, tmp_path, strategy, options, pooling
    ):
        for source in (pooling, "dumps"):
            acts = load_activations(packed / source, pooling=pooling)
            pipeline, target = make_strategy(strategy, **options)
            output = tmp_path / f"{source}.npz"
            generate_dataset(acts, pipeline, target, strategy=strategy, output=output)
        assert (tmp_path / f"{pooling}.npz").read_bytes() == (tmp_path / "dumps.npz").read_bytes()

    @pytest.mark.parametrize("move", [shutil.copytree, os.rename, shutil.move])
    def test_a_pack_can_be_moved_and_copied_and_needs_its_source_no_more(self, small, move):
        expected = load_activations(small).hidden_states
        target = small.parent / "another name"
        move(small, target)
        shutil.rmtree(small.parent / "dumps")
        np.testing.assert_array_equal(load_activations(target).hidden_states, expected)
        assert load_activations(target).name == "dumps"
        assert Pack(target, pooling=None).verify() == []

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_a_pack_keeps_its_pooling_where_none_is_given(self, packed, pooling):
        ours, theirs = load_activations(packed / pooling), load_activations(packed / "dumps")
        assert (pooling, "final") == (ours.pooling, theirs.pooling)
        assert ours.fingerprint == theirs.fingerprint

    def test_another_pooling_than_the_packed_one_is_an_error_that_names_both(self, packed):
        with pytest.raises(UsageError, match=r"packed with pooling 'mean', got 'max'"):
            load_activations(packed / "mean", pooling="max")

    def test_a_bad_value_names_the_pack_the_row_and_the_sentence_file(self, tmp_path):
        folder = tmp_path / "dumps"
        write_folder(folder, 4)
        states = np.load(folder / "sentence_000002.npz")["hidden_states"]
        states[1] = np.nan
        rewrite(folder / "sentence_000002.npz", hidden_states=states)
        pack(folder, tmp_path / "pack")
        acts = load_activations(tmp_path / "pack")
        assert np.isfinite(acts.layer(0)).all()
        with pytest.raises(DataError, match=r"pack \(row 2, from sentence_000002.npz\).*layer 1"):
            acts[[3, 2]].layer(1)

    def test_a_pack_that_is_there_is_not_read_when_it_is_opened(self, small):
        for path in small.rglob("*.npy"):
            path.unlink()
        acts = load_activations(small)
        assert (len(acts), acts.d_model) == (5, 7)


def junk_manifests():
    junk = [None, True, -1, 1.5, "text", [], {}, ["text"], [None], [[1]], [-(10**30)], 10**30]
    keys = ["n_rows", "n_sentences", "layers", "sae_layers", "average_l0s", "d_embed", "d_model"]
    keys += ["n_features", "arrays", "source", "fingerprint", "pooling", "labels_fault", "configs"]
    return [(key, value) for key in keys for value in junk]


class _Fine(Exception):
    pass


class TestBroken:
    """A fault names the file, and is never anything but a `FileFormatError`."""

    def test_a_newer_format_version_says_so(self, small):
        edit_manifest(small, lambda manifest: manifest.update(format_version=2))
        with pytest.raises(FileFormatError, match=r"manifest.json: pack format version 2.*Upgrade"):
            load_activations(small)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe\x00",
            b'{"format": "something else", "format_version": 1}',
            b'{"format": "sklprep pack"}',
            b'{"format": "sklprep pack", "format_version": "1"}',
            b'{"format": "sklprep pack", "format_version": true}',
            b'{"format": "sklprep pack", "format_version": 1}',
            b"[" * 200_000,
            b'{"format_version": ' + b"9" * 10_000 + b"}",
        ],
        ids=lambda content: content[:20],
    )
    def test_a_manifest_that_is_none_is_an_error(self, small, content):
        (small / "manifest.json").write_bytes(content)
        with pytest.raises(FileFormatError, match=r"manifest.json"):
            load_activations(small)

    def test_a_manifest_cut_anywhere_is_an_error(self, small):
        content = (small / "manifest.json").read_bytes()
        for length in range(0, len(content) - 1, 97):
            (small / "manifest.json").write_bytes(content[:length])
            with pytest.raises(FileFormatError, match=r"manifest.json"):
                load_activations(small)

    def test_a_huge_manifest_is_refused_before_it_is_read(self, small):
        with (small / "manifest.json").open("r+b") as file:
            file.truncate(1 << 40)
        with pytest.raises(FileFormatError, match=r"manifest.json: is oversized"):
            load_activations(small)

    def test_values_of_wrong_types_are_errors_at_once_or_do_no_harm(self, small):
        sound = (small / "manifest.json").read_bytes()
        refused = 0
        for key, value in junk_manifests():
            (small / "manifest.json").write_bytes(sound)
            edit_manifest(small, lambda m, key=key, value=value: m.update({key: value}))
            refused += self.is_refused(small)
        assert refused > 100  # texts are free, and None means that a member is not there

    @pytest.mark.parametrize("field", ["dtype", "shape", "digest", "segments"])
    @pytest.mark.parametrize("name", ["groups", "embeddings", "hidden_states/L1", "sentences"])
    def test_an_entry_of_wrong_types_is_an_error(self, small, name, field):
        sound = (small / "manifest.json").read_bytes()
        for value in (None, 1, [], ["x"], [-1], [1 << 70], {}, "|O", "<f9", "<U99999999999", [2]):
            (small / "manifest.json").write_bytes(sound)
            edit_manifest(small, lambda m, value=value: m["arrays"][name].update({field: value}))
            if field not in ("digest", "segments"):
                assert self.is_refused(small)
            else:
                self.is_refused(small)

    @pytest.mark.parametrize(
        "name", ["groups", "labels", "embeddings", "hidden_states/L2", "source_names"]
    )
    def test_an_array_that_the_manifest_does_not_list_is_an_error(self, small, name):
        edit_manifest(small, lambda manifest: manifest["arrays"].pop(name))
        with pytest.raises(FileFormatError, match=rf"manifest.json: member '{name}'"):
            load_activations(small)

    @pytest.mark.parametrize("key", ["d_embed", "d_model", "n_features", "labels_fault", "layers"])
    def test_a_manifest_without_a_key_is_an_error(self, small, key):
        edit_manifest(small, lambda manifest: manifest.pop(key))
        with pytest.raises(FileFormatError, match=rf"manifest.json: has no {key}; expected"):
            load_activations(small)

    @pytest.mark.parametrize("layers", [[5, 2, 0], [0, 2, 2]])
    def test_layers_that_do_not_ascend_are_an_error(self, small, layers):
        edit_manifest(small, lambda manifest: manifest.update(layers=layers))
        with pytest.raises(FileFormatError, match=r"has layers \[.*; expected ascending layers"):
            load_activations(small)

    @pytest.mark.parametrize("key", ["d_embed", "d_model", "n_features"])
    def test_a_width_beyond_all_sense_is_an_error(self, small, key):
        edit_manifest(small, lambda manifest: manifest.update({key: 1 << 40}))
        with pytest.raises(
            FileFormatError, match=rf"has {key} .1099511627776.; expected null or 1 to"
        ):
            load_activations(small)

    @pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "\x9b2J", "\0"])
    @pytest.mark.parametrize("key", ["source", "pooling", "labels_fault", "arrays"])
    def test_what_a_manifest_says_stays_on_one_printable_line(self, small, key, text):
        value = {text: {}} if key == "arrays" else text
        edit_manifest(small, lambda manifest: manifest.update({key: value}))
        with pytest.raises(FileFormatError) as error:
            load_activations(small)
        assert str(error.value).isprintable()

    @pytest.mark.parametrize("name", ["../outside", "/etc/x", "a/../../x", "a/b/c", ""])
    def test_an_array_that_is_a_path_is_never_opened(self, small, name):
        entry = {"dtype": "<f4", "shape": [1], "segments": [], "digest": ""}
        edit_manifest(small, lambda manifest: manifest["arrays"].update({name: entry}))
        with pytest.raises(FileFormatError, match=r"expected dtype, shape and digests"):
            load_activations(small)

    def test_a_manifest_that_counts_no_sentences_is_an_error(self, small):
        edit_manifest(small, lambda manifest: manifest.update(n_sentences=0))
        with pytest.raises(FileFormatError, match=r"member 'source_names' .*an array of \[0\]"):
            load_activations(small)

    def test_a_layer_that_is_a_path_is_never_opened(self, small):
        edit_manifest(small, lambda manifest: manifest.update(layers=["/../../../etc/passwd"]))
        with pytest.raises(FileFormatError, match=r"manifest.json: has layers"):
            load_activations(small)

    @pytest.mark.parametrize("harm", ["missing", "empty", "cut", "other shape", "other dtype",
                                      "object", "folder", "pipe"])  # fmt: skip
    @pytest.mark.parametrize(
        "name", ["groups", "sentences", "embeddings", "hidden_states/L1",
                 "activations/001_L1_l0_80_data", "activations/001_L1_l0_80_indptr"]
    )  # fmt: skip
    def test_an_array_that_is_missing_cut_or_replaced_is_an_error_that_names_it(
        self, small, name, harm
    ):
        path = small / f"{name}.npy"
        values, content = np.load(path), path.read_bytes()
        path.unlink()
        if harm == "empty":
            path.touch()
        elif harm == "cut":
            path.write_bytes(content[:-1])
        elif harm == "other shape":
            np.save(path, np.stack([values, values]))
        elif harm == "other dtype":
            np.save(path, np.ones(values.shape, np.float64))
        elif harm == "object":
            np.save(path, values.astype(object), allow_pickle=True)
        elif harm == "folder":
            path.mkdir()
        elif harm == "pipe":
            os.mkfifo(path)
        with pytest.raises(FileFormatError, match=path.name):
            self.use(load_activations(small))
        assert any(path.name in fault for fault in Pack(small, pooling=None).verify())

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("groups", [0, 1, 2, 3, 9]),
            ("groups", [-1, 1, 2, 3, 4]),
            ("activations/000_L0_l0_70_indptr", [0, 9, 4, 5, 6, 7]),
            ("activations/000_L0_l0_70_indptr", [0, 1, 2, 3, 4, 1 << 40]),
            ("activations/000_L0_l0_70_indptr", [-9, 1, 2, 3, 4, 5]),
        ],
    )
    @pytest.mark.parametrize("rows", [[0, 4], [2], [4, 4, 1, 0]])
    def test_positions_that_lead_nowhere_are_errors_that_name_the_array(
        self, small, name, values, rows
    ):
        np.save(small / f"{name}.npy", np.array(values))
        acts = load_activations(small)
        with pytest.raises(FileFormatError, match=Path(name).name):
            self.use(acts)
        with contextlib.suppress(FileFormatError):  # these rows may not meet the wrong values
            self.use(acts[rows])
        assert Pack(small, pooling=None).verify()

    def test_verify_finds_a_flipped_byte_in_each_array(self, small):
        sound = Pack(small, pooling=None)
        assert sound.verify() == []
        rng = np.random.default_rng(0)
        for path in sorted(small.rglob("*.npy")):
            content = path.read_bytes()
            for position in rng.integers(128, len(content), size=5):
                flipped = bytearray(content)
                flipped[position] ^= 1 << rng.integers(8)
                path.write_bytes(flipped)
                (fault,) = sound.verify()
                assert str(path) in fault
            path.write_bytes(content)
        assert sound.verify() == []

    @pytest.mark.parametrize(
        "edit",
        [
            {"source": "other"},
            {"fingerprint": "0" * 64},
            {"average_l0s": [], "sae_layers": [], "n_features": None, "configs": []},
            {"labels_fault": "none"},
        ],
        ids=["source", "fingerprint", "SAEs", "labels"],
    )
    def test_verify_finds_a_manifest_that_was_changed(self, small, edit):
        edit_manifest(small, lambda manifest: manifest.update(edit))
        assert Pack(small, pooling=None).verify() == [
            f"{small / 'manifest.json'} differs from its digest"
        ]

    def test_a_pack_whose_manifest_has_no_digest_yet_verifies(self, small):
        edit_manifest(small, lambda manifest: manifest.pop("digest"))
        assert Pack(small, pooling=None).verify() == []

    def test_verify_sees_every_segment_of_a_large_array(self, tmp_path):
        width = 600_000
        write_folder(
            tmp_path / "dumps", 4, n_tokens=1, d_embed=width, omit=("hidden_states", "activations")
        )
        made = pack(tmp_path / "dumps", tmp_path / "pack")
        path = tmp_path / "pack" / "embeddings.npy"
        assert len(made.manifest.arrays["embeddings"].segments) == 3
        assert made.verify() == []
        with path.open("r+b") as file:
            for position in (128, 127 + SEGMENT_BYTES, 128 + SEGMENT_BYTES, 127 + 16 * width):
                file.seek(position)
                (byte,) = file.read(1)
                file.seek(position)
                file.write(bytes([byte ^ 1]))
                file.flush()
                assert made.verify() == [f"{path} differs from its digest"]
                file.seek(position)
                file.write(bytes([byte]))
                file.flush()
        assert made.verify() == []

    def test_a_file_cut_while_it_is_read_ends_the_reading(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((1000, 4)))
        with NpyFile(tmp_path / "a.npy", 1000) as array:
            os.truncate(tmp_path / "a.npy", 500)
            with pytest.raises(FileFormatError, match=r"a.npy: was cut short"):
                list(array.pieces(1 << 20))
            with pytest.raises(FileFormatError, match=r"a.npy: was cut short"):
                array.take(np.array([3, 900]))

    def is_refused(self, folder):
        """Whether the pack is refused; anything but a `DataError` that says so fails the test."""
        with pytest.raises((DataError, _Fine)) as caught:
            self.open_and_use(folder)
        if isinstance(caught.value, FileFormatError):
            assert str(folder) in str(caught.value)
        elif caught.type is not _Fine:  # such as: it has no labels, it holds no embeddings
            assert " no " in str(caught.value)
        return isinstance(caught.value, FileFormatError)

    def open_and_use(self, folder):
        self.use(load_activations(folder, pooling=Pack(folder, pooling=None).pooling))
        raise _Fine

    def use(self, acts):
        _ = acts.labels, acts.groups, acts.sentences, acts.sentence_indices
        _ = acts.embeddings, acts.hidden_states, acts.activations
        _ = acts.rows.source.verify()


class TestGrowing:
    @pytest.mark.parametrize("pooling", POOLINGS)
    @pytest.mark.parametrize("batch", [1, 1 << 40])
    def test_a_pack_that_grew_has_the_bytes_of_one_made_at_once(self, tmp_path, pooling, batch):
        options = {"layers": CONFIGS, "dtype": "float16"}
        out = tmp_path / "grown"
        for n in (1, 4, 5, 9):
            texts = {n - 1: {"sentence": "a longer text at each step" * n}}
            there = len(list((tmp_path / "dumps").glob("*")))
            write_folder(tmp_path / "dumps", n - there, first=there, changes=texts, **options)
            pack(tmp_path / "dumps", out, pooling=pooling, batch_bytes=batch)
            shutil.rmtree(tmp_path / "whole", ignore_errors=True)
            pack(tmp_path / "dumps", tmp_path / "whole", pooling=pooling)
            assert content_of(out) == content_of(tmp_path / "whole")
        assert Pack(out, pooling=None).verify() == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dumps", "grown", "whole"]

    def test_old_sentence_files_are_not_inflated_again(self, tmp_path):
        write_folder(tmp_path / "dumps", 3, d_embed=9000, d_model=9000, n_features=9000)
        pack(tmp_path / "dumps", tmp_path / "pack")
        for index, member in enumerate(WIDE):
            damage(tmp_path / "dumps" / f"sentence_{index:06d}.npz", member)
        write_folder(tmp_path / "dumps", 2, first=3, d_embed=9000, d_model=9000, n_features=9000)
        assert pack(tmp_path / "dumps", tmp_path / "pack").n_rows == 5
        with pytest.raises(FileFormatError, match=r"sentence_000000.npz"):
            pack(tmp_path / "dumps", tmp_path / "again")

    def test_packing_an_unchanged_folder_again_writes_nothing(self, small):
        def clocks():
            return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in [small, *small.rglob("*")]}

        before = clocks()
        time.sleep(0.02)
        pack(small.parent / "dumps", small)
        assert clocks() == before

    def test_damage_before_the_end_is_found_after_growing_too(self, tmp_path):
        large = {"n_tokens": 1, "d_embed": SEGMENT_BYTES // 8, "omit": WIDE[1:]}
        write_folder(tmp_path / "dumps", 3, **large)
        folder = pack(tmp_path / "dumps", tmp_path / "pack").path
        write_folder(tmp_path / "dumps", 2, first=3, **large)
        path = folder / "embeddings.npy"
        content = bytearray(path.read_bytes())
        with NpyFile(path, 3) as array:
            content[array.offset] ^= 64
        path.write_bytes(content)
        grown = pack(tmp_path / "dumps", folder)
        assert grown.n_rows == 5
        assert grown.verify() == [f"{path} differs from its digest"]

    @pytest.mark.parametrize("where", ["old pack", "interrupted run"])
    @pytest.mark.parametrize("member", ["layer", "data", "source_digests"])
    @pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
    def test_damaged_rows_are_not_signed_with_new_ones(self, tmp_path, where, member, harm):
        write_folder(tmp_path / "dumps", 3)
        folder = pack(tmp_path / "dumps", tmp_path / "pack").path
        if where == "interrupted run":
            folder = folder.rename(tmp_path / ".pack.partial")
        write_folder(tmp_path / "dumps", 2, first=3)
        (path, *_) = {
            "layer": sorted(folder.glob("hidden_states/*.npy")),
            "data": sorted(folder.glob("activations/*_data.npy")),
            "source_digests": [folder / "source_digests.npy"],
        }[member]
        content = bytearray(path.read_bytes())
        content[-1] ^= 64
        {
            "flipped": lambda: path.write_bytes(content),
            "cut": lambda: os.truncate(path, len(content) - 1),
            "gone": path.unlink,
        }[harm]()
        before = content_of(tmp_path)
        if where == "interrupted run":
            pack(tmp_path / "dumps", tmp_path / "pack")
            pack(tmp_path / "dumps", tmp_path / "whole")
            assert content_of(tmp_path / "pack") == content_of(tmp_path / "whole")
        else:
            with pytest.raises(FileFormatError) as error:
                pack(tmp_path / "dumps", folder)
            assert str(error.value).startswith(f"{path}: ")
            assert content_of(tmp_path) == before

    def change(dumps):
        write_sentence(dumps / "sentence_000003.npz", index=3, seed=1)

    def remove(dumps):
        (dumps / "sentence_000003.npz").unlink()

    def insert(dumps):
        write_sentence(dumps / "sentence_000001b.npz", index=30)

    @pytest.mark.filterwarnings("ignore:.*gaps in the numbering")
    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            (change, r"1 changed \(first: sentence_000003.npz\)"),
            (remove, r"1 missing \(first: sentence_000003.npz\)"),
            (insert, r"1 sorted before packed ones \(first: sentence_000001b.npz\)"),
        ],
        ids=["changed", "removed", "inserted"],
    )
    @pytest.mark.parametrize("grown", [False, True])
    def test_other_source_files_are_named_and_the_pack_still_works(
        self, small, harm, message, grown
    ):
        before = content_of(small)
        states = load_activations(small).hidden_states
        harm(small.parent / "dumps")
        if grown:
            write_folder(small.parent / "dumps", 1, first=5)
        with pytest.raises(UsageError, match=rf"dumps are not those packed in .*pack.*{message}"):
            pack(small.parent / "dumps", small)
        assert content_of(small) == before
        np.testing.assert_array_equal(load_activations(small).hidden_states, states)
        assert Pack(small, pooling=None).verify() == []

    def test_another_pooling_members_or_dtype_need_another_folder(self, tmp_path):
        write_folder(tmp_path / "dumps", 3, dtype="float16")
        pack(tmp_path / "dumps", tmp_path / "pack")
        before = content_of(tmp_path / "pack")
        with pytest.raises(
            UsageError, match="pooling 'final', but the sentence files now have 'mean'"
        ):
            pack(tmp_path / "dumps", tmp_path / "pack", pooling="mean")
        with pytest.raises(UsageError, match="packed with layers"):
            pack(tmp_path / "dumps", tmp_path / "pack", members=Members(layers=(0,)))
        write_folder(tmp_path / "dumps", 1, first=3, dtype="float32")
        with pytest.raises(UsageError, match=r"as <f2, but the sentence files now need <f4"):
            pack(tmp_path / "dumps", tmp_path / "pack")
        assert content_of(tmp_path / "pack") == before

    @pytest.mark.parametrize("member", ["concept_strength_label", "sentence"])
    def test_new_files_without_labels_or_texts_leave_no_stale_ones(self, small, member):
        write_folder(small.parent / "dumps", 2, first=5, omit=(member,))
        pack(small.parent / "dumps", small)
        pack(small.parent / "dumps", small.parent / "whole")
        assert content_of(small) == content_of(small.parent / "whole")
        acts = load_activations(small)
        if member == "sentence":
            assert acts.sentences is None
            assert acts.labels.tolist() == [0, 1, 2, 3, 0, 1, 2]
        else:
            with pytest.raises(DataError, match=r"has no labels: sentence_000005.npz"):
                _ = acts.labels

    def test_a_set_that_was_opened_before_the_growth_keeps_its_rows(self, small):
        acts = load_activations(small)
        write_folder(small.parent / "dumps", 4, first=5)
        pack(small.parent / "dumps", small)
        assert len(acts) == 5
        assert acts.hidden_states.shape == (5, 3, 7)
        assert acts.labels.tolist() == [0, 1, 2, 3, 0]
        assert [config.shape for config in acts.activations] == [(5, 40)] * 3
        expected = load_activations(small)[:5]
        np.testing.assert_array_equal(acts.sae_activations(1).data, expected.activations[1].data)

    @pytest.mark.parametrize("kind", ["file", "full folder"])
    def test_what_is_no_pack_is_not_written_into(self, tmp_path, kind):
        write_folder(tmp_path / "dumps", 2)
        target = tmp_path / "out"
        if kind == "file":
            target.write_text("mine")
        else:
            target.mkdir()
            (target / "mine.txt").write_text("mine")
        with pytest.raises((OutputError, UsageError), match="out"):
            pack(tmp_path / "dumps", target)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dumps", "out"]

    def test_an_empty_folder_and_missing_parents_are_fine(self, tmp_path):
        write_folder(tmp_path / "dumps", 2)
        (tmp_path / "empty").mkdir()
        pack(tmp_path / "dumps", tmp_path / "empty")
        pack(tmp_path / "dumps", tmp_path / "a" / "b" / "c")
        assert content_of(tmp_path / "empty") == content_of(tmp_path / "a" / "b" / "c")


SMALL_BATCHES = """
import sys
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.sentence_folder import SentenceFolder
build_pack(SentenceFolder(sys.argv[1], n_jobs=1), sys.argv[2], batch_bytes=20_000)
"""


N_OLD, N_ALL = 10, 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Sentence files, a pack of the first of them and one of all."""
    place = tmp_path_factory.mktemp("kill")
    for folder, n in (("all", N_ALL), ("some", N_OLD)):
        write_folder(place / folder / "dumps", n, n_tokens=4, d_model=300, compress=False)
    pack(place / "all" / "dumps", place / "undisturbed")
    pack(place / "some" / "dumps", place / "old")
    return place


class TestKilled:
    """Whenever a run is killed, there is the old pack, the new one or none, and a run to finish."""

    @pytest.mark.parametrize("start", ["nothing", "old"])
    def test_a_process_killed_at_random_moments_leaves_a_pack_that_the_next_run_finishes(
        self, place, tmp_path, start
    ):
        out = tmp_path / "pack"
        if start == "old":
            shutil.copytree(place / "old", out)
        random_ = random.Random(start)
        run = [sys.executable, "-c", SMALL_BATCHES, str(place / "all" / "dumps"), str(out)]
        n_killed = 0
        for _ in range(4):
            before = sorted(content_of(tmp_path).items())
            process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            end = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < end:
                try:
                    if sorted(content_of(tmp_path).items()) != before:  # it has begun to write
                        break
                except FileNotFoundError:  # renamed in between
                    break
            time.sleep(random_.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
            assert process.communicate()[1] == b""
            n_killed += process.returncode == -signal.SIGKILL
            self.check_sound(out, place, start == "old")
        assert n_killed >= 2
        assert subprocess.run(run, capture_output=True, check=True).stderr == b""
        self.check_finished(out, place)

    @pytest.mark.parametrize("start", ["nothing", "old"])
    def test_a_process_that_dies_before_any_one_of_its_writes_does_no_harm(
        self, place, tmp_path, run_python, start
    ):
        """Each write, rename and removal is the last deed of one process, without a flush."""
        out = tmp_path / "pack"
        code = """
import itertools, os, shutil, signal, sys
import scipy.sparse, sklprep.files.npz_reader
from pathlib import Path
from sklprep.formats.pack_array import ArrayWriter
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.pack_reader import Pack
from sklprep.formats.sentence_folder import SentenceFolder

dumps, out, whole, old = sys.argv[1:]
left = 1 << 60  # in this process

def dying(function):
    def wrapper(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

for name in ("_write", "finish", "_write_header"):
    setattr(ArrayWriter, name, dying(getattr(ArrayWriter, name)))
for name in ("replace", "rename", "mkdir", "rmdir", "unlink"):
    setattr(Path, name, dying(getattr(Path, name)))
sklprep.files.atomic.create_temporary_file = dying(sklprep.files.atomic.create_temporary_file)
os.fsync = lambda fd: None
source = SentenceFolder(dumps, n_jobs=1)

def run(until):
    # build in a process that dies at a certain write; whether it did
    global left
    if not (child := os.fork()):
        left = until
        try:
            build_pack(source, out, batch_bytes=300_000)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.*")}

expected = files(whole)
for moment in itertools.count(0, 5):
    shutil.rmtree(out, ignore_errors=True)
    if old:
        shutil.copytree(old, out)
    if not run(moment):
        break
    run(moment * 7 % 40)
    if os.path.exists(out):
        assert not Pack(out, pooling=None).verify()
    assert not run(1 << 60)
    assert files(out) == expected, moment
    assert os.listdir(os.path.dirname(out)) == ["pack"]
print(moment)
"""
        old = place / "old" if start == "old" else ""
        said = run_python(code, place / "all" / "dumps", out, place / "undisturbed", old)
        assert int(said) > 50  # writes there were to die at
        self.check_finished(out, place)

    def test_what_was_begun_for_other_files_is_begun_again(self, place, tmp_path):
        """The hidden folder of a killed run is nothing that a user should have to know."""
        partial = tmp_path / ".pack.partial"
        shutil.copytree(place / "old", partial)
        (partial / "hidden_states" / "L77.npy").write_bytes(b"stale")
        (partial / ".labels.npy.0123456789abcdef.tmp").write_bytes(b"half")
        write_folder(tmp_path / "dumps", 3)
        pack(tmp_path / "dumps", tmp_path / "pack", pooling="mean")
        pack(tmp_path / "dumps", tmp_path / "whole", pooling="mean")
        assert content_of(tmp_path / "pack") == content_of(tmp_path / "whole")
        assert not partial.exists()

    def test_what_was_begun_goes_on(self, place, tmp_path):
        shutil.copytree(place / "old", tmp_path / ".pack.partial")
        shutil.copytree(place / "all" / "dumps", tmp_path / "dumps")
        damage(tmp_path / "dumps" / "sentence_000000.npz", "hidden_states")
        pack(tmp_path / "dumps", tmp_path / "pack")
        assert not (tmp_path / ".pack.partial").exists()
        self.check_finished(tmp_path / "pack", place)

    def check_sound(self, out, place, started):
        if not is_pack(out):
            assert not started
            assert not out.exists()
            return
        found = Pack(out, pooling="final")
        assert found.n_rows == N_ALL or started
        assert found.n_rows >= N_OLD
        assert found.verify() == []
        whole = load_activations(place / "undisturbed")[: found.n_rows]
        acts = load_activations(out)
        np.testing.assert_array_equal(acts.hidden_states, whole.hidden_states)
        np.testing.assert_array_equal(acts.labels, whole.labels)
        np.testing.assert_array_equal(acts.activations[2].data, whole.activations[2].data)

    def check_finished(self, out, place):
        assert content_of(out) == content_of(place / "undisturbed")
        left = {path.name for path in out.parent.iterdir()}
        assert left <= {"pack", "dumps"}


class TestTogether:
    @pytest.mark.parametrize("start", ["nothing", "old"])
    def test_processes_that_pack_to_one_output_at_once_all_succeed(self, packed, tmp_path, start):
        out = tmp_path / "pack"
        if start == "old":
            write_folder(tmp_path / "some" / "dumps", 3, layers=CONFIGS)
            pack(tmp_path / "some" / "dumps", out)
            shutil.rmtree(tmp_path / "some")
        processes = [
            subprocess.Popen(
                command(packed / "dumps", out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for _ in range(3)
        ]
        said = [process.communicate(timeout=30)[0].decode() for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], said
        assert all(line.startswith(f"{out}: 7 sentences, 7 rows") for line in said)
        assert content_of(out) == content_of(packed / "final")
        assert [path.name for path in tmp_path.iterdir()] == ["pack"]

    def test_many_racing_builds_leave_one_pack_and_nothing_else(self, packed, tmp_path, run_python):
        code = """
import os, sys
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.segments import SEGMENT_BYTES
from sklprep.formats.sentence_folder import SentenceFolder
source = SentenceFolder(sys.argv[1], n_jobs=1)
os.fsync = lambda fd: None
for round in range(12):
    children = []
    for _ in range(5):
        if not (child := os.fork()):
            build_pack(source, f"{sys.argv[2]}/{round}")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5, round
"""
        run_python(code, packed / "dumps", tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {str(n) for n in range(12)}
        expected = content_of(packed / "final")
        assert all(content_of(path) == expected for path in tmp_path.iterdir())


def write_pack(folder, n, *, n_layers=8, width=256):
    """Write a pack with numpy and json alone."""
    (folder / "hidden_states").mkdir(parents=True)
    arrays = {
        "groups": np.arange(n),
        "sentence_indices": np.arange(n),
        "labels": np.arange(n) % 4,
        "source_names": np.array([f"sentence_{row:06d}.npz" for row in range(n)]),
        "source_digests": np.zeros((n, 16), np.uint8),
    }
    rng = np.random.default_rng(0)
    for layer in range(n_layers):
        arrays[f"hidden_states/L{layer}"] = rng.random((n, width), np.float32)
    entries = {}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
        entries[name] = {
            "dtype": values.dtype.str,
            "shape": list(values.shape),
            "segments": [],
            "digest": "",
        }
    manifest = {
        "format": "sklprep pack",
        "format_version": 1,
        "source": "synthetic",
        "fingerprint": "0" * 64,
        "pooling": "final",
        "n_rows": n,
        "n_sentences": n,
        "layers": list(range(n_layers)),
        "sae_layers": [],
        "average_l0s": [],
        "configs": [],
        "d_embed": None,
        "d_model": width,
        "n_features": None,
        "labels_fault": "",
        "arrays": entries,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return np.concatenate([arrays[f"hidden_states/L{layer}"] for layer in range(n_layers)], axis=1)


class TestConstantMemory:
    def test_generate_on_a_pack_takes_the_memory_of_a_block_however_many_rows_there_are(
        self, tmp_path, run_python
    ):
        """Each size in a process of its own, forked after the imports to save their time."""
        sizes = (100, 4_000, 8_000)
        Xs = {n: write_pack(tmp_path / str(n), n) for n in sizes}
        code = """
import os, sys
import sklprep.cli.demo, sklprep.datasets.generation, sklprep.datasets.pipeline_bytes
from sklprep.cli.main import main
os.fsync = lambda fd: None
place, *sizes = sys.argv[1:]
for n in ("100", *sizes):  # the first one loads what is still missing
    if n == "100" or not (child := os.fork()):
        code = main(["generate", "--strategy", "hidden-to-concept", "--layers", "0-7", "--quiet",
                     "--input", f"{place}/{n}", "--output", f"{place}/{n}.npz"])
        assert code == 0
        print(peak(), flush=True)
        if n != "100":
            os._exit(0)
    else:
        os.waitpid(child, 0)
"""
        peaks = [float(peak) for peak in run_python(code, tmp_path, *sizes[1:]).split()]
        for n, X in Xs.items():
            found = load_dataset(tmp_path / f"{n}.npz", pipeline=False)
            assert found.X.shape == X.shape
            some = X[:, ::50].astype(np.float64)
            expected = (some - some.mean(axis=0)) / some.std(axis=0)
            np.testing.assert_allclose(found.X[:, ::50], expected, rtol=1e-5, atol=1e-6)
        few, many, twice_as_many = peaks
        assert twice_as_many < few + 0.3 * Xs[8_000].nbytes / 2**20
        assert twice_as_many < 1.1 * many

    def test_a_set_of_a_pack_reads_no_more_rows_than_were_asked_for(self, tmp_path, run_python):
        write_pack(tmp_path / "pack", 20_000, n_layers=1, width=1024)
        code = """
import sys, numpy as np
import sklprep
acts = sklprep.load_activations(sys.argv[1])
acts[[1]].layer(0)
before = peak()
acts[np.arange(0, 20_000, 200)].layer(0)
print(peak() - before)
"""
        assert float(run_python(code, tmp_path / "pack")) < 8


@pytest.mark.filterwarnings("ignore::sklprep.exceptions.SklprepWarning")
class TestSpool:
    """A raw folder that is too large for memory goes through a temporary pack."""

    def arguments(self, dumps, output):
        return [
            "generate",
            "--strategy", "hidden-to-concept", "--strategy", "hidden-to-feature",
            "--strategy", "embedding-to-feature",
            "--target-layer", "2", "--target-feature", "3", "--average-l0", "90",
            "--layers", "0,5", "--input", str(dumps), "--output", f"{output}/{{strategy}}.npz",
            "--quiet",
        ]  # fmt: skip

    def run(self, *arguments):
        from sklprep.cli.main import main

        try:
            return main([str(argument) for argument in arguments]) or 0
        except SystemExit as end:
            return end.code or 0

    @pytest.mark.parametrize("pooling", ["final", "mean", "none"])
    def test_it_gives_the_same_bytes_and_leaves_no_temporary_folder(
        self, packed, tmp_path, monkeypatch, pooling, capsys
    ):
        for name, limit in (("memory", 1 << 40), ("spool", 0)):
            monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", limit)
            arguments = self.arguments(packed / "dumps", tmp_path / name)
            assert self.run(*arguments, "--pooling", pooling) == 0
        made = content_of(tmp_path / "spool")
        assert len(made) == 3
        assert made == content_of(tmp_path / "memory")
        assert {path.name for path in (tmp_path / "spool").iterdir()} == set(made)

    def test_a_member_that_cannot_be_read_stops_what_needs_it_and_leaves_nothing_else(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", 0)
        write_folder(tmp_path / "dumps", 5, layers=CONFIGS)
        damage(tmp_path / "dumps" / "sentence_000003.npz", "hidden_states")
        assert self.run(*self.arguments(tmp_path / "dumps", tmp_path / "out")) == 1
        assert "sentence_000003.npz" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["embedding-to-feature.npz"]

    def test_it_leaves_nothing_when_one_job_fails_and_the_others_are_made(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", 0)
        write_folder(tmp_path / "dumps", 5, layers=CONFIGS)
        tokens = np.load(tmp_path / "dumps" / "sentence_000003.npz")["embeddings"]
        rewrite(tmp_path / "dumps" / "sentence_000003.npz", embeddings=tokens * np.nan)
        assert self.run(*self.arguments(tmp_path / "dumps", tmp_path / "out")) == 1
        assert "sentence_000003.npz" in capsys.readouterr().err
        made = {path.name for path in (tmp_path / "out").iterdir()}
        assert made == {"hidden-to-concept.npz", "hidden-to-feature.npz"}


def test_a_synthetic_folder_packs_like_any_other(tmp_path):
    acts = make_activations(12, n_layers=3, d_model=8, n_features=32, random_state=0)
    make_activations(
        12, n_layers=3, d_model=8, n_features=32, random_state=0, output=tmp_path / "dumps"
    )
    pack(tmp_path / "dumps", tmp_path / "pack")
    packed = load_activations(tmp_path / "pack")
    np.testing.assert_array_equal(packed.hidden_states, acts.hidden_states)
    np.testing.assert_array_equal(packed.labels, acts.labels)
