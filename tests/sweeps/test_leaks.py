"""Each way to a score that is too good: prevented, refused, or warned about, on labels of noise."""

import re
import shlex
import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    LayerSelector,
    audit_activations,
    generate_dataset,
    layer_sweep,
    load_activations,
    load_dataset,
    make_activations,
    make_strategy,
)
from sklprep.activations.duplicates import find_nearest, row_vectors
from sklprep.exceptions import SklprepWarning, UsageError
from sklprep.sweeps.leaks import _count_beside

ONE = {"n_repeats": 1, "inner_cv": None, "baselines": False}
WORDS = np.array(["lamp", "river", "idea", "stone", "cloud", "ladder", "garden", "engine", "paper"])


def noise_labels(n, seed=0):
    return np.random.default_rng(seed).permutation(np.arange(n) % 2)


def tokens(n_sentences=40, n_tokens=6, width=40):
    """Rows of tokens, which resemble their sentence, with a label of noise each sentence."""
    groups = np.repeat(np.arange(n_sentences), n_tokens)
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n_sentences, 1, width))[groups]
    return X + 0.5 * rng.normal(size=X.shape), noise_labels(n_sentences)[groups], groups


def sets_of(texts, width=20):
    """A set of noise whose equal texts have equal rows, with a group for each."""
    distinct, number = np.unique(texts, return_inverse=True)
    rows = np.random.default_rng(2).normal(size=(len(distinct), 1, width))[number]
    return ActivationSet.from_arrays(
        hidden_states=rows,
        sentences=list(texts),
        labels=noise_labels(len(distinct))[number],
        groups=range(len(texts)),
    )


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A folder of 40 sentences of noise, every one twice."""
    folder = tmp_path_factory.mktemp("data") / "copied folder"
    sets_of([f"{name} went home" for name in "abcdefghijklmnopqrst"] * 2).to_sentence_files(folder)
    return folder


def score_of(sweep):
    return sweep.naive_best_score


# ---- tokens and other rows that belong together


def test_token_rows_given_as_an_array_are_warned_about():
    X, y, groups = tokens()
    with pytest.warns(SklprepWarning, match="nearest to the one before or after them") as caught:
        leaked = layer_sweep(None, X, y, **ONE)
    assert caught[0].filename == __file__
    assert score_of(leaked) > 0.85
    assert score_of(layer_sweep(None, X, y, groups=groups, **ONE)) < 0.65


def test_rows_of_a_dataset_keep_its_groups_and_are_normalized_anew():
    X, y, groups = tokens()
    acts = ActivationSet.from_arrays(hidden_states=X, labels=y, groups=groups, layers=[7])
    with pytest.warns(SklprepWarning, match="240 rows belong to 40 groups"):
        ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=7))
    sweep = layer_sweep(None, ds, **ONE)
    assert (["layer 7", 40], [7]) == ([f"layer {sweep.layers[0]}", sweep.n_groups], sweep.layers)
    np.testing.assert_allclose(sweep.scores, layer_sweep(None, acts, y, **ONE).scores, atol=1e-6)
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        given = layer_sweep(model, ds, ds.y, **ONE)
        np.testing.assert_allclose(sweep.scores, given.scores, atol=0.05)
        assert "sklprep" == given.solver
    with pytest.warns(SklprepWarning, match="nearest to the one before or after them"):
        assert score_of(layer_sweep(None, ds.X, ds.y, **ONE)) > 0.85
    with pytest.raises(UsageError, match="a dataset holds one input"):
        layer_sweep(None, ds, layers=[1])


@pytest.mark.parametrize(
    ("steps", "layers"),
    [
        (make_strategy("hidden-to-concept", layers="0-1"), ["0-1"]),
        (make_strategy("embedding-to-concept"), ["embeddings"]),
        (make_strategy("feature-to-concept", layers="1"), ["sae 1"]),
    ],
)
def test_input_of_a_dataset_has_its_name(steps, layers):
    acts = make_activations(100, n_layers=3, d_model=8, n_features=32, random_state=0)
    sweep = layer_sweep(None, generate_dataset(acts, *steps), **ONE)
    assert layers == sweep.layers
    assert sweep.methods_text().startswith("A dataset, X of shape (100, ")


def test_independent_rows_are_not_warned_about_sorted_by_label_or_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 1, 30))
    y = np.sort(np.arange(120) % 3)
    X[:, 0, :5] += 2 * np.eye(3)[y] @ rng.normal(size=(3, 5))
    layer_sweep(None, X, y, **ONE)
    layer_sweep(None, X, X[:, 0, 0], **ONE)


def test_neighbours_by_chance_are_counted_within_labels():
    X, y = np.random.default_rng(0).normal(size=(3_000, 3)), np.arange(3_000) // 1_500
    X += 9 * y[:, np.newaxis]
    near = find_nearest(row_vectors(X), np.arange(3_000), most=10_000)
    found, expected = _count_beside(near, y)
    assert 4 == round(expected)
    assert found < 15


# ---- copies


def test_equal_texts_of_a_folder_share_a_group_as_those_of_arrays(copies):
    acts = load_activations(copies)
    assert [*range(20), *range(20)] == acts.groups.tolist()
    sweep = layer_sweep(None, acts, acts.labels, **ONE)
    assert 20 == sweep.n_groups
    assert score_of(sweep) < 0.8
    with pytest.warns(SklprepWarning, match="groups puts rows of one sentence"):
        leaked = layer_sweep(None, acts, acts.labels, groups=np.arange(40), **ONE)
    assert score_of(leaked) > 0.85
    pipe = make_pipeline(LayerSelector(0), LogisticRegression())
    with pytest.warns(SklprepWarning, match="have siblings in training"):
        cross_val_score(pipe, acts, acts.labels, cv=5)


def test_a_pack_groups_equal_texts_too_and_files_stay_as_they_were(copies, tmp_path):
    acts = load_activations(copies)
    acts.to_pack(tmp_path / "pack")
    again = load_activations(tmp_path / "pack")
    assert acts.groups.tolist() == again.groups.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklprepWarning)
        ds = generate_dataset(again, *make_strategy("hidden-to-concept", layers=0))
    assert "meta_groups" not in ds.meta


def test_groups_that_were_given_are_kept_as_they_are(copies, tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("sentence_index,group\n" + "".join(f"{i},{i}\n" for i in range(40)))
    assert list(range(40)) == load_activations(copies, groups=table).groups.tolist()


def test_near_duplicates_are_named_with_the_command_that_groups_them(tmp_path, run_command):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(WORDS)[:4]) + f" by the {i}th of us" for i in range(30)]
    folder = tmp_path / "near folder"
    acts = sets_of(np.array([*texts, *(f"{text} !" for text in texts)]))
    acts.to_sentence_files(folder)
    with pytest.warns(SklprepWarning, match="60 of 60 texts nearly repeat one of another gr") as w:
        layer_sweep(None, load_activations(folder), acts.labels, **ONE)
    message = str(w[0].message)
    command = re.search(r"or what (sklprep inspect .* groups\.csv) writes", message)[1]
    assert "audit_activations(acts).groups" in message
    code, _, err = run_command("sweep", folder, "--repeats", 1)
    assert (0, 1) == (code, err.count("\n"))
    assert "Give --groups that hold them together: audit_activations(acts).groups, or what" in err

    table = tmp_path / "groups.csv"
    words = [str(table) if word == "groups.csv" else word for word in shlex.split(command)[1:]]
    assert 0 == run_command(*words)[0]
    assert (0, "") == run_command("sweep", folder, "--repeats", 1, "--groups", table)[::2]
    grouped = audit_activations(load_activations(folder)).groups
    layer_sweep(None, load_activations(folder), acts.labels, groups=grouped, **ONE)


@pytest.mark.parametrize("noise", [0, 0.01])
def test_rows_that_were_oversampled_are_warned_about(noise):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 1, 30)), noise_labels(60)
    again = np.tile(np.arange(50), 3)
    X = np.concatenate([X, X[again] + noise * rng.normal(size=(150, 1, 30))])
    y = np.concatenate([y, y[again]])
    with pytest.warns(SklprepWarning, match="200 of 210 rows repeat another one, or nearly"):
        assert score_of(layer_sweep(None, X, y, **ONE)) > 0.75
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = layer_sweep(None, X, y, groups=np.r_[np.arange(60), again], **ONE)
    assert score_of(kept) < 0.65


def test_rows_of_a_set_that_repeat_share_their_group():
    rng = np.random.default_rng(0)
    acts = ActivationSet.from_arrays(hidden_states=rng.normal(size=(60, 1, 30)))
    again = np.r_[np.arange(60), rng.integers(0, 60, 60)]
    y = noise_labels(60)[again]
    assert score_of(layer_sweep(None, acts[again], y, **ONE)) < 0.65


# ---- what was learned before


def wide_noise():
    rng = np.random.default_rng(0)
    acts = ActivationSet.from_arrays(
        hidden_states=rng.normal(size=(60, 1, 400)), labels=noise_labels(60)
    )
    return acts, make_pipeline(LayerSelector(0), SelectKBest(k=10))


@pytest.mark.filterwarnings("ignore:Only 60 samples")
def test_selection_by_all_labels_is_refused_in_a_dataset_and_said_when_it_is_made():
    acts, pipeline = wide_noise()
    target = make_strategy("hidden-to-concept", layers=0)[1]
    with pytest.warns(SklprepWarning, match=r"'selectkbest' \(SelectKBest\), which learned from y"):
        ds = generate_dataset(acts, pipeline, target)
    with pytest.raises(UsageError, match="X went through 'selectkbest' "):
        layer_sweep(None, ds)
    ds = generate_dataset(acts, make_pipeline(LayerSelector(0), PCA(3)), target)
    with pytest.raises(UsageError, match="X went through 'pca' "):
        layer_sweep(Ridge(), ds, ds.y.astype(float))


def test_what_was_fitted_before_and_is_frozen_is_refused():
    acts, pipeline = wide_noise()
    best = pipeline[-1].fit(acts.layer(0), acts.labels)
    frozen = make_pipeline(FrozenEstimator(best), LogisticRegression())
    for model in (frozen, make_pipeline(StandardScaler(), make_pipeline(FrozenEstimator(best)))):
        with pytest.raises(UsageError, match=r"FrozenEstimator\(.*was fitted before and keeps"):
            layer_sweep(model, acts, acts.labels)
    # a fitted estimator that is not frozen is fitted anew
    layer_sweep(make_pipeline(best, LogisticRegression()), acts, acts.labels, **ONE)
    stateless = FrozenEstimator(FunctionTransformer())
    layer_sweep(make_pipeline(stateless, LogisticRegression()), acts, acts.labels, **ONE)


# ---- the split of `generate --test-size`


def test_a_split_keeps_copies_together(copies, tmp_path, run_command):
    output = tmp_path / "split.npz"
    code, _, err = run_command(
        *("generate", "--strategy", "hidden-to-concept", "--layer", 0, "--input", copies),
        *("--test-size", 0.3, "--output", output),
    )
    assert (0, 1) == (code, err.count("\n")), err  # Only 40 samples
    meta = load_dataset(output).meta
    sides = [set(meta[name] % 20) for name in ("meta_train_indices", "meta_test_indices")]
    assert not sides[0] & sides[1]
    assert 20 == len(sides[0] | sides[1])
    assert 4 <= len(meta["meta_test_indices"]) <= 20


def test_near_duplicates_on_both_sides_of_a_split_are_said(tmp_path, run_command):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(WORDS)[:4]) + f" by the {i}th of us" for i in range(20)]
    sets_of(np.array([*texts, *(f"{text} !" for text in texts)])).to_sentence_files(tmp_path / "d")
    err = run_command(
        *("generate", "--strategy", "hidden-to-concept", "--layer", 0, "--input", tmp_path / "d"),
        *("--test-size", 0.3, "--output", tmp_path / "split.npz"),
    )[2]
    assert re.search("of 40 texts nearly repeat one on the other side of the split, such as", err)
    assert "Give --groups, or leave them out." in err


# ---- selection outside the sweep


def test_a_layer_that_was_chosen_elsewhere_is_not_called_honest():
    X, y = np.random.default_rng(0).normal(size=(60, 26, 20)), noise_labels(60)
    curve = layer_sweep(None, X, y, **ONE)
    best = curve.naive_best_layer
    again = layer_sweep(None, X, y, layers=[best], n_permutations=9, n_repeats=1)
    assert "Honest" not in again.summary()
    assert "any earlier choice of it is not accounted for" in again.summary()
    assert "Any earlier choice of this input is not accounted for" in again.methods_text()


def test_models_of_a_dataset_keep_their_parameters_by_name():
    acts, _ = wide_noise()
    with pytest.warns(SklprepWarning, match="Only 60 samples"):
        ds = generate_dataset(
            acts, *make_strategy("hidden-to-concept", layers=0, normalize="minmax")
        )
    model = make_pipeline(FunctionTransformer(), ActivationNormalizer(), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1]}
    sweep = layer_sweep(model, ds, param_grid=grid, cv=4, n_repeats=1, baselines=False)
    assert {"layer", "logisticregression__C"} == set(sweep.chosen[0])
    assert "('normalizer', ActivationNormalizer(method='minmax'))" in sweep.methods_text()
