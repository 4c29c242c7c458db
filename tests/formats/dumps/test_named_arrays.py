"""Dumps of arrays by name, in safetensors and npy files: what becomes a layer, a row, a token."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from dump_files import BFloat16, safetensors, write_safetensors

from sklprep import ActivationSet, from_hidden_states, load_activations
from sklprep.exceptions import DataError, FileFormatError, SklprepWarning, UsageError

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(3, 12, 5)).astype("<f4")  # layers, rows, width
LABELS = np.arange(12) % 3
TOKENS = RNG.normal(size=(2, 6, 4, 5)).astype("<f4")  # layers, sentences, tokens, width
MASK = np.array(
    [[0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]
)
POOLINGS = ("final", "mean", "max", "none")


def by_layer(values, pattern="layer_{}"):
    return {pattern.format(number): layer for number, layer in enumerate(values)}


def write(path, tensors, metadata=None):
    """Write named arrays as a safetensors file, or one npy file each where `path` has no suffix."""
    if path.suffix:
        return write_safetensors(path, tensors, metadata)
    path.mkdir(parents=True)
    for name, values in tensors.items():
        np.save(path / f"{name}.npy", values)
    return path


@pytest.fixture(params=["dump.safetensors", "dump"])
def dump(request, tmp_path):
    """Where a dump of named arrays may lie: in a safetensors file, in npy files."""
    return tmp_path / request.param


def bytes_read():
    """How many bytes system calls of this process have read so far."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


class TestRows:
    @pytest.mark.parametrize("pattern", ["layer_{}", "hidden_states.{}", "layers.{}", "L{}"])
    def test_arrays_of_two_dimensions_are_rows_of_the_layer_in_their_name(self, dump, pattern):
        write(dump, by_layer(STATES, pattern) | {"labels": LABELS})

        acts = load_activations(dump)

        expected = ActivationSet.from_arrays(hidden_states=list(STATES), labels=LABELS)
        np.testing.assert_array_equal(expected.hidden_states, acts.hidden_states)
        np.testing.assert_array_equal(LABELS, acts.labels)
        np.testing.assert_array_equal(expected.groups, acts.groups)
        np.testing.assert_array_equal([0, 1, 2], acts.layers)

    @pytest.mark.parametrize("rows", [[3, 1, 1, 11], slice(None, None, -1), LABELS == 1])
    def test_rows_are_read_in_any_order(self, dump, rows):
        write(dump, by_layer(STATES))

        np.testing.assert_array_equal(STATES[1][rows], load_activations(dump)[rows].layer(1))

    def test_layers_keep_the_numbers_in_their_names(self, dump):
        write(dump, {"layer_7": STATES[0], "layer_012": STATES[1]})

        acts = load_activations(dump)

        np.testing.assert_array_equal([7, 12], acts.layers)
        np.testing.assert_array_equal(STATES[1], acts.layer(12))

    @pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2"])
    def test_any_float_dtype_becomes_float32(self, dump, dtype):
        write(dump, by_layer(STATES.astype(dtype)))

        found = load_activations(dump).layer(2)

        np.testing.assert_array_equal(STATES[2].astype(dtype).astype("<f4"), found)
        assert np.float32 == found.dtype

    def test_bfloat16_is_read_exactly(self, tmp_path):
        values = [BFloat16(layer) for layer in STATES]
        write(tmp_path / "a.safetensors", by_layer(values))

        np.testing.assert_array_equal(
            values[1].rounded, load_activations(tmp_path / "a.safetensors").layer(1)
        )

    def test_groups_and_indices_are_those_of_the_dump(self, dump):
        groups, indices = np.repeat([7, 3, 9], 4), np.arange(12)[::-1].copy()
        write(dump, by_layer(STATES) | {"groups": groups, "sentence_indices": indices})

        acts = load_activations(dump)

        np.testing.assert_array_equal(np.repeat([1, 0, 2], 4), acts.groups)
        np.testing.assert_array_equal(indices, acts.sentence_indices)

    def test_metadata_holds_texts_and_labels_as_json(self, tmp_path):
        texts = [f"sentence {number // 2}" for number in range(12)]
        labels = ["yes", "no"] * 6
        metadata = {"sentences": json.dumps(texts), "labels": json.dumps(labels)}
        write(tmp_path / "a.safetensors", by_layer(STATES), metadata)

        acts = load_activations(tmp_path / "a.safetensors")

        expected = ActivationSet.from_arrays(
            hidden_states=list(STATES), sentences=texts, labels=labels
        )
        assert texts == acts.sentences.tolist()
        assert labels == acts.labels.tolist()
        np.testing.assert_array_equal(expected.groups, acts.groups)

    def test_labels_that_are_missing_are_asked_for(self, dump):
        write(dump, by_layer(STATES))

        with pytest.raises(DataError, match=r"has no labels: .* Give labels=\.\.\."):
            _ = load_activations(dump).labels

    def test_labels_come_from_a_csv(self, dump, tmp_path):
        write(dump, by_layer(STATES))
        lines = [f"{number},{label}" for number, label in enumerate(LABELS)]
        (tmp_path / "labels.csv").write_text("\n".join(["sentence_index,label", *lines]))

        acts = load_activations(dump, labels=tmp_path / "labels.csv")

        np.testing.assert_array_equal(LABELS, acts.labels)

    def test_embeddings_have_a_name_of_their_own(self, dump):
        write(dump, {"embeddings": STATES[0], "layer_0": STATES[1]})

        acts = load_activations(dump)

        np.testing.assert_array_equal(STATES[0], acts.embeddings)
        np.testing.assert_array_equal([0], acts.layers)

    def test_pooling_cannot_be_asked_of_rows(self, dump):
        write(dump, by_layer(STATES))

        with pytest.raises(
            UsageError, match="holds rows that are already pooled, got pooling='mean'"
        ):
            load_activations(dump, pooling="mean")

    def test_nan_is_named_by_its_row(self, dump):
        states = STATES.copy()
        states[1, 7, 2] = np.nan
        write(dump, by_layer(states))

        with pytest.raises(DataError, match=r"\(row 7\): member 'hidden_states' layer 1 has 1 NaN"):
            load_activations(dump).layer(1)


class TestNumbers:
    def test_an_offset_shifts_the_layers(self, dump):
        write(dump, by_layer(STATES))

        acts = load_activations(dump, layer_offset=10)

        np.testing.assert_array_equal([10, 11, 12], acts.layers)
        np.testing.assert_array_equal(STATES[2], acts.layer(12))

    def test_minus_one_makes_embeddings_of_layer_0(self, dump):
        write(dump, by_layer(STATES, "hidden_states.{}"))

        acts = load_activations(dump, layer_offset=-1)

        np.testing.assert_array_equal([0, 1], acts.layers)
        np.testing.assert_array_equal(STATES[0], acts.embeddings)
        np.testing.assert_array_equal(STATES[1], acts.layer(0))
        assert "hidden_states.{layer} 0-2 as embeddings and layers 0-1" in repr(acts)

    def test_what_was_mapped_is_shown(self, dump):
        write(dump, by_layer(STATES))

        assert repr(load_activations(dump)).endswith(": layer_{layer} as layers 0-2)")

    def test_layers_below_the_embeddings_are_refused(self, dump):
        write(dump, by_layer(STATES))

        with pytest.raises(UsageError, match="layer_offset=-2 turns layer 0 into -2"):
            load_activations(dump, layer_offset=-2)

    def test_a_key_names_the_arrays(self, dump):
        write(dump, by_layer(STATES, "acts-{}-mlp") | {"layer_0": STATES[2]})

        acts = load_activations(dump, key="acts-{layer}-mlp")

        np.testing.assert_array_equal(STATES[0], acts.layer(0))

    def test_names_that_say_nothing_are_asked_for(self, dump):
        write(dump, by_layer(STATES, "acts-{}-mlp"))

        with pytest.raises(DataError) as error:
            load_activations(dump)

        assert "acts-0-mlp, acts-1-mlp, acts-2-mlp" in str(error.value)
        assert "Give key=..." in str(error.value)

    def test_two_ways_to_name_layers_are_not_chosen_between(self, dump):
        write(dump, {"layer_0": STATES[0], "L0": STATES[1]})

        with pytest.raises(UsageError, match=r"Give key='layer_\{layer\}' or key='L\{layer\}'"):
            load_activations(dump)

    def test_two_arrays_of_one_layer_are_refused(self, dump):
        write(dump, {"layer_1": STATES[0], "layer_01": STATES[1]})

        with pytest.raises(FileFormatError, match="has two arrays for layer 1"):
            load_activations(dump)


class TestOneArrayOfAllLayers:
    def test_layers_are_the_second_axis(self, dump):
        write(dump, {"hidden_states": STATES.swapaxes(0, 1).copy()})

        acts = load_activations(dump)

        np.testing.assert_array_equal(STATES.swapaxes(0, 1), acts.hidden_states)
        assert "hidden_states (rows, layers, width) as layers 0-2" in repr(acts)

    def test_layers_are_the_first_axis_where_labels_say_so(self, dump):
        write(dump, {"hidden_states": STATES, "labels": LABELS})

        np.testing.assert_array_equal(STATES[1], load_activations(dump).layer(1))

    @pytest.mark.parametrize("key", ["acts[5,10-11]", "acts[5, 10, 11]"])
    def test_brackets_give_the_numbers(self, dump, key):
        write(dump, {"acts": STATES.swapaxes(0, 1).copy()})

        acts = load_activations(dump, key=key)

        np.testing.assert_array_equal([5, 10, 11], acts.layers)
        np.testing.assert_array_equal(STATES[2], acts.layer(11))

    def test_an_array_lists_the_numbers(self, dump):
        write(dump, {"hidden_states": STATES.swapaxes(0, 1).copy(), "layers": np.array([9, 4, 2])})

        np.testing.assert_array_equal(STATES[0], load_activations(dump).layer(9))

    @pytest.mark.parametrize("order", [(1, 2, 0, 3), (1, 0, 2, 3), (0, 1, 2, 3)])
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_tokens_and_layers_are_told_apart_by_the_mask(self, dump, order, pooling):
        write(dump, {"hidden_states": TOKENS.transpose(order).copy(), "attention_mask": MASK})

        acts = load_activations(dump, pooling=pooling)

        expected = from_hidden_states(dict(enumerate(TOKENS)), MASK, pooling=pooling)
        np.testing.assert_array_equal(expected.hidden_states, acts.hidden_states)

    def test_four_axes_of_which_nothing_is_known_are_refused(self, dump):
        write(dump, {"hidden_states": TOKENS})

        with pytest.raises(FileFormatError, match="axes are ambiguous"):
            load_activations(dump)


class TestTokens:
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_a_mask_says_which_tokens_are_real(self, dump, pooling):
        write(dump, by_layer(TOKENS) | {"attention_mask": MASK, "labels": np.arange(6)})

        acts = load_activations(dump, pooling=pooling)

        expected = from_hidden_states(
            dict(enumerate(TOKENS)), MASK, pooling=pooling, labels=np.arange(6)
        )
        for name in ("hidden_states", "labels", "groups", "sentence_indices"):
            np.testing.assert_array_equal(getattr(expected, name), getattr(acts, name), name)
        np.testing.assert_array_equal(expected.rows.is_final_token, acts.rows.is_final_token)
        assert pooling == acts.pooling

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_offsets_say_where_sentences_begin(self, dump, pooling):
        counts = MASK.sum(axis=1)
        flat = [layer[MASK == 1] for layer in TOKENS]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        write(dump, by_layer(flat) | {"offsets": offsets})

        acts = load_activations(dump, pooling=pooling)

        expected = from_hidden_states(dict(enumerate(TOKENS)), MASK, pooling=pooling)
        np.testing.assert_array_equal(expected.hidden_states, acts.hidden_states)
        np.testing.assert_array_equal(expected.groups, acts.groups)

    def test_lengths_stand_for_a_mask_or_for_offsets(self, tmp_path):
        lengths = np.array([1, 4, 2, 3, 4, 1])
        mask = np.arange(4) < lengths[:, None]
        write(tmp_path / "padded.safetensors", by_layer(TOKENS) | {"lengths": lengths})
        flat = [layer[mask] for layer in TOKENS]
        write(tmp_path / "flat.safetensors", by_layer(flat) | {"lengths": lengths})

        padded, one_by_one = (
            load_activations(tmp_path / name, pooling="mean").hidden_states
            for name in ("padded.safetensors", "flat.safetensors")
        )

        expected = from_hidden_states(dict(enumerate(TOKENS)), mask, pooling="mean").hidden_states
        np.testing.assert_array_equal(expected, padded)
        np.testing.assert_array_equal(expected, one_by_one)

    def test_without_a_mask_every_token_counts_and_is_warned_of(self, dump):
        write(dump, by_layer(TOKENS))

        with pytest.warns(SklprepWarning, match="every position counts as a token"):
            acts = load_activations(dump, pooling="mean")

        np.testing.assert_allclose(TOKENS[1].mean(axis=1), acts.layer(1), rtol=1e-6)

    def test_sentences_longer_than_are_held_at_once_are_pooled_in_pieces(self, dump):
        tokens = RNG.normal(size=(2, 3000, 1024)).astype("<f4")
        write(dump, {"layer_0": tokens, "lengths": np.array([3000, 2])})

        for pooling, reduce in (("mean", np.mean), ("max", np.max)):
            found = load_activations(dump, pooling=pooling).layer(0)
            wide = tokens.astype(np.float64)
            expected = [reduce(wide[0], axis=0), reduce(wide[1, :2], axis=0)]
            np.testing.assert_array_equal(np.float32(expected), found)

    @pytest.mark.parametrize(
        ("name", "values", "found"),
        [
            ("attention_mask", MASK[:5], "has shape (5, 4)"),
            ("attention_mask", MASK * 2, "values other than 0 and 1"),
            ("attention_mask", MASK * [[1]] * 5 + [[0]], "has no token in row 5"),
            ("labels", np.arange(5), "has shape (5,)"),
            ("lengths", np.full(6, -1), "expected whole numbers from 0"),
        ],
    )
    def test_what_does_not_fit_the_tokens_is_named(self, dump, name, values, found):
        if "row 5" in found:
            values = MASK * (np.arange(6) < 5)[:, None]
        write(dump, by_layer(TOKENS) | {name: values})

        with pytest.raises(FileFormatError, match=re.escape(found)) as error:
            load_activations(dump)

        assert name in str(error.value)


class TestReading:
    def test_one_layer_reads_the_bytes_of_that_layer_and_no_others(self, dump):
        states = RNG.normal(size=(8, 100, 1024)).astype("<f4")
        write(dump, by_layer(states))
        acts = load_activations(dump)
        before = bytes_read()

        acts.layer(3)

        n_bytes = bytes_read() - before
        assert states[3].nbytes <= n_bytes <= states[3].nbytes + 10_000

    def test_final_tokens_read_the_bytes_of_these_tokens_and_no_others(self, dump):
        tokens = RNG.normal(size=(4, 50, 10, 512)).astype("<f4")
        write(dump, by_layer(tokens) | {"lengths": RNG.integers(1, 11, 50)})
        acts = load_activations(dump)
        before = bytes_read()

        acts.layer(3)

        n_bytes = bytes_read() - before
        assert tokens[3, :, 0].nbytes <= n_bytes <= tokens[3, :, 0].nbytes + 10_000

    def test_a_set_travels_as_a_path(self, dump):
        write(dump, by_layer(RNG.normal(size=(3, 100, 512)).astype("<f4")))
        acts = load_activations(dump)
        acts.layer(1)

        sent = pickle.dumps(acts)

        assert len(sent) < 10_000
        np.testing.assert_array_equal(acts.layer(2), pickle.loads(sent).layer(2))

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_a_pack_of_it_has_the_same_rows_and_fingerprint(self, dump, tmp_path, pooling):
        texts = {"sentences": np.array([f"text {k % 4}" for k in range(6)])}
        more = texts if not dump.suffix else {}
        write(dump, by_layer(TOKENS) | {"attention_mask": MASK, "labels": np.arange(6), **more})
        acts = load_activations(dump, pooling=pooling)

        acts.to_pack(tmp_path / "pack")

        pack = load_activations(tmp_path / "pack")
        for name in ("hidden_states", "labels", "groups", "sentence_indices", "sentences"):
            np.testing.assert_array_equal(getattr(acts, name), getattr(pack, name), name)
        assert acts.fingerprint == pack.fingerprint
        assert pooling == pack.pooling

    def test_the_fingerprint_tells_content_and_mapping_and_not_the_place(self, dump, tmp_path):
        write(dump, by_layer(STATES))
        there = load_activations(dump)
        (tmp_path / "elsewhere").mkdir()
        write(tmp_path / "elsewhere" / dump.name, by_layer(STATES))
        other = STATES.copy()
        other[2, 11, 4] += 1
        (tmp_path / "other").mkdir()
        write(tmp_path / "other" / dump.name, by_layer(other))

        assert there.fingerprint == load_activations(tmp_path / "elsewhere" / dump.name).fingerprint
        assert there.fingerprint != load_activations(tmp_path / "other" / dump.name).fingerprint
        assert there.fingerprint != load_activations(dump, layer_offset=1).fingerprint

    def test_a_file_that_changed_since_is_refused(self, dump):
        write(dump, by_layer(STATES))
        acts = load_activations(dump)
        victim = dump if dump.suffix else dump / "layer_1.npy"
        victim.write_bytes(victim.read_bytes()[:-4])

        with pytest.raises(FileFormatError, match="has changed since it was opened"):
            acts.layer(1)


class TestSeveralFiles:
    def test_shards_of_rows_follow_each_other_by_number(self, tmp_path):
        for shard in (2, 10, 1):
            rows = slice(*{1: (0, 3), 2: (3, 4), 10: (4, 12)}[shard])
            tensors = by_layer(STATES[:, rows].copy()) | {"labels": LABELS[rows]}
            write(tmp_path / f"shard_{shard}.safetensors", tensors)

        acts = load_activations(tmp_path)

        np.testing.assert_array_equal(STATES.swapaxes(0, 1), acts.hidden_states)
        np.testing.assert_array_equal(LABELS, acts.labels)
        np.testing.assert_array_equal(STATES[1][::-1], acts[::-1].layer(1))

    def test_shards_of_tokens_are_pooled_alike(self, tmp_path):
        for shard, rows in enumerate((slice(0, 2), slice(2, 6))):
            tensors = by_layer(TOKENS[:, rows].copy()) | {"attention_mask": MASK[rows]}
            write(tmp_path / f"shard_{shard}.safetensors", tensors)

        acts = load_activations(tmp_path, pooling="mean")

        expected = from_hidden_states(dict(enumerate(TOKENS)), MASK, pooling="mean")
        np.testing.assert_array_equal(expected.hidden_states, acts.hidden_states)

    def test_files_of_different_tensors_belong_together(self, tmp_path):
        write(tmp_path / "a-00001-of-00002.safetensors", {"layer_0": STATES[0], "labels": LABELS})
        write(tmp_path / "a-00002-of-00002.safetensors", {"layer_1": STATES[1]})

        acts = load_activations(tmp_path)

        np.testing.assert_array_equal(STATES[1], acts.layer(1))
        np.testing.assert_array_equal(LABELS, acts.labels)

    def test_a_layer_a_file_is_known_by_the_name_of_the_file(self, tmp_path):
        for number in range(3):
            write(tmp_path / f"layer_{number}.safetensors", {"acts": STATES[number]})
        write(tmp_path / "rows.safetensors", {"labels": LABELS})

        acts = load_activations(tmp_path)

        np.testing.assert_array_equal(STATES.swapaxes(0, 1), acts.hidden_states)
        np.testing.assert_array_equal(LABELS, acts.labels)

    def test_files_that_share_only_some_tensors_are_refused(self, tmp_path):
        write(tmp_path / "a.safetensors", {"layer_0": STATES[0], "layer_1": STATES[1]})
        write(tmp_path / "b.safetensors", {"layer_1": STATES[1], "layer_2": STATES[2]})

        with pytest.raises(
            FileFormatError, match=r"is in only one of this file and a\.safetensors"
        ):
            load_activations(tmp_path)

    def test_shards_of_other_widths_are_refused(self, tmp_path):
        write(tmp_path / "a.safetensors", {"layer_0": STATES[0]})
        write(tmp_path / "b.safetensors", {"layer_0": STATES[0][:, :3].copy()})

        with pytest.raises(FileFormatError, match=r"b.safetensors: holds .* as in a.safetensors"):
            load_activations(tmp_path)


SOUND = safetensors(by_layer(STATES))
HEADER = json.loads(SOUND[8 : 8 + int.from_bytes(SOUND[:8], "little")])


def forged(text, length=None):
    data = SOUND[8 + int.from_bytes(SOUND[:8], "little") :]
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (SOUND[:-1], "bytes; expected"),
        (SOUND + b"\0", "bytes; expected"),
        (SOUND[:40], "bytes; expected a header of"),
        (forged(b"{" * 1000), "has no safetensors header"),
        (forged(b'{"a":1' + b"," * 9), "has no safetensors header"),
        (forged(b"{}", length=1 << 39), "has a header of 549,755,813,888 bytes"),
        (forged(b'{"layer_0": 1, "layer_0": 2}'), "a name appears twice"),
        (forged(HEADER | {"layer_0": 3}), "expected dtype, shape and data_offsets"),
        (
            forged(HEADER | {"layer_0": HEADER["layer_1"]}),
            "has 'layer_0' at byte 240; expected byte 0",
        ),
        (forged(HEADER | {"layer_0": HEADER["layer_0"] | {"shape": [12, 6]}}), "has 240 bytes for"),
        (forged(HEADER | {"layer_0": HEADER["layer_0"] | {"shape": [-12, -5]}}), "data_offsets"),
        (forged(HEADER | {"layer_0": HEADER["layer_0"] | {"shape": [2**60]}}), "data_offsets"),
        (forged(HEADER | {"__metadata__": {"a": 1}}), "is not a mapping of texts"),
        (forged(HEADER | {"__metadata__": {"labels": "[1, 2"}}), "cannot be read"),
        (forged(HEADER | {"__metadata__": {"labels": "[[1], [2]]"}}), "has shape (2, 1)"),
        (forged(HEADER | {"__metadata__": {"labels": '{"a": 1}'}}), "cannot be read"),
        (forged(HEADER | {"__metadata__": {"sentences": "[1, 2]"}}), "has shape (2,)"),
        (forged(HEADER | {"__metadata__": {"pooling": "best"}}), "expected one of final, mean"),
    ],
)
def test_a_bad_safetensors_file_gets_one_clear_error(tmp_path, content, found):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)

    with pytest.raises(FileFormatError, match=re.escape(found)) as error:
        load_activations(path, format="safetensors")

    assert str(path) in str(error.value)
    assert str(error.value).isprintable()


def test_options_of_dumps_are_refused_for_sentence_files(tmp_path):
    with pytest.raises(UsageError, match=r"key=\.\.\. is for dumps of other tools"):
        load_activations(tmp_path, key="layer_{layer}")


def test_an_unknown_format_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"format must be one of sentences, pack, .*safetensors"):
        load_activations(tmp_path, format="parquets")


class TestCommands:
    @pytest.fixture(autouse=True)
    def _dump(self, dump):
        write(dump, by_layer(np.repeat(STATES, 10, axis=1)) | {"labels": np.repeat(LABELS, 10)})
        self.dump = dump

    def test_inspect_says_the_format_and_the_mapping(self, run_command):
        code, out, err = run_command("inspect", self.dump, "--layer-offset", "5")

        assert (0, "") == (code, err)
        assert ": layer_{layer} 0-2 as layers 5-7" in out
        assert "layers 5-7, 5 wide, float32" in out

    @pytest.mark.parametrize(
        ("tensors", "options", "noted"),
        [
            (by_layer(STATES, "hidden_states.{}"), [], True),
            ({"hidden_states": STATES[:2].transpose(1, 0, 2).copy(), "labels": LABELS}, [], True),
            (by_layer(STATES, "hidden_states.{}"), ["--layer-offset", "-1"], False),
            (by_layer(STATES, "hidden_states.{}"), ["--layer-offset", "1"], False),
            (by_layer(STATES, "hidden_states.{}") | {"embeddings": STATES[0]}, [], False),
            ({"hidden_states.1": STATES[1]}, [], False),
            (by_layer(STATES), [], False),
        ],
    )
    def test_inspect_notes_that_layer_0_may_be_the_embeddings(
        self, tmp_path, run_command, tensors, options, noted
    ):
        path = write_safetensors(tmp_path / "a.safetensors", tensors)

        code, out, err = run_command("inspect", path, "--quick", *options)

        assert (0, "") == (code, err)
        note = "if layer 0 holds the embeddings, as in Hugging Face's tuple, give --layer-offset -1"
        assert noted == (f"\n{'':16}{note}\n" in out)

    def test_inspect_gives_it_as_json(self, run_command):
        facts = json.loads(run_command("inspect", self.dump, "--json", "--quick")[1])

        name = "safetensors" if self.dump.suffix else "npy"
        assert ("dump", name) == (facts["kind"], facts["format"]["name"])
        assert f"{name}: layer_{{layer}} as layers 0-2" == facts["mapping"]

    def test_a_dataset_of_the_pack_has_the_bytes_of_one_of_the_dump(self, run_command, tmp_path):
        generate = ["generate", "--strategy", "hidden-to-concept", "--layers", "0-2"]
        assert 0 == run_command("pack", self.dump, tmp_path / "again" / self.dump.name)[0]
        for name, source in (("a", self.dump), ("b", tmp_path / "again" / self.dump.name)):
            output = tmp_path / f"{name}.npz"
            assert 0 == run_command(*generate, "--input", source, "--output", output)[0]

        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_sweep_takes_the_options(self, run_command):
        code, out, err = run_command(
            "sweep", self.dump, "--key", "layer_{layer}", "--layer-offset", "3", "--quiet"
        )

        assert (0, "") == (code, err)
        assert re.search(r"layer [345]", out)
