"""`make_activations`: synthetic activations with a planted concept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import OutputError, UsageError
from sklprep.files.atomic import require_writable
from sklprep.formats.sentence_writer import Arrays, write_sentence_files

if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet

_N_CLASSES = 4  # labels 0 to 3, as sentence files hold them
_LATENT_SIZE = 8  # few dimensions, so that layers correlate as in a model
_CONCEPT = 0  # the latent coordinate, and the feature, that carry the concept
# chosen so that the best layer scores well above the others, which still score above chance
_CONCEPT_SIGNAL = 5.0
_MASSIVE_GAIN = 0.02  # massive columns are large, but vary no more than others
_NOISE = 0.3  # in every direction, beside a latent state of 1 and more
_COMMON_RATE, _RARE_RATE = 0.5, 0.003  # of tokens: 99.5 % of 16,384 features are zero
_JUMP = 0.5  # threshold of the JumpReLU, in standard deviations of its input

# purposes of random draws: SeedSequence(seed, spawn_key=(purpose, ...))
_SHARED, _LABELS, _SENTENCE = range(3)

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_WORDS = {
    kind: words.split()
    for kind, words in {
        "verb": "walked ran drove wandered hurried sailed climbed marched drifted limped",
        "preposition": "past near behind beside toward around with without above under",
        "adjective": "old quiet bright narrow honest crooked frozen gentle hollow broken early"
        " famous golden humble lonely modern patient rusty silent wooden",
        "noun": "bridge baker garden lantern river teacher market castle letter engine harbour"
        " orchard sailor window mountain library doctor ladder village painter station farmer",
        "adverb": "slowly quietly eagerly boldly calmly gladly kindly loudly neatly proudly rarely"
        " safely softly warmly",
        "other": "the very",
    }.items()
}


def make_activations(
    n_sentences: int = 100,
    *,
    n_layers: int = 26,
    d_model: int = 64,
    n_features: int = 256,
    n_tokens: tuple[int, int] = (8, 30),
    best_layer: int | None = None,
    label_noise: float = 0.1,
    dtype: Any = "float32",
    random_state: Any = None,
    output: str | PathLike[str] | None = None,
) -> ActivationSet:
    r"""Make synthetic activations with a planted concept and a known best layer.

    Parameters
    ----------
    n_sentences : int, default=100
        Number of sentences.
    n_layers : int, default=26
        Number of layers, numbered from 0; each has one SAE config.
    d_model : int, default=64
        Width of the embeddings and of the hidden states.
    n_features : int, default=256
        Number of SAE features of each layer.
    n_tokens : (int, int), default=(8, 30)
        Fewest and most tokens of a sentence, both inclusive. A token is a word.
    best_layer : int, default=None
        The layer that knows the concept best. None means about 60 % of the depth,
        ``round(0.6 * (n_layers - 1))``.
    label_noise : float, default=0.1
        Probability that a sentence's label is replaced by a random one.
    dtype : {"float32", "float16"}, default="float32"
        Dtype of embeddings, hidden states and activations, which are computed in float32 and then
        cast.
    random_state : int, RandomState instance or None, default=None
        Pass an int for reproducible output. Sentence `i` does not depend on `n_sentences`.
    output : path-like, default=None
        A folder for sentence files (``sentence_000000.npz`` ...), which are written one at a time.
        It is created if necessary, and must not contain sentence files.

    Returns
    -------
    ActivationSet
        The final-token rows: ``hidden_states`` of shape (n_sentences, n_layers, d_model),
        ``embeddings`` of shape (n_sentences, d_model), sparse SAE activations of shape
        (n_sentences, n_features) for each layer, ``labels`` 0-3. With `output`, the same rows, read
        from the folder by `load_activations`.

    Raises
    ------
    UsageError
        If a parameter is out of range.
    OutputError
        If `output` already contains sentence files, or cannot be written.

    Notes
    -----
    Token `t` of a sentence of `T` tokens, at layer `l` (`N` stands for fresh standard normals):

    .. math::

        z_l &= \sum_{m \le l} \sqrt{2m + 1}\, N, \qquad \text{so that } \mathrm{std}(z_l) = l + 1 \\
        z_{l,0} &\leftarrow (z_{l,0} + (l + 1)\, s\, c) / \sqrt{1 + s^2}, \qquad
        s = 5\, \frac{t + 1}{T}\, e^{-(l - \mathtt{best\_layer})^2 / (2 w^2)} \\
        h_l &= \mu_l + e + z_l B + 0.3\, N \\
        a_l &= J_{\theta_l}((h_l - \mu_l)\, W_l + b_l), \qquad
        J_\theta(x) = x \text{ where } x > \theta \text{, else } 0

    - `e` is the embedding, one standard normal vector for each word, independent of the concept.
      The residual stream `h` grows with depth around it.
    - `c` is the concept, 0-3, standardized, before label noise. Every four consecutive sentences
      have the four values in random order. ``w = max(0.6, n_layers / 12)``.
    - `z` has 8 coordinates (or `d_model`, if that is less). `B` has scaled orthonormal rows.
    - :math:`\mu_l` is zero except in the massive columns (3, or ``d_model // 4`` if that is less),
      where its absolute value is 1000 to 4000 times ``(l + 1) / n_layers``; their standard
      deviation stays near 1.
    - `W` reads random directions of `z`; feature 0 reads that of the concept. The first
      ``max(8, n_features // 256)`` features of each layer are common, each active in about half of
      the tokens; all others in about 0.3 %. With 16,384 features 99.5 % of the values are zeros.
    - ``average_l0s`` is the expected number of active features of a token, in every layer.

    Examples
    --------
    >>> from sklprep import make_activations
    >>> acts = make_activations(n_layers=6, best_layer=4, random_state=0)
    >>> acts
    ActivationSet(100 rows, layers 0-5, d_model 64, embeddings 64, 6 SAE configs of 256 features)
    >>> print(acts.sentences[1])
    Beba ran beside the modern ladder past the old station under the harbour.

    Feature 0 follows the concept most closely at `best_layer`:

    >>> import numpy as np
    >>> found = [np.corrcoef(acts.feature(layer, 0), acts.labels)[0, 1] for layer in range(6)]
    >>> int(np.argmax(found))
    4
    """
    _check_sizes(n_sentences=n_sentences, n_layers=n_layers, d_model=d_model, n_features=n_features)
    fewest, most = _check_n_tokens(n_tokens)
    best = round(0.6 * (n_layers - 1)) if best_layer is None else best_layer
    if not _is_int(best) or not 0 <= best < n_layers:
        raise UsageError(
            f"best_layer must be None or a layer from 0 to {n_layers - 1}, got {best_layer!r}."
        )
    if not isinstance(label_noise, Real) or not 0 <= label_noise <= 1:
        raise UsageError(f"label_noise must be a number from 0 to 1, got {label_noise!r}.")
    number_type = _check_dtype(dtype)
    seed = _draw_seed(random_state)
    folder = None if output is None else _check_folder(output)

    world = _draw_world(
        seed,
        n_layers=int(n_layers),
        d_model=int(d_model),
        n_features=int(n_features),
        best_layer=int(best),
    )
    sentences = (
        _cast(_make_sentence(world, index, (fewest, most), float(label_noise)), number_type)
        for index in range(n_sentences)
    )
    if folder is None:
        return _collect(sentences)
    from sklprep.activations.loading import load_activations

    write_sentence_files(folder, sentences, n_sentences)
    return load_activations(folder)


@dataclass(frozen=True)
class _World:
    """What all sentences of one seed share; symbols as in the Notes of `make_activations`."""

    seed: int
    embeddings: dict[str, NDArray[np.float32]]  # e of each word, (d_model,)
    massive: NDArray[np.float32]  # mu, (n_layers, 1, d_model)
    basis: NDArray[np.float32]  # B, (n_latent, d_model)
    signal: NDArray[np.float32]  # s of the last token, (n_layers, 1)
    reader: NDArray[np.float32]  # W = pinv(B) reader, (n_layers, n_latent, n_features)
    bias: NDArray[np.float32]  # b, (n_layers, 1, n_features)
    threshold: NDArray[np.float32]  # theta, (n_layers, 1, 1)
    average_l0: int


def _draw_world(
    seed: int, *, n_layers: int, d_model: int, n_features: int, best_layer: int
) -> _World:
    rng = _rng(seed, _SHARED)
    depth = np.arange(n_layers)[:, None, None]
    n_latent = min(_LATENT_SIZE, d_model)

    columns = rng.choice(d_model, size=min(3, d_model // 4), replace=False)
    heights = rng.uniform(1000, 4000, len(columns)) * rng.choice([-1, 1], len(columns))
    massive = np.zeros((n_layers, 1, d_model))
    massive[:, :, columns] = heights * (depth + 1) / n_layers

    directions = rng.standard_normal((d_model, n_latent))
    directions[columns] *= _MASSIVE_GAIN
    width = math.sqrt(d_model / n_latent)
    basis = np.linalg.qr(directions)[0].T * width

    reader = rng.standard_normal((n_layers, n_latent, n_features), dtype=np.float32)
    reader[:, :, _CONCEPT] = np.eye(n_latent)[_CONCEPT]
    reader /= np.linalg.norm(reader, axis=1, keepdims=True)

    n_common = min(n_features, max(8, n_features // 256))
    rates = {_COMMON_RATE: n_common, _RARE_RATE: n_features - n_common}
    quantiles = np.repeat([NormalDist().inv_cdf(1 - rate) for rate in rates], [*rates.values()])
    spread = np.sqrt((depth + 1.0) ** 2 + (1 + _NOISE**2) / width**2)
    falloff = (depth[:, 0] - best_layer) / max(0.6, n_layers / 12)
    return _World(
        seed=seed,
        embeddings={
            word: rng.standard_normal(d_model, dtype=np.float32)
            for words in _WORDS.values()
            for word in words
        },
        massive=massive.astype(np.float32),
        basis=basis.astype(np.float32),
        signal=(_CONCEPT_SIGNAL * np.exp(-0.5 * falloff**2)).astype(np.float32),
        reader=reader,
        bias=(spread * (_JUMP - quantiles)).astype(np.float32),
        threshold=(spread * _JUMP).astype(np.float32),
        average_l0=max(1, round(sum(rate * count for rate, count in rates.items()))),
    )


def _make_sentence(
    world: _World, index: int, n_tokens: tuple[int, int], label_noise: float
) -> Arrays:
    """Return the members of one sentence file, with float32 values."""
    rng = _rng(world.seed, _SENTENCE, index)
    length = int(rng.integers(n_tokens[0], n_tokens[1] + 1))
    words = _draw_words(rng, index, length)
    fragments = [" ".join(words[: t + 1]) for t in range(length)]
    fragments[-1] += "."
    block, place = divmod(index, _N_CLASSES)
    concept = int(_rng(world.seed, _LABELS, block).permutation(_N_CLASSES)[place])
    replaced, random_label = rng.random() < label_noise, int(rng.integers(_N_CLASSES))
    label = random_label if replaced else concept

    n_layers, _, d_model = world.massive.shape
    name = rng.standard_normal(d_model, dtype=np.float32)
    embeddings = np.stack([world.embeddings.get(word, name) for word in words])
    latent = _draw_latent(rng, world, concept, length)
    stream = rng.standard_normal((n_layers, length, d_model), dtype=np.float32)
    stream *= np.float32(_NOISE)
    stream += embeddings
    stream += latent @ world.basis
    return {
        "embeddings": embeddings,
        "hidden_states": stream + world.massive,
        "activations": _encode(stream, world),
        "is_final_token": np.arange(length) == length - 1,
        "concept_strength_label": np.array(label, dtype=np.int64),
        "sentence_index": np.array(index, dtype=np.int64),
        "sentence": np.array(fragments[-1]),
        "layers": np.arange(n_layers, dtype=np.int64),
        "average_l0s": np.full(n_layers, world.average_l0, dtype=np.int64),
        "fragments": np.array(fragments),
        "token_positions": np.arange(length, dtype=np.int64),
        "fragment_lengths": np.arange(1, length + 1, dtype=np.int64),
        "num_features": np.array(world.bias.shape[-1], dtype=np.int64),
        "hidden_dim": np.array(d_model, dtype=np.int64),
    }


def _draw_latent(
    rng: np.random.Generator, world: _World, concept: int, length: int
) -> NDArray[np.float32]:
    """Return the latent state `z`, of shape (n_layers, length, n_latent)."""
    n_layers, n_latent, _ = world.reader.shape
    spread = np.arange(1, n_layers + 1, dtype=np.float32)[:, None]
    latent = rng.standard_normal((n_layers, length, n_latent), dtype=np.float32)
    latent *= np.sqrt(2 * spread - 1)[:, :, None]
    np.cumsum(latent, axis=0, out=latent)
    mean, std = (_N_CLASSES - 1) / 2, math.sqrt((_N_CLASSES**2 - 1) / 12)
    signal = world.signal * (np.arange(1, length + 1, dtype=np.float32) / np.float32(length))
    latent[:, :, _CONCEPT] += spread * signal * np.float32((concept - mean) / std)
    latent[:, :, _CONCEPT] /= np.sqrt(1 + signal**2)
    return latent


def _encode(stream: NDArray[np.float32], world: _World) -> NDArray[np.float32]:
    """Return JumpReLU features of the stream without `mu`: (n_layers, length, n_features)."""
    n_latent, d_model = world.basis.shape
    activations: NDArray[np.float32] = stream @ (world.basis.T * np.float32(n_latent / d_model))
    activations = activations @ world.reader
    activations += world.bias
    activations[activations <= world.threshold] = 0
    return activations


def _draw_words(rng: np.random.Generator, index: int, length: int) -> list[str]:
    """Return a sentence of `length` words; its first word is a name unique to `index`."""

    def pick(*kinds: str) -> list[str]:
        return [str(rng.choice(_WORDS[kind])) if kind in _WORDS else kind for kind in kinds]

    n_places, rest = divmod(max(0, length - 2), 4)
    words = [_name(index), *pick("verb")]
    for _ in range(n_places):
        words += pick("preposition", "the", "adjective", "noun")
    endings = [(), ("adverb",), ("very", "adverb"), ("preposition", "the", "noun")]
    return [*words, *pick(*endings[rest])][:length]


def _name(index: int) -> str:
    """Return an invented name: the digits of `index`, written as syllables."""
    base = len(_SYLLABLES)
    digits = [_SYLLABLES[index % base]]
    while (index := index // base) or len(digits) < 2:
        digits.append(_SYLLABLES[index % base])
    return "".join(digits).capitalize()


def _cast(members: Arrays, dtype: np.dtype[Any]) -> Arrays:
    return {
        name: array.astype(dtype, copy=False) if array.dtype == np.float32 else array
        for name, array in members.items()
    }


def _collect(sentences: Iterable[Arrays]) -> ActivationSet:
    """Collect the final-token rows of the sentences in memory."""
    from scipy.sparse import csr_array, vstack

    from sklprep.activations.activation_set import ActivationSet

    embeddings, hidden_states, activations, labels, texts = [], [], [], [], []
    for members in sentences:
        embeddings.append(members["embeddings"][-1].copy())
        hidden_states.append(members["hidden_states"][:, -1].copy())
        activations.append(csr_array(members["activations"][:, -1].astype(np.float32)))
        labels.append(members["concept_strength_label"])
        texts.append(str(members["sentence"]))
    layers, average_l0s = members["layers"], members["average_l0s"]
    by_sentence = vstack(activations, format="csr")
    return ActivationSet.from_arrays(
        hidden_states=np.stack(hidden_states),
        embeddings=np.stack(embeddings),
        activations=[by_sentence[layer :: len(layers)] for layer in layers],
        labels=np.stack(labels),
        layers=layers,
        sae_layers=layers,
        average_l0s=average_l0s,
        sentences=texts,
    )


def _check_folder(output: str | PathLike[str]) -> Path:
    folder = Path(output)
    require_writable(folder / "sentence_000000.npz")
    if any(folder.glob("sentence_*.npz")):
        raise OutputError(
            f"Output {folder} already contains sentence files; expected a folder without any."
            " Choose another folder, or remove them."
        )
    return folder


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def _draw_seed(random_state: Any) -> int:
    from sklearn.utils import check_random_state

    try:
        return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    except ValueError as error:
        raise UsageError(
            "random_state must be an int from 0 to 2**32 - 1, a numpy RandomState or None, got"
            f" {random_state!r}."
        ) from error


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_sizes(**sizes: Any) -> None:
    for name, value in sizes.items():
        if not _is_int(value) or value < 1:
            raise UsageError(f"{name} must be an int of at least 1, got {value!r}.")


def _check_n_tokens(n_tokens: Any) -> tuple[int, int]:
    pair = tuple(n_tokens) if isinstance(n_tokens, Sequence) else ()
    if len(pair) != 2 or not all(map(_is_int, pair)) or not 1 <= pair[0] <= pair[1]:
        raise UsageError(
            "n_tokens must be the fewest and the most tokens of a sentence, two ints with"
            f" 1 <= fewest <= most, got {n_tokens!r}."
        )
    return int(pair[0]), int(pair[1])


def _check_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        number_type: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        number_type = np.dtype(object)
    if number_type not in (np.dtype(np.float32), np.dtype(np.float16)):
        raise UsageError(f"dtype must be float32 or float16, got {dtype!r}.")
    return number_type
