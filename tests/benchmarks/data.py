"""The data of the benchmarks, made once: sentence files and one array of hidden states."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LAYER = 12
FEATURE = 3
N_LAYERS = 26


@dataclass(frozen=True)
class Grown:
    """The sizes that one axis at a time takes, the others staying at their first."""

    d_model: int
    n_features: int
    sentences: tuple[int, ...]
    tokens: tuple[int, ...]
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The sizes of one run: of a sentence file, and how many of them."""

    name: str
    d_model: int
    n_features: int
    n_files: int
    n_many_files: int
    n_long_rows: int
    n_dumped: int
    d_long: int
    grown: Grown


REAL = Shapes(
    "gemma",
    d_model=2304,
    n_features=16_384,
    n_files=100,
    n_many_files=1_020,
    n_long_rows=20_000,
    n_dumped=1_000,
    d_long=512,
    grown=Grown(64, 256, (25, 200, 1_000, 5_000), (8, 32, 128, 512), (4, 16, 64, 256)),
)
SMALL = Shapes(
    "small",
    d_model=32,
    n_features=64,
    n_files=20,
    n_many_files=60,
    n_long_rows=200,
    n_dumped=50,
    d_long=16,
    grown=Grown(8, 16, (5, 10), (2, 4), (2, 4)),
)


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

    def pack(self) -> Path:
        """The sentence files as a pack."""
        return self._pack_of(self.files())

    def pack_of_many(self) -> Path:
        """The ten times as many as a pack."""
        return self._pack_of(self.many_files())

    def long_pack(self) -> Path:
        """A pack of many rows of noise: ``n_long_rows`` x 26 layers x ``d_long``."""
        return self._once(f"long_{self.shapes.n_long_rows}", self._write_long_pack)

    def grown_files(
        self, *, n_sentences: int | None = None, n_tokens: int = 16, n_layers: int | None = None
    ) -> Path:
        """A folder of sentence files of one number of tokens, larger along one axis."""
        grown = self.shapes.grown
        n_sentences = n_sentences or 100
        n_layers = n_layers or grown.layers[0]

        def write(folder: Path) -> None:
            from sklprep import make_activations

            make_activations(
                n_sentences,
                n_layers=n_layers,
                d_model=grown.d_model,
                n_features=grown.n_features,
                n_tokens=(n_tokens, n_tokens),
                random_state=0,
                output=folder,
            )

        return self._once(f"grown_{n_sentences}_{n_tokens}_{n_layers}", write)

    def sweep_arrays(self) -> Path:
        """``X.npy`` (n, 26, d_model) float32 and ``y.npy``, labels of four classes."""
        return self._once(f"sweep_{self.shapes.n_many_files}", self._write_sweep_arrays)

    def bfloat16_dump(self) -> Path:
        """A safetensors file of bfloat16: 1,000 rows x 26 layers x d_model, and labels."""
        folder = self._once(f"dump_{self.shapes.n_dumped}", self._write_dump)
        return folder / "dump.safetensors"

    def _write_dump(self, folder: Path) -> None:
        import numpy as np

        from ..dump_files import BFloat16, write_safetensors

        rng = np.random.default_rng(0)
        n, width = self.shapes.n_dumped, self.shapes.d_model
        tensors = {
            f"layer_{number}": BFloat16(rng.standard_normal((n, width), dtype=np.float32))
            for number in range(N_LAYERS)
        }
        write_safetensors(
            folder / "dump.safetensors", tensors | {"labels": rng.integers(4, size=n)}
        )

    def sweep_files(self) -> Path:
        """Sentence files of 7 inputs: 200 of 384 columns, or few small ones."""

        def write(folder: Path) -> None:
            from sklprep import make_activations

            n, d_model = (200, 384) if self.shapes.d_model > 384 else (40, self.shapes.d_model)
            sizes = {"n_layers": 6, "d_model": d_model, "n_features": 8}
            make_activations(n, **sizes, random_state=0, output=folder)

        return self._once("sweep_files", write)

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

    def _pack_of(self, folder: Path) -> Path:
        def write(output: Path) -> None:
            from sklprep.formats.pack_writer import build_pack
            from sklprep.formats.sentence_folder import SentenceFolder

            build_pack(SentenceFolder(folder, pooling="final", n_jobs=-1), output)

        return self._once(f"pack_of_{folder.name}", write)

    def _write_long_pack(self, folder: Path) -> None:
        import numpy as np

        from sklprep import ActivationSet

        rng = np.random.default_rng(0)
        shape = (self.shapes.n_long_rows, N_LAYERS, self.shapes.d_long)
        ActivationSet.from_arrays(
            hidden_states=rng.standard_normal(shape, dtype=np.float32),
            labels=rng.integers(4, size=shape[0]),
        ).to_pack(folder)

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
