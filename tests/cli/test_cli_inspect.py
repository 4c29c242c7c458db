"""The command ``inspect``: what it prints, writes and refuses."""

import json
import shlex

import numpy as np
import pytest
from sentence_files import write_folder

from sklprep import from_hidden_states, load_activations, load_dataset, make_activations
from sklprep.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    make_activations(
        48, n_layers=3, d_model=6, n_features=30, n_tokens=(4, 8), random_state=0, output=path
    )
    return path


@pytest.fixture
def run(folder, run_command):
    """Run ``inspect`` on the folder; returns exit code, stdout and stderr."""

    def run(arguments="", *, path=folder):
        return run_command("inspect", path, "--jobs", 1, *shlex.split(arguments))

    return run


@pytest.fixture
def dataset(folder, tmp_path, capsys):
    path = tmp_path / "d.npz"
    command = "generate --strategy hidden-to-concept --layers 0-1 --quiet --normalize minmax"
    assert 0 == main([*command.split(), "--input", str(folder), "--output", str(path)])
    capsys.readouterr()
    return path


def test_folder_is_told_in_words(run, folder):
    code, out, err = run()

    assert (0, "") == (code, err)
    for text in (
        f"{folder}: sentence folder",
        "48 (one per sentence), pooling final",
        "labels        0: ",
        "per sentence, median",
        "layers 0-2, 6 wide, float32",
        "3 SAEs, 30 wide, float32",
        "layer 2 ",
        "massive dimensions",
        "always on",
    ):
        assert text in out


def test_quick_look_prints_the_headers_facts_and_no_values(run):
    full, quick = run()[1], run("--quick")[1]

    assert full.startswith(quick.rstrip("\n"))
    assert "massive" not in quick


def test_quick_look_reads_no_values(run, tmp_path):
    from sentence_files import damage

    write_folder(tmp_path / "data", 3)
    damage(tmp_path / "data" / "sentence_000001.npz", "hidden_states")

    assert 0 == run("--quick", path=tmp_path / "data")[0]
    code, _, err = run(path=tmp_path / "data")
    assert 1 == code
    assert "sentence_000001.npz: member 'hidden_states'" in err
    assert 1 == err.count("\n")


def test_json_is_one_object_with_the_documented_keys(run):
    from sklprep.cli import inspect

    code, out, err = run("--json --audit")
    facts = json.loads(out)

    assert (0, "") == (code, err)
    assert {"what", "why", "do", "code"} == set(facts["findings"][0])
    documented = inspect.__doc__
    for keys in (facts, facts["values"]["hidden_states"][0], facts["values"]["activations"][0]):
        assert not [key for key in keys if key not in documented]


def test_json_of_a_dataset_has_the_documented_keys(run, dataset):
    from sklprep.cli import inspect

    code, out, _ = run("--json", path=dataset)
    facts = json.loads(out)

    assert 0 == code
    assert not [key for key in [*facts, *facts["values"]] if key not in inspect.__doc__]
    assert (0.0, 1.0) == (facts["values"]["min"], facts["values"]["max"])


def test_json_of_broken_numbers_is_still_json(run, tmp_path):
    write_folder(
        tmp_path / "data", 3, n_tokens=2, hidden_states=np.full((3, 2, 7), np.nan, np.float32)
    )
    facts = json.loads(run("--json --audit", path=tmp_path / "data")[1])

    assert facts["values"]["hidden_states"][0]["min"] is None
    assert "not-finite" == facts["findings"][0]["code"]


def test_pack_is_told_as_its_folder_is(run, folder, tmp_path, capsys):
    main(["pack", str(folder), str(tmp_path / "pk"), "--pooling", "mean", "--quiet"])
    pack = json.loads(run("--json", path=tmp_path / "pk")[1])
    whole = json.loads(run("--json --pooling mean")[1])

    differ = {"kind", "format", "path", "n_bytes", "tokens"}
    assert differ == {k for k in whole if whole[k] != pack[k]}


def test_dataset_is_told_in_words(run, dataset):
    code, out, err = run("--audit", path=dataset)

    assert (0, "") == (code, err)
    for text in (
        "hidden states of layers 0-1, pooling final",
        "normalized    minmax",
        "LayerSelector(layers='0-1')",
        "made from     demo_features",
        "Audit: ",
    ):
        assert text in out


def test_dataset_of_a_feature_is_told_with_its_target(run, folder, tmp_path, capsys):
    path = tmp_path / "f.npz"
    command = "generate --strategy hidden-to-feature --target-layer 1 --target-feature 4 --quiet"
    main([*command.split(), "--input", str(folder), "--output", str(path)])
    capsys.readouterr()

    assert "feature 4 of layer 1 (average_l0" in run("--quick", path=path)[1]


def test_proposed_groups_go_into_the_sweep(run, tmp_path, capsys):
    twins = {i: {"sentence": f"This is sentence {i - 40}."} for i in range(40, 80)}
    write_folder(tmp_path / "data", 80, changes=twins)
    code, out, _ = run(
        f"--audit --threshold 1 --groups-out {tmp_path}/g.csv", path=tmp_path / "data"
    )
    assert 0 == code
    assert "40 sentences repeat another one" in out
    assert "(--groups-out groups.csv, then sweep --groups groups.csv)" in out
    assert "=audit.groups" not in out
    lines = (tmp_path / "g.csv").read_text().splitlines()
    assert ["sentence_index,group", *(f"{i},{i % 40}" for i in range(80))] == lines

    sweep = f"sweep {tmp_path}/data --layers 1 --layers 2 --cv 3 --groups {tmp_path}/g.csv --jobs 1"
    code = main(sweep.split())
    captured = capsys.readouterr()
    assert (0, "") == (code, captured.err)
    assert "\nAccuracy 0." in captured.out


def test_groups_of_tokens_come_from_a_pack_and_go_into_datasets_and_sweeps(run, tmp_path, capsys):
    twins = {i: {"sentence": f"This is sentence {i - 40}."} for i in range(40, 80)}
    write_folder(tmp_path / "data", 80, n_tokens=3, changes=twins)
    assert 0 == main(f"pack {tmp_path}/data {tmp_path}/pack --pooling none --quiet".split())
    options = f"--audit --threshold 1 --quiet --groups-out {tmp_path}/g.csv"
    assert (0, "", "") == run(options, path=tmp_path / "pack")
    lines = (tmp_path / "g.csv").read_text().splitlines()
    assert ["sentence_index,group", *(f"{i},{i % 40}" for i in range(80))] == lines

    common = f"--pooling none --groups {tmp_path}/g.csv --jobs 1"
    generate = f"generate --strategy hidden-to-concept --layer 1 --input {tmp_path}/pack {common}"
    assert 0 == main([*generate.split(), "--output", str(tmp_path / "d.npz")])
    assert "240 rows belong to 40 groups" in capsys.readouterr().err
    acts = load_activations(tmp_path / "pack", pooling="none")
    groups = load_dataset(tmp_path / "d.npz").groups
    assert (acts.sentence_indices % 40).tolist() == groups.tolist()

    assert 0 == main(f"sweep {tmp_path}/pack --layers 1 --layers 2 --cv 3 {common}".split())
    captured = capsys.readouterr()
    assert "" == captured.err
    assert "\nAccuracy 0." in captured.out


def test_a_pack_of_a_models_tokens_counts_its_sentences(run, tmp_path):
    """Two of which have one text, and so one group."""
    states = tuple(np.random.default_rng(0).normal(size=(3, 5, 2)) for _ in range(2))
    acts = from_hidden_states(
        states, np.ones((3, 5)), pooling="none", labels=[0, 1, 1], sentences=list("aba")
    )
    acts.to_pack(tmp_path / "pack")
    facts = json.loads(run("--json --quick", path=tmp_path / "pack")[1])

    assert (3, 15) == (facts["n_sentences"], facts["n_rows"])
    assert {"0": 1, "1": 2} == facts["labels"]
    assert {"min": 5, "median": 5, "max": 5, "sum": 15} == facts["tokens"]


def test_labels_that_cannot_be_used_name_the_flag_of_other_commands(run, tmp_path):
    write_folder(tmp_path / "dump", 3, concept_strength_label=5)

    code, out, _ = run("--quick", path=tmp_path / "dump")

    assert code == 0
    assert "use --labels for a CSV of labels. (2 more files are at fault.)" in out


def test_quiet_prints_nothing_and_writes_the_groups(run, tmp_path):
    assert (0, "", "") == run(f"--audit --quiet --groups-out {tmp_path}/g.csv")
    assert 49 == len((tmp_path / "g.csv").read_text().splitlines())


def test_near_duplicates_by_layer(run):
    assert "(layer 1)" in run("--audit --near 1 --threshold 0.1")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--near 1", 2, "--near needs --audit"),
        ("--threshold 0.5", 2, "--threshold needs --audit"),
        ("--groups-out g.csv", 2, "--groups-out needs --audit"),
        ("--audit --quick", 2, "--audit needs the values"),
        ("--audit --threshold 0", 2, "cosine above 0"),
        ("--audit --threshold x", 2, "cosine above 0"),
        ("--audit --near words", 2, "words"),
        ("--audit --near 9", 1, "Layer 9 not found in data"),
        ("--audit --near 1 --pooling none", 2, "only if each is one row"),
        ("--audit --groups-out .", 2, "is a folder"),
        ("--pooling median", 2, "median"),
    ],
)
def test_fault_is_one_line_with_its_exit_code(run, arguments, code, message):
    found, out, err = run(arguments)

    assert (code, "") == (found, out)
    assert message in err
    assert 1 == err.count("\n")


@pytest.mark.parametrize(
    "arguments", ["--audit --near 1", "--audit --threshold 0.5", "--audit --groups-out g.csv"]
)
def test_options_of_folders_do_not_apply_to_a_dataset(run, dataset, arguments):
    code, out, err = run(arguments, path=dataset)

    assert (2, "") == (code, out)
    assert "does not apply to a dataset" in err


@pytest.mark.parametrize("name", ["nothing", "nothing.npz", "broken.npz", "sentence.npz"])
def test_unreadable_data_is_one_line(run, tmp_path, name):
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "sentence.npz", hidden_states=np.zeros(3))
    code, out, err = run(path=tmp_path / name)

    assert (1, "") == (code, out)
    assert name in err
    assert 1 == err.count("\n")


def test_what_files_say_cannot_steer_the_terminal(run, tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.eye(2), y=["\x1b[31mred\x9b2J", "a\rb"])
    code, out, err = run("--audit", path=path)

    assert (0, "") == (code, err)
    assert r"\x1b[31mred\x9b2J: 1 (50.0%)" in out
    assert all(line.isprintable() for line in out.split("\n"))
