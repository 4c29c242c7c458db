"""Files that are broken or hostile as files, each with the message it must give."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sklprep import load_activations
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.sentence_folder import SentenceFolder

from ..forged_files import (
    BAD_ARCHIVES,
    BAD_ENTRIES,
    BAD_MEMBERS,
    Entry,
    archive,
    bomb,
    deflated,
    forged_npy,
    header_text,
    npy,
    stored,
)
from ..sentence_files import rewrite
from .named import CONCEPT, DATASET, PACK, VICTIM, Named, write_files

_MIB = 1 << 20


def _entries(path: Path) -> dict[str, Entry]:
    with np.load(path) as content:
        return {name: stored(npy(content[name]), f"{name}.npy".encode()) for name in content.files}


def _with_entry(entry: Entry, here: Path) -> None:
    """Sentence files, one of them with this entry in the place of its own."""
    write_files(here)
    entries = _entries(here / VICTIM) | {entry.name.decode().removesuffix(".npy"): entry}
    (here / VICTIM).write_bytes(archive(*entries.values()))


def _dataset_with(entry: Entry, here: Path) -> None:
    X, y = (stored(npy(np.eye(3)), b"X.npy"), stored(npy(np.arange(3)), b"y.npy"))
    entries = {"X": X, "y": y} | {entry.name.decode().removesuffix(".npy"): entry}
    (here / "data.npz").write_bytes(archive(*entries.values()))


def _pack(here: Path, **options: Any) -> None:
    write_files(here, **options)
    build_pack(SentenceFolder(here / "data"), here / "pack")


def _pack_with(raw: bytes, here: Path, name: str = "hidden_states/L0.npy") -> None:
    _pack(here)
    (here / "pack" / name).write_bytes(raw)


def every() -> Iterator[Named]:
    """All of them."""
    yield from _bad_members()
    yield from _bad_archives()
    yield from _no_files()
    yield from _meanwhile()
    yield from _bombs()


def _bad_members() -> Iterator[Named]:
    other = {  # the reader of sentence files looks at the dtype first
        "bool bytes of 7": "has dtype bool; expected float32 or float16",
        "bool bytes of 255": "has dtype bool; expected float32 or float16",
        "beyond unicode": "has dtype <U1; expected float32 or float16",
    }
    for name, (raw, found) in BAD_MEMBERS.items():
        for how in (stored, deflated):
            entry = how(raw, b"hidden_states.npy")
            says = other.get(name, found)
            yield Named(name, partial(_with_entry, entry), f"'hidden_states' {_verb(says)}")
            entry = how(raw, b"meta_x.npy")
            yield Named(name, partial(_dataset_with, entry), found, DATASET)
        yield Named(name, partial(_pack_with, raw), "pack/hidden_states/L0.npy: ", PACK)
    for name, (entry, found) in BAD_ENTRIES.items():
        made = partial(_dataset_with, replace(entry, name=b"meta_x.npy"))
        yield Named(name, made, found, DATASET)


def _verb(found: str) -> str:
    return found if found.split(maxsplit=1)[0] in ("has", "is") else ""


def _bad_archives() -> Iterator[Named]:
    for name, (content, found) in BAD_ARCHIVES.items():
        yield Named(name, partial(_victim_of, content), found)
        yield Named(name, partial(_dataset_of, content), found, DATASET)
    for name, (comment, junk) in {
        "comment": (b"PK, and all", b""),
        "junk": (b"", bytes(999)),
    }.items():
        made = partial(_rewritten, comment=comment, junk=junk)
        yield Named(f"trailing {name}", made, "Warning: Only 3 samples", code=0)


def _victim_of(content: bytes, here: Path) -> None:
    write_files(here)
    (here / VICTIM).write_bytes(content)


def _dataset_of(content: bytes, here: Path) -> None:
    (here / "data.npz").write_bytes(content)


def _rewritten(here: Path, comment: bytes, junk: bytes) -> None:
    write_files(here)
    entries = _entries(here / VICTIM)
    (here / VICTIM).write_bytes(archive(*entries.values(), comment=comment) + junk)


def _no_files() -> Iterator[Named]:
    """What is no file, or not there, or goes away."""
    for name, make in {
        "folder": Path.mkdir,
        "FIFO": os.mkfifo,
        "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "link to /dev/null": lambda path: path.symlink_to("/dev/null"),
    }.items():
        yield Named(name, partial(_victim_by, make), "is not a regular file; expected an NPZ file")
        made = partial(_made, "data.npz", make)
        says = "is not a regular file" if name != "folder" else "No sentence_*.npz files found in"
        yield Named(name, made, says, DATASET)
        yield Named(
            name,
            partial(_pack_by, make),
            "pack/hidden_states/L0.npy: is not a regular file; expected an npy file",
            PACK,
        )
    for name, make, says in (
        (
            "dangling link",
            lambda path: path.symlink_to("nowhere"),
            "No such file or directory",
        ),
        ("link to itself", lambda path: path.symlink_to(path.name), "Too many levels of symbolic"),
    ):
        yield Named(name, partial(_victim_by, make), says)
        yield Named(name, partial(_made, "data.npz", make), says, DATASET)
    if os.geteuid():
        yield Named("no permission", partial(_victim_by, _locked), "Permission denied")
        yield Named(
            "no permission", partial(_made, "data.npz", _locked), "Permission denied", DATASET
        )
    nothing = "No sentence_*.npz files found in"
    yield Named("no folder", lambda here: None, f"{nothing} ")
    yield Named("empty folder", lambda here: (here / "data").mkdir(), nothing)
    yield Named("a file for a folder", partial(_made, "data", Path.touch), nothing)
    yield Named("layer-wise files", _layer_wise, "the old layer-wise format")
    yield Named(
        "manifest of a TB", partial(_pack_by, _grown, name="manifest.json"), "is oversized", PACK
    )
    yield Named("no array in a pack", partial(_pack_by, Path.unlink), "is missing; expected", PACK)
    yield Named("array cut short", partial(_pack_by, _cut), "bytes; expected", PACK)


def _meanwhile() -> Iterator[Named]:
    """What is gone, or is another file, when it is read after the folder or the pack was opened."""
    for name, change, says in (
        ("deleted", Path.unlink, "No such file or directory"),
        ("cut", _cut, "sentence_000001.npz: cannot be read as a zip archive"),
        ("replaced", _replace, "sentence_000001.npz: has changed since its folder was opened"),
    ):
        yield Named(f"{name} meanwhile", write_files, says, partial(_read, "data", VICTIM, change))
    layer = "pack/hidden_states/L0.npy"
    for name, change, says in (
        ("deleted", Path.unlink, f"{layer}: is missing; expected an array"),
        ("cut", _cut, f"{layer}: has 211 bytes; expected 212 or more"),
    ):
        yield Named(f"{name} meanwhile", _pack, says, partial(_read, "pack", layer, change))


def _read(folder: str, victim: str, change: Callable[[Path], object], here: Path) -> None:
    acts = load_activations(here / folder)
    change(here / victim)
    acts.layer(0)


def _replace(path: Path) -> None:
    rewrite(path, sentence="another")


def _victim_by(make: Callable[[Path], object], here: Path) -> None:
    write_files(here)
    (here / VICTIM).unlink()
    make(here / VICTIM)


def _made(name: str, make: Callable[[Path], object], here: Path) -> None:
    make(here / name)


def _pack_by(
    make: Callable[[Path], object], here: Path, name: str = "hidden_states/L0.npy"
) -> None:
    _pack(here)
    path = here / "pack" / name
    if make not in (Path.unlink, _grown, _cut):
        path.unlink()
    make(path)


def _locked(path: Path) -> None:
    path.touch(0)


def _grown(path: Path) -> None:
    os.truncate(path, 1 << 40)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _layer_wise(here: Path) -> None:
    (here / "data").mkdir()
    (here / "data/layer_0_activations.npz").touch()


def _bombs() -> Iterator[Named]:
    """A few hundred kilobytes that claim, or are, hundreds of megabytes."""
    n = 400 * _MIB
    zeros = forged_npy(header_text("|u1", f"({n},)"))
    spaces = forged_npy(header_text(), version=2, length=n)
    liar = forged_npy(header_text("|u1", "(1000,)"))
    hidden, meta = b"hidden_states.npy", b"meta_x.npy"
    too_long = "has a header of 419,430,400 bytes; expected at most 4,096"
    for name, raw, says in (
        ("header of 400 MiB", spaces, too_long),
        ("deflate bomb", zeros, "has dtype uint8; expected float32"),
    ):
        yield Named(name, partial(_bomb_with, hidden, raw, _with_entry), says)
    for name, raw, says in (
        ("header of 400 MiB", spaces, too_long),
        ("deflate bomb", zeros, "has 419,430,400 bytes; expected at most"),
    ):
        yield Named(name, partial(_bomb_with, meta, raw, _dataset_with), says, DATASET)
    for member in (b"layers.npy", b"is_final_token.npy", b"sentence.npy"):
        made = partial(_bomb_with, member, zeros, _with_entry)
        yield Named("deflate bomb", made, "has 419,430,400 bytes; expected at most 1,048,576")
    made = partial(_bomb_with, b"X.npy", zeros, _dataset_with)
    yield Named("deflate bomb", made, "has shape (419430400,) of uint8; expected", DATASET)
    made = partial(_bomb_with, b"y.npy", zeros, _dataset_with)
    yield Named("deflate bomb", made, "has shape (419430400,); expected 3 values", DATASET)
    made = partial(_bomb_with, b"other.npy", zeros, _dataset_with)
    yield Named("deflate bomb that nobody asks for", made, None, DATASET, 0)
    made = partial(_bomb_with, b"pipeline.npy", zeros, _dataset_with)
    yield Named("deflate bomb", made, "bytes; expected at most 134,217,728", DATASET)
    few = "Warning: Only 1 samples"
    yield Named("activations that nobody asks for", _honest_bomb, few, CONCEPT, 0)
    for member, forge, command in (
        (b"layers.npy", _with_entry, CONCEPT),
        (meta, _dataset_with, DATASET),
    ):
        made = partial(_bomb_with, member, liar, forge, size=len(liar) + 1000)
        yield Named("lying deflate bomb", made, "inflates to a different size than its", command)


def _honest_bomb(here: Path) -> None:
    """One sentence file whose 400 MiB of activations are there indeed, and all zeros."""
    write_files(here, 1, n_tokens=50)
    path = here / "data/sentence_000000.npz"
    entries = _entries(path)
    shape = str((2, 50, _MIB))
    raw = forged_npy(header_text("<f4", shape))
    entries["activations"] = replace(_bomb(raw), name=b"activations.npy")
    path.write_bytes(archive(*entries.values()))


def _bomb_with(
    name: bytes, raw: bytes, forge: Callable[[Entry, Path], None], here: Path, **changes: Any
) -> None:
    forge(replace(_bomb(raw), name=name, **changes), here)


@cache
def _bomb(raw: bytes) -> Entry:
    return bomb(b"a.npy", raw, 400)
