"""A named case: what is made, the command that meets it, and what the command must say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sentence_files import write_folder

VICTIM = "data/sentence_000001.npz"
CONCEPT = "generate --strategy hidden-to-concept --layers 0-1 --input data --output out.npz"
EMBEDDING = "generate --strategy embedding-to-concept --input data --output out.npz"
SAE = "generate --strategy feature-to-concept --layers 0 --input data --output out.npz"
_TARGET = "--target-layer 0 --target-feature 3"
FEATURE = f"generate --strategy embedding-to-feature {_TARGET} --input data --output out.npz"
PACK = "generate --strategy hidden-to-concept --layers 0-1 --input pack --output out.npz"
DATASET = "inspect data.npz"
SWEEP = "sweep data --layers 0"
SWEEP_FEATURE = f"sweep data --strategy embedding-to-feature {_TARGET}"


@dataclass(frozen=True)
class Named:
    """What `make` makes in a folder, a command or a function run there, and its exit code.

    `says` stands in the first line on stderr; None is for a command that has nothing to say.
    """

    name: str
    make: Callable[[Path], object]
    says: str | None
    command: str | Callable[[Path], object] = CONCEPT
    code: int = 1


def write_files(here: Path, n: int = 3, **options: Any) -> None:
    """Write sentence files of 4 tokens, 2 layers, 2 SAEs of 40 features, widths 5 and 7."""
    write_folder(here / "data", n, **{"n_tokens": 4, "layers": (0, 1), **options})
