"""`audit_activations`: what in the data would inflate or spoil a score, and what to do about it."""

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
from sklprep.activations.duplicates import (
    NEAR_ROWS,
    NEAR_TEXTS,
    Components,
    find_equal,
    find_near,
    row_vectors,
    text_vectors,
)
from sklprep.activations.facts import sentence_rows
from sklprep.exceptions import DataError, UsageError
from sklprep.files.atomic import atomic_write
from sklprep.formats.layers import name_layers, require_layers
from sklprep.inspection.describe import Scan
from sklprep.inspection.findings import (
    MOST_SHOWN,
    SCORED_TWICE,
    Finding,
    and_more,
    constant_columns,
    find_imbalance,
    first_few,
    first_sets,
    n_of,
    not_finite,
    quote,
    verb,
)
from sklprep.transformers.targets import ENOUGH_ACTIVE

TEXT = "text"

_SAME_TOKEN = 0.5
"""Share of the sentences with the same final token from which it is reported: then most rows of the
embeddings are equal."""

_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
_SHARE_OF_CHAIN = 5  # a group of more than a fifth of the sentences may be a chain


@dataclass(frozen=True, eq=False)
class Audit:
    """Result of `audit_activations`.

    Attributes
    ----------
    findings : list of Finding
        What was found; each finding says what, why it matters and what to do.
    groups : ndarray of shape (n_rows,), int64
        Proposed groups: those of the set, merged where sentences are duplicates or near-duplicates,
        numbered by the `sentence_indices` of their first rows. Give them to
        `layer_sweep(groups=...)`.
    sentence_indices : ndarray of shape (n_rows,), int64
        Index of the sentence of each row.
    """

    findings: list[Finding]
    groups: NDArray[np.int64]
    sentence_indices: NDArray[np.int64]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.findings)) or "Nothing found."

    def save_groups(self, path: str | os.PathLike[str]) -> None:
        """Write the groups as CSV, one line per sentence, for ``sklprep sweep --groups``."""
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
    """Look for properties of the data that make scores too good or meaningless.

    The audit reports values that are not finite, texts with different labels, exact and
    near-duplicate sentences, final tokens that are all the same, rare classes, constant columns,
    and SAE features that are never or always active.

    Parameters
    ----------
    acts : ActivationSet
        The data; values are read once, in bounded memory.
    near : "text" or int, default="text"
        How near-duplicates are found: by their words, or by the hidden states of a layer.
    threshold : float or None, default=None
        Cosine from which two sentences are near-duplicates, above 0 and up to 1; by default 0.7 for
        words and 0.95 for hidden states.
    scan : Scan or None, default=None
        The pass over the values, if it was already made (with ``keep=near`` for a layer).

    Returns
    -------
    Audit

    Raises
    ------
    UsageError
        If `threshold` is out of range, or `near` is a layer although rows are tokens.
    LayerNotFoundError
        If the data do not have this layer.

    Notes
    -----
    Words are compared by the cosine of TF-IDF vectors (`TfidfVectorizer`, fitted on the distinct
    texts of the set, including words of one letter), and hidden states by the cosine of rows after
    standardizing each column; otherwise a few massive dimensions would make all cosines nearly
    equal. Groups are connected components: a sentence shares the group of all its near-duplicates.

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
    threshold = choose_threshold(acts, near, threshold)
    scan = scan or Scan(acts, keep=None if isinstance(near, str) else near)
    units = sentence_rows(acts.rows)
    try:
        labels = acts.labels[units]
    except DataError:
        labels = None
    sentences = _Sentences(
        acts.sentence_indices[units],
        None if acts.sentences is None else acts.sentences[units],
        labels,
        Components(acts.groups[units]),
    )
    findings = [
        *_find_not_finite(scan),
        *_find_copies(sentences),
        *_find_near(sentences, near, threshold, scan.kept),
        *_find_same_token(acts, scan, sentences.texts),
        *([] if labels is None else find_imbalance(labels, "sentences")),
        *_find_constant(scan),
        *_find_dead_features(acts, scan),
        *_find_always_on_features(acts, scan),
    ]
    first = sentences.indices[sentences.components.first()]
    group_of = dict(zip(acts.groups[units].tolist(), first, strict=True))
    groups = np.array([group_of[group] for group in acts.groups.tolist()], np.int64)
    return Audit(findings, groups, acts.sentence_indices)


def choose_threshold(acts: ActivationSet, near: int | str, threshold: float | None) -> float:
    """Check how near-duplicates are found, and return the cosine from which they count."""
    if isinstance(near, str):
        if near != TEXT:
            raise UsageError(f"near must be 'text' or the number of a layer, got {near!r}.")
    else:
        require_layers([near], acts.layers.tolist())
        if acts.pooling == "none":
            raise UsageError(
                "Sentences can be compared by a layer only if each is one row; pool with final,"
                " mean or max, or compare them by text."
            )
    if threshold is None:
        return NEAR_TEXTS if near == TEXT else NEAR_ROWS
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold must be a cosine above 0 and up to 1, got {threshold:g}.")
    return threshold


@dataclass(frozen=True, slots=True)
class _Sentences:
    """The sentences of a set, and their groups."""

    indices: NDArray[np.int64]
    texts: NDArray[np.str_] | None
    labels: NDArray[Any] | None
    components: Components


def _find_copies(sentences: _Sentences) -> list[Finding]:
    """Join sentences with the same text, and report those with different labels."""
    if sentences.texts is None:
        return []
    copies = find_equal(sentences.texts.tolist())
    if not copies:
        return []
    for same in copies:
        sentences.components.join(same[:-1], same[1:])
    n_repeats = sum(len(same) - 1 for same in copies)
    return [
        *_find_conflicts(copies, sentences),
        Finding(
            "duplicates",
            f"{n_of(n_repeats, 'sentence')} {verb(n_repeats, 'repeat')} another one word for"
            f" word, in {n_of(len(copies), 'set')} (sentences"
            f" {first_sets([sentences.indices[same] for same in copies])}).",
            f"Where copies fall on both sides of a split, the model {SCORED_TWICE}.",
            "Keep them in one group (groups=audit.groups), or keep one of each.",
        ),
    ]


def _find_conflicts(copies: Sequence[NDArray[np.int64]], sentences: _Sentences) -> list[Finding]:
    """Report copies of one text with different labels."""
    texts, labels = sentences.texts, sentences.labels
    if texts is None or labels is None:
        return []
    conflicts = [same for same in copies if len(set(labels[same])) > 1]
    if not conflicts:
        return []
    shown = "; ".join(
        f"sentences {first_few(sentences.indices[same])} have labels {first_few(labels[same])}:"
        f" {quote(texts[same[0]])}"
        for same in conflicts[:MOST_SHOWN]
    )
    return [
        Finding(
            "label-conflicts",
            f"{n_of(len(conflicts), 'text')} {verb(len(conflicts), 'occur')} with different"
            f" labels: {shown}{and_more(conflicts)}.",
            "No model can predict all of them, which limits the score; either a label is wrong, or"
            " it depends on something that is not in the text.",
            "Correct the labels, or leave these sentences out.",
        )
    ]


def _find_near(
    sentences: _Sentences, near: int | str, threshold: float, rows: NDArray[np.float32] | None
) -> list[Finding]:
    """Join near-duplicates, by text or by the rows of a layer, and report them."""
    if near != TEXT and rows is not None:
        positions, vectors, how = np.arange(len(rows)), row_vectors(rows), f"layer {near}"
    elif sentences.texts is not None:
        _, positions = np.unique(sentences.texts, return_index=True)  # copies are already joined
        positions = np.sort(positions)
        vectors, how = text_vectors(sentences.texts[positions]), "TF-IDF"
    else:
        return [
            Finding(
                "no-text",
                "There are no sentences to compare, so duplicates were not looked for.",
                f"Where copies fall on both sides of a split, the model {SCORED_TWICE}.",
                "Compare hidden states of one layer instead: near=LAYER.",
            )
        ]
    n_pairs = 0
    examples: list[tuple[float, int, int]] = []
    for one, other, cosines in find_near(vectors, threshold):
        n_pairs += len(one)
        pairs = positions[one], positions[other]
        sentences.components.join(*pairs)
        nearest = np.argsort(-cosines, kind="stable")[:MOST_SHOWN]
        found = (values[nearest].tolist() for values in (cosines, *pairs))
        examples += zip(*found, strict=True)
    examples.sort(key=lambda pair: (-round(pair[0], 9), *pair[1:]))
    alike = f"{threshold:g} ({how})"
    return [_describe_near(sentences, n_pairs, examples[:MOST_SHOWN], alike)] if n_pairs else []


def _describe_near(
    sentences: _Sentences, n_pairs: int, nearest: Sequence[tuple[float, int, int]], alike: str
) -> Finding:
    indices, texts = sentences.indices, sentences.texts
    _, sizes = np.unique(sentences.components.first(), return_counts=True)
    n, n_involved, largest = len(indices), int(sizes[sizes > 1].sum()), int(sizes.max())
    shown = "; ".join(
        f"sentences {indices[i]} and {indices[j]}, {cosine:.2f}"
        + ("" if texts is None else f": {quote(texts[i])} / {quote(texts[j])}")
        for cosine, i, j in nearest
    )
    chained = (
        f" The largest group has {largest / n:.0%} of all sentences: if that is too"
        " much, raise threshold=...; if they are one template, there are hardly any independent"
        " sentences to test on."
        if largest > max(n / _SHARE_OF_CHAIN, 2)
        else ""
    )
    return Finding(
        "near-duplicates",
        f"{n_of(n_pairs, 'pair')} of sentences {'have' if n_pairs > 1 else 'has'} a cosine of at"
        f" least {alike}: {shown}{and_more(range(n_pairs), len(nearest))}. With"
        f" exact copies, {n_involved} of {n} sentences form"
        f" {n_of(int((sizes > 1).sum()), 'group')}, the largest with {largest}.",
        "A test sentence with a near-duplicate among the training sentences is recognized from it,"
        " and the score is too high.",
        f"Split by group: groups=audit.groups.{chained}",
    )


def _find_same_token(
    acts: ActivationSet, scan: Scan, texts: NDArray[np.str_] | None
) -> list[Finding]:
    """Report if many final tokens are equal, by text or by embeddings."""
    if acts.pooling != "final" or not acts.rows.source.is_pooled:
        return []
    n_same = n_ends = 0
    token = ""
    if scan.embedding_digests:
        n_same = Counter(scan.embedding_digests).most_common(1)[0][1]
    if texts is not None:
        ends = [_WORD_OR_MARK.findall(text)[-1:] for text in texts.tolist()]
        token, n_ends = Counter("".join(end) for end in ends).most_common(1)[0]
    if max(n_same, n_ends) < max(2, _SAME_TOKEN * len(acts)):
        return []
    facts = []
    if n_ends >= _SAME_TOKEN * len(acts):
        facts.append(f"{n_ends} of {len(acts)} sentences end in {token!r}")
    if scan.embedding_digests:
        facts.append(f"{n_same} of {len(acts)} final tokens have the same embedding")
    return [
        Finding(
            "same-final-token",
            f"{'; '.join(facts)}.",
            "The embedding of a final token that all sentences share carries no information about"
            " its sentence: a poor score of embedding-to-* then says nothing about embeddings, and"
            " any layer is better.",
            "Compare layers with TF-IDF (a baseline of sklprep sweep), or use pooling='mean'.",
        )
    ]


def _find_not_finite(scan: Scan) -> list[Finding]:
    where = []
    if scan.embeddings is not None and scan.embeddings.n_bad_rows:
        where.append(f"{n_of(scan.embeddings.n_bad_rows, 'row')} of the embeddings")
    bad = {layer: stats.n_bad_rows for layer, stats in scan.layers.items() if stats.n_bad_rows}
    if bad:
        most = max(bad.values())
        where.append(
            f"up to {n_of(most, 'row')} of the hidden states of {name_layers(sorted(bad))}"
        )
    n_values = sum(stats.n_bad for stats in scan.configs)
    if n_values:
        where.append(f"{n_of(n_values, 'value')} of the SAE features")
    return not_finite(where)


def _find_constant(scan: Scan) -> list[Finding]:
    where = []
    if scan.embeddings is not None and len(scan.embeddings.constant):
        n, of = len(scan.embeddings.constant), len(scan.embeddings.low)
        where.append(f"{n} of {of} columns of the embeddings")
    constant = {n: stats.constant for n, stats in scan.layers.items() if len(stats.constant)}
    if constant:
        layer = max(constant, key=lambda layer: len(constant[layer]))
        columns = constant[layer]
        where.append(
            f"hidden states of {name_layers(sorted(constant))} (up to {len(columns)} of"
            f" {len(scan.layers[layer].low)} columns, in layer {layer} {first_few(columns)})"
        )
    return constant_columns(where)


def _find_dead_features(acts: ActivationSet, scan: Scan) -> list[Finding]:
    dead = [int((stats.active == 0).sum()) for stats in scan.configs]
    if not any(dead):
        return []
    rare = [int((stats.active < ENOUGH_ACTIVE).sum()) for stats in scan.configs]
    return [
        Finding(
            "dead-features",
            f"{_span(dead)} of {acts.n_sae_features:,} features of an SAE are active in none of the"
            f" {len(acts)} rows, {_span(rare)} in fewer than {ENOUGH_ACTIVE}.",
            "As a target, such a feature is constant in some test folds; scoring it is refused"
            f" below {ENOUGH_ACTIVE} active rows.",
            "Choose other features as targets"
            + (", or pool with mean or max." if acts.pooling == "final" else "."),
        )
    ]


def _find_always_on_features(acts: ActivationSet, scan: Scan) -> list[Finding]:
    always = [np.flatnonzero(stats.active == len(acts)) for stats in scan.configs]
    n_always = sum(map(len, always))
    if not n_always:
        return []
    where = "; ".join(
        f"layer {layer}: {first_few(features)}"
        for layer, features in zip(acts.sae_layers.tolist(), always, strict=True)
        if len(features)
    )
    return [
        Finding(
            "always-on-features",
            f"{n_of(n_always, 'feature')} {'are' if n_always > 1 else 'is'} active in every row"
            f" ({where if len(where) < 200 else where[:197] + '...'}).",
            "A feature that is always active does not indicate a concept; it often encodes the norm"
            " or the position of the token.",
            "Check what such a feature represents before you predict or name it.",
        )
    ]


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
