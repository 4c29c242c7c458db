"""The blocks of the README and of the pages in ``docs/``, and the folder that they run in."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dump_files import write_datasets, write_safetensors

from sklprep import load_activations, make_activations

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("[!_]*.md"))]
BUILT = ("_build", "_examples", "gallery", "generated")
PAGES = [page for page in PAGES if not set(page.relative_to(ROOT).parts).intersection(BUILT)]
TRAITS = ("dishonesty_100_features", "aggression_100_features")
N_LAYERS = 26

_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the words behind it, and where it begins."""

    language: str
    options: tuple[str, ...]
    code: str
    line: int

    @property
    def needs(self) -> list[str]:
        return [option[6:] for option in self.options if option.startswith("needs-")]

    @property
    def runs(self) -> bool:
        return "no-run" not in self.options

    def commands(self) -> list[str]:
        """The command lines of a shell block, without continuations and comments."""
        lines = re.sub(r"\\\n\s*", " ", self.code).splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(*_words(found["info"]), found["code"], text.count("\n", 0, found.start("code")))
        for found in _BLOCK.finditer(text)
    ]


def _words(info: str) -> tuple[str, tuple[str, ...]]:
    language, *options = info.split() or [""]
    return language, tuple(options)


def split_command(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def write_folders(root: Path) -> None:
    """Write what the pages speak of: folders of two traits, dumps of the first, and tables."""
    for seed, trait in enumerate(TRAITS):
        make_activations(
            100,
            n_layers=N_LAYERS,
            d_model=4,
            n_features=16,
            n_tokens=(2, 3),
            random_state=seed,
            output=root / trait,
        )
    tokens = load_activations(root / TRAITS[0], pooling="none")
    _, starts, counts = np.unique(tokens.groups, return_index=True, return_counts=True)
    mask = np.arange(counts.max()) < counts[:, None]
    places = np.where(mask, starts[:, None] + np.arange(counts.max()), 0)
    states = [tokens.embeddings, *(tokens.layer(layer) for layer in range(N_LAYERS))]
    states = [np.where(mask[..., None], values[places], 0) for values in states]
    _write_tables(root, tokens.labels[starts], float(tokens.average_l0s[0]))
    for first in range(0, 100, 16):
        rows = slice(first, first + 16)
        tensors = {f"hidden_states.{i}": values[rows] for i, values in enumerate(states)}
        tensors["attention_mask"] = mask[rows].astype(np.int64)
        write_safetensors(root / f"activations/batch_{first:05d}.safetensors", tensors)
    for number, count in enumerate(counts):
        of_request = np.stack([states[i][number, :count] for i in (1, 13, 26)], axis=1)
        tensors = {"hidden_states": of_request, "token_ids": np.arange(count)}
        write_safetensors(root / f"vllm_states/cmpl-{number}.safetensors", tensors)
    columns = {f"blocks.{layer}.hook_resid_post": states[layer + 1] for layer in (11, 12)}
    write_datasets(root / "cached_activations", columns)
    _write_latents(root / "latents/layers.12.mlp", np.maximum(states[13], 0))
    _write_lmprobe(root / "lmprobe_data", tokens)


def _write_tables(root: Path, labels: np.ndarray, average_l0: float) -> None:
    lines = [f"{index},{label}" for index, label in enumerate(labels)]
    (root / "labels.csv").write_text("\n".join(["sentence_index,label", *lines, ""]))
    ranks = [f"{rank},{4 * rank},{average_l0},{rank}" for rank in range(1, 7)]
    header = "rank,layer,average_l0,feature_id"
    (root / "ranked_features.csv").write_text("\n".join([header, *ranks, ""]))


def _write_latents(folder: Path, dense: np.ndarray) -> None:
    places = np.argwhere(dense)
    tensors = {
        "locations": places.astype("<u2"),
        "activations": dense[tuple(places.T)].astype("<f2"),
        "tokens": np.zeros(dense.shape[:2], "<i8"),
    }
    write_safetensors(folder / f"0_{dense.shape[2] - 1}.safetensors", tensors)


def _write_lmprobe(folder: Path, tokens) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    final = tokens[tokens.rows.is_final_token]
    for layer in (0, 12):
        name = f"tensors/hidden_layer{layer:03d}_shard000.safetensors"
        write_safetensors(folder / name, {f"hidden.layer_{layer}": final.layer(layer)})
    columns = {
        "text": final.sentences.tolist(),
        "label": final.labels.tolist(),
        "shard_index": [0] * len(final),
        "row_offset": list(range(len(final))),
    }
    hidden = {
        "type": "hidden",
        "layers": [0, 12],
        "storage": "pooled",
        "file_pattern": "tensors/hidden_layer{layer:03d}_shard{shard:03d}.safetensors",
        "key_pattern": "hidden.layer_{layer}",
        "shards": [{}],
    }
    metadata = {
        "lmprobe:format_version": '"2.0"',
        "lmprobe:tensors": json.dumps({"hidden_layers": hidden}),
    }
    (folder / "index").mkdir()
    table = pa.table(columns).replace_schema_metadata(metadata)
    write_table(table, folder / "index/train-00000-of-00001.parquet")
