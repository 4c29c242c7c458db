"""delphi's cache of latents (SAE features): a folder of files for each hookpoint.

A file ``START_END.safetensors`` holds a range of latents: ``locations`` (n, 3), which are sequence,
token, and latent minus START; ``activations`` (n,); and ``tokens`` (sequences, context).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError, UsageError
from sklprep.files.faults import file_fault
from sklprep.files.listing import list_files, natural
from sklprep.files.raw_array import RawArray
from sklprep.files.safetensors_file import is_safetensors, read_safetensors_header
from sklprep.formats.dumps.dump import Dump, Request, Sae, Tokens
from sklprep.formats.dumps.keys import match_layers, shift
from sklprep.formats.dumps.safetensors_dump import SUFFIX
from sklprep.formats.sentence_file import MAX_WIDTH

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_RANGE = re.compile(r"([0-9]{1,9})_([0-9]{1,9})\.safetensors")
_NUMBER = re.compile(r"[0-9]{1,6}")
_ENTRIES = 1 << 19  # read at once: 10 MB of locations and activations
_KINDS = ("<u2", "<u4", "<i4", "<i8")


def recognize(path: Path) -> bool:
    """Tell whether a path is a folder of hookpoints, or a single hookpoint."""
    for folder in _hookpoints(path):
        file = _split_files(folder)[0]
        try:
            header = read_safetensors_header(file) if is_safetensors(file) else None
        except (FileFormatError, OSError):
            continue
        if header is not None:
            return {"locations", "activations"} <= header.tensors.keys()
    return False


def open_delphi(request: Request) -> Dump:
    """Open a cache of latents; each hookpoint becomes an SAE config.

    A sequence is a sentence, whose tokens are all real, because delphi packs sequences without
    padding. The layer is the only number in the name of the hookpoint, such as ``layers.12.mlp``;
    if there are several numbers, `key` says which one it is.
    """
    path, offset = request.path, request.reading.layer_offset
    numbers = _number_hookpoints(path, request.reading.key)
    shift(numbers.values(), offset, path)
    if numbers and min(numbers.values()) + offset < 0:
        raise UsageError(
            f"{path}: layer_offset={offset} turns a hookpoint into embeddings; expected layers."
        )
    saes, files, shapes = [], [], set()
    for folder, number in sorted(numbers.items(), key=lambda item: (item[1], item[0].name)):
        features = _read_hookpoint(folder)
        saes.append(
            Sae(
                number + offset,
                round(features.n_values / features.n_tokens),
                features.n_features,
                features.splits[0].activations.dtype,
                features,
            )
        )
        files += _split_files(folder)
        shapes.add((features.n_tokens // features.context, features.context, features.n_features))
    if len(shapes) > 1:
        one, other = sorted(shapes)[:2]
        found = f"has hookpoints of {one} and of {other} sequences, tokens and latents"
        raise file_fault(path, None, found, "the same", "Give key=... for some of them.")
    n_sequences, context, _ = shapes.pop()
    names = ", ".join(
        f"{folder.name} as layer {number + offset}" for folder, number in numbers.items()
    )
    return Dump(
        format="delphi",
        version="",
        path=path,
        mapping=names if len(names) <= 200 else f"{names[:197]}...",
        files=files,
        tokens=Tokens.of_lengths(np.full(n_sequences, context)),
        has_tokens=True,
        saes=saes,
    )


def _hookpoints(path: Path) -> list[Path]:
    """List the folders with files that are named after ranges of latents."""
    if not path.is_dir():
        return []
    folders = [path, *sorted((p for p in path.iterdir() if p.is_dir()), key=_by_name)]
    return [folder for folder in folders if _split_files(folder)]


def _by_name(path: Path) -> tuple[Any, ...]:
    return natural(path.name)


def _split_files(folder: Path) -> list[Path]:
    return [file for file in list_files(folder, SUFFIX) if _RANGE.fullmatch(file.name)]


def _number_hookpoints(path: Path, key: str | None) -> dict[Path, int]:
    """Return the number of the layer of each hookpoint."""
    numbers: dict[Path, int] = {}
    folders = _hookpoints(path)
    for folder in folders:
        name = folder.resolve().name
        if key is not None:
            found = list(match_layers([name], key))
        else:
            found = [int(number) for number in _NUMBER.findall(name)]
            if len(found) != 1:
                raise file_fault(
                    folder,
                    None,
                    f"has {len(found)} numbers in its name",
                    "only that of the layer",
                    "Give key=..., its name with {layer} for the number.",
                )
        if found:
            numbers[folder] = found[0]
    if not numbers:
        names = ", ".join(folder.name for folder in folders[:5]) or "none"
        expected = "one that matches key=..." if key is not None else "one"
        raise file_fault(path, None, f"has no hookpoint (its folders: {names})", expected)
    return numbers


@dataclass(frozen=True, slots=True)
class _Split:
    """One file: locations and activations of the latents from `start` to `end`."""

    locations: RawArray
    activations: RawArray
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DelphiFeatures:
    """Latents of one hookpoint, in files whose entries are sorted by token."""

    path: Path
    splits: Sequence[_Split]
    n_tokens: int
    context: int
    n_features: int
    _sorted: set[int] = field(default_factory=set, compare=False, repr=False)

    @property
    def n_values(self) -> int:
        """Number of activations in all files."""
        return sum(split.activations.shape[0] for split in self.splits)

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.n_features

    def read(self, positions: NDArray[np.int64], /) -> csr_array:
        """Read the latents of some tokens."""
        from scipy.sparse import coo_array, csr_array

        wanted, back = np.unique(positions, return_inverse=True)
        rows, columns, values = [], [], []
        for number in range(len(self.splits)):
            for tokens, latents, data in self._entries(number, wanted):
                places = np.searchsorted(wanted, tokens)
                keep = wanted[np.minimum(places, len(wanted) - 1)] == tokens
                rows.append(places[keep])
                columns.append(latents[keep])
                values.append(data[keep].astype(np.float32, copy=False))
        shape = (len(wanted), self.n_features)
        if not values:
            return csr_array((len(positions), self.n_features), dtype=np.float32)
        data = np.concatenate(values)
        index = (np.concatenate(rows).astype(np.int32), np.concatenate(columns).astype(np.int32))
        return csr_array(coo_array((data, index), shape=shape).tocsr())[back.reshape(-1)]

    def _entries(
        self, number: int, wanted: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
        """Read tokens, latents and values of a file for the tokens that are wanted."""
        if not len(wanted):
            return []
        split = self.splits[number]
        self._require_sorted(number)
        first = self._find(split, int(wanted[0]))
        last = self._find(split, int(wanted[-1]) + 1)
        found = []
        for start in range(first, last, _ENTRIES):
            stop = min(last, start + _ENTRIES)
            tokens, latents = self._locate(split, start, stop)
            there = np.isin(tokens, wanted)
            values = split.activations.read_entries(start, stop)
            found.append((tokens[there], latents[there], values[there]))
        return found

    def _require_sorted(self, number: int) -> None:
        """Read all locations once, in pieces, and require ascending tokens."""
        if number in self._sorted:
            return
        split, before = self.splits[number], -1
        for start in range(0, split.activations.shape[0], _ENTRIES):
            stop = min(split.activations.shape[0], start + _ENTRIES)
            tokens, _ = self._locate(split, start, stop)
            if (np.diff(tokens, prepend=before) < 0).any():
                raise _fault(split.locations, "are not in the order of the tokens", "ascending")
            before = int(tokens[-1])
        self._sorted.add(number)

    def _find(self, split: _Split, token: int) -> int:
        """Return the number of entries before a token, by bisection in the file."""
        low, high = 0, split.activations.shape[0]
        while low < high:
            middle = (low + high) // 2
            if int(self._locate(split, middle, middle + 1)[0][0]) < token:
                low = middle + 1
            else:
                high = middle
        return low

    def _locate(
        self, split: _Split, start: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return token and latent of some entries."""
        places = split.locations.read(np.arange(start, stop)).astype(np.int64)
        limits = (self.n_tokens // self.context, self.context, split.end - split.start + 1)
        if (places < 0).any() or (places >= limits).any():
            raise _fault(
                split.locations, "are out of range", f"sequence, token, latent below {limits}"
            )
        return places[:, 0] * self.context + places[:, 1], places[:, 2] + split.start


def _fault(array: RawArray, found: str, expected: str) -> FileFormatError:
    return file_fault(array.path, array.name, found, expected)


def _read_hookpoint(folder: Path) -> DelphiFeatures:
    splits, shape, end = [], None, -1
    for file in _split_files(folder):
        start, last = (int(number) for number in file.stem.split("_"))
        if start != end + 1 or not start <= last < MAX_WIDTH:
            found = f"holds latents {start} to {last}"
            raise file_fault(file, None, found, f"those from {end + 1} on, up to {MAX_WIDTH:,}")
        end = last
        tensors = read_safetensors_header(file).tensors
        own = _tokens_shape(file, tensors)
        if own != (shape or own):
            raise file_fault(file, "tokens", f"has shape {own}", f"{shape} as in the first file")
        shape = own
        splits.append(_Split(*_entries_of(file, tensors), start, last))
    if shape is None:
        raise file_fault(folder, None, "holds no files of latents", "START_END.safetensors")
    return DelphiFeatures(folder, splits, shape[0] * shape[1], shape[1], end + 1)


def _tokens_shape(file: Path, tensors: Mapping[str, RawArray]) -> tuple[int, int]:
    tokens = tensors.get("tokens")
    if tokens is None or len(tokens.shape) != 2 or 0 in tokens.shape:
        found = "is missing" if tokens is None else f"has shape {tokens.shape}"
        do = "Save the cache with its tokens (save_tokens=True)."
        raise file_fault(file, "tokens", found, "(sequences, context)", do)
    return tokens.shape[0], tokens.shape[1]


def _entries_of(file: Path, tensors: Mapping[str, RawArray]) -> tuple[RawArray, RawArray]:
    found = []
    for name, kinds in (("locations", _KINDS), ("activations", ("<f2", "<f4", "bfloat16"))):
        array = tensors.get(name)
        if array is None or array.dtype not in kinds:
            what = "is missing" if array is None else f"has dtype {array.dtype}"
            raise file_fault(file, name, what, f"one of {', '.join(kinds)}")
        found.append(array)
    locations, activations = found
    n = activations.shape[0] if activations.shape else 0
    if activations.shape != (n,) or locations.shape != (n, 3):
        shapes = f"have shapes {locations.shape} and {activations.shape}"
        raise file_fault(file, "locations", shapes, "(n, 3) and activations (n,)")
    return locations, activations
