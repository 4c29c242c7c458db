"""Tokens as rows: groups everywhere, a word where a split would tear them, the same from a pack."""

import pickle
import re

import numpy as np
import pytest
from scipy.sparse import issparse
from sentence_files import write_folder
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sklprep import (
    ActivationSet,
    LayerSelector,
    SAEFeatureSelector,
    from_hidden_states,
    generate_dataset,
    layer_sweep,
    load_activations,
    load_dataset,
    make_activations,
    make_strategy,
)
from sklprep.cli.main import main
from sklprep.datasets.pipeline_bytes import dumps_pipeline, loads_pipeline
from sklprep.datasets.strategies import STRATEGIES
from sklprep.exceptions import SklprepWarning
from sklprep.transformers.selection import torn_groups

REASON = "siblings in training, which raises scores. Split by group"
OPTIONS = {
    "embedding-to-feature": {"target_layer": 1, "target_feature": 3},
    "hidden-to-feature": {"target_layer": 1, "target_feature": 3},
    "hidden-to-concept": {"layers": "0-1"},
    "embedding-to-concept": {},
    "feature-to-concept": {"layers": 1},
}
SELECTORS = [LayerSelector(1), LayerSelector("embeddings"), SAEFeatureSelector(0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 sentences of 3 to 6 tokens."""
    path = tmp_path_factory.mktemp("tokens") / "caring_40_features"
    make_activations(
        40, n_layers=2, d_model=6, n_features=8, n_tokens=(3, 6), random_state=0, output=path
    )
    return path


@pytest.fixture(scope="module")
def pack(folder):
    assert main(["pack", str(folder), str(folder.parent / "pack"), "--pooling", "none"]) == 0
    return folder.parent / "pack"


@pytest.fixture(autouse=True)
def _nothing_shown():
    """Each test is warned anew."""
    torn_groups.forget()


def tokens_of(folder):
    return load_activations(folder, pooling="none")


def from_model():
    """Token rows of a model's outputs: 21 sentences of 5 tokens."""
    rng = np.random.default_rng(0)
    states = tuple(rng.normal(size=(21, 5, 4)) for _ in range(3))
    return from_hidden_states(states, np.ones((21, 5)), pooling="none", labels=np.arange(21) % 2)


def pipe_of(selector):
    return make_pipeline(selector, DummyClassifier())


# ---- a word where a split tears sentences apart


def test_a_sweep_that_splits_tokens_of_a_sentence_says_why_that_is_wrong(folder):
    acts = tokens_of(folder)

    with pytest.warns(SklprepWarning, match=r"test rows have siblings in training") as caught:
        layer_sweep(
            None,
            acts,
            acts.labels,
            layers=[1],
            groups=np.arange(len(acts)),
            inner_cv=None,
            cv=2,
            baselines=False,
        )

    assert len(caught) == 1
    assert "(40 of 40 in acts.groups)" in str(caught[0].message)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("source", ["folder", "pack"])
def test_row_wise_cross_validation_is_warned_about_once(request, source, selector):
    acts = tokens_of(request.getfixturevalue(source))

    with pytest.warns(SklprepWarning, match=REASON) as caught:
        cross_val_score(pipe_of(selector), acts, acts.labels, cv=5)

    assert [SklprepWarning] == [one.category for one in caught]
    assert type(selector).__name__ in str(caught[0].message)


def test_row_wise_grid_search_over_a_models_tokens_is_warned_about_once():
    acts = from_model()
    search = GridSearchCV(pipe_of(LayerSelector()), {"layerselector__layers": [0, 1]}, cv=5)

    with pytest.warns(SklprepWarning, match=REASON) as caught:
        search.fit(acts, acts.labels)

    assert 1 == len(caught)


@pytest.mark.parametrize("source", ["folder", "pack", "arrays"])
def test_a_set_that_travelled_to_a_worker_is_warned_about(request, source):
    acts = from_model() if source == "arrays" else tokens_of(request.getfixturevalue(source))
    there = pickle.loads(pickle.dumps(acts))

    with pytest.warns(SklprepWarning, match=REASON):
        cross_val_score(pipe_of(LayerSelector(1)), there, there.labels, cv=4)


def test_near_duplicates_of_one_group_are_warned_about():
    rng = np.random.default_rng(0)
    acts = ActivationSet.from_arrays(
        hidden_states=rng.normal(size=(30, 2, 4)),
        labels=np.arange(30) % 2,
        groups=np.arange(30) // 3,
    )

    with pytest.warns(SklprepWarning, match=REASON):
        cross_val_score(pipe_of(LayerSelector(1)), acts, acts.labels, cv=KFold(4))


def test_groups_of_a_csv_are_those_that_must_stay_together(folder, tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("sentence_index,group\n" + "".join(f"{i},{i // 2}\n" for i in range(40)))
    acts = load_activations(folder, groups=table)
    train, test = np.arange(0, 40, 2), np.arange(1, 40, 2)

    with pytest.warns(SklprepWarning, match=REASON):
        LayerSelector(1).fit(acts[train]).transform(acts[test])
    LayerSelector(1).fit(load_activations(folder)[train]).transform(acts[test])


def test_the_fitted_selector_remembers_in_another_process(folder, pack):
    acts = tokens_of(folder)
    selector = LayerSelector(1).fit(acts[::2])
    sent = pickle.loads(pickle.dumps(selector))

    with pytest.warns(SklprepWarning, match=REASON):
        sent.transform(tokens_of(pack)[1::2])  # the same rows, in another place


def test_what_is_remembered_is_one_bit_a_row(folder):
    acts = tokens_of(folder)
    here, there = LayerSelector(1).fit(acts), LayerSelector(1).fit(acts[::2])

    assert {"layers": 1} == there.get_params()
    assert len(pickle.dumps(there)) < len(pickle.dumps(here)) + len(acts) / 8 + 300
    assert not hasattr(clone(there), "n_features_in_")
    assert vars(there.fit(acts)).keys() == vars(here).keys()


def test_a_pipeline_in_a_dataset_remembers_nothing(folder):
    acts = tokens_of(folder)
    torn = make_pipeline(LayerSelector(1)).fit(acts[::2])
    whole = make_pipeline(LayerSelector(1)).fit(acts)

    assert dumps_pipeline(whole) == dumps_pipeline(torn)
    loads_pipeline(dumps_pipeline(torn), where="here").transform(acts[1::2])


# ---- and none where nothing is torn


@pytest.mark.parametrize("source", ["folder", "pack"])
@pytest.mark.parametrize("selector", SELECTORS)
def test_grouped_cross_validation_is_not_warned_about(request, source, selector):
    acts = tokens_of(request.getfixturevalue(source))

    cross_val_score(pipe_of(selector), acts, acts.labels, groups=acts.groups, cv=GroupKFold(4))


def test_a_sweep_over_tokens_is_not_warned_about(folder):
    acts = tokens_of(folder)
    for layers in (["embeddings", 1], ["sae 0"]):
        sweep = layer_sweep(
            None, acts, acts.labels, layers=layers, cv=3, inner_cv=None, baselines=False
        )
        assert (len(acts), 40) == (sweep.n_samples, sweep.n_groups)


def test_rows_seen_in_fit_are_no_test_rows(folder):
    acts = tokens_of(folder)
    view = acts[::3]

    LayerSelector(1).fit_transform(view)
    LayerSelector(1).fit(view).transform(view[:5])
    LayerSelector(1).fit(acts).transform(view)


def test_sentences_never_seen_in_fit_are_fine(folder):
    acts = tokens_of(folder)
    LayerSelector(1).fit(acts[acts.groups < 20]).transform(acts[acts.groups >= 20])


def test_another_folder_of_the_same_shape_is_fine(tmp_path):
    for seed in (0, 1):
        write_folder(tmp_path / str(seed), 6, n_tokens=4, seed=seed)
    one, other = tokens_of(tmp_path / "0"), tokens_of(tmp_path / "1")

    assert one.groups.tolist() == other.groups.tolist()
    LayerSelector(1).fit(one[::2]).transform(other[1::2])


def test_other_arrays_of_the_same_shape_are_fine():
    states = np.random.default_rng(0).normal(size=(12, 2, 3)).astype(np.float32)
    groups = np.arange(12) // 3
    acts = ActivationSet.from_arrays(hidden_states=states, groups=groups)
    other = ActivationSet.from_arrays(hidden_states=states + 1, groups=groups)

    fitted = LayerSelector(1).fit(acts[::2])
    fitted.transform(other[1::2])
    fitted.transform(states)
    with pytest.warns(SklprepWarning, match=REASON):
        fitted.transform(ActivationSet.from_arrays(hidden_states=states.copy(), groups=groups)[1:2])


def test_one_row_a_sentence_is_fine(folder):
    acts = load_activations(folder)
    cross_val_score(pipe_of(LayerSelector(1)), acts, acts.labels, cv=3)


# ---- datasets


def generate(capsys, *arguments):
    code = main(["generate", "--jobs", "1", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_dataset_of_tokens_says_how_to_split_it(folder):
    acts = tokens_of(folder)

    with pytest.warns(SklprepWarning) as caught:
        dataset = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=1))

    [message] = [str(one.message) for one in caught]
    assert message.startswith(f"The {len(acts)} rows belong to 40 groups, such as tokens")
    assert "groups=meta_groups, cv=GroupKFold(5)" in message
    model = dataset.make_pipeline(LogisticRegression(max_iter=1000))
    scores = cross_val_score(model, dataset.X, dataset.y, groups=dataset.groups, cv=GroupKFold(4))
    on_raw = cross_val_score(
        make_pipeline(LayerSelector(1), *model),
        acts,
        acts.labels,
        groups=acts.groups,
        cv=GroupKFold(4),
    )
    np.testing.assert_allclose(scores, on_raw, atol=1 / 30)


def test_generate_says_so_once_for_many_datasets(folder, tmp_path, capsys):
    code, _, err = generate(
        capsys,
        *("--strategy", "hidden-to-concept", "--layer", 0, "--layer", 1, "--pooling", "none"),
        *("--input", folder, "--output", tmp_path / "{layers}.npz"),
    )

    assert (0, 1) == (code, err.count("\n"))
    assert re.match("Warning: The [0-9]+ rows belong to 40 groups", err)


def test_a_split_of_tokens_keeps_sentences_whole(folder, tmp_path, capsys):
    code, _, err = generate(
        capsys,
        *("--strategy", "hidden-to-concept", "--layer", 1, "--pooling", "none"),
        *("--test-size", 0.25, "--input", folder, "--output", tmp_path / "d.npz"),
    )

    assert 0 == code, err
    dataset = load_dataset(tmp_path / "d.npz")
    sides = [dataset.meta[name] for name in ("meta_train_indices", "meta_test_indices")]
    assert not set(dataset.groups[sides[0]]) & set(dataset.groups[sides[1]])
    assert 0.1 < len(sides[1]) / len(dataset.X) < 0.4


def test_a_split_by_sentence_fits_on_its_training_tokens(folder):
    acts = tokens_of(folder)
    splitter = GroupShuffleSplit(1, test_size=0.25, random_state=7)
    [(train, test)] = splitter.split(acts, groups=acts.groups)
    strategy = make_strategy("hidden-to-concept", layers=1)
    with pytest.warns(SklprepWarning, match="rows belong to 40 groups"):
        dataset = generate_dataset(acts, *strategy, fit_rows=train)

    assert train.tolist() == dataset.meta["meta_train_indices"].tolist()
    assert test.tolist() == dataset.meta["meta_test_indices"].tolist()
    assert 10 == len({*dataset.groups[test]})
    expected = acts.layer(1)[train].astype(np.float64)
    np.testing.assert_allclose(dataset.norm["norm_mean"], expected.mean(axis=0), rtol=1e-9)


# ---- the whole way, and the same from a pack


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_dataset_of_tokens_from_a_pack_has_the_bytes_of_its_folders(
    folder, pack, tmp_path, capsys, name
):
    options = [
        item
        for key, value in OPTIONS[name].items()
        for item in (f"--{key.replace('_', '-')}", value)
    ]
    for source in (folder, pack):
        code, _, _ = generate(
            capsys,
            *("--strategy", name, *options, "--input", source),
            *(("--pooling", "none") if source == folder else ()),  # a pack has its own
            *("--output", tmp_path / f"{source.name}.npz"),
        )
        assert code == 0
    acts = tokens_of(folder)
    dataset = load_dataset(tmp_path / "pack.npz")

    assert (tmp_path / "pack.npz").read_bytes() == (tmp_path / f"{folder.name}.npz").read_bytes()
    assert acts.groups.tolist() == dataset.groups.tolist()
    assert acts.sentence_indices.tolist() == dataset.meta["meta_sentence_indices"].tolist()
    again = dataset.pipeline.transform(acts)
    np.testing.assert_array_equal(dataset.X, again.toarray() if issparse(again) else again)
    by_hand = {
        "embedding-to-feature": acts.embeddings,
        "hidden-to-feature": acts.layer(1),
        "hidden-to-concept": np.hstack([acts.layer(0), acts.layer(1)]),
        "embedding-to-concept": acts.embeddings,
        "feature-to-concept": acts.sae_activations(1).toarray(),
    }[name].astype(np.float64)
    scaled = (
        by_hand / np.maximum(np.abs(by_hand).max(axis=0), 1e-30)
        if name == "feature-to-concept"
        else (by_hand - by_hand.mean(axis=0)) / by_hand.std(axis=0)
    )
    np.testing.assert_allclose(scaled, dataset.X, rtol=1e-4, atol=1e-5)
    y = acts.labels if "concept" in name else acts.sae_activations(1).toarray()[:, 3]
    assert y.tolist() == dataset.y.tolist()


@pytest.mark.parametrize("name", ["hidden-to-concept", "hidden-to-feature", "feature-to-concept"])
def test_a_sweep_of_tokens_from_a_pack_scores_as_its_folder(folder, pack, capsys, tmp_path, name):
    target = ["--target-layer", "1", "--target-feature", "3"] if name == "hidden-to-feature" else []
    curves = []
    for source in (folder, pack):
        table = tmp_path / f"{source.name}.csv"
        pooling = ["--pooling", "none"] if source == folder else []  # a pack has its own
        arguments = [*pooling, "--cv", "3", "--strategy", name, *target]
        assert main(["sweep", str(source), *arguments, "--output", str(table), "--quiet"]) == 0
        lines = table.read_text().splitlines()
        assert len(lines) > 3
        rows = [line.split(",") for line in lines]
        at = rows[0].index("fit_time")
        curves.append([row[:at] + row[at + 1 :] for row in rows])
        assert "Honest" in capsys.readouterr().out

    assert curves[0] == curves[1]


def test_inspect_counts_tokens_as_rows(folder, pack, capsys):
    n = len(tokens_of(folder))
    for arguments in ([folder, "--pooling", "none"], [pack], [pack, "--audit"]):
        assert main(["inspect", *map(str, arguments)]) == 0
        assert f"{n} (one per token), pooling none" in capsys.readouterr().out


def test_memory_does_not_grow_with_the_tokens(run_python, tmp_path):
    """Each size in a process of its own, forked after the imports to save their time."""
    for n in (2, 20, 60):
        sizes = {"n_tokens": 200, "d_embed": 2, "d_model": 256, "n_features": 2}
        write_folder(tmp_path / str(n), n, layers=(0, 1), compress=False, **sizes)
    code = """
import contextlib, io, os, sys
import sklprep.datasets.batch, sklprep.datasets.generation, sklprep.datasets.pipeline_bytes
import sklprep.cli.demo
from sklprep.cli.main import main
sklprep.datasets.batch.SPOOL_BYTES = 1 << 20
os.fsync = lambda fd: None
command = ["generate", "--strategy", "hidden-to-concept", "--layers", "0-1", "--quiet", "--jobs"]
command += ["1", "--pooling", "none"]
for n in ("2", "20", "60"):  # the first one loads what is still missing
    if n == "2" or not (child := os.fork()):
        paths = ["--input", f"{sys.argv[1]}/{n}", "--output", f"{sys.argv[1]}/{n}.npz"]
        with contextlib.redirect_stderr(io.StringIO()):
            assert main(command + paths) == 0
        print(peak(), flush=True)
        if n != "2":
            os._exit(0)
    else:
        os.waitpid(child, 0)
"""
    few, many, thrice_as_many = map(float, run_python(code, tmp_path, timeout=300).split())
    X_bytes = 60 * 200 * 512 * 4

    assert (tmp_path / "60.npz").stat().st_size > X_bytes
    assert thrice_as_many < few + 0.4 * X_bytes / 2**20
    assert thrice_as_many < 1.1 * many
