"""Data that reads well and means nothing good: what the command line says of it, to the letter."""

import re

import numpy as np
import pytest
from sentence_files import rewrite, write_folder

from sklprep import ActivationSet, SAEFeatureSelector, load_activations, load_dataset
from sklprep.exceptions import DataError, FaultyFilesError

N = 12
CONCEPT = ["--strategy", "hidden-to-concept", "--layer", "1"]
FEATURE = ["--strategy", "hidden-to-feature", "--target-layer", "1", "--target-feature", "3"]
EMBEDDINGS = ["--strategy", "embedding-to-concept"]
SWEEP = ["--layers", "1", "--cv", "3", "--jobs", "1"]
AGAIN = "Extract these sentences again in float32: float16 overflows above 65,504."


@pytest.fixture
def dump(tmp_path, monkeypatch):
    """Files of two tokens, the last one final, in a folder that is named by a relative path."""
    monkeypatch.chdir(tmp_path)

    def write(n=N, **options):
        final = {"n_tokens": 2, "is_final_token": [False, True]}
        return write_folder("dump", n, compress=False, **final | options)

    return write


@pytest.fixture
def run(run_command):
    """Run a command on the folder; returns exit code and stderr.

    Warnings that a small folder and a random feature may cause are left out, but for one `word`.
    """

    def run(command, *arguments, word="no word"):
        place = ["--input", "dump", "--output", "out.npz"] if command == "generate" else ["dump"]
        code, _, err = run_command(command, *place, *arguments)
        expected = re.compile("Warning: .*(Only 1|is active in|y is constant)")
        lines = err.splitlines(keepends=True)
        return code, "".join(x for x in lines if word in x or not expected.match(x))

    return run


def file(number):
    return f"dump/sentence_{number:06d}.npz"


def spoil(number, member, place, value=np.nan):
    with np.load(file(number)) as content:
        values = content[member].copy()
    values[place] = value
    rewrite(file(number), **{member: values})


ODD = "A folder must hold the files of one extraction; move the others out."
OF_ONE_FILE = {
    "no final token": (
        {"is_final_token": [False, False]},
        "member 'is_final_token' marks 0 final tokens; expected 1. Extract this file again, or use"
        " another pooling.",
    ),
    "several final tokens": (
        {"is_final_token": [True, True]},
        "member 'is_final_token' marks 2 final tokens; expected 1. Extract this file again, or use"
        " another pooling.",
    ),
    "other layers": (
        {"layers": (0, 1, 5)},
        "member 'layers' differs from sentence_000000.npz: layers (0, 1, 5); expected (0, 1, 2) as"
        f" there. {ODD}",
    ),
    "other average_l0s": (
        {"average_l0s": [70, 80, 91]},
        "member 'average_l0s' differs from sentence_000000.npz: average_l0s (70, 80, 91); expected"
        f" (70, 80, 90) as there. {ODD}",
    ),
    "another width": (
        {"d_model": 8},
        "member 'hidden_states' differs from sentence_000000.npz: hidden_states width 8; expected 7"
        f" as there. {ODD}",
    ),
    "a member less": (
        {"omit": ["embeddings"]},
        "member 'embeddings' differs from sentence_000000.npz: embeddings width missing; expected 5"
        f" as there. {ODD}",
    ),
    "other token counts in a member": (
        {"hidden_states": np.zeros((3, 5, 7), np.float32)},
        "member 'hidden_states' has shape (3, 5, 7); expected (3, 2, width).",
    ),
    "bfloat16": (
        {"hidden_states": np.zeros((3, 2, 7), "V2")},
        "member 'hidden_states' has dtype '|V2'; expected little-endian float, integer, bool or"
        " unicode. Save it as float32 (bfloat16 included).",
    ),
    "a label outside 0-3": (
        {"concept_strength_label": 4},
        "member 'concept_strength_label' is 4; expected a label that is 0, 1, 2 or 3. Correct or"
        " remove this file, or use --labels for a CSV of labels.",
    ),
    "a label that is not whole": (
        {"concept_strength_label": 1.5},
        "member 'concept_strength_label' is 1.5; expected a label that is 0, 1, 2 or 3. Correct or"
        " remove this file, or use --labels for a CSV of labels.",
    ),
    "a label as text": (
        {"concept_strength_label": "high"},
        "member 'concept_strength_label' is 'high'; expected a label that is 0, 1, 2 or 3. Correct"
        " or remove this file, or use --labels for a CSV of labels.",
    ),
    "a label as a boolean": (
        {"concept_strength_label": True},
        "member 'concept_strength_label' is True; expected a label that is 0, 1, 2 or 3. Correct or"
        " remove this file, or use --labels for a CSV of labels.",
    ),
    "a label as an array": (
        {"concept_strength_label": [1]},
        "member 'concept_strength_label' has shape (1,); expected a label that is 0, 1, 2 or 3."
        " Correct or remove this file, or use --labels for a CSV of labels.",
    ),
    "no label": (
        {"omit": ["concept_strength_label"]},
        "member 'concept_strength_label' is missing; expected a label that is 0, 1, 2 or 3. Correct"
        " or remove this file, or use --labels for a CSV of labels.",
    ),
    "the index of another": (
        {"sentence_index": 1},
        "member 'sentence_index' is 1, the same as in sentence_000001.npz; expected a different"
        " index in each file. Remove one of the two.",
    ),
}


@pytest.mark.parametrize("command", ["generate", "sweep"])
@pytest.mark.parametrize(("change", "message"), OF_ONE_FILE.values(), ids=OF_ONE_FILE)
def test_a_file_that_disagrees_is_one_line(dump, run, command, change, message):
    dump(4, changes={2: change})
    arguments = CONCEPT if command == "generate" else SWEEP
    assert run(command, *arguments) == (1, f"Error: {file(2)}: {message}\n")


def test_labels_count_only_where_they_are_used(dump, run):
    dump(changes={2: {"concept_strength_label": 4}, 3: {"omit": ["concept_strength_label"]}})
    assert run("generate", *FEATURE) == (0, "")


def test_a_gap_in_the_numbering_is_a_warning(dump, run):
    dump(1, n_tokens=2)
    write_folder("dump", N, first=3, n_tokens=2, is_final_token=[False, True])
    code, err = run("generate", *EMBEDDINGS)
    assert (code, err) == (
        0,
        "Warning: 2 gaps in the numbering of dump, the first at 1: the extraction may be"
        " unfinished.\n",
    )


@pytest.mark.parametrize("first", [0, 1])
def test_numbering_may_start_at_0_or_1(dump, run, first):
    dump(first=first)
    assert run("generate", *EMBEDDINGS) == (0, "")


# --- values that are not finite numbers count where they are used --------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.nan, "float32"), (np.inf, "float16"), (-np.inf, "float32")]
)
@pytest.mark.parametrize(
    ("member", "place", "used_by", "not_by", "what"),
    [
        ("embeddings", (1, 2), EMBEDDINGS, [CONCEPT, FEATURE], "member 'embeddings'"),
        (
            "hidden_states",
            (1, 1, 2),
            CONCEPT,
            [EMBEDDINGS, ["--strategy", "hidden-to-concept", "--layers", "0,2"]],
            "member 'hidden_states' layer 1",
        ),
        (
            "activations",
            (1, 1, 3),
            FEATURE,
            [[*FEATURE[:-1], "4"], ["--strategy", "feature-to-concept", "--layers", "0,2"]],
            "member 'activations' layer 1, feature 3",
        ),
        (
            "activations",
            (1, 1, 3),
            ["--strategy", "feature-to-concept", "--layers", "0-1"],
            [CONCEPT],
            "member 'activations' layer 1",
        ),
    ],
)
def test_values_that_are_not_finite_count_where_they_are_used(
    dump, run, member, place, used_by, not_by, what, dtype, value
):
    dump(dtype=dtype)
    spoil(7, member, place, value)
    expected = (
        f"Error: {file(7)}: {what} has 1 NaN or infinite values; expected finite numbers. {AGAIN}\n"
    )
    assert run("generate", *used_by) == (1, expected)
    for arguments in not_by:
        assert run("generate", *arguments) == (0, "")


def test_values_of_tokens_that_are_not_pooled_do_not_count(dump, run):
    dump()
    spoil(7, "hidden_states", (1, 0, 2))
    assert run("generate", *CONCEPT) == (0, "")
    for pooling in ("mean", "max", "none"):
        code, err = run("generate", *CONCEPT, "--pooling", pooling)
        assert (code, err) == (
            1,
            f"Error: {file(7)}: member 'hidden_states' layer 1 has 1 NaN or infinite values;"
            f" expected finite numbers. {AGAIN}\n",
        )


def test_of_sae_features_only_the_selected_ones_count(dump):
    dump(4)
    spoil(2, "activations", (1, 1, 3))
    acts = load_activations("dump")
    for features in ([4], [0, 5]):
        assert SAEFeatureSelector(1, features=features).fit_transform(acts).shape[0] == 4
    assert SAEFeatureSelector("0,2").fit_transform(acts).shape == (4, 80)
    assert SAEFeatureSelector(1).fit_transform(acts[[0, 3]]).shape == (2, 40)
    for selector in (SAEFeatureSelector(1), SAEFeatureSelector(1, features=[4, 3])):
        with pytest.raises(FaultyFilesError, match=re.escape(f"{file(2)}: member 'activations' l")):
            selector.fit_transform(acts)
    with pytest.raises(FaultyFilesError, match="layer 1 has 1 NaN"):
        acts.activations  # noqa: B018


def test_arrays_name_their_row(dump):
    states = np.ones((3, 2, 4), np.float32)
    states[2, 1, :2] = np.inf
    with pytest.raises(DataError) as error:
        ActivationSet.from_arrays(hidden_states=states).hidden_states  # noqa: B018
    assert str(error.value) == (
        "Row 2 of the arrays: member 'hidden_states' layer 1 has 2 NaN or infinite values; expected"
        f" finite numbers (1 of 3 rows are affected). {AGAIN}"
    )


# --- what is fine -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["standardize", "minmax"])
def test_float16_is_computed_in_float64_and_stored_as_float32(dump, run, method):
    files = dump(dtype="float16")
    assert run("generate", *CONCEPT, "--normalize", method) == (0, "")
    raw = np.array([one["hidden_states"][1, 1] for one in files]).astype(np.float64)
    ds = load_dataset("out.npz")
    if method == "standardize":
        shift, scale = raw.mean(axis=0), raw.std(axis=0)
        np.testing.assert_allclose(ds.norm["norm_mean"], shift, rtol=1e-13, atol=1e-13)
    else:
        shift, scale = raw.min(axis=0), np.ptp(raw, axis=0)
    np.testing.assert_allclose(ds.X, (raw - shift) / scale, rtol=2e-7, atol=1e-7)
    assert ds.X.dtype == np.float32


def test_layers_that_are_not_sorted_are_selected_by_value(dump, run):
    files = dump(layers=(12, 3, 7))
    assert run("generate", "--strategy", "hidden-to-concept", "--layer", 3)[0] == 0
    raw = np.array([one["hidden_states"][1, 1] for one in files])
    ds = load_dataset("out.npz")
    restored = ds.X * ds.norm["norm_std"] + ds.norm["norm_mean"]
    np.testing.assert_allclose(restored, raw, rtol=1e-5, atol=1e-5)


def test_a_layer_with_several_saes_is_ambiguous_only_where_a_target_needs_one(dump, run):
    files = dump(layers=(1, 0, 1), average_l0s=[70, 80, 141])
    assert run("generate", *CONCEPT) == (0, "")
    assert run("generate", *FEATURE) == (
        1,
        "Error: average_l0 mismatch: layer 1 has 2 SAE configs, with average_l0 70, 141, and none"
        " was chosen. Give --average-l0, one of these.\n",
    )
    code, _ = run("generate", *FEATURE, "--average-l0", 141)
    assert code == 0
    expected = [one["activations"][2, 1, 3] for one in files]
    np.testing.assert_array_equal(load_dataset("out.npz").y, expected)


def test_a_constant_column_becomes_zero_with_scale_one(dump, run):
    states = np.ones((3, 2, 7), np.float32)
    dump(hidden_states=states)
    assert run("generate", *CONCEPT) == (0, "")
    ds = load_dataset("out.npz")
    assert not ds.X.any()
    assert ds.norm["norm_std"].tolist() == [1] * 7


# --- y that says nothing ------------------------------------------------------------------------


def test_labels_of_one_class_are_a_warning_and_cannot_be_scored(dump, run):
    dump(concept_strength_label=2)
    assert run("generate", *CONCEPT) == (
        0,
        f"Warning: All {N} samples have the label 2: there is nothing to classify.\n",
    )
    code, err = run("sweep", *SWEEP)
    assert code == 1
    assert err.startswith(f"Error: All {N} values of y are 2")
    assert err.count("\n") == 1


def test_a_dead_feature_is_a_warning_and_cannot_be_scored(dump, run):
    dump(activations=np.zeros((3, 2, 40), np.float32))
    assert run("generate", *FEATURE, word="is active in") == (
        0,
        f"Warning: Feature 3 of layer 1 is active in 0 of {N} samples: too few to score a"
        " prediction of it. Choose a feature that is active more often, or pool with mean or max."
        "\n",
    )
    code, err = run("sweep", *SWEEP, *FEATURE)
    assert code == 1
    assert err.startswith(f"Error: All {N} values of y are 0")


def test_a_constant_feature_is_a_warning_and_cannot_be_scored(dump, run):
    dump(activations=np.full((3, 2, 40), 2.5, np.float32))
    assert run("generate", *FEATURE, word="y is constant") == (
        0,
        "Warning: y is constant (2.5): there is nothing to predict.\n",
    )
    code, err = run("sweep", *SWEEP, *FEATURE)
    assert code == 1
    assert err.startswith(f"Error: All {N} values of y are 2.5")


def test_fewer_rows_than_folds_cannot_be_scored(dump, run):
    dump(4, concept_strength_label=0, changes={0: {"concept_strength_label": 1}})
    code, err = run("sweep", *SWEEP, "--cv", 5)
    assert (code, err) == (
        1,
        (
            "Error: There are 4 groups, fewer than the 5 folds. Add rows: no number of folds was"
            " found that works.\n"
        ),
    )


def test_a_class_smaller_than_the_folds_cannot_be_scored(dump, run):
    few = {number: {"concept_strength_label": 1} for number in (3, 8)}
    dump(30, concept_strength_label=0, changes=few)
    assert run("sweep", *SWEEP) == (
        1,
        "Error: Class 1 is in 2 of 30 groups, fewer than the 3 folds. Merge classes or"
        " give y as floats if it is a quantity.\n",
    )
