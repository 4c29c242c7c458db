"""The command line: the guide's commands, messages, exit codes, and what is printed."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from sklprep import load_dataset, make_activations
from sklprep.cli.main import main

HERE = Path(__file__).parents[1]
SHIM = HERE.parent / "examples" / "generate_datasets.py"
TRAITS = ("dishonesty", "aggression", "caring", "brave", "unfair")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    make_activations(
        104, n_layers=4, d_model=12, n_features=40, n_tokens=(3, 6), random_state=1, output=path
    )
    return path


@pytest.fixture
def output(tmp_path):
    return tmp_path / "new" / "d.npz"


@pytest.fixture
def run(folder, output, run_command):
    """Run ``generate`` on the folder; returns exit code, stdout and stderr."""

    def run(arguments, *, source=folder):
        place = ("--input", source, "--output", output)
        return run_command("generate", *place, *shlex.split(arguments))

    return run


@pytest.fixture(scope="module")
def guide_tree(tmp_path_factory):
    """The guide's folders: 26 layers, one folder a trait, and a ranked_features.csv."""
    root = tmp_path_factory.mktemp("guide")
    for i, trait in enumerate(TRAITS):
        make_activations(
            6,
            n_layers=26,
            d_model=4,
            n_features=9000,
            n_tokens=(2, 3),
            random_state=i,
            output=root / "s1_compute_all_features" / f"{trait}_100_features",
        )
    results = root / "s2_find_top_features" / "results" / "dishonesty_100_results"
    results.mkdir(parents=True)
    rows = [f"{rank},{5 * rank - 4},80,{100 * rank}" for rank in range(1, 6)]
    (results / "ranked_features.csv").write_text(
        "\n".join(["rank,layer,average_l0,feature_id", *rows, ""])
    )
    work = root / "s4_classifier_data_prep"
    work.mkdir()
    (work / "generate_datasets.py").write_text(SHIM.read_text())
    return root


def guide_blocks():
    return (HERE / "guide_commands.txt").read_text().split("#### next block\n")


def stand_in_for_uv(folder, body):
    uv = folder / "uv"
    uv.write_text(body)
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("number", range(len(guide_blocks())))
def test_command_lines_of_the_guide_run_verbatim(guide_tree, tmp_path, monkeypatch, capsys, number):
    """A shell takes the block apart; each command it would start then runs in this process."""
    block = guide_blocks()[number]
    log = tmp_path / "log"
    env = stand_in_for_uv(
        tmp_path,
        f'#!/bin/sh\n{sys.executable} -S -c "import json, sys; print(json.dumps(sys.argv[1:]))"'
        f' "$@" >> {log}\n',
    )
    place = guide_tree if block.startswith("cd ") else guide_tree / "s4_classifier_data_prep"
    block = block.replace("ls -lh generated_datasets/", "")

    subprocess.run(["bash", "-e", "-c", block], check=True, cwd=place, env=env)

    commands = [json.loads(line) for line in log.read_text().splitlines()]
    assert commands
    monkeypatch.chdir(guide_tree / "s4_classifier_data_prep")
    for command in commands:
        assert command[:3] == ["run", "python", "generate_datasets.py"]
        options = dict(zip(command[3::2], command[4::2], strict=True))
        assert main(["generate", *command[3:]]) == 0, command
        dataset = load_dataset(options["--output"])
        assert dataset.meta["meta_strategy"] == options["--strategy"]
        assert dataset.norm["norm_method"] == options.get("--normalize", "standardize")
        if "--layer" in options:
            assert dataset.meta["meta_input_layers"].tolist() == [int(options["--layer"])]
        if "--target-feature" in options:
            assert dataset.meta["meta_target_feature"] == int(options["--target-feature"])
    assert "Error" not in capsys.readouterr().err


def test_shim_runs_in_a_process_of_its_own(guide_tree, tmp_path):
    env = stand_in_for_uv(tmp_path, f'#!/bin/sh\nshift 2\nexec {sys.executable} "$@"\n')
    command = guide_blocks()[4].rstrip() + " --force"

    done = subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=guide_tree / "s4_classifier_data_prep",
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "Wrote generated_datasets/dishonesty_h12_to_concept.npz" in done.stdout
    assert done.stderr.startswith("Warning: Only 6 samples (expected ~100)")


def test_module_and_command_are_the_same():
    by_module = subprocess.run(
        [sys.executable, "-m", "sklprep", "--version"], capture_output=True, text=True, check=True
    )

    assert re.fullmatch(r"sklprep \d+\.\d+\.\d+\n", by_module.stdout)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("--normalise minmax --output a.npz", "--normalise; did you mean --normalize?"),
        ("--normalise=minmax --output a.npz", "--normalise; did you mean --normalize?"),
        ("--ouput a.npz", "--ouput; did you mean --output?"),
        ("--xyzzy", "--xyzzy"),
    ],
)
def test_mistyped_flag_is_named_with_the_one_that_was_meant(capsys, typed, hint):
    command = "generate --input dump --strategy hidden-to-concept --layer 1"
    assert main([*command.split(), *typed.split()]) == 2
    expected = f"Error: unrecognized argument {hint} (see sklprep generate --help)\n"
    assert capsys.readouterr() == ("", expected)


def test_output_that_nobody_reads_any_more_is_no_error(folder):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sklprep", "inspect", str(folder)]

    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)

    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_closed_stdout_is_no_error(folder):
    command = f'"{sys.executable}" -m sklprep inspect "{folder}" --quick >&-'

    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


def test_summary_says_shapes_classes_and_place(run, folder, output):
    code, out, err = run("--strategy hidden-to-concept --layers 0-1,3")
    labels = [int(np.load(path)["concept_strength_label"]) for path in folder.glob("*.npz")]

    assert (code, err) == (0, "")
    assert "(104, 36) float32: hidden states of layers 0-1,3" in out
    for label in range(4):
        k = labels.count(label)
        assert f"{label}: {k} ({k / 104:.1%})" in out
    assert f"Wrote {output}" in out


def test_summary_says_range_and_active_rows_of_a_feature(run, output):
    code, out, _ = run("--strategy embedding-to-feature --target-layer 2 --target-feature 1")
    y = np.load(output)["y"]
    active = int((y > 0).sum())

    assert code == 0
    assert f"active in {active} of 104 samples ({active / 104:.1%})" in out
    assert f"{y.min():.4g} to {y.max():.4g}" in out


def test_quiet_prints_nothing(run):
    assert run("--strategy embedding-to-concept --quiet") == (0, "", "")


def test_split_is_that_of_train_test_split(run, output):
    code, out, _ = run(
        "--strategy hidden-to-concept --layer 1 --test-size 0.2 --random-state 42 --stratify"
    )
    data = np.load(output)
    train, test = train_test_split(
        np.arange(104), test_size=0.2, random_state=42, stratify=data["y"]
    )

    assert code == 0
    assert data["meta_train_indices"].tolist() == train.tolist()
    assert data["meta_test_indices"].tolist() == sorted(test.tolist())
    assert abs(data["X"][train].mean()) < 1e-6
    assert f"fitted on {len(train)} training rows" in out


def test_pooling_and_average_l0_reach_the_data(run, folder, output):
    average_l0 = int(np.load(folder / "sentence_000000.npz")["average_l0s"][2])
    code, _, _ = run(
        "--strategy hidden-to-feature --target-layer 2 --target-feature 1 --input-layer 0"
        f" --pooling mean --normalize none --average-l0 {average_l0}"
    )
    files = [np.load(path) for path in sorted(folder.glob("*.npz"))]
    data = np.load(output)

    assert code == 0
    assert data["meta_pooling"] == "mean"
    X = np.array([f["hidden_states"][0].astype(np.float64).mean(axis=0) for f in files])
    y = np.array([f["activations"][2, :, 1].astype(np.float64).mean() for f in files])
    np.testing.assert_allclose(data["X"], X, rtol=1e-6)
    np.testing.assert_allclose(data["y"], y, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--strategy hidden-to-concept --layer 31", 1, "Layer 31 not found in data: .*0-3"),
        ("--strategy hidden-to-concept --layers 2-5", 1, "Layer 4 not found in data .nor 5"),
        (
            "--strategy hidden-to-feature --target-layer 9 --target-feature 1",
            1,
            "Layer 9 not found in data",
        ),
        (
            "--strategy hidden-to-feature --target-layer 1 --target-feature 40",
            1,
            "Feature index must be 0-39, got 40",
        ),
        (
            "--strategy hidden-to-feature --target-layer 1 --target-feature -1",
            1,
            "Feature index must be 0-39, got -1",
        ),
        (
            "--strategy hidden-to-feature --target-layer 1 --target-feature 1 --average-l0 999",
            1,
            "average_l0 mismatch: .*999; it has",
        ),
        (
            "--strategy hidden-to-concept --layer 1 --layers 2",
            2,
            "Give --layer N for one layer or --layers SPEC for several, not both",
        ),
        (
            "--strategy hidden-to-concept",
            2,
            "hidden-to-concept needs --layers, such as --layers 12 or --layers 0-5.",
        ),
        (
            "--strategy hidden-to-feature --target-layer 1",
            2,
            "hidden-to-feature needs --target-feature.",
        ),
        (
            "--strategy embedding-to-feature",
            2,
            ".*needs --target-layer and --target-feature.",
        ),
        (
            "--strategy embedding-to-concept --layer 1",
            2,
            "embedding-to-concept does not use --layer; it takes no options",
        ),
        (
            "--strategy hidden-to-feature --target-layer 1 --target-feature 1 --layers 2",
            2,
            ".*does not use --layers; it takes .*--input-layer",
        ),
        ("--strategy hidden-to-concept --layers 5-2", 2, ".*did you mean 2-5"),
        ("--strategy hidden-to-concept --layers 1,,3", 2, ".*empty part"),
        ("--strategy hidden-to-concept --layers -1", 2, ".*numbered from 0, got '-1'"),
        ("--strategy hidden-to-concept --layers -1,3", 2, ".*numbered from 0, got '-1,3'"),
        ("--strategy hidden-to-concept --layers a", 2, ".*cannot be read at 'a'"),
        ("--strategy hidden-to-concept --layer 0-5", 2, ".*use --layers 0-5"),
        ("--strategy hidden-to-concept --layer x", 2, ".*cannot be read"),
        ("--strategy nonsense", 2, ".*invalid choice: 'nonsense' .*hidden-to-concept"),
        ("--strategy hidden-to-concept --layer 1 --normalize z", 2, ".*invalid choice: 'z'"),
        (
            "--strategi hidden-to-concept --layer 1",
            2,
            ".*unrecognized argument --strategi; did you mean --strategy",
        ),
        ("--strategy hidden-to-concept --layer 1 --stratify", 2, ".*need --test-size"),
        ("--strategy hidden-to-concept --layer 1 --test-size 1.5", 2, ".*fraction"),
        ("--strategy hidden-to-concept --layer 1 --test-size 104", 2, "The rows cannot be split"),
        (
            "--strategy hidden-to-feature --target-layer 1 --target-feature 1 --test-size 9"
            " --stratify",
            2,
            "--stratify needs labels",
        ),
    ],
)
def test_fault_is_one_line_with_its_exit_code(run, output, arguments, code, message):
    found, out, err = run(arguments)

    assert (found, out) == (code, "")
    assert re.match(f"Error: {message}", err), err
    assert err.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("missing", ["--strategy", "--input", "--output"])
def test_missing_argument_is_named(capsys, missing):
    argv = ["generate", "--strategy", "embedding-to-concept", "--input", "x", "--output", "y"]
    at = argv.index(missing)

    assert main(argv[:at] + argv[at + 2 :]) == 2
    assert capsys.readouterr().err.startswith(
        f"Error: the following arguments are required: {missing}"
    )


def test_no_files_is_said_with_the_folder(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for source in (empty, tmp_path / "nowhere"):
        code, _, err = run("--strategy embedding-to-concept", source=source)
        assert code == 1
        assert err.startswith(f"Error: No sentence_*.npz files found in {source}")


def test_old_layer_wise_format_is_recognized(run, tmp_path):
    (tmp_path / "layer_12_activations.npz").write_bytes(b"")

    code, _, err = run("--strategy embedding-to-concept", source=tmp_path)

    assert code == 1
    assert err.startswith(f"Error: No sentence_*.npz files found in {tmp_path}")
    assert "old layer-wise format" in err


def test_broken_file_is_named(run, tmp_path, folder):
    for path in folder.glob("sentence_00000?.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "sentence_000003.npz").write_bytes(b"PK")

    code, _, err = run("--strategy embedding-to-concept", source=tmp_path)

    assert code == 1
    assert err.startswith(f"Error: {tmp_path / 'sentence_000003.npz'}:")
    assert err.count("\n") == 1


def test_few_samples_warn_and_the_dataset_is_written(run, tmp_path, folder, output):
    source = tmp_path / "few"
    source.mkdir()
    for path in sorted(folder.glob("*.npz"))[:87]:
        (source / path.name).write_bytes(path.read_bytes())

    code, _, err = run("--strategy embedding-to-concept", source=source)

    assert code == 0
    assert err.startswith("Warning: Only 87 samples (expected ~100)")
    assert output.exists()


def test_rarely_active_feature_warns(run, folder):
    sae = np.array(
        [f["activations"][2][f["is_final_token"]][0] for f in map(np.load, folder.glob("*.npz"))]
    )
    active = (sae > 0).sum(axis=0)
    feature = int(np.flatnonzero(active < 10)[0])

    code, _, err = run(f"--strategy hidden-to-feature --target-layer 2 --target-feature {feature}")

    assert code == 0
    assert err.startswith(
        f"Warning: Feature {feature} of layer 2 is active in {active[feature]} of 104 samples"
    )


def test_output_that_is_a_folder_is_refused_before_reading(capsys, tmp_path):
    code = main(
        [
            *("generate", "--strategy", "embedding-to-concept"),
            *("--input", "/nowhere", "--output", str(tmp_path)),
        ]
    )

    assert code == 2
    assert capsys.readouterr().err.startswith(f"Error: Output {tmp_path} is a folder")


def test_output_that_would_become_an_input_is_refused(capsys, folder):
    before = sorted(path.name for path in folder.iterdir())
    for name in ("sentence_000000.npz", "sentence_x.npz"):
        code = main(
            [
                *("generate", "--strategy", "embedding-to-concept"),
                *("--input", str(folder), "--output", str(folder / name)),
            ]
        )
        assert code == 2
        assert "would overwrite or become part of the input" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_failure_leaves_the_old_dataset(run, output):
    run("--strategy embedding-to-concept")
    before = output.read_bytes()

    assert run("--strategy hidden-to-concept --layer 9")[0] == 1
    assert output.read_bytes() == before
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_debug_shows_the_traceback_and_nothing_else_does(run):
    assert "Traceback" in run("--strategy hidden-to-concept --layer 9 --debug")[2]
    assert "Traceback" not in run("--strategy hidden-to-concept --layer 9")[2]


def test_repeated_command_gives_the_same_bytes(run, output):
    run("--strategy hidden-to-concept --layer 1 --jobs 1")
    before = output.read_bytes()
    run("--strategy hidden-to-concept --layer 1 --jobs 2 --force")

    assert output.read_bytes() == before


def test_demo_runs_its_commands_and_finds_the_planted_layer(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out

    commands = re.findall(r"^\$ sklprep (generate .*)$", out, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert Path(shlex.split(command)[-1]).exists()
    accuracy = {
        int(layer): float(score)
        for layer, score in re.findall(r"^(\d+) +(\d\.\d\d) \+-", out, re.MULTILINE)
    }
    assert len(accuracy) == 26
    assert abs(max(accuracy, key=accuracy.get) - 15) <= 2
    assert "\nNext: sklprep inspect YOUR_FOLDER, then sklprep sweep YOUR_FOLDER (" in out
    in_the_way = Path(shlex.split(commands[0])[-1])
    in_the_way.unlink()
    in_the_way.mkdir()
    assert main(["demo", str(tmp_path / "demo")]) == 1
    printed = capsys.readouterr()
    assert "Using the sentence files" in printed.out
    assert f"If {tmp_path / 'demo'} holds other files, name another folder." in printed.err
