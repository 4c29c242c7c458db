"""The audit: what it finds in data with planted faults, and what it leaves alone."""

import csv

import numpy as np
import pytest
from sentence_files import write_folder

from sklprep import ActivationSet, audit_activations, from_hidden_states, load_activations
from sklprep.datasets.probe_dataset import ProbeDataset
from sklprep.exceptions import LayerNotFoundError, UsageError
from sklprep.inspection.dataset_audit import audit_dataset
from sklprep.inspection.describe import DenseStats, digests_of

TEXTS = [
    "Anna helped the old man cross the street.",
    "It rained all day in the harbour",
    "Anna helped the old man to cross the street!",
    "It rained all day in the harbour",
    "Nobody knows what became of him",
    "It rained all day in the harbour",
]
LABELS = [0, 1, 0, 2, 2, 1]


def make(texts=TEXTS, labels=LABELS, **more):
    states = np.random.default_rng(0).normal(size=(len(texts), 2, 6))
    return ActivationSet.from_arrays(
        **{"hidden_states": states, "sentences": texts, "labels": labels} | more
    )


def found(audit):
    return {finding.code: finding for finding in getattr(audit, "findings", audit)}


def test_copies_are_named_and_joined():
    audit = audit_activations(make(groups=range(6)))
    finding = found(audit)["duplicates"]

    assert finding.what.startswith("2 sentences repeat another one word for word, in 1 set")
    assert "1, 3, 5" in finding.what
    assert [0, 1, 0, 1, 4, 1] == audit.groups.tolist()


def test_one_text_with_different_labels_comes_first():
    finding = audit_activations(make(groups=range(6))).findings[0]

    assert "label-conflicts" == finding.code
    assert "sentences 1, 3, 5 have labels 1, 2, 1: 'It rained" in finding.what


def test_near_duplicates_are_shown_with_their_cosine():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = list(dict.fromkeys(TEXTS))
    vectors = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    cosine = (vectors @ vectors.T)[0, 2]
    what = found(audit_activations(make(groups=range(6))))["near-duplicates"].what

    assert (
        f"1 pair of sentences has a cosine of at least 0.7 (TF-IDF): sentences 0 and 2, \
{cosine:.2f}"
        in what
    )
    assert "5 of 6 sentences form 2 groups, the largest with 3" in what


def test_threshold_decides_what_is_near():
    assert "near-duplicates" not in found(audit_activations(make(), threshold=0.99))


def test_near_pairs_across_blocks_are_those_of_all_cosines():
    rng = np.random.default_rng(1)
    states = rng.normal(size=(600, 1, 3))
    acts = ActivationSet.from_arrays(hidden_states=states)
    rows = states[:, 0].astype(np.float32).astype(float)
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near = np.triu(rows @ rows.T >= 0.9995, 1)
    audit = audit_activations(acts, near=0, threshold=0.9995)
    expected = np.arange(600)
    for _ in range(600):  # the smallest row number spreads along the pairs
        for i, j in np.argwhere(near):
            expected[[i, j]] = min(expected[i], expected[j])
        if all(expected[i] == expected[j] for i, j in np.argwhere(near)):
            break

    assert found(audit)["near-duplicates"].what.startswith(f"{near.sum()} pairs")
    np.testing.assert_array_equal(expected, audit.groups)


def test_rows_of_a_group_stay_together():
    audit = audit_activations(make(groups=[0, 0, 1, 2, 3, 4]))

    assert 1 == len(set(audit.groups[[0, 1, 2, 3, 5]]))
    assert audit.groups[4] not in audit.groups[:4]


def test_sentences_without_a_word_are_near_to_nothing():
    audit = audit_activations(make(texts=["!", "?", "...", "!!", "??", ". ."]))

    assert 6 == len(set(audit.groups))


def test_without_text_the_audit_says_what_it_could_not_look_for():
    acts = ActivationSet.from_arrays(hidden_states=np.eye(3)[:, np.newaxis], labels=[0, 0, 0])

    assert "near=LAYER" in found(audit_activations(acts))["no-text"].do


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0] * 20 + [1] * 20, None),
        ([0] * 20 + [1] * 9, "label: 0: 20, 1: 9"),
        ([0] * 36 + [1] * 12, "label: 0: 36, 1: 12"),
        ([1] * 5, "All 5 sentences have the label 1"),
    ],
)
def test_rare_classes_are_named(labels, expected):
    texts = [f"w{i}" for i in range(len(labels))]
    what = found(audit_activations(make(texts, labels))).get("class-imbalance")

    assert (what is None) if expected is None else (expected in what.what)


def test_constant_columns_are_named_with_their_layer():
    states = np.random.default_rng(0).normal(size=(6, 2, 6))
    states[:, 1, [2, 5]] = 3
    what = found(audit_activations(make(hidden_states=states, layers=[4, 9])))["constant-columns"]

    assert "layer 9 (up to 2 of 6 columns, in layer 9 2, 5)" in what.what


def test_dead_and_always_on_features_are_counted():
    features = np.zeros((6, 2, 5))
    features[:, 0, 3] = 1.5
    features[2, 1, [0, 1]] = 1
    acts = make(activations=features)
    by_code = found(audit_activations(acts))

    assert by_code["dead-features"].what.startswith("3 to 4 of 5 features")
    assert "1 feature is active in every row (layer 0: 3)" in by_code["always-on-features"].what


def test_values_that_are_not_finite_are_found():
    states = np.zeros((6, 2, 6))
    states[3, 1, 0] = np.inf

    assert (
        "1 row of the hidden states of layer 1"
        in found(audit_activations(make(hidden_states=states)))["not-finite"].what
    )


@pytest.mark.parametrize("pooling", ["final", "mean"])
def test_one_final_token_is_found_by_text_and_by_embedding(tmp_path, pooling):
    same = np.ones((3, 5), np.float32)
    changes = {i: {"embeddings": same, "n_tokens": 3} for i in range(4)}
    write_folder(tmp_path / "data", 6, changes=changes)
    by_code = found(audit_activations(load_activations(tmp_path / "data", pooling=pooling)))

    assert ("same-final-token" in by_code) == (pooling == "final")
    if pooling == "final":
        assert (
            "6 of 6 sentences end in '.'; 4 of 6 final tokens have the same embedding."
            == by_code["same-final-token"].what
        )


def test_tokens_of_a_sentence_are_no_duplicates(tmp_path):
    write_folder(tmp_path / "data", 4, sentence="all the same words here")
    acts = load_activations(tmp_path / "data", pooling="none")
    audit = audit_activations(acts)

    assert "3 sentences repeat" in found(audit)["duplicates"].what
    assert [0] * len(acts) == audit.groups.tolist()


def test_clean_data_has_no_findings():
    texts = [f"word{i} only{i} here{i}" for i in range(30)]
    audit = audit_activations(make(texts, [0, 1, 2] * 10))

    assert ([], "Nothing found.") == (audit.findings, str(audit))


def test_groups_are_saved_one_line_a_sentence(tmp_path):
    write_folder(tmp_path / "data", 4, first=1, changes={3: {"sentence": "This is sentence 1."}})
    acts = load_activations(tmp_path / "data", pooling="none")
    audit_activations(acts, threshold=1).save_groups(tmp_path / "g.csv")

    lines = list(csv.DictReader((tmp_path / "g.csv").read_text().splitlines()))
    expected = [("1", "1"), ("2", "2"), ("3", "1"), ("4", "4")]
    assert expected == [(line["sentence_index"], line["group"]) for line in lines]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 0}, UsageError, "threshold must be a cosine"),
        ({"threshold": 1.5}, UsageError, "threshold must be a cosine"),
        ({"near": "words"}, UsageError, "near must be 'text' or"),
        ({"near": 7}, LayerNotFoundError, "Layer 7 not found"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        audit_activations(make(), **options)


def test_texts_of_a_models_tokens_are_compared_sentence_by_sentence():
    """Although sentences of one text share a group."""
    states = tuple(np.random.default_rng(0).normal(size=(4, 3, 2)) for _ in range(2))
    texts = ["It rained.", "He lied to her.", "It rained.", "She sang in the choir."]
    acts = from_hidden_states(
        states, np.ones((4, 3)), pooling="none", labels=[0, 1, 1, 0], sentences=texts
    )
    audit = audit_activations(acts)
    by_code = found(audit.findings)

    assert "sentences 0, 2 have labels 0, 1: 'It rained.'" in by_code["label-conflicts"].what
    assert "1 sentence repeats another one" in by_code["duplicates"].what
    assert "0: 2, 1: 2" in by_code["class-imbalance"].what
    assert [0] * 3 + [1] * 3 + [0] * 3 + [3] * 3 == audit.groups.tolist()


def test_tokens_are_not_compared_by_a_layer(tmp_path):
    write_folder(tmp_path / "data", 4)
    with pytest.raises(UsageError, match="only if each is one row"):
        audit_activations(load_activations(tmp_path / "data", pooling="none"), near=1)


def audit_of(X, y, **meta):
    X = np.asarray(X, np.float32)
    stats = DenseStats(X.shape[1])
    stats.add(X)
    return found(audit_dataset(ProbeDataset(X, np.asarray(y), meta, {}), stats, digests_of(X)))


def test_dataset_with_copies_and_conflicts():
    by_code = audit_of([[1, 2], [3, 4], [1, 2]], [0, 1, 1])

    assert "1 row of X repeats" in by_code["duplicates"].what
    assert "(rows 0, 2)" in by_code["label-conflicts"].what
    assert "class-imbalance" in by_code


@pytest.mark.parametrize(
    ("source", "pooling", "advice"),
    [
        ("embeddings", "none", "Pool with mean"),
        ("embeddings", "final", "Pool with mean"),
        ("embeddings", "mean", "Give copies one group"),
        ("hidden_states", "none", "Give copies one group"),
    ],
)
def test_equal_embeddings_of_equal_tokens_are_no_copied_sentences(source, pooling, advice):
    by_code = audit_of(
        [[1, 2], [3, 4], [1, 2]], [0, 1, 1], meta_input_source=source, meta_pooling=pooling
    )

    assert by_code["duplicates"].do.startswith(advice)
    same = "A token has the same embedding in every sentence" in by_code["duplicates"].why
    assert same == (advice == "Pool with mean")
    assert ("Correct the labels" in by_code["label-conflicts"].do) != same


def test_dataset_with_a_rare_feature_and_a_constant_column():
    by_code = audit_of([[i, 7] for i in range(20)], [0.0] * 18 + [1.0, 2.0])

    assert "only 2 of 20 rows" in by_code["rare-target"].what
    assert "1 of 2 columns of X" in by_code["constant-columns"].what
