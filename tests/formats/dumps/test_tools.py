"""Dumps in the layouts of other tools: each gives what its arrays give through Python."""

import json
import re

import numpy as np
import pytest
from dump_files import write_datasets, write_safetensors

from sklprep import ActivationSet, from_hidden_states, load_activations
from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FileFormatError,
    SklprepWarning,
    UsageError,
)

RNG = np.random.default_rng(0)
POOLINGS = ("final", "mean", "max", "none")
COUNTS = RNG.integers(1, 7, 15)
MASK = np.arange(6) < COUNTS[:, None]
TOKENS = RNG.normal(size=(3, 15, 6, 5)).astype("<f4")  # layers, sentences, tokens, width


def expect(pooling, layers=range(3), tokens=TOKENS, mask=MASK):
    return from_hidden_states(
        dict(zip(layers, tokens, strict=True)), mask.astype(int), pooling=pooling
    )


def assert_same(expected, acts):
    for name in ("hidden_states", "layers", "groups", "sentence_indices"):
        np.testing.assert_array_equal(getattr(expected, name), getattr(acts, name), name)
    np.testing.assert_array_equal(expected.rows.is_final_token, acts.rows.is_final_token)
    assert expected.pooling == acts.pooling


def same_in_a_pack(acts, tmp_path):
    acts.to_pack(tmp_path / "pack")
    pack = load_activations(tmp_path / "pack")
    assert_same(acts, pack)
    assert acts.fingerprint == pack.fingerprint


class TestVllm:
    @pytest.fixture
    def folder(self, tmp_path):
        for number, count in enumerate(COUNTS):
            states = TOKENS[:, number, :count].swapaxes(0, 1).copy()
            tensors = {"hidden_states": states, "token_ids": np.arange(count)}
            write_safetensors(tmp_path / f"data/cmpl-{number}.safetensors", tensors)
        return tmp_path / "data"

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_a_file_is_a_sentence(self, folder, tmp_path, pooling):
        acts = load_activations(folder, key="hidden_states[0-2]", pooling=pooling)

        assert_same(expect(pooling), acts)
        same_in_a_pack(acts, tmp_path)

    def test_ids_of_layers_are_given_and_shifted(self, folder):
        acts = load_activations(folder, key="hidden_states[0,13,25]", layer_offset=-1)

        expected = expect("final")
        np.testing.assert_array_equal([12, 24], acts.layers)
        np.testing.assert_array_equal(expected.layer(0), acts.embeddings)
        np.testing.assert_array_equal(expected.layer(2), acts.layer(24))
        assert "0,13,25 as embeddings and layers 12,24" in repr(acts)

    def test_positions_that_stand_for_numbers_are_warned_of(self, folder):
        with pytest.warns(SklprepWarning, match=r"does not say which layers it holds"):
            acts = load_activations(folder)

        np.testing.assert_array_equal([0, 1, 2], acts.layers)

    def test_other_numbers_than_layers_are_refused(self, folder):
        with pytest.raises(UsageError, match="holds 3 layers, got 2 numbers"):
            load_activations(folder, key="hidden_states[0-1]")

    def test_faulty_files_are_named_together_or_left_out(self, folder):
        (folder / "cmpl-3.safetensors").write_bytes(b"")
        write_safetensors(
            folder / "cmpl-5.safetensors",
            {"hidden_states": TOKENS[:2, 5].swapaxes(0, 1).copy(), "token_ids": np.arange(6)},
        )
        options = {"key": "hidden_states[0-2]"}

        with pytest.raises(FaultyFilesError) as error:
            load_activations(folder, **options)
        with pytest.warns(SklprepWarning, match="Leaving out 2"):
            acts = load_activations(folder, skip_bad={}, **options)

        faulty = ["cmpl-3.safetensors", "cmpl-5.safetensors"]
        assert faulty == list(error.value.faults) == list(acts.left_out)
        keep = np.delete(np.arange(15), [3, 5])
        np.testing.assert_array_equal(expect("final").layer(1)[keep], acts.layer(1))

    def test_files_of_values_that_are_not_finite_are_left_out(self, folder):
        states = TOKENS[:, 4].swapaxes(0, 1).copy()
        states[-1, 1, 2] = np.inf
        tensors = {"hidden_states": states, "token_ids": np.arange(6)}
        write_safetensors(folder / "cmpl-4.safetensors", tensors)

        with pytest.warns(SklprepWarning, match=r"cmpl-4\.safetensors"):
            acts = load_activations(folder, key="hidden_states[0-2]", skip_bad=True)

        assert 14 == len(acts)


class TestSaelens:
    @pytest.mark.parametrize("wide", [False, True])
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_a_context_is_a_sentence(self, tmp_path, pooling, wide):
        columns = {f"blocks.{n}.hook_resid_post": TOKENS[n] for n in range(3)}
        columns["token_ids"] = RNG.integers(0, 99, (15, 6)).astype("<i4")
        folder = write_datasets(tmp_path / "data", columns, wide=wide)

        acts = load_activations(folder, pooling=pooling)

        assert_same(expect(pooling, mask=np.ones_like(MASK)), acts)
        same_in_a_pack(acts, tmp_path)

    def test_texts_and_labels_beside_them_are_read(self, tmp_path):
        texts = np.array([f"Sätze {n % 4}" for n in range(15)])
        columns = {"layer_3": TOKENS[0, :, 0], "text": texts, "label": np.arange(15) % 3}
        acts = load_activations(write_datasets(tmp_path / "data", columns))

        expected = ActivationSet.from_arrays(
            hidden_states=TOKENS[0, :, :1], layers=[3], labels=np.arange(15) % 3, sentences=texts
        )
        np.testing.assert_array_equal(expected.hidden_states, acts.hidden_states)
        assert texts.tolist() == acts.sentences.tolist()
        np.testing.assert_array_equal(expected.labels, acts.labels)
        np.testing.assert_array_equal(expected.groups, acts.groups)

    def test_other_hooks_need_a_key(self, tmp_path):
        folder = write_datasets(tmp_path / "data", {"blocks.4.hook_resid_pre": TOKENS[0]})

        with pytest.raises(DataError, match=r"blocks\.4\.hook_resid_pre.*Give key"):
            load_activations(folder)
        acts = load_activations(folder, key="blocks.{layer}.hook_resid_pre", layer_offset=-1)
        np.testing.assert_array_equal([3], acts.layers)

    def test_columns_with_missing_values_or_several_lengths_are_not_layers(self, tmp_path):
        pa = pytest.importorskip("pyarrow")
        folder = write_datasets(tmp_path / "data", {"layer_0": TOKENS[0]}, files=1)
        rows = TOKENS[0].tolist()
        rows[3] = rows[3][:2]
        table = pa.table({"layer_0": TOKENS[0].tolist(), "layer_1": rows, "layer_2": [None] * 15})
        with (
            pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)

        np.testing.assert_array_equal([0], load_activations(folder).layers)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda raw: raw[:-300], "bytes; expected"),
            (lambda raw: b"\1" + raw[1:], "has no message where one should begin"),
            (lambda raw: raw[:8] + b"\xff" * 16 + raw[24:], "has a broken message"),
            (lambda raw: b"", "has no schema"),
        ],
    )
    def test_a_damaged_file_gets_one_clear_error(self, tmp_path, change, found):
        folder = write_datasets(tmp_path / "data", {"layer_0": TOKENS[0]})
        victim = folder / "data-00001-of-00002.arrow"
        victim.write_bytes(change(victim.read_bytes()))

        with pytest.raises(FileFormatError, match=re.escape(found)) as error:
            load_activations(folder)

        assert str(victim) in str(error.value)

    def test_a_compressed_stream_is_refused(self, tmp_path):
        pa = pytest.importorskip("pyarrow")
        folder = write_datasets(tmp_path / "data", {"layer_0": TOKENS[0]}, files=1)
        table = pa.table({"layer_0": TOKENS[0].tolist()})
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema, options=options) as writer,
        ):
            writer.write_table(table)

        with pytest.raises(FileFormatError, match="is compressed"):
            load_activations(folder)


class TestDelphi:
    @pytest.fixture
    def latents(self):
        """Dense latents of two hookpoints: (hookpoints, sequences, tokens, latents)."""
        values = np.maximum(RNG.normal(-1, 1, size=(2, 15, 6, 20)), 0)
        return values.astype("<f2").astype("<f4")

    @pytest.fixture
    def folder(self, tmp_path, latents):
        for number, dense in zip((2, 11), latents, strict=True):
            for start, end in ((0, 12), (13, 19)):
                places = np.argwhere(dense[..., start : end + 1])
                tensors = {
                    "locations": places.astype("<u2"),
                    "activations": dense[..., start : end + 1][tuple(places.T)].astype("<f2"),
                    "tokens": np.zeros((15, 6), "<i8"),
                }
                name = f"latents/layers.{number}.mlp/{start}_{end}.safetensors"
                write_safetensors(tmp_path / name, tensors)
        return tmp_path / "latents"

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_latents_are_sae_features_of_sequences(self, folder, latents, pooling, tmp_path):
        acts = load_activations(folder, pooling=pooling)

        np.testing.assert_array_equal([2, 11], acts.sae_layers)
        for dense, matrix in zip(latents, acts.activations, strict=True):
            expected = {
                "final": dense[:, -1],
                "mean": dense.mean(axis=1, dtype=np.float64).astype("<f4"),
                "max": dense.max(axis=1),
                "none": dense.reshape(-1, 20),
            }[pooling]
            np.testing.assert_array_equal(expected, matrix.toarray())
        acts.to_pack(tmp_path / "pack")
        pack = load_activations(tmp_path / "pack")
        for one, other in zip(acts.activations, pack.activations, strict=True):
            np.testing.assert_array_equal(one.toarray(), other.toarray())

    def test_rows_are_read_in_any_order(self, folder, latents):
        acts = load_activations(folder)

        np.testing.assert_array_equal(
            latents[1, [14, 0, 3, 3], -1], acts[[14, 0, 3, 3]].sae_activations(11).toarray()
        )

    def test_the_mapping_names_hookpoints(self, folder):
        mapped = "delphi: layers.2.mlp as layer 2, layers.11.mlp as layer 11"

        assert mapped in repr(load_activations(folder))

    def test_average_l0_is_counted(self, folder, latents):
        counts = (latents != 0).sum(axis=(1, 2, 3)) / 90

        np.testing.assert_array_equal(np.round(counts), load_activations(folder).average_l0s)

    def test_a_key_chooses_hookpoints(self, folder):
        (folder / "layers.2.mlp").rename(folder / "3.2.mlp")

        with pytest.raises(FileFormatError, match=r"3\.2\.mlp: has 2 numbers in its name"):
            load_activations(folder)
        acts = load_activations(folder, key="3.{layer}.mlp")
        np.testing.assert_array_equal([2], acts.sae_layers)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"locations": np.array([[15, 0, 0]], "<u2")}, "are out of range"),
            ({"locations": np.array([[0, 6, 0]], "<u2")}, "are out of range"),
            ({"locations": np.array([[0, 0, 7]], "<u2")}, "are out of range"),
            ({"locations": np.array([[1, 0, 0], [0, 0, 0]], "<u2")}, "order of the tokens"),
            ({"locations": np.zeros((1, 2), "<u2")}, "have shapes (1, 2) and (1,)"),
            ({"tokens": np.zeros((14, 6), "<i8")}, "has shape (14, 6)"),
            ({"tokens": np.zeros(6, "<i8")}, "save_tokens=True"),
        ],
    )
    def test_what_does_not_fit_is_named(self, folder, change, found):
        n = len(change.get("locations", [0]))
        tensors = {
            "locations": np.zeros((n, 3), "<u2"),
            "activations": np.ones(n, "<f2"),
            "tokens": np.zeros((15, 6), "<i8"),
        }
        victim = folder / "layers.2.mlp/13_19.safetensors"
        write_safetensors(victim, tensors | change)

        with pytest.raises(FileFormatError, match=re.escape(found)) as error:
            load_activations(folder).activations  # noqa: B018

        assert str(victim) in str(error.value)


class TestLmprobe:
    def write(self, folder, *, full, **changes):
        """Write two shards of last tokens, and with `full` two of the other tokens."""
        pa = pytest.importorskip("pyarrow")
        from pyarrow.parquet import write_table

        order = RNG.permutation(15)
        shards = [order[:9], order[9:]]
        place = {s: (n, r) for n, shard in enumerate(shards) for r, s in enumerate(shard)}
        rest = [[(s, t) for s in shard for t in range(COUNTS[s] - 1)] for shard in shards]
        others = {pair: (n + 2, r) for n, pairs in enumerate(rest) for r, pair in enumerate(pairs)}
        for layer in range(3):
            parts = [[TOKENS[layer, s, COUNTS[s] - 1] for s in shard] for shard in shards]
            parts += [[TOKENS[layer, s, t] for s, t in pairs] for pairs in rest] if full else []
            for number, rows in enumerate(parts):
                name = f"tensors/hidden_layer{layer:03d}_shard{number:03d}.safetensors"
                write_safetensors(folder / name, {f"hidden.layer_{layer}": np.array(rows)})
        where = [[*(others[s, t] for t in range(COUNTS[s] - 1)), place[s]] for s in range(15)]
        columns = {
            "text": [f"prompt {number % 5}" for number in range(15)],
            "label": [number % 3 for number in range(15)],
            "num_tokens": COUNTS.tolist(),
            "shard_index": [place[s][0] for s in range(15)],
            "row_offset": [place[s][1] for s in range(15)],
        }
        if full:
            columns["token_shard_ids"] = [[shard for shard, _ in pairs] for pairs in where]
            columns["token_shard_offsets"] = [[row for _, row in pairs] for pairs in where]
        hidden = {
            "type": "hidden",
            "layers": [0, 1, 2],
            "storage": "full_sequence" if full else "pooled",
            "file_pattern": "tensors/hidden_layer{layer:03d}_shard{shard:03d}.safetensors",
            "key_pattern": "hidden.layer_{layer}",
            "shards": [{}] * (4 if full else 2),
        } | {name: value for name, value in changes.items() if name not in columns}
        columns |= {name: value for name, value in changes.items() if name in columns}
        metadata = {
            "lmprobe:format_version": '"2.0"',
            "lmprobe:tensors": json.dumps({"hidden_layers": hidden}),
        }
        (folder / "index").mkdir()
        table = pa.table(columns).replace_schema_metadata(metadata)
        write_table(table, folder / "index/train-00000-of-00001.parquet")
        return folder

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_tokens_of_all_shards_are_put_together(self, tmp_path, pooling):
        acts = load_activations(self.write(tmp_path / "data", full=True), pooling=pooling)

        expected = expect(pooling)
        np.testing.assert_array_equal(expected.hidden_states, acts.hidden_states)
        np.testing.assert_array_equal(expected.sentence_indices, acts.sentence_indices)
        np.testing.assert_array_equal(expected.sentence_indices % 3, acts.labels)
        np.testing.assert_array_equal(expected.sentence_indices % 5, acts.groups)

    def test_rows_of_last_tokens_need_no_pooling(self, tmp_path):
        acts = load_activations(self.write(tmp_path / "data", full=False))

        np.testing.assert_array_equal(expect("final").hidden_states, acts.hidden_states)
        assert ["prompt 0", "prompt 1"] == acts.sentences[:2].tolist()
        acts.to_pack(tmp_path / "pack")
        assert acts.fingerprint == load_activations(tmp_path / "pack").fingerprint
        with pytest.raises(UsageError, match="already pooled"):
            load_activations(tmp_path / "data", pooling="mean")

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"shard_index": [2] * 15}, "names a shard that does not exist"),
            ({"row_offset": [9] * 15}, "names a row that does not exist"),
            ({"row_offset": [-1] * 15}, "names a row that does not exist"),
            ({"file_pattern": "../{layer}_{shard}.safetensors"}, "below the folder"),
            ({"file_pattern": "/etc/{layer}"}, "points outside the folder"),
            ({"file_pattern": "{layer.__class__}"}, "below the folder"),
            ({"file_pattern": "{layer:099999999d}"}, "below the folder"),
            ({"layers": [0, 1, 2, 3]}, "is missing; expected this file, which"),
            ({"layers": []}, "lists no layers"),
            ({"key_pattern": "hidden"}, "member 'hidden' is missing"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path, changes, found):
        folder = self.write(tmp_path / "data", full=False, **changes)

        with pytest.raises(FileFormatError, match=re.escape(found)):
            load_activations(folder)


def write_hdf5(path, arrays, **options):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            wide = options if values.ndim > 1 else {}
            chunks = wide.get("chunks")
            if isinstance(chunks, tuple):
                chunks = (*chunks, 2, 2)[: values.ndim]
            file.create_dataset(name, data=values, **wide | ({"chunks": chunks} if chunks else {}))
    return path


def write_zarr(path, arrays, version=2, chunks=None, **options):
    zarr = pytest.importorskip("zarr", minversion="3")
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    for name, values in arrays.items():
        sizes = (
            (*(chunks or values.shape), 2, 2)[: values.ndim] if values.ndim > 1 else values.shape
        )
        options |= {"shape": values.shape, "dtype": values.dtype, "chunks": sizes}
        array = group.create_array(name, **options)
        array[...] = values
    return path


WRITERS = {
    "hdf5": lambda path, arrays: write_hdf5(path, arrays),
    "hdf5 in chunks": lambda path, arrays: write_hdf5(
        path, arrays, chunks=(4, 3), compression="gzip", shuffle=True
    ),
    "zarr 2": lambda path, arrays: write_zarr(path, arrays, 2),
    "zarr 2 in chunks": lambda path, arrays: write_zarr(path, arrays, 2, chunks=(4, 3)),
    "zarr 3": lambda path, arrays: write_zarr(path, arrays, 3),
    "zarr 3 in chunks": lambda path, arrays: write_zarr(path, arrays, 3, chunks=(4, 3)),
}


@pytest.mark.parametrize("kind", WRITERS)
class TestArraysByPath:
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_tokens_are_pooled(self, tmp_path, kind, pooling):
        arrays = {f"acts/at-{n}": TOKENS[n] for n in range(3)} | {"attention_mask": MASK}
        path = WRITERS[kind](tmp_path / "dump", arrays)

        acts = load_activations(path, key="acts/at-{layer}", pooling=pooling)

        assert_same(expect(pooling), acts)
        same_in_a_pack(acts, tmp_path)

    def test_rows_are_read_in_any_order(self, tmp_path, kind):
        arrays = {f"layer_{n}": TOKENS[n, :, 0] for n in range(3)} | {"labels": np.arange(15)}
        acts = load_activations(WRITERS[kind](tmp_path / "dump", arrays))

        np.testing.assert_array_equal(TOKENS[1, [14, 0, 3, 3], 0], acts[[14, 0, 3, 3]].layer(1))
        np.testing.assert_array_equal(np.arange(15), acts.labels)

    def test_layers_along_an_axis_are_read(self, tmp_path, kind):
        arrays = {"hidden_states": TOKENS.transpose(1, 2, 0, 3).copy(), "attention_mask": MASK}
        acts = load_activations(WRITERS[kind](tmp_path / "dump", arrays), pooling="max")

        np.testing.assert_array_equal(expect("max").hidden_states, acts.hidden_states)

    def test_inspect_says_the_format(self, tmp_path, kind, run_command):
        arrays = {"layer_0": TOKENS[0, :, 0], "labels": np.arange(15) % 3}
        path = WRITERS[kind](tmp_path / "dump", arrays)

        code, out, err = run_command("inspect", path)

        assert (0, "") == (code, err)
        assert ": dump, " in out
        assert f"mapping       {kind.split()[0]}: layer_{{layer}} as layer 0" in out


class TestHdf5:
    def test_texts_of_one_length_are_read(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        path = write_hdf5(tmp_path / "a.h5", {"layer_0": TOKENS[0, :, 0]})
        texts = [f"Sätze {number}" for number in range(15)]
        with h5py.File(path, "a") as file:
            file["sentences"] = np.char.encode(texts, "utf-8")

        assert texts == load_activations(path).sentences.tolist()

    def test_texts_of_variable_length_are_warned_of(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        path = write_hdf5(tmp_path / "a.h5", {"layer_0": TOKENS[0, :, 0]})
        with h5py.File(path, "a") as file:
            file["sentences"] = [f"Sätze {number}" for number in range(15)]

        with pytest.warns(SklprepWarning, match="sentences is text of variable length"):
            acts = load_activations(path)

        assert acts.sentences is None

    def test_objects_and_arrays_in_other_files_are_not_read(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        path = write_hdf5(tmp_path / "a.h5", {"layer_0": TOKENS[0, :, 0]})
        with h5py.File(path, "a") as file:
            file["layer_1"] = h5py.ExternalLink("b.h5", "layer_1")
            kind = h5py.vlen_dtype(np.dtype("<f4"))
            file.create_dataset("layer_2", (15,), kind)

        np.testing.assert_array_equal([0], load_activations(path).layers)

    def test_external_storage_is_refused(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        (tmp_path / "raw").write_bytes(bytes(300))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("layer_0", (15, 5), "<f4", external=[(tmp_path / "raw", 0, 300)])

        with pytest.raises(FileFormatError, match="is in another file"):
            load_activations(tmp_path / "a.h5")

    @pytest.mark.parametrize("shape", [(1 << 40, 5), (15, 5)])
    def test_what_was_never_written_is_refused(self, tmp_path, shape):
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("layer_0", shape, "<f4", chunks=(8, 5))

        with pytest.raises(FileFormatError, match="has 0 chunks; expected"):
            load_activations(tmp_path / "a.h5")

    def test_a_file_cut_short_gets_one_clear_error(self, tmp_path):
        path = write_hdf5(tmp_path / "a.h5", {"layer_0": TOKENS[0, :, 0]})
        path.write_bytes(path.read_bytes()[:-100])

        with pytest.raises(FileFormatError, match=r"a\.h5: cannot be read"):
            load_activations(path)


class TestZarr:
    @pytest.mark.parametrize("codec", ["pickle", "json2", "vlen-utf8", "vlen-bytes"])
    def test_codecs_of_python_objects_are_refused(self, tmp_path, codec):
        path = write_zarr(tmp_path / "a.zarr", {"layer_0": TOKENS[0, :, 0]}, 2)
        file = path / "layer_0/.zarray"
        fields = json.loads(file.read_text()) | {"dtype": "|O", "filters": [{"id": codec}]}
        file.write_text(json.dumps(fields))

        with pytest.raises(FileFormatError, match=f"has the codec '{codec}'"):
            load_activations(path)

    def test_object_dtypes_are_refused(self, tmp_path):
        path = write_zarr(tmp_path / "a.zarr", {"layer_0": TOKENS[0, :, 0]}, 2)
        file = path / "layer_0/.zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": "|O"}))

        with pytest.raises(FileFormatError, match=r"has dtype '\|O'; expected no Python objects"):
            load_activations(path)

    def test_chunks_of_zeros_need_not_be_there(self, tmp_path):
        values = TOKENS[0, :, 0].copy()
        values[4:12] = 0
        path = write_zarr(tmp_path / "a.zarr", {"layer_0": values}, 2, chunks=(4, 5))

        np.testing.assert_array_equal(values, load_activations(path).layer(0))

    @pytest.mark.parametrize("name", ["shape", "chunks"])
    @pytest.mark.parametrize("value", [[1 << 40, 5], [0, 5], [15], ["a", 5], None, [1.5, 5]])
    def test_metadata_that_fits_nothing_is_refused(self, tmp_path, name, value):
        path = write_zarr(tmp_path / "a.zarr", {"layer_0": TOKENS[0, :, 0]}, 2)
        file = path / "layer_0/.zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))

        with pytest.raises(FileFormatError, match=r"layer_0/\.zarray: "):
            load_activations(path)

    @pytest.mark.parametrize("version", [2, 3])
    def test_chunks_by_blosc_that_are_shorter_than_they_say_are_refused(self, tmp_path, version):
        """Its decoder reads on behind their end, so that values would be what lies there."""
        codecs = pytest.importorskip("zarr.codecs" if version == 3 else "numcodecs")
        codec = (codecs.BloscCodec if version == 3 else codecs.Blosc)(cname="lz4")
        arrays = {"layer_0": TOKENS[0, :, 0]}
        path = write_zarr(tmp_path / "a.zarr", arrays, version, compressors=codec)
        np.testing.assert_array_equal(arrays["layer_0"], load_activations(path).layer(0))
        chunk = path / ("layer_0/0.0" if version == 2 else "layer_0/c/0/0")
        chunk.write_bytes(chunk.read_bytes()[:-8])

        with pytest.raises(
            FileFormatError, match=r"0: has \d+ bytes; expected \d+, according to its header"
        ):
            load_activations(path)
