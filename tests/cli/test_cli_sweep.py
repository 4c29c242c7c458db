"""The commands ``sweep`` and ``pack``: what they print, write and refuse."""

import csv
import functools
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    RowSpaceProjector,
    layer_sweep,
    load_activations,
    make_activations,
)
from sklprep.cli.main import main

N_LAYERS = 3
CHEAP = "--layers 1 --layers 2 --cv 3 --repeats 2"
TO_FEATURE = "--strategy hidden-to-feature --target-layer 1 --target-feature 4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    make_activations(
        48,
        n_layers=N_LAYERS,
        d_model=6,
        n_features=30,
        n_tokens=(2, 4),
        random_state=0,
        output=path,
    )
    return path


@pytest.fixture
def sweep(folder, capsys):
    """Run ``sweep``; returns exit code, stdout and stderr."""

    def sweep(arguments, *, source=folder):
        code = main(["sweep", str(source), "--jobs", "1", *shlex.split(arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return sweep


@pytest.fixture
def pack(capsys):
    """Run ``pack``; returns exit code, stdout and stderr."""

    def pack(*arguments):
        code = main(["pack", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return pack


def read_csv(path):
    """Scores by layer and fold."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["layer", "repeat", "fold", "score", "fit_time"]
    assert all(float(row["fit_time"]) >= 0 for row in rows)
    n_folds = 1 + max(int(row["fold"]) for row in rows)
    return {
        (row["layer"], n_folds * int(row["repeat"]) + int(row["fold"])): float(row["score"])
        for row in rows
    }


@functools.cache
def reference(folder, **options):
    """The library's own answer, for the model that the command documents."""
    acts = load_activations(folder)
    model = make_pipeline(ActivationNormalizer(), LogisticRegression(max_iter=2000))
    groups = options.pop("groups", None)
    options = {"n_repeats": 2} | options
    return layer_sweep(model, acts, acts.labels, cv=3, groups=groups, **options)


def test_prints_number_of_fits_a_table_and_the_answer_in_one_sentence(sweep, folder):
    code, out, err = sweep("--cv 3")
    expected = reference(folder, n_repeats=10)
    lines = out.splitlines()

    assert (code, err) == (0, "")
    # 4 inputs: 3 outer folds of one fit and 5 inner ones each; 3 baselines on 3 folds
    n_fits = 10 * (4 * 3 * (1 + 5) + 3 * 3)
    assert lines[0].startswith(f"{n_fits:d} fits on ActivationSet(48 rows, ")
    assert lines[-1] == expected.summary()
    assert lines[-1].startswith(f"Honest accuracy {expected.nested_score:.2f} [")
    table = dict(re.findall(r"^(embeddings|\d+) +(\d\.\d{3})  ", out, re.MULTILINE))
    bands = re.findall(r"(-?\d\.\d{3}), (-?\d\.\d{3}) +#", out)
    assert bands == [(f"{low:.3f}", f"{high:.3f}") for low, high in expected.band.T]
    assert table == {
        str(layer): f"{scores.mean():.3f}"
        for layer, scores in zip(["embeddings", 0, 1, 2], expected.scores, strict=True)
    }
    for name in ("majority", "sentence length", "TF-IDF"):
        assert re.search(rf"^{name} +{expected.baselines[name].mean:.3f}$", out, re.MULTILINE)


def test_quiet_prints_the_sentence_alone(sweep, folder):
    code, out, err = sweep("--cv 3 --repeats 2 --quiet")

    assert (code, out, err) == (0, reference(folder).summary() + "\n", "")


def test_csv_holds_a_score_for_each_layer_and_fold(sweep, folder, tmp_path):
    output = tmp_path / "new" / "sweep.csv"
    assert sweep(f"--cv 3 --repeats 2 --output {output}")[0] == 0
    expected = reference(folder)

    assert read_csv(output) == {
        (str(layer), fold): pytest.approx(score, abs=1e-12)
        for layer, scores in zip(["embeddings", 0, 1, 2], expected.scores, strict=True)
        for fold, score in enumerate(scores)
    }


def test_plot_is_a_picture(sweep, tmp_path):
    from matplotlib import pyplot

    output = tmp_path / "new" / "sweep.png"
    assert sweep(f"{CHEAP} --plot {output}")[0] == 0
    pixels = pyplot.imread(output)
    pyplot.close("all")

    assert output.read_bytes().startswith(b"\x89PNG\r\n")
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.01


@pytest.mark.parametrize(("name", "start"), [("s.svg", b"<?xml"), ("s", b"\x89PNG")])
def test_plot_has_the_format_of_its_name(sweep, tmp_path, name, start):
    from matplotlib import pyplot

    assert sweep(f"{CHEAP} --plot {tmp_path / name}")[0] == 0
    pyplot.close("all")
    assert (tmp_path / name).read_bytes().startswith(start)


def test_plot_of_another_format_is_refused_before_any_fit(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sklprep.sweeps.sweep.layer_sweep", lambda *_, **__: pytest.fail("it was fitted")
    )

    code, out, err = sweep(f"--output {tmp_path / 's.csv'} --plot {tmp_path / 's.xyz'}")

    assert (code, out) == (2, "")
    assert err == (
        f"Error: --plot {tmp_path / 's.xyz'}: xyz is not a picture format; name it .png, .svg or"
        " .pdf.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--output", "--plot"])
def test_output_that_is_a_folder_is_refused_before_reading(sweep, tmp_path, flag):
    code, _, err = sweep(f"{flag} {tmp_path}", source="/nowhere")

    assert code == 2
    assert err.startswith(f"Error: Output {tmp_path} is a folder")


def test_layers_are_the_entries_of_the_curve_in_the_order_given(sweep, tmp_path):
    output = tmp_path / "s.csv"
    code, out, _ = sweep(
        f"--cv 3 --layers embeddings --layers 0-1 --layers 0,2 --layers 2 --output {output}"
    )

    assert code == 0
    assert list(dict.fromkeys(layer for layer, _ in read_csv(output))) == [
        "embeddings",
        "0-1",
        "0,2",
        "2",
    ]
    assert out.startswith(f"{10 * (4 * 3 * 6 + 9)} fits")


@pytest.mark.parametrize(
    ("estimator", "arguments", "score"),
    [
        ("logistic", "", "accuracy"),
        ("svm", "", "accuracy"),
        ("difference-of-means", "", "accuracy"),
        ("lda", "", "accuracy"),
        ("random-forest", "--layers 1 --cv 2", "accuracy"),
        ("ridge", TO_FEATURE, "R2"),
        ("svm", TO_FEATURE, "R2"),
        ("random-forest", f"{TO_FEATURE} --layers 1 --cv 2", "R2"),
    ],
)
def test_every_estimator_answers(sweep, estimator, arguments, score):
    code, out, err = sweep(
        f"--quiet {CHEAP if '--cv' not in arguments else ''} {arguments} --estimator {estimator}"
    )

    assert (code, err) == (0, "")
    alone = rf"(?i:{score}) -?\d\.\d\d \[.*\]: of layer 1 alone; .*\n"
    several = rf"(?i:{score}) -?\d\.\d\d \[.*\].*: layer .*2 of the 3 layers of this set.*\n"
    assert re.fullmatch(alone if "--layers 1" in arguments else several, out)


@pytest.mark.parametrize("arguments", ["", TO_FEATURE])
def test_estimator_is_logistic_for_labels_and_ridge_for_features(sweep, arguments):
    named = "ridge" if arguments else "logistic"

    assert sweep(f"{CHEAP} {arguments}") == sweep(f"{CHEAP} {arguments} --estimator {named}")


@pytest.mark.parametrize("estimator", ["", " --estimator svm"])
def test_quantities_of_a_csv_are_regressed_as_in_python(sweep, folder, tmp_path, estimator):
    labels = tmp_path / "ratings.csv"
    rows = "".join(f"{index},{index % 7 / 2}\n" for index in range(48))
    labels.write_text(f"sentence_index,label\n{rows}")
    acts = load_activations(folder, labels=labels)
    expected = layer_sweep(None, acts, acts.labels, layers=[1, 2], cv=3, n_repeats=2)

    code, out, err = sweep(f"{CHEAP} --labels {labels}{estimator} --output {tmp_path / 's.csv'}")

    assert (0, "") == (code, err)
    assert re.search(r"^layer +r2 ", out, re.MULTILINE)
    if not estimator:
        with (tmp_path / "s.csv").open() as file:
            assert expected.scores.ravel().tolist() == [
                float(row["score"]) for row in csv.DictReader(file)
            ]
    code, _, err = sweep(f"{CHEAP} --labels {labels} --estimator logistic")
    assert code == 2
    assert "--estimator logistic does not fit this target; use ridge, svm or random-" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{TO_FEATURE} --estimator logistic", "--estimator logistic does not fit .*; use ridge"),
        ("--estimator lasso", ".*invalid choice: 'lasso'"),
        ("--scoring nonsense", "--scoring nonsense is not a scorer; choose one "),
        ("--scoring acc", ".*; choose one such as accuracy"),
        ("--layers embedding", ".* cannot be read at 'embedding'; .* may also be embeddings, each"),
        ("--layers sae", ".* or 'each sae'"),
        ("--scoring balanced", ".*balanced_accuracy"),
        ("--cv 1", ".*--cv: invalid number of folds value: '1'"),
        ("--permutations -2", ".*--permutations: invalid whole number from 0 value: '-2'"),
        ("--jobs 0", ".*--jobs: invalid number of jobs value: '0'"),
        ("--row-space --estimator random-forest", "--row-space changes what a random forest sees"),
        ("--row-space --estimator lda", "--row-space changes what lda shrinks; leave it out"),
        ("--strategy feature-to-concept --estimator lda", "--estimator lda needs dense X, and fea"),
        ("--scoring recall_at_fpr=0", "--scoring recall_at_fpr=0 is not a rate; write the share"),
        (
            "--strategy hidden-to-feature --target-layer 1",
            "hidden-to-feature needs --target-feature.",
        ),
        ("--target-layer 1", "hidden-to-concept does not use --target-layer"),
        ("--layers 5-2", ".*did you mean 2-5"),
        ("--layers every", ".*cannot be read"),
        ("--layers 'sae x'", ".*cannot be read"),
        ("--strategy nonsense", ".*invalid choice: 'nonsense'"),
    ],
)
def test_fault_of_the_command_line_is_one_line(sweep, arguments, message):
    code, out, err = sweep(arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.match(f"Error: {message}", err), err
    assert len(err) < 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--layers 9", "Layer 9 not found in data"),
        (f"{TO_FEATURE.replace('4', '99')}", "Feature index must be 0-29, got 99"),
        ("--cv 40", "Class . is in .* of 48 groups, fewer than the 40 folds"),
    ],
)
def test_fault_of_the_data_is_one_line(sweep, arguments, message):
    code, _, err = sweep(arguments)

    assert (code, err.count("\n")) == (1, 1)
    assert re.match(f"Error: {message}", err), err


def test_feature_that_is_too_rare_is_refused(sweep, tmp_path):
    source = tmp_path / "rare"
    make_activations(
        20, n_layers=2, d_model=4, n_features=400, n_tokens=(2, 3), random_state=0, output=source
    )
    sae = load_activations(source).sae_activations(1).toarray()
    active = np.count_nonzero(sae, axis=0)
    feature = int(np.flatnonzero((active > 0) & (active < 10))[0])

    code, _, err = sweep(
        f"--strategy embedding-to-feature --target-layer 1 --target-feature {feature}",
        source=source,
    )

    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"Error: y is active (not zero) in {active[feature]} of 20 groups")


def test_no_files_is_said(sweep, tmp_path):
    code, out, err = sweep("", source=tmp_path)

    assert (code, out) == (1, "")
    assert err.startswith(f"Error: No sentence_*.npz files found in {tmp_path}")


@pytest.mark.parametrize(("arguments", "solved"), [(TO_FEATURE, True), ("--estimator svm", False)])
def test_row_space_gives_the_same_scores(sweep, tmp_path, monkeypatch, arguments, solved):
    """More columns than rows: there the projector really works, and the solver needs none."""
    used = []
    transform = RowSpaceProjector.transform
    monkeypatch.setattr(
        RowSpaceProjector, "transform", lambda self, X: used.append(len(X)) or transform(self, X)
    )
    source = tmp_path / "wide"
    make_activations(
        40, n_layers=2, d_model=60, n_features=30, n_tokens=(2, 3), random_state=3, output=source
    )
    plain, projected = tmp_path / "a.csv", tmp_path / "b.csv"
    for output, flag in ((plain, ""), (projected, "--row-space")):
        code, _, err = sweep(
            f"{arguments} --cv 3 --layers 1 --layers 0-1 {flag} --output {output}", source=source
        )
        assert (code, err) == (0, "")
        assert bool(used) == bool(flag and not solved)

    one, other = read_csv(plain), read_csv(projected)
    assert one.keys() == other.keys()
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4, atol=1e-4)


def test_permutations_add_a_p_value_and_its_smallest_value(sweep):
    code, out, _ = sweep(f"{CHEAP} --permutations 3")

    assert code == 0
    p, smallest = re.search(r"permutation p = (\S+) \(smallest possible (\S+)\)", out).groups()
    assert float(smallest) == 1 / 4
    assert float(p) in {0.25, 0.5, 0.75, 1}
    assert out.startswith(f"{3 * (2 * (2 * (1 + 5) + 3) + 2 * 3)} fits")


def test_scoring_is_the_scorer_named(sweep, folder):
    _, out, _ = sweep("--cv 3 --repeats 2 --scoring f1_macro --layers 0 --quiet")

    assert out == reference(folder, scoring="f1_macro", layers=(0,)).summary() + "\n"
    assert out.startswith("F1 macro ")


def test_seed_reaches_the_folds(sweep, folder):
    _, out, _ = sweep("--cv 3 --repeats 2 --random-state 5 --layers 2 --quiet")

    assert out == reference(folder, random_state=5, layers=(2,)).summary() + "\n"


def test_mean_pooling_sweeps_the_means(sweep, folder):
    acts = load_activations(folder, pooling="mean")
    model = make_pipeline(ActivationNormalizer("minmax"), LogisticRegression(max_iter=2000))
    expected = layer_sweep(model, acts, acts.labels, cv=3, n_repeats=2, layers=[0, 2])

    _, out, _ = sweep(
        "--cv 3 --repeats 2 --layers 0 --layers 2 --pooling mean --normalize minmax --quiet"
    )

    assert out == expected.summary() + "\n"


def test_tokens_of_a_sentence_stay_together(sweep, folder):
    acts = load_activations(folder, pooling="none")
    model = make_pipeline(ActivationNormalizer(), LogisticRegression(max_iter=2000))
    options = {"cv": 3, "n_repeats": 2, "layers": [1]}
    expected = layer_sweep(model, acts, acts.labels, groups=acts.groups, **options)

    _, out, _ = sweep("--cv 3 --repeats 2 --layers 1 --pooling none --quiet")

    assert out == expected.summary() + "\n"


def write_groups(path, group_of, header="sentence_index,group"):
    path.write_text("\n".join([header, *(f"{k},{v}" for k, v in group_of.items()), ""]))
    return path


def test_groups_of_the_csv_stay_together(sweep, folder, tmp_path):
    acts = load_activations(folder)
    group_of = {index: f"pair {index // 2:02d}" for index in acts.sentence_indices.tolist()}
    path = write_groups(tmp_path / "groups.csv", dict(reversed(group_of.items())))
    expected = reference(folder, groups=tuple(acts.sentence_indices // 2))

    code, out, err = sweep(f"--cv 3 --repeats 2 --groups {path} --quiet")

    assert (code, err) == (0, "")
    assert out == expected.summary() + "\n"
    assert out != reference(folder).summary() + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            r"column 'sentence_index' is missing; expected sentence_index \(or file or sentence\),"
            " group, got an empty file",
        ),
        (b"index,group\n0,a\n", "column 'sentence_index' is missing; .*, got index, group"),
        (
            b"sentence_index,group\n0,a\n1,b\n",
            r"46 sentences have no group \(first: sentence_index 2\)",
        ),
        (b"sentence_index,group\n0\n", r"48 sentences have no group \(first: sentence_index 0\)"),
        (
            b"sentence_index,group\nfirst,a\n",
            "line 2 has sentence_index 'first'; expected a whole number",
        ),
        (b"sentence_index,group\n0,\xff\xfe\n", "is not a CSV file in UTF-8"),
    ],
)
def test_groups_that_do_not_fit_are_one_line(sweep, tmp_path, content, message):
    path = tmp_path / "groups.csv"
    path.write_bytes(content)

    code, out, err = sweep(f"--groups {path}")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.match(f"Error: {path}: {message}", err), err


def test_groups_file_that_is_not_there_is_named(sweep, tmp_path):
    code, _, err = sweep(f"--groups {tmp_path / 'none.csv'}")

    assert (code, err) == (
        1,
        f"Error: {tmp_path / 'none.csv'}: No such file or directory. Check the path.\n",
    )


def test_sweep_of_a_pack_is_that_of_the_folder(sweep, pack, folder, tmp_path):
    assert pack(folder, tmp_path / "pack")[0] == 0

    from_folder = sweep(f"{CHEAP} --layers embeddings --output {tmp_path / 'a.csv'}")
    from_pack = sweep(
        f"{CHEAP} --layers embeddings --output {tmp_path / 'b.csv'}", source=tmp_path / "pack"
    )

    assert from_pack == from_folder
    assert read_csv(tmp_path / "b.csv") == read_csv(tmp_path / "a.csv")


# ---- pack ------------------------------------------------------------------------------------


def test_pack_says_what_it_wrote(pack, folder, tmp_path):
    out = tmp_path / "new" / "pack"

    assert pack(folder, out) == (0, f"{out}: 48 sentences, 48 rows, pooling final\n", "")
    n_tokens = sum(len(np.load(path)["is_final_token"]) for path in folder.iterdir())
    tokens = tmp_path / "tokens"
    assert pack(folder, tokens, "--pooling", "none") == (
        0,
        f"{tokens}: 48 sentences, {n_tokens} rows, pooling none\n",
        "",
    )


def test_pack_says_what_was_new(pack, folder, tmp_path):
    out, some = tmp_path / "pack", tmp_path / "some"
    shutil.copytree(folder, some)
    later = sorted(some.iterdir())[40:]
    for path in later:
        path.rename(tmp_path / path.name)
    pack(some, out)
    assert pack(some, out) == (0, f"{out}: 40 sentences, 40 rows, pooling final, nothing new\n", "")
    for path in later:
        (tmp_path / path.name).rename(path)
    assert pack(some, out) == (0, f"{out}: 48 sentences, 48 rows, pooling final, 8 new\n", "")


def test_quiet_pack_says_nothing(pack, folder, tmp_path):
    assert pack(folder, tmp_path / "pack", "--quiet") == (0, "", "")


def test_pack_verifies_what_it_wrote(pack, folder, tmp_path):
    out = tmp_path / "pack"
    expected = (0, f"{out}: 48 sentences, 48 rows, pooling final, all digests match\n", "")

    assert pack(folder, out, "--verify") == expected
    assert pack(out, "--verify") == expected


def test_damaged_pack_is_named_by_its_array(pack, folder, tmp_path):
    out = tmp_path / "pack"
    pack(folder, out)
    array = out / "hidden_states" / "L1.npy"
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)

    code, printed, err = pack(out, "--verify")

    assert (code, printed, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: ")
    assert "L1" in err


def test_pack_needs_a_place(pack, folder):
    code, out, err = pack(folder)

    assert (code, out) == (2, "")
    assert err.startswith("Error: Give INPUT and OUT; only --verify takes a single path")
    assert err.endswith(f": sklprep pack {folder} {folder}_pack\n")


@pytest.mark.parametrize("name", ["", "no such folder"])
def test_what_is_no_pack_cannot_be_verified(pack, folder, name):
    code, out, err = pack(folder / name, "--verify")

    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {folder / name} is not a pack: it has no manifest.json. ")


def test_pack_does_not_write_into_a_folder_of_something_else(pack, folder):
    before = {path.name for path in folder.iterdir()}

    code, _, err = pack(folder, folder)

    assert (code, err.count("\n")) == (2, 1)
    assert "exists and is not a pack" in err
    assert {path.name for path in folder.iterdir()} == before


def test_pack_of_no_files_is_said(pack, tmp_path):
    code, _, err = pack(tmp_path / "none", tmp_path / "pack")

    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"Error: No sentence_*.npz files found in {tmp_path / 'none'}")
    assert not (tmp_path / "pack").exists()


def test_pack_given_with_another_pooling_is_refused(sweep, pack, folder, tmp_path):
    pack(folder, tmp_path / "pack")
    code, out, err = sweep("--pooling mean", source=tmp_path / "pack")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pooling" in err


def test_working_folder_is_left_alone(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep(CHEAP)[0] == 0
    assert list(Path().iterdir()) == []


class TestSeveralInputs:
    @pytest.fixture
    def folders(self, tmp_path):
        for seed, name in enumerate(("honest", "devious")):
            make_activations(
                40, n_layers=2, d_model=6, n_features=30, random_state=seed, output=tmp_path / name
            )
        return tmp_path / "honest", tmp_path / "devious"

    def test_rows_of_several_inputs_are_swept_as_those_of_a_joined_set(
        self, folders, tmp_path, run_command
    ):
        output = tmp_path / "joined.csv"
        options = ("--layers", 1, "--cv", 2, "--inner-cv", 2, "--jobs", 1, "--output", output)

        code, out, err = run_command("sweep", *folders, *options)

        assert (code, err) == (0, "")
        assert "on ActivationSet(80 rows" in out
        acts = ActivationSet.concatenate({path.name: load_activations(path) for path in folders})
        expected = layer_sweep(None, acts, acts.labels, layers=[1], cv=2, inner_cv=2)
        with output.open() as file:
            scores = [float(row["score"]) for row in csv.DictReader(file) if row["layer"] == "1"]
        np.testing.assert_allclose(expected.scores[0], scores, rtol=1e-6)

    def test_inputs_of_one_name_or_with_a_csv_of_labels_are_refused(self, folders, run_command):
        honest, devious = folders

        assert run_command("sweep", honest, honest)[::2] == (
            2,
            "Error: Two inputs are called honest. Rename one: the name tells their rows apart.\n",
        )
        code, _, err = run_command("sweep", honest, devious, "--labels", "labels.csv")
        assert (code, err.startswith("Error: --labels names sentences by their index")) == (2, True)


def test_a_set_without_texts_is_said_to_lack_the_baselines_of_texts(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "layer_0.npy", rng.normal(size=(40, 4)).astype(np.float32))
    rows = "".join(f"{i},{i % 2}\n" for i in range(40))
    (tmp_path / "labels.csv").write_text(f"sentence_index,label\n{rows}")
    labels = ["--labels", str(tmp_path / "labels.csv"), "--repeats", "1"]

    assert main(["sweep", str(tmp_path), *labels]) == 0
    assert "There are no texts, so the baselines TF-IDF" in capsys.readouterr().out
    assert main(["sweep", str(tmp_path), *labels, "--quiet"]) == 0
    assert "no texts" not in capsys.readouterr().out
