"""Concatenated rows of several sets, each of which is still read from its own source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError, FileFormatError, UsageError
from sklprep.formats.layers import format_layers
from sklprep.formats.members import Block, Members
from sklprep.formats.rows import Rows
from sklprep.formats.source import all_members, blocks_in_place
from sklprep.formats.texts import merge_by_text

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class JoinedSource:
    """Rows of several sets as one source.

    Parameters
    ----------
    parts : mapping of str to Rows
        Rows by name; `sources` has this name for each row.

    Raises
    ------
    UsageError
        If there are no sets, or they differ in pooling, layers, widths or SAE configs.
    """

    place: Path | None = None
    groups_are_sentences = False

    def __init__(self, parts: Mapping[str, Rows]) -> None:
        if not parts:
            raise UsageError("There are no sets to join; expected at least one.")
        _require_alike(parts)
        self._parts = dict(parts)
        first = next(iter(parts.values())).source
        self.name = "+".join(parts)
        mappings = {rows.source.mapping for rows in parts.values()}
        self.mapping = mappings.pop() if len(mappings) == 1 else ""
        self.pooling, self.is_pooled = first.pooling, first.is_pooled
        self.layers, self.sae_layers = first.layers, first.sae_layers
        self.average_l0s = first.average_l0s
        self.d_embed, self.d_model = first.d_embed, first.d_model
        self.n_features = first.n_features
        counts = [len(rows) for rows in parts.values()]
        self._part_of_row = np.repeat(np.arange(len(counts)), counts)
        self._starts = np.cumsum([0, *counts[:-1]])

    @property
    def n_rows(self) -> int:
        return len(self._part_of_row)

    @property
    def sources(self) -> NDArray[np.str_]:
        return np.array(list(self._parts))[self._part_of_row]

    @property
    def stored_dtype(self) -> str:
        return max(rows.source.stored_dtype for rows in self._parts.values())

    @property
    def fingerprint(self) -> str:
        return self._digest(lambda rows: rows.fingerprint)

    @property
    def key(self) -> str:
        return self._digest(_key_of)

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        return self._joined(lambda rows: rows.is_final_token)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Groups of each set; those of different sets are distinct, unless they share a text."""
        offset, numbers = 0, []
        for rows in self._parts.values():
            distinct, inverse = np.unique(rows.groups, return_inverse=True)
            numbers.append(inverse.reshape(-1) + offset)
            offset += len(distinct)
        groups = np.concatenate(numbers)
        return merge_by_text(groups, self._joined(_texts_of))

    @property
    def labels(self) -> NDArray[Any]:
        labels = {name: rows.labels for name, rows in self._parts.items()}
        kinds = {name: values.dtype.kind in "biuf" for name, values in labels.items()}
        if len(set(kinds.values())) > 1:  # numpy would turn the numbers into text
            numbers, text = (
                next(n for n, is_number in kinds.items() if is_number is kind)
                for kind in (True, False)
            )
            raise DataError(
                f"The labels of {numbers} are {labels[numbers].dtype}, but those of {text}"
                f" {labels[text].dtype}; expected one kind. Give both sets labels of the same kind"
                " before joining them."
            )
        return np.concatenate(list(labels.values()))

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        return self._joined(lambda rows: rows.sentence_indices)

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        if any(rows.source.sentences is None for rows in self._parts.values()):
            return None
        return self._joined(lambda rows: rows.sentences)

    @property
    def file_names(self) -> NDArray[np.str_]:
        names = [
            [f"{name}/{file}" if file else "" for file in rows.file_names.tolist()]
            for name, rows in self._parts.items()
        ]
        return np.array([file for files in names for file in files], np.str_)

    @property
    def left_out(self) -> dict[str, FileFormatError]:
        return {
            f"{name}/{file}": fault
            for name, rows in self._parts.items()
            for file, fault in rows.source.left_out.items()
        }

    def describe_row(self, row: int) -> str:
        number = int(self._part_of_row[row])
        name, rows = list(self._parts.items())[number]
        position = row - int(self._starts[number])
        if rows.positions is not None:
            position = int(rows.positions[position])
        return f"{name}: {rows.source.describe_row(position)}"

    def require(self, member: str) -> None:
        for rows in self._parts.values():
            rows.source.require(member)

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        return self._gather(rows, lambda part: part.source.embeddings(part.positions))

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        return self._gather(rows, lambda part: part.source.layer(layer, part.positions))

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        return self._gather(rows, lambda part: part.source.config(config, part.positions))

    def read(self, members: Members) -> None:
        for rows in self._parts.values():
            rows.source.read(members)

    def unread(self) -> JoinedSource:
        return self._with(lambda _, rows: rows.read_from(rows.source.unread()))

    def without(self, faults: Mapping[str, FileFormatError]) -> JoinedSource:
        def leave_out(name: str, rows: Rows) -> Rows:
            start = f"{name}/"
            own = {f.removeprefix(start): e for f, e in faults.items() if f.startswith(start)}
            return rows.without(own) if own else rows

        return self._with(leave_out)

    def blocks(
        self,
        rows: NDArray[np.int64] | None,
        members: Members,
        bounds: Sequence[int] | None = None,
    ) -> Iterator[Iterable[Block]]:
        positions = np.arange(self.n_rows) if rows is None else rows
        part_of_row = self._part_of_row[positions]
        if bounds is not None or (np.diff(part_of_row) < 0).any():
            yield from blocks_in_place(self, positions, members, bounds)
            return
        for number, part in enumerate(self._parts.values()):
            own = part.take(positions[part_of_row == number] - self._starts[number])
            yield from own.source.blocks(own.positions, members)

    def _with(self, change: Callable[[str, Rows], Rows]) -> JoinedSource:
        return JoinedSource({name: change(name, rows) for name, rows in self._parts.items()})

    def _joined(self, read: Callable[[Rows], Any]) -> Any:
        return np.concatenate([read(rows) for rows in self._parts.values()])

    def _digest(self, read: Callable[[Rows], str]) -> str:
        names = (f"{name}\0{read(rows)}\0" for name, rows in self._parts.items())
        return hashlib.sha256("".join(names).encode()).hexdigest()

    def _gather(self, rows: NDArray[np.int64] | None, read: Callable[[Rows], Any]) -> Any:
        """Read rows of each part, and put them in the requested order."""
        positions = np.arange(self.n_rows) if rows is None else rows
        part_of_row = self._part_of_row[positions]
        found = [
            read(part.take(positions[part_of_row == number] - self._starts[number]))
            for number, part in enumerate(self._parts.values())
        ]
        order = np.argsort(np.argsort(part_of_row, kind="stable"), kind="stable")
        if hasattr(found[0], "indptr"):
            from scipy.sparse import csr_array, vstack

            return csr_array(vstack(found, format="csr"))[order]
        return np.concatenate(found)[order]


def _require_alike(parts: Mapping[str, Rows]) -> None:
    (first_name, first), *others = parts.items()
    for name, rows in others:
        for what, called in _SHARED.items():
            one, other = getattr(first.source, what), getattr(rows.source, what)
            if not np.array_equal(one, other):
                raise UsageError(
                    f"Sets to be joined differ in {called}: {first_name} has"
                    f" {_brief(one, what)}, {name} has {_brief(other, what)}; expected the"
                    " same. Join sets of one model that were made with one pooling."
                )
        if all_members(first.source) != all_members(rows.source):
            raise UsageError(
                f"Sets to be joined hold different members: {first_name}"
                f" {', '.join(all_members(first.source).names)}, {name}"
                f" {', '.join(all_members(rows.source).names)}; expected the same."
            )


_SHARED = {
    "pooling": "pooling",
    "layers": "their layers",
    "sae_layers": "the layers of their SAEs",
    "average_l0s": "average_l0s",
    "d_embed": "the width of embeddings",
    "d_model": "the width of hidden states",
    "n_features": "the number of SAE features",
}
"""What sets must share to be joined, and its name in errors."""


def _key_of(rows: Rows) -> str:
    """Return a digest of the key of the source, the selected rows and joined groups."""
    digest = hashlib.sha256(rows.source.key.encode())
    if rows.positions is not None:
        digest.update(rows.positions.tobytes())
    if "groups" in rows.joined:
        digest.update(rows.joined["groups"].tobytes())
    return digest.hexdigest()


def _texts_of(rows: Rows) -> NDArray[np.str_]:
    texts = rows.sentences
    return np.zeros(len(rows), np.str_) if texts is None else texts


def _brief(value: Any, what: str) -> str:
    if what == "layers" and len(value):
        return format_layers(value.tolist())
    text = str(np.asarray(value).tolist() if value is not None else "none")
    return text if len(text) <= 60 else f"{text[:57]}..."
