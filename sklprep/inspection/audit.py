"""What in the data would flatter or spoil a published score, and what to do about it."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.datasets.probe_dataset import ProbeDataset
from sklprep.exceptions import DataError, UsageError
from sklprep.files.atomic import atomic_write
from sklprep.formats.layers import EMBEDDINGS, format_layers, require_layers
from sklprep.inspection.describe import DenseStats, Scan, units_of
from sklprep.notebook.cards import count
from sklprep.transformers.targets import ENOUGH_ACTIVE

TEXT = "text"
THRESHOLDS = {TEXT: 0.7, "layer": 0.95}
"""Cosines from which two sentences are near-duplicates. Seven tenths is what short template
sentences reach that differ in one word; unrelated reviews stay below one half."""

_FIRST = 5
_BLOCK = 256
_SAME_TOKEN = 0.5
_ONE_TOKEN = ("final", "none")  # poolings whose rows are one token
_TOKEN = re.compile(r"\w+|[^\w\s]")
_IMBALANCE = 3
_SCORED_TWICE = "is scored on what it was trained on, and its score is too high"


@dataclass(frozen=True)
class Finding:
    """Something a reader of the published number should know.

    Attributes
    ----------
    code : str
        Its kind, such as ``"near-duplicates"``.
    what : str
        What there is, how many, which first.
    why : str
        What it does to a score.
    do : str
        What to do about it.
    """

    code: str
    what: str
    why: str
    do: str

    def __str__(self) -> str:
        return f"{self.what}\n  Why: {self.why}\n  Do:  {self.do}"


@dataclass(frozen=True, eq=False)
class Audit:
    """What `audit_activations` found.

    Attributes
    ----------
    findings : list of Finding
    groups : ndarray of shape (n_rows,), int64
        Proposed groups: the rows that belong together already, joined where their sentences are
        duplicates or near-duplicates, numbered by the `sentence_indices` of their first row. Give
        them to `layer_sweep(groups=...)`.
    sentence_indices : ndarray of shape (n_rows,), int64
    """

    findings: list[Finding]
    groups: NDArray[np.int64]
    sentence_indices: NDArray[np.int64]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.findings)) or "Nothing found."

    def save_groups(self, path: str | os.PathLike[str]) -> None:
        """Write the groups as CSV, one line a sentence, as ``sklprep sweep --groups`` takes it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["sentence_index", "group"])
        _, first = np.unique(self.sentence_indices, return_index=True)
        writer.writerows(
            zip(self.sentence_indices[first].tolist(), self.groups[first].tolist(), strict=True)
        )
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())


def audit_activations(
    acts: ActivationSet,
    *,
    near: int | str = TEXT,
    threshold: float | None = None,
    scan: Scan | None = None,
) -> Audit:
    """Look for what makes scores on this data too good or meaningless.

    Looked for are values that are not finite, one text with different labels, exact and
    near-duplicate sentences, final tokens that are all the same token, rare classes, constant
    columns, dead and always-on SAE features.

    Parameters
    ----------
    acts : ActivationSet
        Its values are read once, in bounded memory.
    near : "text" or int, default="text"
        What near-duplicates are compared by: the words, or the hidden states of that layer.
    threshold : float or None, default=None
        Cosine from which two sentences are near-duplicates, above 0 and up to 1; by default 0.7 of
        words and 0.95 of hidden states.
    scan : Scan or None, default=None
        The pass over the values, if it was made already (for a layer, with ``keep=near``).

    Returns
    -------
    Audit

    Raises
    ------
    UsageError
        If `threshold` is out of range, or a layer is asked for where rows are tokens.
    LayerNotFoundError
        If the data has no such layer.

    Notes
    -----
    Words are compared by the cosine of TF-IDF vectors (`TfidfVectorizer`, fitted on the distinct
    texts of the set, words of one letter included), hidden states by that of their rows after each
    column was standardized: without it a few massive dimensions make all cosines alike. Groups are
    the connected components: a sentence belongs to the group of whatever it is near to.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep import ActivationSet, audit_activations
    >>> acts = ActivationSet.from_arrays(
    ...     hidden_states=np.eye(3)[:, np.newaxis],
    ...     labels=[0, 1, 1],
    ...     sentences=["Anna helped the old man.", "Anna helped the old man!", "It rained."],
    ... )
    >>> audit = audit_activations(acts)
    >>> audit.findings[0].code, audit.groups
    ('near-duplicates', array([0, 0, 2]))
    """
    threshold = check_near(acts, near, threshold)
    scan = scan or Scan(acts, keep=None if isinstance(near, str) else near)
    units = units_of(acts)
    texts = None if acts.sentences is None else acts.sentences[units]
    try:
        labels = acts.labels[units]
    except DataError:
        labels = None
    names = acts.sentence_indices[units]
    components = _Components(acts.groups[units])
    findings = [
        _not_finite_values(scan),
        *_check_texts(texts, labels, names, components),
        _check_near(near, threshold, texts, scan, names, components),
        _check_final_tokens(acts, scan, texts),
        *([] if labels is None else _check_balance(labels, "sentences")),
        _check_constant(scan),
        *_check_features(acts, scan),
    ]
    group_of = dict(zip(acts.groups[units].tolist(), names[components.first()], strict=True))
    return Audit(
        [finding for finding in findings if finding is not None],
        np.array([group_of[group] for group in acts.groups.tolist()], np.int64),
        acts.sentence_indices,
    )


def check_near(acts: ActivationSet, near: int | str, threshold: float | None) -> float:
    """Check what near-duplicates are to be compared by; returns the threshold."""
    if isinstance(near, str):
        if near != TEXT:
            raise UsageError(f"near must be 'text' or the number of a layer, got {near!r}.")
    else:
        require_layers([near], acts.layers.tolist())
        if acts.pooling == "none":
            raise UsageError(
                "Sentences can be compared by a layer only where each is one row; pool with final,"
                " mean or max, or compare them by text."
            )
    if threshold is None:
        return THRESHOLDS[TEXT if near == TEXT else "layer"]
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold must be a cosine above 0 and up to 1, got {threshold:g}.")
    return threshold


def audit_dataset(
    dataset: ProbeDataset, stats: DenseStats, digests: Sequence[bytes]
) -> list[Finding]:
    """Look at a dataset: its y, and what `scan_dataset` says of its X."""
    y, meta = dataset.y, dataset.meta
    found: list[Finding | None] = []
    if stats.n_bad_rows:
        found.append(_not_finite(f"{stats.n_bad_rows} of {stats.n_rows} rows of X"))
    copies = _copies(digests)
    same_token = ""
    if meta.get("meta_input_source") == EMBEDDINGS and meta.get("meta_pooling") in _ONE_TOKEN:
        same_token = "A token has the same embedding in every sentence. "
    if copies:
        found.append(
            Finding(
                "duplicates",
                f"{_n(sum(len(c) - 1 for c in copies), 'row')} of X repeat another one, value by"
                f" value, in {_n(len(copies), 'set')} (rows {_first_sets(copies)}).",
                f"{same_token}Where copies fall on both sides of a split, the model"
                f" {_SCORED_TWICE}.",
                "Pool with mean, or read the score as what single words know."
                if same_token
                else "Give copies one group: audit the folder this was made from, with"
                " --groups-out.",
            )
        )
        different = [c for c in copies if len(np.unique(y[c], axis=0)) > 1]
        if different:
            found.append(
                Finding(
                    "label-conflicts",
                    f"{_n(len(different), 'set')} of equal rows of X with different y (rows"
                    f" {_first_sets(different)}).",
                    "No model can answer all of them, which bounds the score.",
                    "Pool with mean."
                    if same_token
                    else "Correct the labels, or leave these rows out.",
                )
            )
    if meta.get("meta_output_type") == "concept_label" or y.dtype.kind != "f":
        found += _check_balance(y, "rows") if y.ndim == 1 else []
    elif np.count_nonzero(y, axis=0).min() < ENOUGH_ACTIVE:
        n_active = int(np.count_nonzero(y, axis=0).min())
        found.append(
            Finding(
                "rare-target",
                f"y is not zero in only {n_active} of {len(y)} rows.",
                "Whole test folds hold nothing but zeros, and their R2 means nothing.",
                "Choose a feature that is active more often, or pool with mean or max.",
            )
        )
    if len(stats.constant):
        found.append(_constant([f"{len(stats.constant)} of {len(stats.low)} columns of X"]))
    return [finding for finding in found if finding is not None]


class _Components:
    """Positions that belong together, joined step by step in memory of the order of n."""

    def __init__(self, groups: NDArray[np.int64]) -> None:
        self._label = np.unique(groups, return_inverse=True)[1].reshape(-1)

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Join each position of `one` with that of `other`."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n = len(self._label)
        edges = (np.ones(len(one), np.int8), (self._label[one], self._label[other]))
        _, joined = connected_components(coo_array(edges, shape=(n, n)))
        self._label = joined.astype(np.int64)[self._label]

    def first(self) -> NDArray[np.int64]:
        """For each position the first one of its component."""
        _, first, inverse = np.unique(self._label, return_index=True, return_inverse=True)
        return first[inverse.reshape(-1)]


def _check_texts(
    texts: NDArray[np.str_] | None,
    labels: NDArray[Any] | None,
    names: NDArray[np.int64],
    components: _Components,
) -> list[Finding]:
    if texts is None:
        return []
    findings = []
    copies = _copies(texts.tolist())
    for same in copies:
        components.join(same[:-1], same[1:])
    if copies:
        n_repeats = sum(len(same) - 1 for same in copies)
        findings.append(
            Finding(
                "duplicates",
                f"{_n(n_repeats, 'sentence')} {_verb(n_repeats, 'repeat')} another one word for"
                f" word, in {_n(len(copies), 'set')} (sentences"
                f" {_first_sets([names[same] for same in copies])}).",
                f"Where copies fall on both sides of a split, the model {_SCORED_TWICE}.",
                "Keep them in one group (--groups-out groups.csv, then sweep --groups groups.csv),"
                " or keep one of each.",
            )
        )
    conflicts = [same for same in copies if labels is not None and len(set(labels[same])) > 1]
    if conflicts and labels is not None:
        shown = "; ".join(
            f"sentences {_join(names[same])} have labels {_join(labels[same])}:"
            f" {_brief(texts[same[0]])}"
            for same in conflicts[:_FIRST]
        )
        findings.insert(
            0,
            Finding(
                "label-conflicts",
                f"{_n(len(conflicts), 'text')} {_verb(len(conflicts), 'occur')} with different"
                f" labels: {shown}{_more(conflicts)}.",
                "No model can answer all of them, which bounds the score, and one label is wrong"
                " or says something that the text does not.",
                "Correct the labels, or leave these sentences out.",
            ),
        )
    return findings


def _check_near(
    near: int | str,
    threshold: float,
    texts: NDArray[np.str_] | None,
    scan: Scan,
    names: NDArray[np.int64],
    components: _Components,
) -> Finding | None:
    if near == TEXT:
        if texts is None:
            return Finding(
                "no-text",
                "There are no sentences to compare, so duplicates were not looked for.",
                f"Where copies fall on both sides of a split, the model {_SCORED_TWICE}.",
                "Compare hidden states of one layer instead: --near LAYER.",
            )
        _, positions = np.unique(texts, return_index=True)  # copies are joined already
        positions = np.sort(positions)
        vectors, how = _tfidf(texts[positions]), "TF-IDF"
    else:
        assert scan.kept is not None
        positions = np.arange(len(scan.kept))
        vectors, how = _standardized(scan.kept), f"layer {near}"
    n_pairs, examples = _join_near(vectors, threshold, positions, components)
    if not n_pairs:
        return None
    first = components.first()
    _, sizes = np.unique(first, return_counts=True)
    n_involved = int(sizes[sizes > 1].sum())
    shown = "; ".join(
        f"sentences {names[i]} and {names[j]}, {cosine:.2f}"
        + ("" if texts is None else f": {_brief(texts[i])} / {_brief(texts[j])}")
        for cosine, i, j in examples
    )
    largest = int(sizes.max())
    chained = (
        f" The largest group holds {largest / len(first):.0%} of all sentences: if that is too"
        " much, raise --threshold; if it is one template, there are hardly any independent"
        " sentences to test on."
        if largest > max(len(first) / 5, 2)
        else ""
    )
    return Finding(
        "near-duplicates",
        f"{_n(n_pairs, 'pair')} of sentences {'are' if n_pairs > 1 else 'is'} alike by a cosine of"
        f" at least {threshold:g} ({how}): {shown}{_more(range(n_pairs), len(examples))}. With"
        f" exact copies, {n_involved} of {len(first)} sentences form"
        f" {_n(int((sizes > 1).sum()), 'group')}, the largest of {largest}.",
        "A test sentence whose twin was trained on is recognized, not understood, and the score is"
        " too high.",
        "Split by group: --groups-out groups.csv, then sweep --groups groups.csv." + chained,
    )


def _tfidf(texts: NDArray[np.str_]) -> Any:
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    except ValueError:  # there is no word in any of them
        return csr_array((len(texts), 1))


def _standardized(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of length 1, after each column was standardized."""
    values = np.nan_to_num(rows.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    values -= values.mean(axis=0)
    scale = values.std(axis=0)
    values /= np.where(scale > 0, scale, 1)
    length = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return values / np.where(length > 0, length, 1)


def _join_near(
    vectors: Any, threshold: float, positions: NDArray[np.int64], components: _Components
) -> tuple[int, list[tuple[float, int, int]]]:
    """Join the pairs whose cosine reaches the threshold; returns their number and the nearest."""
    n_pairs = 0
    examples: list[tuple[float, int, int]] = []
    for start in range(0, len(positions), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors[start:].T
        cosines = np.triu(cosines if isinstance(cosines, np.ndarray) else cosines.toarray(), 1)
        one, other = np.nonzero(cosines >= threshold - 1e-9)
        if not len(one):
            continue
        n_pairs += len(one)
        nearest = np.argsort(-cosines[one, other], kind="stable")[:_FIRST]
        found = cosines[one, other][nearest]
        one, other = positions[start + one], positions[start + other]
        components.join(one, other)
        examples += zip(found.tolist(), one[nearest].tolist(), other[nearest].tolist(), strict=True)
    examples.sort(key=lambda pair: (-round(pair[0], 9), *pair[1:]))
    return n_pairs, examples[:_FIRST]


def _check_final_tokens(
    acts: ActivationSet, scan: Scan, texts: NDArray[np.str_] | None
) -> Finding | None:
    if acts.pooling != "final" or not acts.rows.source.is_pooled:
        return None
    n_same = n_ends = 0
    token = ""
    if scan.embedding_digests:
        n_same = Counter(scan.embedding_digests).most_common(1)[0][1]
    if texts is not None:
        ends = [_TOKEN.findall(text)[-1:] for text in texts.tolist()]
        token, n_ends = Counter("".join(end) for end in ends).most_common(1)[0]
    if max(n_same, n_ends) < max(2, _SAME_TOKEN * len(acts)):
        return None
    facts = []
    if n_ends >= _SAME_TOKEN * len(acts):
        facts.append(f"{n_ends} of {len(acts)} sentences end in {token!r}")
    if scan.embedding_digests:
        facts.append(f"{n_same} of {len(acts)} final tokens have the very same embedding")
    return Finding(
        "same-final-token",
        f"{'; '.join(facts)}.",
        "The embedding of a final token that all sentences share knows nothing of its sentence: a"
        " poor score of embedding-to-* says nothing about embeddings, and any layer beats it.",
        "Compare layers with TF-IDF (a baseline of sklprep sweep), or use --pooling mean.",
    )


def _check_balance(labels: NDArray[Any], rows: str) -> list[Finding]:
    counts = count(labels)
    shown = ", ".join(f"{label}: {n}" for label, n in counts.items())
    smallest, largest = min(counts.values()), max(counts.values())
    if len(counts) == 1:
        what = f"All {len(labels)} {rows} have the label {next(iter(counts))}."
        do = "Add data of other labels."
        return [Finding("class-imbalance", what, "There is nothing to classify.", do)]
    if largest < _IMBALANCE * smallest and smallest >= ENOUGH_ACTIVE:
        return []
    return [
        Finding(
            "class-imbalance",
            f"Labels are unbalanced or rare ({rows} a label: {shown}).",
            f"Always answering with the commonest label has accuracy {largest / len(labels):.2f},"
            f" and {smallest} {rows} of the rarest are {smallest / 5:.1f} a test fold of five.",
            "Report it beside the majority baseline, or score with --scoring balanced_accuracy.",
        )
    ]


def _not_finite_values(scan: Scan) -> Finding | None:
    parts = []
    if scan.embeddings is not None and scan.embeddings.n_bad_rows:
        parts.append(f"{_n(scan.embeddings.n_bad_rows, 'row')} of the embeddings")
    bad = {layer: stats.n_bad_rows for layer, stats in scan.layers.items() if stats.n_bad_rows}
    if bad:
        most = max(bad.values())
        parts.append(f"up to {_n(most, 'row')} of the hidden states of {_layers(bad)}")
    n_values = sum(stats.n_bad for stats in scan.configs)
    if n_values:
        parts.append(f"{_n(n_values, 'value')} of the SAE features")
    return _not_finite(", ".join(parts)) if parts else None


def _not_finite(where: str) -> Finding:
    return Finding(
        "not-finite",
        f"NaN or infinite values in {where}.",
        "Every pipeline refuses them. float16 overflows above 65,504, which massive dimensions"
        " reach.",
        "Extract these sentences again in float32.",
    )


def _check_constant(scan: Scan) -> Finding | None:
    parts = []
    if scan.embeddings is not None and len(scan.embeddings.constant):
        n, of = len(scan.embeddings.constant), len(scan.embeddings.low)
        parts.append(f"{n} of {of} columns of the embeddings")
    constant = {n: stats.constant for n, stats in scan.layers.items() if len(stats.constant)}
    if constant:
        layer = max(constant, key=lambda layer: len(constant[layer]))
        columns = constant[layer]
        parts.append(
            f"hidden states of {_layers(constant)} (up to {len(columns)} of"
            f" {len(scan.layers[layer].low)} columns, in layer {layer} {_join(columns)})"
        )
    return _constant(parts) if parts else None


def _constant(parts: list[str]) -> Finding:
    return Finding(
        "constant-columns",
        f"Columns with one value in all rows: {'; '.join(parts)}.",
        "They tell nothing, and a model fitted here cannot use them elsewhere; many of them mean"
        " that the extraction went wrong, or that all rows are one token.",
        "If they are few, nothing. Otherwise look at the extraction, or pool with mean.",
    )


def _check_features(acts: ActivationSet, scan: Scan) -> list[Finding | None]:
    if not scan.configs:
        return []
    n_rows, n_features = len(acts), acts.n_sae_features
    dead = [int((stats.active == 0).sum()) for stats in scan.configs]
    always = [np.flatnonzero(stats.active == n_rows) for stats in scan.configs]
    findings: list[Finding | None] = []
    if any(dead):
        rare = [int((stats.active < ENOUGH_ACTIVE).sum()) for stats in scan.configs]
        findings.append(
            Finding(
                "dead-features",
                f"{_span(dead)} of {n_features:,} features of an SAE are active in none of the"
                f" {n_rows} rows, {_span(rare)} in fewer than {ENOUGH_ACTIVE}.",
                "As a target such a feature is constant in whole test folds; scoring it is refused"
                f" below {ENOUGH_ACTIVE} active rows.",
                "Choose targets among the others"
                + (", or pool with mean or max." if acts.pooling == "final" else "."),
            )
        )
    if n_always := sum(map(len, always)):
        where = "; ".join(
            f"layer {layer}: {_join(features)}"
            for layer, features in zip(acts.sae_layers.tolist(), always, strict=True)
            if len(features)
        )
        findings.append(
            Finding(
                "always-on-features",
                f"{_n(n_always, 'feature')} {'are' if n_always > 1 else 'is'} active in every row"
                f" ({where if len(where) < 200 else where[:197] + '...'}).",
                "What is always on does not mark a concept; it often carries the norm or the"
                " position of the token.",
                "Look at what such a feature stands for before you predict or name it.",
            )
        )
    return findings


def _copies(items: Sequence[Any]) -> list[NDArray[np.int64]]:
    """Positions of equal items, for each item that occurs more than once."""
    places: dict[Any, list[int]] = {}
    for position, item in enumerate(items):
        places.setdefault(item, []).append(position)
    return [np.array(same) for same in places.values() if len(same) > 1]


def _first_sets(sets: Sequence[NDArray[Any]]) -> str:
    return "; ".join(_join(same) for same in sets[:_FIRST]) + _more(sets)


def _join(values: Any) -> str:
    """The first few of many."""
    items = np.asarray(values).tolist()
    return ", ".join(map(str, items[:_FIRST])) + (", ..." if len(items) > _FIRST else "")


def _more(items: Sequence[Any], shown: int = _FIRST) -> str:
    return f"; and {len(items) - shown} more" if len(items) > shown else ""


def _n(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _verb(number: int, word: str) -> str:
    return word if number > 1 else f"{word}s"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _layers(layers: Any) -> str:
    layers = sorted(layers)
    return f"layer{'s' if len(layers) > 1 else ''} {format_layers(layers)}"


def _brief(text: str) -> str:
    text = " ".join(str(text).split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
