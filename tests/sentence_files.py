"""Sentence files and folders of them, written with numpy alone: what the reader is tested on."""

import zipfile
from pathlib import Path

import numpy as np


def write_sentence(
    path,
    *,
    index=0,
    seed=0,
    layers=(0, 1, 2),
    n_tokens=None,
    d_embed=5,
    d_model=7,
    n_features=40,
    dtype="float32",
    compress=True,
    final=-1,
    omit=(),
    **members,
):
    """Write one sentence file of random values and return its members as a dict of arrays.

    Any member may be given by its name; those in `omit` are left out. Values depend on `seed` and
    `index` only. The final token is the last one, or a
    random one if `final` is None; a layer that repeats has equal hidden states.
    """
    rng = np.random.default_rng([seed, index])
    n = int(rng.integers(2, 9)) if n_tokens is None else n_tokens
    states = {layer: rng.normal(size=(n, d_model)) for layer in sorted({*layers})}
    features = rng.normal(2, 1, size=(len(layers), n, n_features))
    content = {
        "embeddings": rng.normal(size=(n, d_embed)).astype(dtype),
        "hidden_states": np.array([states[layer] for layer in layers]).astype(dtype),
        "activations": (features * (rng.random(features.shape) < 0.15)).astype(dtype),
        "is_final_token": np.arange(n) == (rng.integers(n) if final is None else n + final),
        "concept_strength_label": np.array(index % 4),
        "sentence_index": np.array(index),
        "sentence": np.array(f"This is sentence {index}."),
        "layers": np.array(layers),
        "average_l0s": np.arange(len(layers)) * 10 + 70,
        "fragments": np.array([f"fragment {token}" for token in range(n)]),
        "token_positions": np.arange(n),
        "fragment_lengths": np.arange(1, n + 1),
        "num_features": np.array(n_features),
        "hidden_dim": np.array(d_model),
    } | {name: np.asarray(values) for name, values in members.items()}
    content = {name: values for name, values in content.items() if name not in omit}
    (np.savez_compressed if compress else np.savez)(path, **content)
    return content


def write_folder(folder, n=5, *, first=0, changes=None, **options):
    """Write sentence files numbered from `first`; `changes` maps a number to its own options."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [
        write_sentence(
            Path(folder, f"sentence_{index:06d}.npz"),
            **{"index": index, **options, **(changes or {}).get(index, {})},
        )
        for index in range(first, first + n)
    ]


def data_position(path, member):
    """Where in the file the packed bytes of a member begin, and how many they are."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{member}.npy")
    local = Path(path).read_bytes()[entry.header_offset :][:30]
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return entry.header_offset + 30 + lengths, entry.compress_size


def damage(path, member):
    """Flip bits near the end of a member's packed data."""
    start, length = data_position(path, member)
    content = bytearray(Path(path).read_bytes())
    content[start + length * 9 // 10] ^= 0x55
    Path(path).write_bytes(content)


def rewrite(path, *, omit=(), **members):
    """Write a sentence file again with these members instead of its own and without others."""
    with np.load(path) as old:
        content = {name: old[name] for name in old.files if name not in omit}
    np.savez(path, **content | members)
