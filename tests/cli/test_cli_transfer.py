"""`sklprep transfer`: what it prints and writes, and what it refuses."""

import csv
import re

import pytest

from sklprep import load_activations, make_activations, transfer_matrix

OPTIONS = ("--cv", "4", "--repeats", "1", "--jobs", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(("caring", "unfair")):
        make_activations(
            40, n_layers=2, d_model=4, n_features=16, n_tokens=(2, 3), random_state=seed,
            output=root / name,
        )  # fmt: skip
    return root / "caring", root / "unfair"


def test_two_folders_give_a_matrix_a_table_and_a_picture(folders, run_command, tmp_path):
    outputs = "--output", tmp_path / "cells.csv", "--plot", tmp_path / "transfer.png"

    code, out, err = run_command("transfer", *folders, *OPTIONS, *outputs)

    sets = {path.name: (acts, acts.labels) for path in folders for acts in [load_activations(path)]}
    found = transfer_matrix(None, sets, cv=4, n_repeats=1)
    assert (0, "") == (code, err)
    assert out.endswith(found.summary() + "\n")
    assert re.search(r"^cosine of the directions at layer [01], of two halves", out, re.MULTILINE)
    assert re.search(r"^majority +0\.\d\d +0\.\d\d$", out, re.MULTILINE)
    rows = list(csv.DictReader((tmp_path / "cells.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == found.matrix.reshape(-1).tolist()
    assert (tmp_path / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_each_input_has_labels_of_its_own(folders, run_command, tmp_path):
    tables = []
    for path in folders:
        table = tmp_path / f"{path.name}.csv"
        lines = [f"{i},{'yes' if i % 2 else 'no'}" for i in range(40)]
        table.write_text("\n".join(["sentence_index,label", *lines, ""]))
        tables += ["--labels", table]

    code, out, err = run_command("transfer", *folders, *OPTIONS, *tables, "--quiet")
    assert (0, "", 3) == (code, err, out.count("\n"))

    code, _, err = run_command("transfer", *folders, *OPTIONS, *tables[:2])
    assert (2, "Error: Give --labels once for each of the 2 INPUTs, or not at all.\n") == (
        code,
        err,
    )


def test_a_feature_can_be_the_target(folders, run_command):
    target = "--target-layer", "1", "--target-feature", "3", "--layers", "1"

    code, out, err = run_command("transfer", *folders, *OPTIONS, *target, "--quiet")

    assert (0, "") == (code, err)
    assert out.startswith("Trained on caring (layer 1), R2 ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{0}"], 2, "transfer needs at least two INPUTs, got one."),
        (["{0}", "{0}"], 2, "Two inputs are called caring."),
        (["{0}", "{1}", "--plot", "x.doc"], 2, "--plot x.doc: doc is not a picture format"),
        (["{0}", "{1}", "--scoring", "acc"], 2, "--scoring acc is not a scorer"),
        (["{0}", "{1}", "--target-layer", "1"], 2, "name a feature together"),
        (["{0}", "{1}", "--layers", "9"], 1, "Layer 9 not found in data"),
    ],
)
def test_what_cannot_be_is_one_line(folders, run_command, arguments, code, message):
    argv = [argument.format(*folders) for argument in arguments]

    found, out, err = run_command("transfer", *argv)

    assert (code, "", 1) == (found, out, err.count("\n"))
    assert message in err
