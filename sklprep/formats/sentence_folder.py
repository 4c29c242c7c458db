"""A folder of sentence files as a source of rows.

Opening a folder reads the small members and the array headers of each file. The large members are
inflated when they are first needed, each at most once, and only pooled rows are kept. After a
faulty file the others are still read, so that one error names all faulty files.
"""

from __future__ import annotations

import copy
import errno
import itertools
import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FileFormatError,
    SklprepWarning,
)
from sklprep.files.faults import faulty_files, file_fault
from sklprep.files.listing import list_files, natural
from sklprep.formats.conversions import (
    TORCH_AND_PICKLE,
    is_pickled,
    say_conversion,
)
from sklprep.formats.fingerprint import fingerprint_of
from sklprep.formats.layers import require_layers
from sklprep.formats.members import MEMBERS, Block, Members, SparseRows
from sklprep.formats.pooling import require_pooling
from sklprep.formats.sentence_file import (
    SentenceInfo,
    SentenceRows,
    index_sentence,
    read_rows,
    stack_rows,
)
from sklprep.formats.source import blocks_in_place

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PATTERN = "sentence_*.npz"
_NUMBER = re.compile(r"sentence_([0-9]{1,9})\.npz")
"""Names with the number of a sentence, checked for gaps; longer numbers are dates or ids."""
_ALONE = (".h5", ".hdf5", ".arrow", ".parquet", ".npz")
"""Suffixes of files that are not read as part of a folder."""
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors because the system has too few resources, for which a file is not to blame."""


class SentenceFolder:
    """A folder of sentence files as a lazy source of rows.

    Parameters
    ----------
    path : path-like
        The folder.
    pooling : {"final", "mean", "max", "none"}
        What becomes a row: the final token, the mean or the maximum over the tokens, or every
        token.
    n_jobs : int or None
        Number of files read at once, as `joblib.Parallel` takes it.
    progress : bool
        Show a progress bar on stderr if it is a terminal and reading takes long.
    skip_bad : bool
        Leave out files that are damaged or inconsistent with the others; `left_out` lists them.

    Raises
    ------
    FaultyFilesError
        If files are damaged or inconsistent with most others; with `skip_bad`, if all of them are.
    DataError
        If there are no sentence files.
    """

    is_pooled = True
    mapping = ""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        pooling: str = "final",
        n_jobs: int | None = None,
        progress: bool = True,
        skip_bad: bool = False,
    ) -> None:
        require_pooling(pooling)
        self.path = self.place = Path(path)
        self.pooling = pooling
        self.n_jobs = n_jobs
        self.progress = progress
        names = _list_sentence_files(self.path)
        infos, faults = _split_faults(
            names,
            self._each_file(
                _try, [(index_sentence, self.path / name) for name in names], "Indexing"
            ),
        )
        if infos:
            odd = _find_odd(self.path, infos, pooling)
            infos = [info for info in infos if info.name not in odd]
            faults = {name: {**faults, **odd}[name] for name in sorted({**faults, **odd})}
        if faults and not (skip_bad and infos):
            raise faulty_files(self.path, faults, len(names))
        self.left_out: dict[str, FileFormatError] = faults
        first = infos[0]
        self.name = self.path.resolve().name
        self.config_layers = np.array(first.layers, np.int64)
        self.average_l0s = np.array(first.average_l0s)
        self.d_embed, self.d_model, self.n_features = first.widths
        self.layers = np.array(sorted(set(first.layers)), np.int64)
        self._set_files(
            [  # these are equal in all files: share them, so that a pickle holds them once
                replace(
                    info, layers=first.layers, average_l0s=first.average_l0s, widths=first.widths
                )
                for info in infos
            ]
        )
        if pooling != "final":
            _warn_of_padding(self.path, self.files, pooling)
        self._kept: dict[tuple[str, int], Any] = {}  # values that were read, by member and number
        self._lock = threading.RLock()

    def _set_files(self, files: list[SentenceInfo]) -> None:
        self.files = files
        counts = [info.n_tokens if self.pooling == "none" else 1 for info in files]
        self.sentence_of_row = np.repeat(np.arange(len(files)), counts)
        self._offsets = np.concatenate([[0], np.cumsum(counts)])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def unread(self) -> SentenceFolder:
        """Return the same folder without values in memory."""
        folder = copy.copy(self)
        folder._kept = {}
        return folder

    def without(self, faults: Mapping[str, FileFormatError]) -> SentenceFolder:
        """Return the same folder without these files; values of the others stay in memory."""
        files = [info for info in self.files if info.name not in faults]
        left_out = {**self.left_out, **faults}
        if not files:
            raise faulty_files(self.path, left_out, len(left_out))
        rows = np.flatnonzero(~np.isin(self.file_names, list(faults)))
        folder = self.unread()
        folder._set_files(files)
        folder.left_out = {name: left_out[name] for name in sorted(left_out)}
        folder._kept = {key: values[rows] for key, values in self._kept.items()}
        return folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @property
    def n_rows(self) -> int:
        """Number of rows after pooling."""
        return len(self.sentence_of_row)

    @property
    def sae_layers(self) -> NDArray[np.int64]:
        """Layer of each SAE config, in file order."""
        return self.config_layers if self.n_features is not None else self.config_layers[:0]

    @property
    def is_float16(self) -> bool:
        """Whether all values were dumped as float16."""
        return all(info.is_float16 for info in self.files)

    @property
    def stored_dtype(self) -> str:
        """Dtype that can hold each value of the rows; a mean of float16 values needs float32."""
        return "<f2" if self.is_float16 and self.pooling != "mean" else "<f4"

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row is the final token, or the pooled row, of its sentence."""
        if self.pooling != "none":
            return np.ones(self.n_rows, bool)
        final = np.zeros(self.n_rows, bool)
        for start, info in zip(self._offsets.tolist(), self.files, strict=False):
            final[[start + token for token in info.final_tokens]] = True
        return final

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the file names and every member's name, size and CRC-32."""
        return fingerprint_of((info.name, info.digest) for info in self.files)

    @property
    def key(self) -> str:
        """Identifies the rows of this folder among others."""
        return f"{self.fingerprint} {self.pooling}"

    def rows_of(self, sentence: int) -> int:
        """Number of rows of one file."""
        return int(self._offsets[sentence + 1] - self._offsets[sentence])

    def n_rows_of(self, n_sentences: int) -> int:
        """Number of rows of the first files."""
        return int(self._offsets[n_sentences])

    @property
    def groups(self) -> NDArray[np.int64]:
        """Position of each row's sentence among the sorted files."""
        return self.sentence_of_row

    @property
    def groups_are_sentences(self) -> bool:
        """True: files with the same text are still separate sentences."""
        return True

    @property
    def labels(self) -> NDArray[np.int64]:
        """Concept label of each row, 0 to 3; an error names the files without a valid one."""
        if faults := self.label_faults:
            raise self._faulty(faults)
        return np.array([info.label for info in self.files], np.int64)[self.sentence_of_row]

    @property
    def label_faults(self) -> dict[str, FileFormatError]:
        """The fault of the label of each file without a valid one, by the name of the file."""
        return {
            info.name: file_fault(
                self.path / info.name,
                "concept_strength_label",
                info.label_fault,
                "a label that is 0, 1, 2 or 3",
                "Correct or remove this file, or use labels=... for a CSV of labels.",
            )
            for info in self.files
            if info.label_fault is not None
        }

    def _faulty(self, faults: Mapping[str, FileFormatError]) -> FaultyFilesError:
        return faulty_files(self.path, faults, len(self.files) + len(self.left_out))

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        """Index of the sentence of each row, or its position where files do not hold indices."""
        indices = [info.sentence_index for info in self.files]
        values = np.arange(len(indices)) if indices[0] is None else np.array(indices, np.int64)
        return values[self.sentence_of_row]

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        """Text of the sentence of each row, or None where files do not hold texts."""
        texts = [info.sentence for info in self.files]
        if any(text is None for text in texts):
            return None
        return np.array(texts)[self.sentence_of_row]

    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the file of each row."""
        return np.array([info.name for info in self.files])[self.sentence_of_row]

    def describe_row(self, row: int) -> str:
        """Return the path of the file of a row."""
        return str(self.path / self.files[self.sentence_of_row[row]].name)

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return embeddings of shape (n_rows, d_embed)."""
        return self._rows("embeddings", 0, Members(embeddings=True), rows)

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return hidden states of shape (n_rows, d_model); the first call reads all layers."""
        return self._rows("hidden_states", layer, Members(layers=tuple(self.layers.tolist())), rows)

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        """Return SAE features of shape (n_rows, n_features); the first call reads all configs."""
        everything = Members(configs=tuple(range(len(self.config_layers))))
        return self._rows("activations", config, everything, rows)

    def _rows(
        self, member: str, number: int, needed: Members, rows: NDArray[np.int64] | None
    ) -> Any:
        if (member, number) not in self._kept:
            self.read(needed)
        values = self._kept[member, number]
        return values if rows is None else values[rows]

    def read(self, members: Members, *, finite: bool = False) -> None:
        """Read those members that are not in memory yet, in one pass over the files, and keep them.

        With `finite`, NaN and infinite values are faults.
        """
        with self._lock:
            missing = tuple(n for n in members.read_configs if ("activations", n) not in self._kept)
            wanted = Members(
                members.embeddings and ("embeddings", 0) not in self._kept,
                tuple(n for n in members.layers if ("hidden_states", n) not in self._kept),
                tuple(n for n in members.configs if n in missing),
                tuple(pair for pair in members.features if pair[0] in missing),
            )
            if not wanted:
                return
            self._require_memory(self.bytes_of(wanted))
            require_layers(wanted.layers, self.layers.tolist())
            for name in wanted.names:
                self.require(name)
            self._keep(self._parts(range(len(self.files)), wanted, finite=finite), wanted)

    def _parts(
        self, numbers: Iterable[int], members: Members, *, finite: bool = False
    ) -> Iterator[SentenceRows]:
        """Read some of the files, in order.

        After a faulty file nothing more is yielded, but the others are still read, and the error at
        the end names all faulty files.
        """
        infos = [self.files[number] for number in numbers]
        read = partial(read_rows, finite=finite)
        results = self._each_file(
            _try,
            [(read, self.path / info.name, info, self.pooling, members) for info in infos],
            "Reading",
            n_jobs=self.n_jobs if members.layers or members.read_configs else None,
        )
        faults: dict[str, FileFormatError] = {}
        for info, part in zip(infos, results, strict=True):
            if isinstance(part, FileFormatError):
                faults[info.name] = part
            elif not faults:
                yield part
        if faults:
            raise self._faulty(faults)

    def find_faults(
        self,
        members: Members,
        *,
        keep: bool = False,
        damage_only: bool = False,
        known: Container[str] = (),
    ) -> dict[str, FileFormatError]:
        """Read members of the files once; return the fault of each faulty file, by its name.

        Damage is a fault and, unless `damage_only`, NaN and infinite values are too. With `keep`
        values stay in memory if there are no faults; otherwise memory is bounded. Files whose names
        are in `known` are not read.
        """
        numbers = [n for n, info in enumerate(self.files) if info.name not in known]
        try:
            if keep:
                self.read(members, finite=True)
            else:
                for _ in self._parts(numbers, members, finite=not damage_only):
                    pass
        except FaultyFilesError as error:
            return error.faults
        return {}

    def stream(self, numbers: Sequence[int], members: Members) -> Iterator[list[Block]]:
        """Read some files, in order, and keep nothing; yield the blocks of one file at a time.

        The config of a block is its position among the `read_configs` of `members`.
        """
        first = self.files[0]
        layers = [first.layers[position] for position in first.positions_of(members.layers)]
        for part in self._parts(numbers, members):
            blocks: list[Block] = []
            if part.embeddings is not None:
                blocks.append(("embeddings", 0, part.embeddings))
            if part.hidden_states is not None:
                for layer, states in zip(layers, part.hidden_states, strict=True):
                    blocks.append(("hidden_states", layer, states))
            for config, rows in enumerate(part.activations):
                blocks.append(("activations", config, rows))
            yield blocks

    def blocks(
        self,
        rows: NDArray[np.int64] | None,
        members: Members,
        bounds: Sequence[int] | None = None,
    ) -> Iterator[Iterable[Block]]:
        """Stream file by file if the rows of each file are adjacent; else read all into memory."""
        positions = np.arange(self.n_rows) if rows is None else rows
        sentences = self.sentence_of_row[positions]
        files = [0, *(np.flatnonzero(np.diff(sentences)) + 1).tolist(), len(positions)]
        numbers = sentences[files[:-1]].tolist() if len(positions) else []
        if bounds not in (None, files) or len(set(numbers)) < len(numbers) or not numbers:
            yield from blocks_in_place(self, positions, members, bounds)
            return
        width = self.n_features or 0
        for number, (start, stop), blocks in zip(
            numbers, pairwise(files), self.stream(numbers, members), strict=True
        ):
            places = positions[start:stop] - self.n_rows_of(number)
            yield [
                (name, which, (values.as_csr(width) if name == "activations" else values)[places])
                for name, which, values in blocks
            ]

    def _keep(self, parts: Iterator[SentenceRows], members: Members) -> None:
        n, first = self.n_rows, self.files[0]
        positions = first.positions_of(members.layers)
        tokens = np.empty((n, self.d_embed or 0), np.float32) if members.embeddings else None
        states = np.empty((len(positions), n, self.d_model or 0), np.float32) if positions else None
        sparse: list[list[SparseRows]] = []
        for part, start, stop in zip(parts, self._offsets[:-1], self._offsets[1:], strict=True):
            if tokens is not None:
                tokens[start:stop] = part.embeddings
            if states is not None:
                states[:, start:stop] = part.hidden_states
            sparse.append(part.activations)
        if tokens is not None:
            self._kept["embeddings", 0] = tokens
        if states is not None:
            for number, position in enumerate(positions):
                self._kept["hidden_states", first.layers[position]] = states[number]
        for config, kept in zip(members.read_configs, zip(*sparse, strict=True), strict=True):
            self._kept["activations", config] = stack_rows(kept).as_csr(self.n_features or 0)

    def bytes_of(self, members: Members) -> int:
        """Return the bytes of memory that dense rows need."""
        columns = (self.d_embed or 0) * members.embeddings
        columns += (self.d_model or 0) * len(members.layers)
        return 4 * self.n_rows * columns

    def shortage(self, n_bytes: int) -> str:
        """Return a message if `n_bytes` do not fit in memory, otherwise an empty text."""
        free = available_memory()
        if free is None or n_bytes <= free:
            return ""
        return (
            f"{self.path}: these rows need {n_bytes / 1e9:.3g} GB of memory, but"
            f" {free / 1e9:.3g} GB are free; sklprep pack {self.path} OUT makes a pack, which is"
            " read in place."
        )

    def _require_memory(self, n_bytes: int) -> None:
        if message := self.shortage(n_bytes):
            raise DataError(message)

    def require(self, member: str) -> None:
        """Raise `FileFormatError` unless the files hold this member."""
        if self.files[0].widths[MEMBERS.index(member)] is None:
            raise file_fault(
                self.path / self.files[0].name,
                member,
                "is missing",
                "an array of that name",
                "Extract the files again with it, or choose another input.",
            )

    def _each_file(
        self,
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        what: str,
        *,
        n_jobs: int | None = None,
    ) -> Iterator[Any]:
        """Run a function on each file; one thread is faster than several for little work."""
        from joblib import Parallel, delayed

        results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
            delayed(function)(*args) for args in arguments
        )
        if not (self.progress and sys.stderr.isatty()):
            return iter(results)
        from tqdm import tqdm

        bar = tqdm(
            results, what, len(arguments), leave=False, delay=0.5, unit="file", dynamic_ncols=True
        )
        return iter(bar)


def available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * found[0] if found else None


def _list_sentence_files(folder: Path) -> list[str]:
    found = [path.name for path in folder.glob(PATTERN)] if folder.is_dir() else []
    names = sorted(found, key=natural)
    if names:
        numbers = {int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))}
        start = min(1, *numbers) if numbers else 0
        n_missing = max(numbers, default=-1) + 1 - start - len(numbers)
        if n_missing:
            first = next(number for number in itertools.count(start) if number not in numbers)
            warnings.warn(
                f"{n_missing} gaps in the numbering of {folder}, the first at {first}: the"
                " extraction may be unfinished.",
                SklprepWarning,
                stacklevel=2,
            )
        return names
    if not folder.exists():
        hint = "there is no file or folder of that name. Check the path."
    elif not folder.is_dir():
        hint = "it is a file. " + (
            say_conversion(folder)
            if is_pickled(folder)
            else "Name the folder that holds the sentence files."
        )
    elif any(folder.glob("layer_*_activations.npz")):
        hint = (
            "it holds layer_*_activations.npz, the old layer-wise format. Run the extraction that"
            " writes one file per sentence."
        )
    elif foreign := _say_what_lies_there(folder):
        hint = foreign
    elif subfolders := sorted(path.parent for path in folder.glob(f"*/{PATTERN}")):
        hint = f"they are in a subfolder. Did you mean {subfolders[0]}?"
    else:
        hint = "Run the extraction first, or check the path."
    raise DataError(f"No sentence_*.npz files found in {folder}: {hint}")


def _warn_of_padding(folder: Path, files: Sequence[SentenceInfo], pooling: str) -> None:
    """Warn of tokens after the final one, which are usually padding."""
    padded = [info for info in files if info.final_tokens and info.n_after_final]
    if padded:
        what = "becomes a row" if pooling == "none" else f"counts in the {pooling}"
        warnings.warn(
            f"{len(padded)} of {len(files)} files of {folder} have tokens after the final one"
            f" (first: {padded[0].name}, {padded[0].n_after_final}): with pooling {pooling!r}"
            f" each of them {what}. If they are padding, extract the files again without it, or use"
            " pooling 'final'.",
            SklprepWarning,
            stacklevel=2,
        )


def _say_what_lies_there(folder: Path) -> str:
    """Say what to do with files of other tools, if the folder holds any."""
    for suffix in TORCH_AND_PICKLE:
        if found := list_files(folder, suffix):
            return f"it holds {found[0].name}. {say_conversion(found[0])}"
    for suffix in _ALONE:
        if found := list_files(folder, suffix):
            do = (
                "Give that file instead of the folder."
                if suffix in (".h5", ".hdf5")
                else "Give its arrays to ActivationSet.from_arrays(hidden_states=..., labels=...),"
                " or write them as .safetensors or .npy files, one array layer_{layer} per layer."
            )
            return f"it holds {len(found)} {suffix} files ({found[0].name} first). {do}"
    return ""


def _try(function: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    """Return the result of a function for a file, or the fault of the file."""
    try:
        return function(path, *arguments)
    except FileFormatError as error:
        fault = error
    except OSError as error:
        if error.errno in _SCARCE:
            raise
        fault = file_fault(path, None, f"cannot be read ({error.strerror})", "a file to read")
    fault.__context__ = fault.__cause__ = None  # their frames hold arrays
    return fault.with_traceback(None)


def _split_faults(
    names: Sequence[str], results: Iterable[Any]
) -> tuple[list[SentenceInfo], dict[str, FileFormatError]]:
    infos, faults = [], {}
    for name, result in zip(names, results, strict=True):
        if isinstance(result, FileFormatError):
            faults[name] = result
        else:
            infos.append(result)
    return infos, faults


def _find_odd(
    folder: Path, files: Sequence[SentenceInfo], pooling: str
) -> dict[str, FileFormatError]:
    """Find the files that are inconsistent with the majority."""

    def shape_of(info: SentenceInfo) -> tuple[Any, ...]:
        return info.layers, info.average_l0s, info.widths, info.sentence_index is None

    most = Counter(map(shape_of, files)).most_common(1)[0][0]
    model = next(info for info in files if shape_of(info) == most)
    seen: dict[int, str] = {}
    odd: dict[str, FileFormatError] = {}
    for info in files:
        fault = _compare(folder, info, model) or _check_alone(folder, info, pooling, seen)
        if fault is not None:
            odd[info.name] = fault
    return odd


def _compare(folder: Path, info: SentenceInfo, model: SentenceInfo) -> FileFormatError | None:
    for what, found, expected in (
        *zip((f"{name} width" for name in MEMBERS), info.widths, model.widths, strict=True),
        ("layers", info.layers, model.layers),
        ("average_l0s", info.average_l0s, model.average_l0s),
        ("sentence_index", info.sentence_index is None, model.sentence_index is None),
    ):
        if found != expected:
            return file_fault(
                folder / info.name,
                what.split()[0],
                f"differs from {model.name}: {what} {_brief(found)}",
                f"{_brief(expected)} as there",
                "A folder must hold the files of one extraction; move the others out.",
            )
    return None


def _check_alone(
    folder: Path, info: SentenceInfo, pooling: str, seen: dict[int, str]
) -> FileFormatError | None:
    """Check its final token, and that its index is unique; record the index of a valid file."""
    if pooling == "final" and len(info.final_tokens) != 1:
        return file_fault(
            folder / info.name,
            "is_final_token",
            f"marks {len(info.final_tokens)} final tokens",
            "1",
            "Extract this file again, or use another pooling.",
        )
    if info.sentence_index is not None:
        other = seen.setdefault(info.sentence_index, info.name)
        if other != info.name:
            return file_fault(
                folder / info.name,
                "sentence_index",
                f"is {info.sentence_index}, the same as in {other}",
                "a different index in each file",
                "Remove one of the two.",
            )
    return None


def _brief(value: object) -> str:
    if value is None or value is True:
        return "missing"
    if value is False:
        return "present"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
