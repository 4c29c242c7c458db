"""The data of the benchmarks, made once: sentence files and one array of hidden states."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LAYER = 12
FEATURE = 3


@dataclass(frozen=True)
class Shapes:
    """The sizes of one run: of a sentence file, and how many of them."""

    name: str
    d_model: int
    n_features: int
    n_files: int
    n_many_files: int


REAL = Shapes("gemma", d_model=2304, n_features=16_384, n_files=100, n_many_files=1_020)
SMALL = Shapes("small", d_model=32, n_features=64, n_files=20, n_many_files=60)


@dataclass(frozen=True)
class Data:
    """Folders below one root, each made when it is first asked for and whole if it is there."""

    root: Path
    shapes: Shapes

    def files(self) -> Path:
        """A folder of 26-layer sentence files of 8 to 30 tokens."""
        return self._sentence_files(self.shapes.n_files)

    def many_files(self) -> Path:
        """The same, ten times as many."""
        return self._sentence_files(self.shapes.n_many_files)

    def sweep_arrays(self) -> Path:
        """``X.npy`` (n, 26, d_model) float32 and ``y.npy``, labels of four classes."""
        return self._once(f"sweep_{self.shapes.n_many_files}", self._write_sweep_arrays)

    def _sentence_files(self, n: int) -> Path:
        def write(folder: Path) -> None:
            from sklprep import make_activations

            make_activations(
                n,
                d_model=self.shapes.d_model,
                n_features=self.shapes.n_features,
                random_state=0,
                output=folder,
            )

        return self._once(f"files_{n}", write)

    def _write_sweep_arrays(self, folder: Path) -> None:
        import numpy as np

        from sklprep import make_activations

        acts = make_activations(
            self.shapes.n_many_files,
            d_model=self.shapes.d_model,
            n_features=8,
            n_tokens=(2, 2),
            random_state=0,
        )
        folder.mkdir()
        np.save(folder / "X.npy", acts.hidden_states)
        np.save(folder / "y.npy", acts.labels)

    def _once(self, name: str, write: Callable[[Path], None]) -> Path:
        folder = self.root / f"{self.shapes.name}_{name}"
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            print(f"making {folder} ...", file=sys.stderr)
            write(unfinished)
            unfinished.rename(folder)
        return folder
