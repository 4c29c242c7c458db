"""`sklprep sweep` of several features, and of sentences by their tokens."""

import csv

import pytest

from sklprep import feature_sweep, layer_sweep, load_activations, make_activations

OPTIONS = ("--cv", "4", "--repeats", "1", "--jobs", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "caring"
    make_activations(
        40, n_layers=2, d_model=4, n_features=16, n_tokens=(2, 4), random_state=0, output=path
    )
    return path


@pytest.fixture(scope="module")
def table(folder):
    """Ranks against the order of lines; a feature that is dead among them."""
    path = folder.parent / "ranked_features.csv"
    lines = [f"{9 - feature},1,{feature}" for feature in range(6)]
    path.write_text("\n".join(["rank,layer,feature_id", *lines, ""]))
    return path


def test_features_of_a_table_are_swept_together(folder, table, run_command, tmp_path):
    output = tmp_path / "features.csv"
    argv = "sweep", folder, "--features-from", table, "--top", "4", "--output", output, *OPTIONS

    code, out, err = run_command(*argv)

    acts = load_activations(folder)
    found = feature_sweep(None, acts, [(1, i) for i in (5, 4, 3, 2)], cv=4, n_repeats=1)
    assert (0, "") == (code, err)
    assert out.endswith(f"{found.summary()}\n")
    assert len(out.splitlines()) == 2 + 4 + 2
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["feature"] for row in rows] == [str(one) for one in found.table.feature]
    assert [float(row["r2"]) for row in rows if row["r2"]] == sorted(found.r2, reverse=True)


def test_sentences_are_scored_by_their_tokens(folder, run_command):
    options = "--pooling", "none", "--layers", "1", "--scoring", "accuracy", "--quiet"

    code, out, err = run_command(
        "sweep", folder, "--aggregate", "rolling_mean_max=2", *options, *OPTIONS
    )

    acts = load_activations(folder, pooling="none")
    found = layer_sweep(
        None,
        acts,
        acts.labels,
        layers=[1],
        cv=4,
        n_repeats=1,
        aggregate="rolling_mean_max",
        aggregate_params={"window": 2},
    )
    assert (0, "", f"{found.summary()}\n") == (code, err, out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "3"], "--top needs --features-from; give that too."),
        (["--features-from", "{}", "--target-layer", "1"], "not both."),
        (["--features-from", "{}", "--scoring", "r2"], "--scoring is for one target"),
        (["--features-from", "{}", "--inner-cv", "3"], "--inner-cv is for one target"),
        (["--features-from", "{}", "--layers", "sae 1"], "got --layers 'sae 1'"),
        (["--features-from", "{}", "--estimator", "logistic"], "does not fit this target"),
        (["--features-from", "{}", "--strategy", "hidden-to-concept"], "is for a feature target"),
        (["--aggregate", "median"], "aggregate must be one of mean, max"),
        (["--aggregate", "max"], "each of the 40 rows is a sentence by itself"),
        (["--aggregate", "max=3", "--pooling", "none"], "has no parameter 'n'; it takes none"),
        (["--aggregate", "top_k_mean=0"], "invalid name, or name=number value"),
    ],
)
def test_what_cannot_be_is_one_line(folder, table, run_command, arguments, message):
    code, _, err = run_command("sweep", folder, *(a.format(table) for a in arguments), *OPTIONS)

    assert (2, 1) == (code, err.count("\n"))
    assert message in err
