"""Building packs: from any rows, or from a folder of sentence files, with which they grow.

Rows are only ever appended to arrays, and the manifest, which is replaced last and atomically, has
the number of valid rows. So whenever a run is killed, the folder holds either the old pack or the
new one, and the next run continues from the last manifest. A pack of other rows than all those of a
folder is written at once and cannot grow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FileFormatError,
    OutputError,
    SklprepWarning,
    UsageError,
)
from sklprep.files.atomic import (
    atomic_folder,
    atomic_write,
    name_full_disk,
    require_space,
    require_writable,
)
from sklprep.files.faults import brief, warn_left_out
from sklprep.files.npy_file import NpyFile, is_plain_dtype
from sklprep.files.system import close, lock, open_folder, sync_to_disk
from sklprep.files.temporary import is_at, remove_dead
from sklprep.formats.fingerprint import fingerprint_of
from sklprep.formats.members import Block, Members
from sklprep.formats.pack_array import ArrayWriter
from sklprep.formats.pack_manifest import (
    MANIFEST,
    SMALL,
    ArrayEntry,
    Manifest,
    layer_name,
    read_manifest,
)
from sklprep.formats.pack_reader import Pack, is_pack, usual_final
from sklprep.formats.rows import Rows
from sklprep.formats.segments import segments_of
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.formats.source import all_members

BATCH_BYTES = 64 << 20
"""Bytes of rows between two manifests, which is the most that a killed run loses: a few seconds of
packing. A manifest takes milliseconds, and longer with every segment."""
_KEPT = (
    *("pooling", "layers", "configs", "sae_layers", "average_l0s"),
    *("d_embed", "d_model", "n_features"),
)
"""Entries of a manifest that new files must not change."""


def build_pack(
    source: SentenceFolder,
    output: str | os.PathLike[str],
    *,
    members: Members | None = None,
    skip_bad: bool = False,
    batch_bytes: int = BATCH_BYTES,
) -> Pack:
    """Write a folder of sentence files as a pack, or add its new files to one.

    Parameters
    ----------
    source : SentenceFolder
        The folder of sentence files.
    output : path-like
        A pack of the same folder, or a path that does not exist yet.
    members : Members or None, default=None
        What to pack; None for all members.
    skip_bad : bool, default=False
        Read the new files once before packing, leave out those that are damaged or lack a label
        that others have, and warn about all files that are left out.
    batch_bytes : int
        Bytes of rows between two manifests: the most that a killed run loses.

    Returns
    -------
    Pack

    Raises
    ------
    FaultyFilesError
        If files are damaged; the error names all of them.
    OutputError
        If the path cannot be written.
    UsageError
        If `output` is the pack of other files.
    """
    wanted = all_members(source) if members is None else members
    if not skip_bad:
        return _build(source, Path(output), wanted, batch_bytes)
    packed = Pack(output, pooling=None).source_files() if is_pack(output) else {}
    faults = source.find_faults(wanted, damage_only=True, known=packed)
    if len(source.label_faults) < len(source.files):  # otherwise labels are not expected
        faults = source.label_faults | faults
    source = source.without(faults)
    pack = _build(source, Path(output), wanted, batch_bytes)
    warn_left_out(source.path, source.left_out, len(source.files) + len(source.left_out))
    return pack


def _build(source: SentenceFolder, output: Path, members: Members, batch_bytes: int) -> Pack:
    require_pack_output(output)
    if output.is_symlink():
        output = output.resolve()
    with name_full_disk(output), _locked_work_folder(output) as work:
        blank = manifest = _new_manifest(source, members)
        try:
            if is_pack(work):
                manifest = read_manifest(work)
            _require_same_rows(work, manifest, blank)
            if manifest.n_sentences:
                _require_same_files(work, manifest, source)
        except FaultyFilesError:
            raise
        except (UsageError, FileFormatError):
            if work == output:
                raise
            manifest = blank  # an interrupted run for other files, never visible: start again
        if work != output and manifest is blank:
            _empty(work)
        manifest = _append(work, output, manifest, source, batch_bytes)
        _remove_leftovers(work, manifest)
        if work != output:
            with contextlib.suppress(FileNotFoundError):
                output.rmdir()
            work.rename(output)
            sync_to_disk(output.parent)
        else:
            remove_dead(_partial(output))
    return Pack(output, pooling=source.pooling)


def require_pack_output(output: Path) -> None:
    """Refuse a path that cannot become a pack, before any work is done.

    Raises
    ------
    OutputError
        If it cannot be written, or exists and is not a pack.
    """
    with contextlib.suppress(OSError):  # the next line reports what is wrong with the path
        if is_pack(output):
            return
    require_writable(output / MANIFEST)
    if output.exists() and (any(output.iterdir()) or output.samefile(os.curdir)):
        raise OutputError(
            f"{output} exists and is not a pack; name a folder that does not exist yet."
        )


def write_pack(rows: Rows, output: str | os.PathLike[str]) -> None:
    """Write any rows as a pack, block by block.

    Parameters
    ----------
    rows : Rows
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
        source = rows.source
        manifest = Manifest.blank(
            source=source.name,
            pooling=source.pooling if source.is_pooled else None,
            layers=source.layers.tolist() if source.d_model is not None else (),
            configs=range(len(source.sae_layers)),
            sae_layers=source.sae_layers.tolist(),
            average_l0s=source.average_l0s.tolist() if source.n_features is not None else (),
            widths=(source.d_embed, source.d_model, source.n_features),
            dtype=source.stored_dtype,
        )
        require_space(output, len(rows) * _row_bytes(manifest))
        manifest, small = _describe_rows(manifest, rows)
        with contextlib.ExitStack() as stack:
            writers = _open_writers(work, manifest, stack)
            for blocks in rows.blocks():
                _append_blocks(writers, manifest, blocks)
            _commit(work, manifest, writers, small)


def _describe_rows(manifest: Manifest, rows: Rows) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Complete a manifest for any rows, and gather the small arrays."""
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
    if not np.array_equal(final, usual_final(rows.source.pooling, positions)):
        small["is_final_token"] = final
    if texts is not None:
        small["sentences"] = texts[firsts]
    fault = ""
    try:
        labels = rows.labels
    except DataError as error:
        fault = _without_place(error, rows.source.place)
    else:
        small["labels"] = labels.astype(labels.dtype.newbyteorder("<"), copy=False)
        if not is_plain_dtype(small["labels"].dtype.str):
            raise UsageError(
                f"Labels of dtype {labels.dtype} cannot be packed; expected numbers or text."
                " Convert them, for example with labels.astype(str)."
            )
    described = replace(
        manifest,
        fingerprint=rows.fingerprint,
        n_rows=len(rows),
        n_sentences=len(firsts),
        labels_fault=fault,
        left_out=tuple(rows.source.left_out),
    )
    return described, small


def _number_sentences(keys: list[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number sentences in the order of their first rows; sentences differ in any of their keys.

    Returns the number of the sentence of each row, and the first row of each sentence.
    """
    number = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        values, inverse = np.unique(key, return_inverse=True)
        number = np.unique(number * len(values) + inverse.reshape(-1), return_inverse=True)[1]
    _, firsts, inverse = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    return np.argsort(order)[inverse.reshape(-1)], firsts[order]


def _without_place(error: DataError, source: Path | None) -> str:
    """Return a message without the path of the source."""
    return brief(error).replace(f"{source} has no labels: ", "").replace(f"{source}{os.sep}", "")


@contextlib.contextmanager
def _locked_work_folder(output: Path) -> Iterator[Path]:
    """Lock the folder to write to: the pack itself, or a hidden folder that becomes the pack."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(output)
    while True:
        work = output if is_pack(output) else partial
        work.mkdir(exist_ok=True)
        try:
            fd = open_folder(work)
        except FileNotFoundError:  # another process has just renamed it
            continue
        try:
            try:
                lock(fd, wait=True)
            except OSError as error:
                warnings.warn(
                    f"{work.parent} does not support file locks ({error.strerror}): let only one"
                    f" process at a time write {output}.",
                    SklprepWarning,
                    stacklevel=2,
                )
            if not is_at(fd, work):
                continue
            if work == partial and is_pack(output):
                with contextlib.suppress(OSError):  # not empty
                    work.rmdir()
                continue
            yield work
            return
        except BaseException:
            if work == partial:
                with contextlib.suppress(OSError):  # not empty: the next run continues
                    work.rmdir()
            raise
        finally:
            close(fd)


def _partial(output: Path) -> Path:
    """Return the folder where a pack is begun; the next run continues an interrupted one."""
    return output.parent / f".{output.name}.partial"


def _empty(work: Path) -> None:
    """Remove everything that a killed run left in the hidden folder."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_leftovers(work: Path, manifest: Manifest) -> None:
    """Remove the temporary files of a killed run, and small arrays that are no longer valid."""
    for path in work.glob(".*.tmp"):
        path.unlink()
    for name in SMALL:
        if name not in manifest.arrays:
            (work / f"{name}.npy").unlink(missing_ok=True)


def _new_manifest(source: SentenceFolder, members: Members) -> Manifest:
    configs = list(members.read_configs)
    return Manifest.blank(
        source=source.name,
        pooling=source.pooling,
        layers=members.layers,
        configs=configs,
        sae_layers=source.sae_layers[configs].tolist(),
        average_l0s=source.average_l0s[configs].tolist(),
        widths=(
            source.d_embed if members.embeddings else None,
            source.d_model if members.layers else None,
            source.n_features if configs else None,
        ),
        dtype=source.stored_dtype,
    )


def _require_same_rows(work: Path, manifest: Manifest, blank: Manifest) -> None:
    """Refuse to add to a pack with other members or pooling, or not made from files."""
    if manifest.n_sentences and "source_digests" not in manifest.arrays:
        raise UsageError(
            f"{work} was packed from rows of an ActivationSet, not from a folder of sentence files,"
            " so it cannot grow. Pack the files into a new folder."
        )
    for name in _KEPT:
        packed, value = getattr(manifest, name), getattr(blank, name)
        if packed != value:
            if isinstance(value, tuple):
                packed, value = [*packed], [*value]
            raise UsageError(
                f"{work} was packed with {name} {packed!r}, but the sentence files now have"
                f" {value!r}. Pack them into a new folder."
            )
    for name, entry in blank.arrays.items():
        if (packed := manifest.arrays[name].dtype) != entry.dtype:
            raise UsageError(
                f"{work} holds {name} as {packed}, but the sentence files now need {entry.dtype}."
                " Pack them into a new folder."
            )


def _require_same_files(work: Path, manifest: Manifest, source: SentenceFolder) -> None:
    """Refuse to add to a pack that is damaged at its end, or was made from other files."""
    pack = Pack(work, pooling=source.pooling)
    pack.check_ends()
    packed = pack.source_files()
    there = {info.name: info.digest for info in source.files}
    gone = [name for name in packed if name not in there]
    changed = [name for name in packed if name in there and packed[name] != there[name]]
    ahead = [info.name for info in source.files[: len(packed)] if info.name not in packed]
    again = set(ahead).intersection(manifest.left_out)
    numbers = [number for number, info in enumerate(source.files) if info.name in again]
    for _ in _stream(source, manifest, numbers):
        pass  # raises if they still cannot be read
    kinds = (("missing", gone), ("changed", changed), ("sorted before packed ones", ahead))
    what = [f"{len(files)} {word} (first: {files[0]})" for word, files in kinds if files]
    if what:
        raise UsageError(
            f"The sentence files of {source.path} are not those packed in {work}:"
            f" {', '.join(what)}. The pack is unchanged; pack the files into a new folder to use"
            " them as they are now."
        )


def _row_bytes(manifest: Manifest) -> int:
    """Return the least bytes of a row; the number of active SAE features is not known."""
    return sum(
        math.prod(entry.shape[1:]) * np.dtype(entry.dtype).itemsize
        for name, entry in manifest.arrays.items()
        if name not in SMALL and not name.endswith(("_data", "_indices"))
    )


def _stream(
    source: SentenceFolder, manifest: Manifest, numbers: Sequence[int]
) -> Iterator[list[Block]]:
    embeddings = manifest.d_embed is not None
    return source.stream(numbers, Members(embeddings, manifest.layers, manifest.configs))


def _append(
    work: Path, output: Path, manifest: Manifest, source: SentenceFolder, batch_bytes: int
) -> Manifest:
    """Add the files that are not packed yet; return the new manifest."""
    done = manifest.n_sentences
    same = done == len(source.files) and manifest.left_out == tuple(source.left_out)
    if same and is_pack(work):
        return manifest
    require_writable(work / MANIFEST)
    require_space(output, (source.n_rows - manifest.n_rows) * _row_bytes(manifest))
    with contextlib.ExitStack() as stack:
        writers = _open_writers(work, manifest, stack)
        pending = 0
        for blocks in _stream(source, manifest, range(done, len(source.files))):
            _append_blocks(writers, manifest, blocks)
            done += 1
            pending += source.rows_of(done - 1) * sum(w.row_bytes for w in writers.values())
            if pending > batch_bytes and done < len(source.files):
                described, small = _describe_files(manifest, source, done)
                _commit(work, described, writers, small)
                pending = 0
        described, small = _describe_files(manifest, source, done)
        return _commit(work, described, writers, small, sync=True)


def _open_writers(
    work: Path, manifest: Manifest, stack: contextlib.ExitStack
) -> dict[str, ArrayWriter]:
    writers = {
        name: stack.enter_context(ArrayWriter(work / f"{name}.npy", entry))
        for name, entry in manifest.arrays.items()
        if name not in SMALL
    }
    for config in range(len(manifest.configs)):
        indptr = writers[manifest.config_names(config)[-1]]
        if not len(indptr):
            indptr.append(np.zeros(1, np.int64))
    return writers


def _append_blocks(
    writers: dict[str, ArrayWriter], manifest: Manifest, blocks: Iterable[Block]
) -> None:
    for member, number, rows in blocks:
        if member == "embeddings":
            writers[member].append(rows)
        elif member == "hidden_states":
            writers[layer_name(number)].append(rows)
        else:
            data, indices, indptr = (writers[name] for name in manifest.config_names(number))
            indptr.append(rows.indptr[1:] + np.int64(len(data)))
            data.append(rows.data)
            indices.append(rows.indices)


def _describe_files(
    manifest: Manifest, source: SentenceFolder, n_sentences: int
) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Complete a manifest for the first files, and gather the small arrays."""
    files = source.files[:n_sentences]
    n_rows = source.n_rows_of(n_sentences)
    small: dict[str, NDArray[Any]] = {
        "sentence_indices": source.sentence_indices[:n_rows],
        "groups": source.groups[:n_rows],
        "source_names": np.array([info.name for info in files]),
        "source_digests": np.array([list(info.digest) for info in files], np.uint8),
    }
    final = source.is_final_token[:n_rows]
    if not np.array_equal(final, usual_final(source.pooling, small["groups"])):
        small["is_final_token"] = final
    if all(info.sentence is not None for info in files):
        small["sentences"] = np.array([info.sentence for info in files])
    fault = ""
    try:
        small["labels"] = source.labels[:n_rows]
    except DataError as error:
        fault = _without_place(error, source.path)
    described = replace(
        manifest,
        fingerprint=fingerprint_of((info.name, info.digest) for info in files),
        n_rows=n_rows,
        n_sentences=n_sentences,
        labels_fault=fault,
        left_out=tuple(source.left_out),
    )
    return described, small


def _commit(
    work: Path,
    manifest: Manifest,
    writers: Mapping[str, ArrayWriter],
    small: Mapping[str, NDArray[Any]],
    *,
    sync: bool = False,
) -> Manifest:
    """Write the small arrays, then the manifest that makes the new rows valid; return it."""
    arrays = {name: entry for name, entry in manifest.arrays.items() if name not in SMALL}
    for name, values in small.items():
        with atomic_write(work / f"{name}.npy", sync=sync) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
        with NpyFile(work / f"{name}.npy", len(values)) as array:
            arrays[name] = ArrayEntry.of(values.dtype.str, values.shape, segments_of(array))
    for name, writer in writers.items():
        writer.finish(sync=sync)
        arrays[name] = writer.entry()
    manifest = replace(manifest, arrays=arrays)
    with atomic_write(work / MANIFEST, sync=sync) as file:
        file.write(json.dumps(manifest.to_json(), sort_keys=True, indent=1).encode())
    return manifest
