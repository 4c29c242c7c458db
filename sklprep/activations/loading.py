"""`load_activations`: sentence files, a pack, or a dump of another tool as an `ActivationSet`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import SklprepWarning
from sklprep.files.csv_tables import read_groups, read_labels
from sklprep.files.faults import warn_left_out
from sklprep.formats.dumps.dump import Reading, Request
from sklprep.formats.members import Members
from sklprep.formats.opening import open_source
from sklprep.formats.pack_reader import Pack
from sklprep.formats.rows import Rows
from sklprep.formats.source import Source, all_members


def load_activations(
    path: str | os.PathLike[str],
    *,
    pooling: str | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
    labels: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    skip_bad: bool | Mapping[str, Any] = False,
    format: str | None = None,  # noqa: A002
    key: str | None = None,
    layer_offset: int = 0,
) -> ActivationSet:
    """Open sentence files, a pack, or a dump of another tool as an `ActivationSet`.

    Parameters
    ----------
    path : path-like
        Folder of ``sentence_*.npz`` files, whose rows come in the order of the sorted names; a
        pack; or a file or folder in one of the formats below. It is known by its content.
    pooling : {"final", "mean", "max", "none"} or None, default=None
        What becomes a row: the final token, the mean or the maximum over a sentence's tokens, or
        every token (rows of one sentence then share a group). None is ``"final"``, and of a pack,
        or of a dump whose rows were pooled before, what it was made with.
    n_jobs : int or None, default=None
        Files read at once in threads, as `joblib.Parallel` takes it.
    progress : bool, default=True
        Show a progress bar on stderr where that is a terminal and reading takes long.
    labels, groups : path-like or None, default=None
        A CSV or a Parquet file with the columns ``sentence_index`` and ``label``, or ``group``,
        whose values take the place of those in the files. Without ``sentence_index`` it is joined
        by ``file``, the name of the file of a sentence, or by ``sentence``, its text. Labels are
        int64 where all are whole numbers, else float64 or text; groups may be any text.
    skip_bad : bool or mapping, default=False
        Go on without faulty files. So that the rows are settled before the first is used, True
        reads every file whole now, in bounded memory, and leaves out a file whose label, or any of
        whose values, is damaged, missing or no finite number. A mapping says what will be used, as
        `ActivationSet.prefetch` takes it; that is read now and kept, and only faults there count:
        ``skip_bad={"layers": [12], "labels": True}``.
    format : str or None, default=None
        Name of the format of a dump, instead of looking; also ``"sentences"`` and ``"pack"``.
    key : str or None, default=None
        Which arrays of a dump are layers: their name with ``{layer}`` for the number, such as
        ``"acts/layer_{layer}"``; or the name of one array of all layers, perhaps with the numbers
        of these, such as ``"hidden_states[0-2,10]"``. None stands for names that say so themselves:
        ``layer_12``, ``layers.12``, ``L12``, ``hidden_states.12``, ``blocks.12.hook_resid_post`` or
        ``hidden_states``.
    layer_offset : int, default=0
        What is added to the numbers in a dump, of which -1 then stands for the embeddings.

    Returns
    -------
    ActivationSet
        Labels and shapes are read now, activations when they are first used. `left_out` names the
        files that `skip_bad` left out, and so does the provenance of a dataset made of the set.

    Raises
    ------
    FaultyFilesError
        If files are broken or disagree with most others; it names them. With `skip_bad`, if no
        file is sound. Damage to activations, and values that are no finite numbers, are errors on
        first use.
    FileFormatError
        If a CSV lacks a sentence; the message names it.
    DataError
        If the folder holds no sentence files; on first use, if the rows do not fit in memory.

    Warns
    -----
    SklprepWarning
        If the hidden states of all layers would not fit in memory; if files are left out, with what
        is wrong with each; if a dump does not say which layers or which tokens it holds.

    Notes
    -----
    Dumps of other tools are read in place, a layer and some rows at a time. Their layers keep the
    numbers they have there; what was mapped is in the set's ``repr``, and `layer_offset` shifts it.

    ============= ================================================ ==============================
    format        what is read                                     numbers of the layers
    ============= ================================================ ==============================
    safetensors   a file, or a folder of shards of rows or of      in the names; Hugging Face's
                  different tensors or of one layer a file         ``hidden_states.0`` may be the
                                                                   embeddings: offset -1
    npy           a folder of files, one a layer                   in the names of the files
    hdf5, zarr    arrays by path (h5py, zarr)                      in the paths
    vllm          ``hidden_states`` (tokens, layers, width) and    not said: positions, or those in
                  ``token_ids`` in one safetensors file a request  `key`; vLLM's id `k` is what
                                                                   block `k` reads: offset -1
    saelens       columns of a folder that `datasets` wrote, such  in the names of the hooks;
                  as ``blocks.12.hook_resid_post``                 ``hook_resid_pre`` is the output
                                                                   of the block before: offset -1
    delphi        ``locations`` and ``activations`` of latents, a  the one number in the name of
                  folder a hookpoint: SAE features                 the hookpoint
    lmprobe       shards of format 2 with their Parquet index      those of the blocks
    ============= ================================================ ==============================

    Arrays have the shape (rows, width), or (rows, tokens, width) with ``attention_mask`` (rows,
    tokens) or ``lengths`` (rows,), or (tokens, width) with ``offsets`` (rows + 1,) or ``lengths``.
    One array of all layers has them as one more axis. ``labels``, ``groups``, ``sentence_indices``
    and ``sentences`` beside them have one entry a sentence; safetensors may hold them in metadata,
    as JSON lists.

    The fingerprint of a dump is the SHA-256 over the name and the SHA-256 of each of its files and
    over what was mapped; it is computed where it is needed, as for a dataset. Pickles, Python
    objects and codecs that would make some are never read.

    Examples
    --------
    >>> import tempfile, sklprep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = sklprep.make_activations(
    ...         12, n_layers=3, d_model=8, n_features=32, random_state=0, output=f"{folder}/demo"
    ...     )
    ...     acts = sklprep.load_activations(f"{folder}/demo")
    ...     acts.hidden_states.shape
    (12, 3, 8)

    A folder with an array a layer, which another tool numbers from the embeddings:

    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(4):
    ...         np.save(f"{folder}/layer_{number}.npy", np.ones((12, 8)))
    ...     sklprep.load_activations(folder, layer_offset=-1)  # doctest: +NORMALIZE_WHITESPACE
    ActivationSet(12 rows, layers 0-2, d_model 8, embeddings 8;
        npy: layer_{layer} 0-3 as embeddings and layers 0-2)
    """
    acts = open_activations(
        path,
        pooling=pooling,
        n_jobs=n_jobs,
        progress=progress,
        labels=labels,
        groups=groups,
        skip_bad=skip_bad is not False,
        reading=Reading(format, key, layer_offset),
    )
    if (folder := acts.rows.folder) is not None:
        needed = folder.bytes_of(Members(layers=tuple(folder.layers.tolist())))
        if message := folder.shortage(needed):
            warnings.warn(message, SklprepWarning, stacklevel=2)
    if skip_bad is False:
        return acts
    settled = acts.left_out if isinstance(acts.rows.source, Pack) else {}
    if isinstance(skip_bad, Mapping):
        used = dict(skip_bad)
        labels_used = bool(used.pop("labels", False))
        members = Members(**used)
        acts = leave_out_faulty(acts, members, labels=labels_used, keep=True)
    else:
        acts = leave_out_faulty(acts, all_members(acts.rows.source), labels=None)
    warn_of_left_out(acts, settled)
    return acts


def leave_out_faulty(
    acts: ActivationSet, members: Members, *, labels: bool | None = False, keep: bool = False
) -> ActivationSet:
    """Read members of all sentence files once, and leave out those that are faulty.

    A label that is missing is a fault where `labels` are used, and with None where others have one.
    With `keep` what was read of the other files stays in memory.
    """
    rows = acts.rows
    faults = rows.find_faults(members, keep=keep)
    if labels is None:
        faults = rows.find_label_faults() | faults
    elif labels and rows.folder is not None and "labels" not in rows.joined:
        faults = rows.folder.label_faults | faults
    if faults:
        acts = acts.without(faults)
        if keep:
            acts.rows.source.read(members)
    return acts


def warn_of_left_out(acts: ActivationSet, known: Iterable[str] = ()) -> None:
    """Say which files the rows go without, and why, but for those that are known."""
    faults = {name: fault for name, fault in acts.left_out.items() if name not in set(known)}
    warn_left_out(acts.rows.source.place, faults, acts.rows.n_files)


def open_activations(
    path: str | os.PathLike[str],
    *,
    pooling: str | None,
    n_jobs: int | None,
    progress: bool,
    labels: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
    reading: Reading | None = None,
) -> ActivationSet:
    """Do what `load_activations` does, but for reading activations or asking for memory or warning.

    So `skip_bad` leaves out only files that are faulty before that.
    """
    request = Request(Path(path), reading or Reading(), pooling, skip_bad)
    source = open_source(request, n_jobs=n_jobs, progress=progress)
    return ActivationSet(join_tables(source, labels, groups))


def join_tables(
    source: Source,
    labels: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
) -> Rows:
    """Put labels and groups of CSV or Parquet files in place of the source's own."""
    joined: dict[str, NDArray[Any]] = {}
    others = {"file": lambda: source.file_names, "sentence": lambda: source.sentences}
    if labels is not None:
        joined["labels"] = read_labels(labels, source.sentence_indices, others)
    if groups is not None:
        joined["groups"] = read_groups(groups, source.sentence_indices, others)
    return Rows(source, joined=joined)
