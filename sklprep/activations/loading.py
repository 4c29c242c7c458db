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
        A folder of ``sentence_*.npz`` files, ordered by the numbers in their names; a pack; or a
        file or folder in one of the formats below. The format is recognized by the content.
    pooling : {"final", "mean", "max", "none"} or None, default=None
        What becomes a row: the final token, the mean or the maximum over a sentence's tokens, or
        every token (rows of one sentence then share a group). None means ``"final"``; for packs,
        and for dumps whose rows are already pooled, it means their own pooling.
    n_jobs : int or None, default=None
        Number of files read at once in threads, as `joblib.Parallel` takes it.
    progress : bool, default=True
        Show a progress bar on stderr if it is a terminal and reading takes long.
    labels, groups : path-like or None, default=None
        A CSV or Parquet file with the columns ``sentence_index`` and ``label`` (or ``group``). Its
        values replace those in the files. Without ``sentence_index`` it is joined by ``file``, the
        name of the file of a sentence, or by ``sentence``, its text. Labels are int64 if all are
        whole numbers, otherwise float64 or text; groups may be any text.
    skip_bad : bool or mapping, default=False
        Leave out faulty files. The rows must be known before the first one is used, so True reads
        all files completely now, in bounded memory, and leaves out those with a label or any value
        that is damaged, missing or not finite. A mapping says what will be used, as
        `ActivationSet.prefetch` takes it; only that is read now and kept, and only faults in it
        count: ``skip_bad={"layers": [12], "labels": True}``.
    format : str or None, default=None
        Name of the format, which is otherwise recognized; also ``"sentences"`` and ``"pack"``.
    key : str or None, default=None
        Which arrays of a dump are layers: their name with ``{layer}`` for the number, such as
        ``"acts/layer_{layer}"``; or the name of one array of all layers, optionally with their
        numbers, such as ``"hidden_states[0-2,10]"``. None recognizes common names: ``layer_12``,
        ``layers.12``, ``L12``, ``hidden_states.12``, ``blocks.12.hook_resid_post`` and
        ``hidden_states``.
    layer_offset : int, default=0
        Number to add to the layer numbers in a dump; the result -1 stands for the embeddings.

    Returns
    -------
    ActivationSet
        Labels and shapes are read now, activations when they are first used. `left_out` names the
        files that `skip_bad` left out, and so does the provenance of a dataset made of the set.

    Raises
    ------
    FaultyFilesError
        If files are damaged or inconsistent with most others; the error names them. With
        `skip_bad`, if all files are faulty. Damaged activations, and values that are not finite,
        raise it on first use.
    FileFormatError
        If a table lacks a sentence, which the message names; if a dump is damaged.
    DataError
        If the folder has no sentence files; on first use, if the rows do not fit in memory.
    UsageError
        If the format is unknown, or an option does not apply to it.

    Warns
    -----
    SklprepWarning
        If the hidden states of all layers would not fit in memory; if files are left out, with the
        fault of each; if a dump does not say which layers it holds, or which tokens are real.

    Notes
    -----
    Dumps of other tools are read in place: only the layers and rows that are needed. Layers keep
    the numbers that they have there, plus `layer_offset`; the ``repr`` of the set shows them.

    ============= ================================================ ==============================
    format        what is read                                     numbers of the layers
    ============= ================================================ ==============================
    safetensors   a file, or a folder whose files hold different   in the names; Hugging Face's
                  rows, different tensors or one layer each        ``hidden_states.0`` may be the
                                                                   embeddings: offset -1
    npy           a folder of files, one per layer                 in the names of the files
    hdf5, zarr    arrays by path (h5py, zarr)                      in the paths
    vllm          ``hidden_states`` (tokens, layers, width) and    not in the files: positions, or
                  ``token_ids``, a safetensors file per request    those in `key`; vLLM's id `k` is
                                                                   the input of block `k`: offset -1
    saelens       columns of a folder that `datasets` wrote, such  in the names of the hooks;
                  as ``blocks.12.hook_resid_post``                 ``hook_resid_pre`` is the output
                                                                   of the block before: offset -1
    delphi        ``locations`` and ``activations`` of latents     the only number in the name of
                  (SAE features), a folder per hookpoint           the hookpoint
    lmprobe       shards of format 2 with their Parquet index      those of the blocks
    ============= ================================================ ==============================

    Arrays have the shape (rows, width), or (rows, tokens, width) with ``attention_mask`` (rows,
    tokens) or ``lengths`` (rows,), or (tokens, width) with ``offsets`` (rows + 1,) or ``lengths``.
    An array of all layers has one more axis. ``labels``, ``groups``, ``sentence_indices`` and
    ``sentences`` may be stored with them, with one entry per sentence; in safetensors also in the
    metadata, as JSON lists.

    The fingerprint of a dump is the SHA-256 over the name and the SHA-256 of each of its files and
    over the mapping; it is computed when it is needed, for example for a dataset. Pickles, Python
    objects and codecs that would create them are never read.

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

    A folder with one array per layer, in which another tool numbered the embeddings as 0:

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
    """Read members of all sentence files once, and leave out the faulty files.

    A missing label is a fault if `labels` is True; with None it is one only if other files have
    labels. With `keep` the values of the other files stay in memory.
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
    """Warn which files are left out, and why, except those in `known`."""
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
    """Open a set as `load_activations` does, without reading activations, checks or warnings.

    `skip_bad` therefore leaves out only files that cannot be opened or are inconsistent.
    """
    request = Request(Path(path), reading or Reading(), pooling, skip_bad)
    source = open_source(request, n_jobs=n_jobs, progress=progress)
    return ActivationSet(join_tables(source, labels, groups))


def join_tables(
    source: Source,
    labels: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
) -> Rows:
    """Replace labels and groups of a source by those of CSV or Parquet files."""
    joined: dict[str, NDArray[Any]] = {}
    others = {"file": lambda: source.file_names, "sentence": lambda: source.sentences}
    if labels is not None:
        joined["labels"] = read_labels(labels, source.sentence_indices, others)
    if groups is not None:
        joined["groups"] = read_groups(groups, source.sentence_indices, others)
    return Rows(source, joined=joined)
