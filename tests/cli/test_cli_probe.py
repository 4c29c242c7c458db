"""The command ``probe``: what it prints, writes and refuses."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from sklprep import (
    ActivationNormalizer,
    LayerSelector,
    layer_sweep,
    load_activations,
    load_probe,
    make_activations,
)

FEATURE = ("--target-layer", 1, "--target-feature", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    make_activations(
        60, n_layers=3, d_model=6, n_features=30, n_tokens=(2, 4), random_state=0, output=path
    )
    return path


@pytest.fixture
def probe(folder, tmp_path, run_command):
    """Run ``probe``; returns exit code, stdout, stderr and where the probe is."""

    def probe(*arguments, source=folder):
        output = tmp_path / "new" / "probe.safetensors"
        options = ("--output", output, "--jobs", 1, "--repeats", 1)
        return *run_command("probe", source, *options, *arguments), output

    return probe


def test_writes_the_probe_and_prints_its_honest_score(probe, folder):
    code, out, err, path = probe("--layer", 1)

    acts = load_activations(folder)
    model = make_pipeline(ActivationNormalizer(), LogisticRegression(max_iter=1000, tol=1e-8))
    expected = layer_sweep(model, acts, acts.labels, layers=[1], n_repeats=1)
    written = load_probe(path)
    lines = out.splitlines()
    assert (0, "") == (code, err)
    assert lines[0] == f"{path}: {written}"
    assert lines[1].startswith("Cosine of its directions across folds: mean 0.")
    assert lines[2] == expected.summary()
    assert written.score["value"] == expected.nested_score
    assert written.score["interval"] == pytest.approx(expected.nested_interval)
    assert written.pooling == "final"
    assert written.provenance["input"] == "demo_features"
    decisions = make_pipeline(LayerSelector(1), model).fit(acts, acts.labels)
    np.testing.assert_allclose(
        decisions.decision_function(acts), written.decision_function(acts), atol=0.01
    )


def test_quiet_prints_the_sentence_alone(probe):
    code, out, err, path = probe("--layer", 1, "--quiet", "--estimator", "difference-of-means")

    assert (0, "", 1) == (code, err, out.count("\n"))
    assert out.startswith("Accuracy ")
    assert "DifferenceOfMeans" in load_probe(path).provenance["pipeline"]


@pytest.mark.parametrize("layer", [2, "embeddings"])
def test_features_have_probes_of_their_values(probe, folder, layer):
    code, out, err, path = probe("--layer", layer, *FEATURE, "--pooling", "mean", "--quiet")

    acts = load_activations(folder, pooling="mean")
    y = acts.feature(1, 4)
    pipeline = make_pipeline(LayerSelector(layer), ActivationNormalizer(), Ridge()).fit(acts, y)
    written = load_probe(path)
    assert (0, "") == (code, err)
    assert out.startswith("R2 ")
    assert (written.layer, written.classes, written.pooling) == (layer, None, "mean")
    np.testing.assert_allclose(pipeline.predict(acts), written.predict(acts), atol=1e-5)


def test_threshold_of_a_rate_goes_into_the_file(probe, tmp_path, folder):
    labels = tmp_path / "labels.csv"
    strong = load_activations(folder).labels >= 2
    rows = "".join(f"{index},{int(label)}\n" for index, label in enumerate(strong))
    labels.write_text(f"sentence_index,label\n{rows}")

    code, out, err, path = probe("--layer", 1, "--labels", labels, "--scoring", "recall_at_fpr=0.2")

    assert (0, "") == (code, err)
    assert "Recall at 20 % false positives" in out
    written = load_probe(path)
    assert written.threshold != 0
    assert 0 <= written.score["false_positive_rate"] < 0.6
    code, _, err, _ = probe("--layer", 1, "--labels", labels, "--scoring", "recall_at_fpr")
    assert code == 1
    assert "or use --scoring recall_at_fpr=0.0" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--layer", "0-2"), 2, "takes one layer"),
        (("--layer", 9), 1, "Layer 9 not found in data"),
        (("--layer", 1, "--estimator", "random-forest"), 2, "invalid choice: 'random-forest'"),
        (("--layer", 1, *FEATURE, "--estimator", "lda"), 2, "use ridge, svm or random-forest."),
        (("--layer", 1, "--target-layer", 1), 2, "name a feature together"),
        (("--layer", 1, *FEATURE, "--labels", "x.csv"), 2, "--labels is for a concept target"),
        (("--layer", 1, "--scoring", "recall_at_fpr=2"), 2, "--scoring recall_at_fpr=2 is not a"),
        (("--layer", 1, "--scoring", "recall_at"), 2, "choose one such as recall_at_fpr"),
    ],
)
def test_fault_is_one_line_and_writes_nothing(probe, arguments, code, message):
    found, out, err, path = probe(*arguments)

    assert (code, "", 1) == (found, out, err.count("\n"))
    assert message in err
    assert not path.exists()


def test_output_that_is_an_input_is_refused(folder, run_command):
    code, _, err = run_command("probe", folder, "--layer", 1, "--output", folder)

    assert code == 2
    assert err.startswith(f"Error: Output {folder} is a folder")


def test_inspect_says_what_a_probe_holds(probe, run_command):
    *_, path = probe("--layer", 1, "--estimator", "svm")
    written = load_probe(path)

    code, out, err = run_command("inspect", path)
    as_json = json.loads(run_command("inspect", path, "--json")[1])

    assert (0, "") == (code, err)
    assert out.startswith(f"{path}: probe, ")
    for text in ("(4, 6), on raw activations", "0, 1, 2, 3", written.score["summary"], "LinearSVC"):
        assert text in out
    assert f"mean cosine {written.stability['mean']:.2f} between" in out
    assert as_json["kind"] == "probe"
    assert as_json["score"] == written.score
    assert 2 == run_command("inspect", path, "--audit")[0]
