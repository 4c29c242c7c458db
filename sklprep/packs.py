"""The pack: a folder of plain ``.npy`` arrays, read in place, that grows with its sentence folder.

Arrays only ever grow at their end, and the manifest, replaced last and atomically, says how many
rows of each count. So whatever moment a run is killed at, the folder holds the old pack or the new
one, and the next run goes on from the last manifest. A pack of other rows than all of a folder is
written at once and does not grow.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FileFormatError,
    OutputError,
    UsageError,
)
from sklprep.faults import brief, faulty_files, file_fault, warn_left_out
from sklprep.files import (
    PIECE_BYTES,
    NpyFile,
    atomic_folder,
    atomic_write,
    check_output,
    check_space,
    name_full_disk,
    sync_to_disk,
)
from sklprep.sentences import (
    MAX_WIDTH,
    Block,
    RowSet,
    SentenceFolder,
    fingerprint_of,
    is_last_of_each,
)
from sklprep.temporary import is_at, remove_dead

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FORMAT = "sklprep pack"
FORMAT_VERSION = 1
"""Raise it when a reader of the old version would misread the new folder, not for new arrays."""

MANIFEST = "manifest.json"

_MAX_MANIFEST_BYTES = 64 << 20
_BATCH_BYTES = 64 << 20
_WRITE_BYTES = 128 << 10
_MAX_INT = 1 << 63
_DTYPE = re.compile(r"<[fiu][248]|\|[iub]1|<U[1-9][0-9]{0,7}")
_ARRAY_NAME = re.compile(r"[a-z_]+(/[\w.+-]+)?", re.ASCII)
_KINDS = {  # of labels any
    "sentence_indices": "<i8",
    "groups": "<i8",
    "sentence_of_row": "<i8",
    "is_final_token": "|b1",
    "sentences": "<U",
    "source_names": "<U",
    "source_digests": "|u1",
}
_SMALL = ("labels", *_KINDS)
_CACHED = ("labels", "sentence_indices", "groups", "sentence_of_row", "sentences")


class Pack:
    """A pack as a source of rows; nothing but the manifest is read before it is asked for.

    Parameters
    ----------
    path : path-like
        The folder.
    pooling : str or None
        Must be the pooling it was made with; None takes it as it is.

    Attributes
    ----------
    place : Path
        The folder that errors name: that of the sentence files, where the pack is a temporary one.

    Raises
    ------
    FileFormatError
        If the manifest is broken, or of a newer format.
    UsageError
        If the pooling is another one.
    """

    def __init__(self, path: str | os.PathLike[str], *, pooling: str | None) -> None:
        self.path = self.place = Path(path)
        self.manifest = _read_manifest(self.path)
        self.is_pooled = self.manifest["pooling"] is not None
        self.pooling: str = self.manifest["pooling"] or "final"
        if pooling not in (None, self.pooling):
            raise UsageError(
                f"{self.path} was packed with pooling {self.pooling!r}, got {pooling!r}. Use that"
                " pooling, or pack the sentence files again."
            )
        self.name: str = self.manifest["source"]
        self.fingerprint: str = self.manifest["fingerprint"]
        self.n_rows: int = self.manifest["n_rows"]
        self.layers = np.array(self.manifest["layers"], np.int64)
        self.sae_layers = np.array(self.manifest["sae_layers"], np.int64)
        self.average_l0s = np.array(self.manifest["average_l0s"])
        self.d_embed: int | None = self.manifest["d_embed"]
        self.d_model: int | None = self.manifest["d_model"]
        self.n_features: int | None = self.manifest["n_features"]
        self.left_out: dict[str, FileFormatError] = {
            name: FileFormatError(f"{self.path}: {name} was left out when it was packed.")
            for name in self.manifest.get("left_out", ())
        }
        self._kept: NDArray[np.int64] | None = None

    def without(self, faults: Mapping[str, FileFormatError]) -> Pack:
        """Give the same pack without the rows of these sentence files."""
        if not faults:
            return self
        left_out = dict(sorted({**self.left_out, **faults}.items()))
        keep = np.flatnonzero([name not in faults for name in self.names_of_rows()])
        if not len(keep):
            raise faulty_files(self.place, left_out, len(left_out))
        pack = copy.copy(self)
        for name in _CACHED:
            pack.__dict__.pop(name, None)
        pack.left_out = left_out
        pack._kept = keep if self._kept is None else self._kept[keep]
        pack.n_rows = len(keep)
        if self._has("source_digests"):
            names, digests = self._small("source_names").tolist(), self._small("source_digests")
            files = dict(zip(names, map(bytes, digests), strict=True))
            kept = [(name, digest) for name, digest in files.items() if name not in left_out]
        else:
            kept = [(self.manifest["fingerprint"], b""), *((name, b"") for name in left_out)]
        pack.fingerprint = fingerprint_of(kept)
        return pack

    @property
    def key(self) -> str:
        """What the folder that it was made from has, too."""
        return f"{self.fingerprint} {self.pooling}"

    def __getstate__(self) -> dict[str, Any]:
        """Travel without what was read, which is read again where needed, and without segments."""
        state = {key: value for key, value in self.__dict__.items() if key not in _CACHED}
        arrays = {
            name: {key: value for key, value in entry.items() if key != "segments"}
            for name, entry in self.manifest["arrays"].items()
        }
        return state | {"manifest": self.manifest | {"arrays": arrays}}

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Concept label of each row."""
        if self.manifest["labels_fault"]:
            raise DataError(f"{self.path} has no labels: {self.manifest['labels_fault']}")
        return self._of_rows(self._small("labels"))

    @cached_property
    def sentence_indices(self) -> NDArray[np.int64]:
        """The sentence's own index, for each row."""
        return self._of_rows(self._small("sentence_indices"))

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """What must not straddle a split: the sentence of each row, unless others were given."""
        if self._has("sentence_of_row"):
            return self._of_rows(self._small("groups"))
        sentences = self.sentence_of_row
        return sentences if self._kept is None else np.unique(sentences, return_inverse=True)[1]

    @cached_property
    def sentence_of_row(self) -> NDArray[np.int64]:
        """Position of each row's sentence among those that were packed."""
        name = "sentence_of_row" if self._has("sentence_of_row") else "groups"
        positions = self._small(name)
        n_sentences = self.manifest["n_sentences"]
        if len(positions) and not 0 <= positions.min() <= positions.max() < n_sentences:
            raise self._fault(name, "names sentences", f"0 to {n_sentences - 1}")
        return self._of_rows(positions)

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row stands for its sentence: the final token, or what was pooled."""
        if self._has("is_final_token"):
            return self._of_rows(self._small("is_final_token"))
        return _usual_final(self.pooling, self.sentence_of_row)

    @property
    def stored_dtype(self) -> str:
        """Dtype that holds each value of the rows."""
        arrays = self.manifest["arrays"].items()
        wide = {entry["dtype"] for name, entry in arrays if name not in _SMALL}
        return "<f2" if {dtype for dtype in wide if "f" in dtype} == {"<f2"} else "<f4"

    @cached_property
    def sentences(self) -> NDArray[np.str_] | None:
        """The text of each row's sentence, or None where the source held none."""
        return self._small("sentences")[self.sentence_of_row] if self._has("sentences") else None

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(n_rows, d_embed)."""
        return self._rows("embeddings", self._positions(rows))

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(n_rows, d_model) of one layer."""
        return self._rows(_layer_name(layer), self._positions(rows))

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        """(n_rows, n_features) of one SAE config."""
        from scipy.sparse import csr_array

        rows = self._positions(rows)
        names = _config_names(self.manifest, config)
        data, indices, indptr = (self._open(name) for name in names)
        with data, indices, indptr:
            if rows is None:
                ends = indptr.read()
                starts, counts = ends[:-1], np.diff(ends)
            else:
                starts = indptr.take(rows)
                counts = indptr.take(rows + 1) - starts
                ends = np.concatenate([[0], np.cumsum(counts)])
            if ((starts < 0) | (counts < 0) | (starts + counts > data.shape[0])).any():
                raise self._fault(names[2], "points outside its data", "ascending positions")
            if rows is None:
                values, columns = data.read(), indices.read()
            else:
                places = np.repeat(starts - ends[:-1], counts) + np.arange(ends[-1])
                values, columns = data.take(places), indices.take(places)
        try:
            matrix = csr_array(
                (values.astype(np.float32, copy=False), columns, ends.astype(np.int32)),
                shape=(len(ends) - 1, self.n_features or 0),
            )
            matrix.check_format()
        except ValueError as error:
            raise self._fault(names[1], f"is no sparse matrix ({error})", "row indices") from None
        return matrix

    def names_of_rows(self) -> list[str]:
        """Name of the sentence file that each row comes from; empty if it came from none."""
        return self._small("source_names")[self.sentence_of_row].tolist()

    def describe_row(self, row: int) -> str:
        """Name the pack, the row and the sentence file or the sentence it comes from."""
        name = self._small("source_names")[self.sentence_of_row[row]]
        if self.place != self.path:
            return str(self.place / name)
        position = row if self._kept is None else int(self._kept[row])
        origin = f"from {name}" if name else f"sentence_index {self.sentence_indices[row]}"
        return f"{self.path} (row {position}, {origin})"

    def require(self, member: str) -> None:
        """Raise `DataError` unless the pack holds this member."""
        if {
            "embeddings": self.d_embed,
            "hidden_states": self.d_model,
            "activations": self.n_features,
        }[member] is None:
            raise DataError(f"{self.path} holds no {member}: what was packed had none.")

    def read(self, **_: Any) -> None:
        """Nothing to do: rows are read in place."""

    def verify(self) -> list[str]:
        """Compare every digest; returns one line for each array that differs."""
        faults = []
        if self.manifest.get("digest", digest := _manifest_digest(self.manifest)) != digest:
            faults.append(f"{self.path / MANIFEST} differs from its digest")
        for name in self.manifest["arrays"]:
            try:
                with self._open(name) as array:
                    segments = _segments_of(array)
                expected = self.manifest["arrays"][name]["digest"]
                if _digest_of(segments) != expected:
                    faults.append(f"{self.path / name}.npy differs from its digest")
            except (FileFormatError, OSError) as error:
                faults.append(str(error))
        return faults

    def _fault(self, name: str, found: str, expected: str) -> FileFormatError:
        do = "Pack the sentence files again."
        return file_fault(self.path / f"{name}.npy", None, found, expected, do)

    def _of_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._kept is None else values[self._kept]

    def _positions(self, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Where the rows stand in the arrays."""
        if self._kept is None or rows is None:
            return rows if self._kept is None else self._kept
        return self._kept[rows]

    def _has(self, name: str) -> bool:
        return name in self.manifest["arrays"]

    def _open(self, name: str) -> NpyFile:
        entry = self.manifest["arrays"][name]
        try:
            array = NpyFile(self.path / f"{name}.npy", entry["shape"][0])
        except FileNotFoundError:
            raise self._fault(name, "is missing", f"an array, as in {MANIFEST}") from None
        text = np.dtype(entry["dtype"]).kind == array.dtype.kind == "U"
        if list(array.shape) != entry["shape"] or not (text or array.dtype.str == entry["dtype"]):
            array.close()
            raise self._fault(
                name,
                f"holds {array.dtype.str} of shape {array.shape}",
                f"{entry['dtype']} of {tuple(entry['shape'])} as in {MANIFEST}",
            )
        return array

    def _small(self, name: str) -> NDArray[Any]:
        with self._open(name) as array:
            return array.read()

    def _rows(self, name: str, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
        with self._open(name) as array:
            values = array.read() if rows is None else array.take(rows)
        return values.astype(np.float32, copy=False)


def is_pack(path: str | os.PathLike[str]) -> bool:
    """Tell a pack from a folder of sentence files."""
    return (Path(path) / MANIFEST).is_file()


def build_pack(
    source: SentenceFolder,
    output: str | os.PathLike[str],
    *,
    layers: Iterable[int] | None = None,
    embeddings: bool = True,
    configs: Iterable[int] | None = None,
    skip_bad: bool = False,
) -> Pack:
    """Write a folder of sentence files as a pack, or add its new files to one.

    Parameters
    ----------
    source : SentenceFolder
    output : path-like
        A pack of the same folder, or a path that does not exist yet.
    layers, configs : iterable of int, or None
        Which layers and SAE configs to keep; None for all there are.
    embeddings : bool, default=True
        Keep the embeddings, if there are any.
    skip_bad : bool, default=False
        Leave out files that turn out to be damaged or lack the label that others have, and warn of
        all that are left out.

    Returns
    -------
    Pack

    Raises
    ------
    FaultyFilesError
        If files are damaged; it names all of them.
    OutputError
        If the path cannot be written.
    UsageError
        If `output` is the pack of other files.
    """
    while True:
        try:
            if skip_bad:
                source.check_labels()  # or the pack would have none
            pack = _build(source, Path(output), layers, embeddings, configs)
        except FaultyFilesError as error:
            if not skip_bad:
                raise
            source = source.without(error.faults)
        else:
            if skip_bad:
                n_files = len(source.files) + len(source.left_out)
                warn_left_out(source.path, source.left_out, n_files)
            return pack


def _build(
    source: SentenceFolder,
    output: Path,
    layers: Iterable[int] | None,
    embeddings: bool,
    configs: Iterable[int] | None,
) -> Pack:
    check_pack_output(output)
    if output.is_symlink():
        output = output.resolve()
    with name_full_disk(output), _locked_work_folder(output) as work:
        blank = manifest = _new_manifest(source, layers, embeddings, configs)
        try:
            if is_pack(work):
                manifest = _read_manifest(work)
            _check_extends(work, manifest, blank, source)
        except FaultyFilesError:
            raise
        except (UsageError, FileFormatError):
            if work == output:
                raise
            manifest = blank  # nobody has seen what an interrupted run began for other files
        if work != output and manifest is blank:
            _empty(work)
        _append(work, output, manifest, source)
        _remove_leftovers(work, manifest)
        if work != output:
            with contextlib.suppress(FileNotFoundError):
                output.rmdir()
            work.rename(output)
            sync_to_disk(output.parent)
        else:
            remove_dead(_partial(output))
    return Pack(output, pooling=source.pooling)


def check_pack_output(output: Path) -> None:
    """Refuse, before any work is done, a path that cannot become a pack.

    Raises
    ------
    OutputError
        If it cannot be written, or is there and not a pack.
    """
    with contextlib.suppress(OSError):  # the next line says what is wrong with the name
        if is_pack(output):
            return
    check_output(output / MANIFEST)
    if output.exists() and (any(output.iterdir()) or output.samefile(os.curdir)):
        raise OutputError(
            f"{output} exists and is not a pack; name a folder that does not exist yet."
        )


def write_pack(rows: RowSet, output: str | os.PathLike[str]) -> None:
    """Write any rows as a pack, block by block.

    Parameters
    ----------
    rows : ActivationSet
    output : path-like
        A folder that does not exist yet, or is empty.

    Raises
    ------
    OutputError
        If the path cannot be written, or the disk is too small.
    UsageError
        If the labels are neither numbers nor text.
    """
    with atomic_folder(output) as work:
        _, d_model, n_features = rows.widths
        manifest = _blank_manifest(
            source=rows.name,
            pooling=rows.pooling if rows.is_pooled else None,
            layers=rows.layers.tolist() if d_model is not None else [],
            configs=list(range(len(rows.sae_layers))),
            sae_layers=rows.sae_layers.tolist(),
            average_l0s=rows.average_l0s.tolist() if n_features is not None else [],
            widths=rows.widths,
            dtype=rows.stored_dtype,
        )
        check_space(output, len(rows) * _row_bytes(manifest))
        facts, small = _describe_rows(rows)
        with contextlib.ExitStack() as stack:
            writers = _open_writers(work, manifest, stack)
            for blocks in rows.blocks():
                _append_blocks(writers, manifest, blocks)
            _commit(work, manifest, writers, facts, small)


def _describe_rows(rows: RowSet) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What a manifest says of any rows, and the small arrays."""
    indices, texts, names = rows.sentence_indices, rows.sentences, rows.file_names
    groups = rows.groups
    positions, firsts = _number_sentences([names, indices, *([] if texts is None else [texts])])
    small = {
        "sentence_indices": indices,
        "groups": groups,
        "source_names": names[firsts],
    }
    if not np.array_equal(positions, groups):
        small["sentence_of_row"] = positions
    final = rows.is_final_token
    if not np.array_equal(final, _usual_final(rows.pooling, positions)):
        small["is_final_token"] = final
    if texts is not None:
        small["sentences"] = texts[firsts]
    fault = ""
    try:
        labels = rows.labels
    except DataError as error:
        fault = _without_place(error, rows.path)
    else:
        small["labels"] = labels.astype(labels.dtype.newbyteorder("<"), copy=False)
        if not _DTYPE.fullmatch(small["labels"].dtype.str):
            raise UsageError(
                f"Labels of dtype {labels.dtype} cannot be packed; expected numbers or text."
                " Convert them, for example with labels.astype(str)."
            )
    facts: dict[str, Any] = {
        "fingerprint": rows.fingerprint,
        "n_rows": len(rows),
        "n_sentences": len(firsts),
        "labels_fault": fault,
    }
    if rows.left_out:
        facts["left_out"] = list(rows.left_out)
    return facts, small


def _usual_final(pooling: str, sentence_of_row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows stand for their sentences, unless a pack says otherwise: of tokens the last."""
    if pooling != "none":
        return np.ones(len(sentence_of_row), bool)
    return is_last_of_each(sentence_of_row)


def _number_sentences(keys: list[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number sentences, which differ in any of their keys, in order of their first rows.

    Returns the number of each row's sentence, and the first row of each sentence.
    """
    number = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        values, inverse = np.unique(key, return_inverse=True)
        number = np.unique(number * len(values) + inverse.reshape(-1), return_inverse=True)[1]
    _, firsts, inverse = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    return np.argsort(order)[inverse.reshape(-1)], firsts[order]


def _without_place(error: DataError, source: Path | None) -> str:
    """Say what is wrong without saying where the source lay."""
    return brief(error).replace(f"{source} has no labels: ", "").replace(f"{source}{os.sep}", "")


@contextlib.contextmanager
def _locked_work_folder(output: Path) -> Iterator[Path]:
    """Hold the only right to write: in the pack itself, or in a hidden folder that becomes it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(output)
    while True:
        work = output if is_pack(output) else partial
        work.mkdir(exist_ok=True)
        try:
            fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # another process has just renamed it
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not is_at(fd, work):
                continue
            if work == partial and is_pack(output):
                with contextlib.suppress(OSError):  # it is not empty
                    work.rmdir()
                continue
            yield work
            return
        except BaseException:
            if work == partial:
                with contextlib.suppress(OSError):  # something was begun
                    work.rmdir()
            raise
        finally:
            os.close(fd)


def _partial(output: Path) -> Path:
    """Where a pack is begun; what an interrupted run leaves there, the next one goes on with."""
    return output.parent / f".{output.name}.partial"


def _empty(work: Path) -> None:
    """Remove what a killed run left in the hidden folder."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_leftovers(work: Path, manifest: dict[str, Any]) -> None:
    """Remove the temporary files of a killed run, and small arrays that no longer hold."""
    for path in work.glob(".*.tmp"):
        path.unlink()
    for name in _SMALL:
        if name not in manifest["arrays"]:
            (work / f"{name}.npy").unlink(missing_ok=True)


def _new_manifest(
    source: SentenceFolder,
    layers: Iterable[int] | None,
    embeddings: bool,
    configs: Iterable[int] | None,
) -> dict[str, Any]:
    kept = source.layers.tolist() if layers is None else sorted(set(layers))
    kept = kept if source.d_model is not None else []
    positions = list(range(len(source.sae_layers)) if configs is None else sorted(set(configs)))
    return _blank_manifest(
        source=source.name,
        pooling=source.pooling,
        layers=kept,
        configs=positions,
        sae_layers=source.sae_layers[positions].tolist(),
        average_l0s=source.average_l0s[positions].tolist(),
        widths=(
            source.d_embed if embeddings else None,
            source.d_model if kept else None,
            source.n_features if positions else None,
        ),
        dtype=source.stored_dtype,
    )


def _blank_manifest(
    *,
    source: str,
    pooling: str | None,
    layers: list[int],
    configs: list[int],
    sae_layers: list[int],
    average_l0s: list[Any],
    widths: tuple[int | None, int | None, int | None],
    dtype: str,
) -> dict[str, Any]:
    """Make the manifest of a pack that has no rows yet."""
    d_embed, d_model, n_features = widths
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "source": source,
        "fingerprint": fingerprint_of([]),
        "pooling": pooling,
        "n_rows": 0,
        "n_sentences": 0,
        "layers": layers,
        "sae_layers": sae_layers,
        "average_l0s": average_l0s,
        "configs": configs,
        "d_embed": d_embed,
        "d_model": d_model,
        "n_features": n_features,
        "labels_fault": "",
        "arrays": {},
    }
    if d_embed is not None:
        _add_array(manifest, "embeddings", dtype, [0, d_embed])
    for layer in layers:
        _add_array(manifest, _layer_name(layer), dtype, [0, d_model])
    for number in range(len(configs)):
        data, indices, indptr = _config_names(manifest, number)
        _add_array(manifest, data, dtype, [0])
        _add_array(manifest, indices, "<i4", [0])
        _add_array(manifest, indptr, "<i8", [0])
    return manifest


def _add_array(manifest: dict[str, Any], name: str, dtype: str, shape: list[Any]) -> None:
    manifest["arrays"][name] = {
        "dtype": dtype,
        "shape": shape,
        "segments": [],
        "digest": _digest_of([]),
    }


def _layer_name(layer: int) -> str:
    return f"hidden_states/L{layer}"


def _config_names(manifest: dict[str, Any], config: int) -> list[str]:
    layer, average_l0 = manifest["sae_layers"][config], manifest["average_l0s"][config]
    stem = f"activations/{config:03d}_L{layer}_l0_{average_l0:g}"
    return [f"{stem}_{part}" for part in ("data", "indices", "indptr")]


def _check_extends(
    work: Path, manifest: dict[str, Any], blank: dict[str, Any], source: SentenceFolder
) -> None:
    """Refuse to go on with a pack of other files, of other members, or of another pooling."""
    if manifest["n_sentences"] and "source_digests" not in manifest["arrays"]:
        raise UsageError(
            f"{work} holds rows of an ActivationSet, not a folder of sentence files, so it does"
            " not grow. Pack the files into a new folder."
        )
    shape = [
        (key, value) for key, value in blank.items() if key not in _GROWING and key != "source"
    ]
    for key, value in shape:
        if manifest[key] != value:
            raise UsageError(
                f"{work} was packed with {key} {manifest[key]!r}, the sentence files now give"
                f" {value!r}. Pack them into a new folder."
            )
    for name, entry in blank["arrays"].items():
        packed = manifest["arrays"][name]["dtype"]
        if packed != entry["dtype"]:
            raise UsageError(
                f"{work} holds {name} as {packed}, the sentence files now need {entry['dtype']}."
                " Pack them into a new folder."
            )
    if manifest["n_sentences"] == 0:
        return
    pack = Pack(work, pooling=source.pooling)
    names = pack._small("source_names").tolist()
    digests = [bytes(row) for row in pack._small("source_digests")]
    there = {info.name: info.digest for info in source.files}
    gone = [name for name in names if name not in there]
    changed = [
        name for name, digest in zip(names, digests, strict=True) if there.get(name) != digest
    ]
    ahead = [info.name for info in source.files[: len(names)] if info.name not in set(names)]
    again = set(ahead).intersection(manifest.get("left_out", ()))
    for _ in _stream(
        source, manifest, [n for n, info in enumerate(source.files) if info.name in again]
    ):
        pass  # raises if they still cannot be read
    if gone or changed or ahead:
        what = [
            f"{len(files)} {word} ({files[0]} first)"
            for word, files in (
                ("gone", gone),
                ("changed", [name for name in changed if name in there]),
                ("sorted before packed ones", ahead),
            )
            if files
        ]
        raise UsageError(
            f"The sentence files of {source.path} are not those packed in {work}:"
            f" {', '.join(what)}. The pack still holds what was packed; pack the files into a new"
            " folder to have them as they are now."
        )


_GROWING = ("fingerprint", "n_rows", "n_sentences", "labels_fault", "arrays")


def _row_bytes(manifest: dict[str, Any]) -> int:
    """Bytes that a row takes at least: how many SAE features will be active is not known."""
    return sum(
        math.prod(entry["shape"][1:]) * np.dtype(entry["dtype"]).itemsize
        for name, entry in manifest["arrays"].items()
        if name not in _SMALL and not name.endswith(("_data", "_indices"))
    )


def _stream(
    source: SentenceFolder, manifest: dict[str, Any], numbers: Sequence[int]
) -> Iterator[list[Block]]:
    return source.stream(
        numbers,
        embeddings=manifest["d_embed"] is not None,
        layers=manifest["layers"],
        configs=manifest["configs"],
    )


def _append(work: Path, output: Path, manifest: dict[str, Any], source: SentenceFolder) -> None:
    done = manifest["n_sentences"]
    left_out = manifest.get("left_out", [])
    if done == len(source.files) and left_out == [*source.left_out] and is_pack(work):
        return
    check_output(work / MANIFEST)
    check_space(output, (source.n_rows - manifest["n_rows"]) * _row_bytes(manifest))
    with contextlib.ExitStack() as stack:
        writers = _open_writers(work, manifest, stack)
        pending = 0
        for blocks in _stream(source, manifest, range(done, len(source.files))):
            _append_blocks(writers, manifest, blocks)
            done += 1
            pending += source.rows_of(done - 1) * sum(w.row_bytes for w in writers.values())
            if pending > _BATCH_BYTES and done < len(source.files):
                _commit(work, manifest, writers, *_describe_files(source, done))
                pending = 0
        _commit(work, manifest, writers, *_describe_files(source, done), sync=True)


def _open_writers(
    work: Path, manifest: dict[str, Any], stack: contextlib.ExitStack
) -> dict[str, _Writer]:
    writers = {
        name: stack.enter_context(_Writer(work / f"{name}.npy", entry))
        for name, entry in manifest["arrays"].items()
        if name not in _SMALL
    }
    for config in range(len(manifest["sae_layers"])):
        indptr = writers[_config_names(manifest, config)[-1]]
        if not len(indptr):
            indptr.append(np.zeros(1, np.int64))
    return writers


def _append_blocks(
    writers: dict[str, _Writer], manifest: dict[str, Any], blocks: Iterable[Block]
) -> None:
    for member, number, rows in blocks:
        if member == "embeddings":
            writers[member].append(rows)
        elif member == "hidden_states":
            writers[_layer_name(number)].append(rows)
        else:
            data, indices, indptr = (writers[name] for name in _config_names(manifest, number))
            indptr.append(len(data) + rows.indptr[1:].astype(np.int64))
            data.append(rows.data)
            indices.append(rows.indices)


def _describe_files(
    source: SentenceFolder, n_sentences: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What a manifest says of the first files, and the small arrays."""
    files = source.files[:n_sentences]
    n_rows = source.n_rows_of(n_sentences)
    small: dict[str, NDArray[Any]] = {
        "sentence_indices": source.sentence_indices[:n_rows],
        "groups": source.groups[:n_rows],
        "source_names": np.array([info.name for info in files]),
        "source_digests": np.array([list(info.digest) for info in files], np.uint8),
    }
    final = source.is_final_token[:n_rows]
    if not np.array_equal(final, _usual_final(source.pooling, small["groups"])):
        small["is_final_token"] = final
    if all(info.sentence is not None for info in files):
        small["sentences"] = np.array([info.sentence for info in files])
    fault = ""
    try:
        small["labels"] = source.labels[:n_rows]
    except DataError as error:
        fault = _without_place(error, source.path)
    facts: dict[str, Any] = {
        "fingerprint": fingerprint_of((info.name, info.digest) for info in files),
        "n_rows": n_rows,
        "n_sentences": n_sentences,
        "labels_fault": fault,
    }
    if source.left_out:
        facts["left_out"] = list(source.left_out)
    return facts, small


def _commit(
    work: Path,
    manifest: dict[str, Any],
    writers: dict[str, _Writer],
    facts: Mapping[str, Any],
    small: Mapping[str, NDArray[Any]],
    *,
    sync: bool = False,
) -> None:
    """Write the small arrays, then the manifest that makes the new rows count."""
    for name in _SMALL:
        if name not in small:
            manifest["arrays"].pop(name, None)
    for name, values in small.items():
        with atomic_write(work / f"{name}.npy", sync=sync) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
        _add_array(manifest, name, values.dtype.str, list(values.shape))
        with NpyFile(work / f"{name}.npy", len(values)) as array:
            manifest["arrays"][name]["segments"] = _segments_of(array)
    for name, writer in writers.items():
        writer.finish(sync=sync)
        manifest["arrays"][name]["shape"][0] = len(writer)
        manifest["arrays"][name]["segments"] = writer.segments()
    for entry in manifest["arrays"].values():
        entry["digest"] = _digest_of(entry["segments"])
    manifest.pop("left_out", None)
    manifest |= facts
    manifest["digest"] = _manifest_digest(manifest)
    with atomic_write(work / MANIFEST, sync=sync) as file:
        file.write(json.dumps(manifest, sort_keys=True, indent=1).encode())


class _Writer:
    """An ``.npy`` file that grows at its end, with the digests of its 4 MiB segments."""

    def __init__(self, path: Path, entry: dict[str, Any]) -> None:
        path.parent.mkdir(exist_ok=True)
        self.dtype = np.dtype(entry["dtype"])
        self.row_shape = tuple(entry["shape"][1:])
        self.row_bytes = int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize
        self._n = entry["shape"][0]
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        self._write_header()
        offset = self._file.tell()
        end = offset + self._n * self.row_bytes
        self._file.truncate(end)
        self._segments = entry["segments"][: (end - offset) // PIECE_BYTES]
        self._file.seek(offset + len(self._segments) * PIECE_BYTES)
        self._pending = bytearray()
        self._open = hashlib.sha256()
        rest = self._file.read(end - self._file.tell())
        self._open.update(rest)
        self._open_bytes = len(rest)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._n

    def append(self, rows: Any) -> None:
        """Add rows at the end; they come to the file many at a time."""
        self._pending += np.ascontiguousarray(rows, self.dtype).tobytes()
        self._n += len(rows)
        if len(self._pending) >= _WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        self._file.write(self._pending)
        data = memoryview(self._pending)
        for start, stop in _cuts(self._open_bytes, len(data)):
            self._open.update(data[start:stop])
            self._open_bytes += stop - start
            if self._open_bytes == PIECE_BYTES:
                self._segments.append(self._open.hexdigest())
                self._open, self._open_bytes = hashlib.sha256(), 0
        self._pending = bytearray()

    def segments(self) -> list[str]:
        """Digests of the whole segments, and of the rest if there is one."""
        return [*self._segments, *([self._open.hexdigest()] if self._open_bytes else [])]

    def finish(self, *, sync: bool) -> None:
        """Let the header say the new number of rows; hand all to the system, or to the disk."""
        self._write()
        end = self._file.tell()
        self._write_header()
        self._file.seek(end)
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": self.dtype.str,
                "fortran_order": False,
                "shape": (self._n, *self.row_shape),
            },
        )


def _cuts(filled: int, n_bytes: int) -> Iterator[tuple[int, int]]:
    """Where new bytes are cut so that segments end at multiples of their size."""
    start = 0
    while start < n_bytes:
        stop = min(n_bytes, start + PIECE_BYTES - (filled + start) % PIECE_BYTES)
        yield start, stop
        start = stop


def _segments_of(array: NpyFile) -> list[str]:
    """Digests of the data's 4 MiB pieces; text counts as UTF-8, whatever its width in the file."""
    if array.dtype.kind == "U":
        return [
            hashlib.sha256(
                "\0".join(array.read().tolist()).encode("utf-8", "surrogatepass")
            ).hexdigest()
        ]
    return [hashlib.sha256(piece).hexdigest() for piece in array.pieces()]


def _digest_of(segments: list[str]) -> str:
    return hashlib.sha256("".join(segments).encode()).hexdigest()


def _manifest_digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise file_fault(path, None, "is oversized", f"at most {_MAX_MANIFEST_BYTES:,} bytes")
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format_version"]
        if manifest["format"] != FORMAT or type(version) is not int:
            raise ValueError(f"format {manifest['format']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise file_fault(
            path, None, f"is no pack's manifest ({error})", "what sklprep pack writes"
        ) from None
    if version > FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: pack format version {version}; this sklprep reads versions up to"
            f" {FORMAT_VERSION}. Upgrade sklprep."
        )
    _check_manifest(path, manifest)
    return manifest


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_INT


def _is_width(value: Any) -> bool:
    return value is None or (_is_count(value) and 1 <= value <= MAX_WIDTH)


def _is_list_of(*kinds: type, least: int = -_MAX_INT) -> Callable[[Any], bool]:
    def is_sound(value: Any) -> bool:
        return isinstance(value, list) and all(
            type(number) in kinds and least <= number < _MAX_INT for number in value
        )

    return is_sound


_TEXT = ("one line of text", _is_text)
_COUNT = ("a count", _is_count)
_WIDTH = (f"null or 1 to {MAX_WIDTH:,}", _is_width)
_INTEGERS = ("a list of whole numbers", _is_list_of(int))
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "source": _TEXT,
    "fingerprint": _TEXT,
    "pooling": ("one line of text, or null", lambda value: value is None or _is_text(value)),
    "labels_fault": _TEXT,
    "n_rows": _COUNT,
    "n_sentences": _COUNT,
    "layers": _INTEGERS,
    "sae_layers": _INTEGERS,
    "configs": ("a list of counts", _is_list_of(int, least=0)),
    "average_l0s": ("a list of numbers", _is_list_of(int, float)),
    "d_embed": _WIDTH,
    "d_model": _WIDTH,
    "n_features": _WIDTH,
    "arrays": ("a table of arrays", lambda value: isinstance(value, dict)),
}


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    for key, (expected, is_sound) in _VALUES.items():
        if key not in manifest:
            raise file_fault(path, None, f"has no {key}", expected)
        if not is_sound(value := manifest[key]):
            raise file_fault(path, None, f"has {key} {str(value)[:60]!r}", expected)
    layers = manifest["layers"]
    if layers != sorted(set(layers)):
        raise file_fault(path, None, f"has layers {str(layers)[:60]}", "ascending layers")
    left_out = manifest.get("left_out", [])
    if not (isinstance(left_out, list) and all(isinstance(name, str) for name in left_out)):
        raise file_fault(path, None, f"has left_out {str(left_out)[:60]!r}", "names of files")
    for key, others in (("layers", ["d_model"]), ("sae_layers", ["n_features", "average_l0s"])):
        for other in others:
            value = manifest[other]
            fits = (
                len(value) == len(manifest[key])
                if isinstance(value, list)
                else (bool(value) == bool(manifest[key]))
            )
            if not fits:
                raise file_fault(
                    path, None, f"has {other} {str(value)[:60]}", f"what fits its {key}"
                )
    _check_arrays(path, manifest)


def _check_arrays(path: Path, manifest: dict[str, Any]) -> None:
    for name, entry in manifest["arrays"].items():
        if not (
            _ARRAY_NAME.fullmatch(name)
            and isinstance(entry, dict)
            and isinstance(entry.get("dtype"), str)
            and isinstance(entry.get("digest"), str)
            and isinstance(entry.get("segments"), list)
            and all(isinstance(segment, str) for segment in entry["segments"])
            and isinstance(entry.get("shape"), list)
            and entry["shape"]
            and all(type(n) is int and 0 <= n < _MAX_INT for n in entry["shape"])
            and _DTYPE.fullmatch(entry["dtype"])
        ):
            found = f"is {str(entry)[:60]!r}"
            raise file_fault(path, name, found, "dtype, shape and digests")
    for name, shape in _shapes_of(manifest).items():
        entry = manifest["arrays"].get(name)
        if entry is None or entry["shape"][: len(shape)] != shape:
            found = f"is {str(entry)[:60]!r}"
            raise file_fault(path, name, found, f"an array of {shape}")
        kind = _kind_of(name)
        if not entry["dtype"].startswith(kind):
            raise file_fault(path, name, f"has dtype {entry['dtype']}", kind)


def _kind_of(name: str) -> str:
    """How the dtype of an array begins."""
    if name.startswith("activations/") and not name.endswith("_data"):
        return "<i8" if name.endswith("_indptr") else "<i4"
    return "" if name == "labels" else _KINDS.get(name, "<f")


def _shapes_of(manifest: dict[str, Any]) -> dict[str, list[Any]]:
    """The arrays there must be, and their shapes as far as they are known."""
    n_rows, n_sentences = manifest["n_rows"], manifest["n_sentences"]
    shapes: dict[str, list[Any]] = {
        "sentence_indices": [n_rows],
        "groups": [n_rows],
        "source_names": [n_sentences],
    }
    optional = {"source_digests": n_sentences, "sentence_of_row": n_rows, "is_final_token": n_rows}
    for name, n in optional.items():
        if name in manifest["arrays"]:
            shapes[name] = [n]
    if not manifest["labels_fault"]:
        shapes["labels"] = [n_rows]
    if "sentences" in manifest["arrays"]:
        shapes["sentences"] = [n_sentences]
    if manifest["d_embed"] is not None:
        shapes["embeddings"] = [n_rows, manifest["d_embed"]]
    for layer in manifest["layers"]:
        shapes[_layer_name(layer)] = [n_rows, manifest["d_model"]]
    for config in range(len(manifest["sae_layers"])):
        data, indices, indptr = _config_names(manifest, config)
        n_values = manifest["arrays"].get(data, {}).get("shape", [0])[:1]
        shapes |= {data: n_values, indices: n_values, indptr: [n_rows + 1]}
    return shapes
