"""Many datasets by one command: the guide's loops, patterns, CSVs, skipping, failures."""

import ast
import itertools
import json
import os
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sentence_files import write_folder
from sklearn.model_selection import train_test_split

from sklprep import load_dataset, make_activations
from sklprep.cli.main import main
from sklprep.datasets.batch import preview_datasets
from sklprep.datasets.plans import plan_datasets
from sklprep.exceptions import UsageError
from sklprep.files.csv_tables import read_features
from sklprep.files.npz_reader import NpzReader

TRAITS = ("dishonesty", "aggression", "caring", "brave", "unfair")
FOLDER = "dishonesty_100_features"
CONCEPT = "--strategy hidden-to-concept"
FEATURE = "--strategy hidden-to-feature"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of 26 layers for each trait of the guide."""
    root = tmp_path_factory.mktemp("batch")
    for seed, trait in enumerate(TRAITS):
        make_activations(
            14,
            n_layers=26,
            d_model=4,
            n_features=1300 if seed == 0 else 20,
            n_tokens=(2, 3),
            random_state=seed,
            output=root / f"{trait}_100_features",
        )
    return root


@pytest.fixture(autouse=True)
def inside(root, tmp_path, monkeypatch):
    """Work in a new folder that sees the traits' folders under their own names."""
    for trait in TRAITS:
        (tmp_path / f"{trait}_100_features").symlink_to(root / f"{trait}_100_features")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def generate(capsys):
    """Run ``generate`` on the first folder (or others); returns exit code, stdout and stderr.

    The warnings of small folders are left out of stderr.
    """

    def generate(arguments, *, source=FOLDER):
        inputs = itertools.chain(*(("--input", str(one)) for one in [source] if one))
        code = main(["generate", "--jobs", "1", *inputs, *shlex.split(arguments)])
        captured = capsys.readouterr()
        lines = captured.err.splitlines(keepends=True)
        return code, captured.out, "".join(x for x in lines if not x.startswith("Warning: "))

    return generate


def contents(folder):
    """The bytes of every dataset below a folder by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.npz")}


def write_csv(rows, name="ranked_features.csv", header="rank,layer,average_l0,feature_id,score"):
    Path(name).write_text("\n".join([header, *rows, ""]))
    return name


# ---- the guide's workflows: one command against its loop -------------------------------------

WORKFLOW_1 = [
    "--strategy embedding-to-feature --target-layer 12 --target-feature 1234"
    " --output {out}/dishonesty_emb_to_f1234.npz",
    f"{FEATURE} --target-layer 12 --target-feature 1234"
    " --output {out}/dishonesty_h12_to_f1234.npz",
    f"{CONCEPT} --layer 12 --output {{out}}/dishonesty_h12_to_concept.npz",
    f"{CONCEPT} --layers 0-5 --output {{out}}/dishonesty_h0-5_to_concept.npz",
]
RANGES = ("0-5", "6-11", "12-17", "18-25", "0,12,25", "5,15,20", "10,15,20")
WORKFLOWS = {
    1: (
        "--strategy embedding-to-feature --strategy hidden-to-feature --strategy hidden-to-concept"
        " --target-layer 12 --target-feature 1234 --layers 12 --layers 0-5"
        " --output 'one/{trait}_{name}.npz'",
        WORKFLOW_1,
    ),
    2: (
        f"{CONCEPT} {' '.join(f'--layers {spec}' for spec in RANGES)}"
        " --output 'one/{trait}_layers_{layers}.npz'",
        [
            f"{CONCEPT} --layers {spec}"
            f" --output {{out}}/dishonesty_layers_{spec.replace(',', '_')}.npz"
            for spec in RANGES
        ],
    ),
    3: (
        f"{CONCEPT} --layer 12 --normalize standardize --normalize minmax --normalize none"
        " --output 'one/{trait}_h12_norm_{norm}.npz'",
        [
            f"{CONCEPT} --layer 12 --normalize {norm}"
            f" --output {{out}}/dishonesty_h12_norm_{norm}.npz"
            for norm in ("standardize", "minmax", "none")
        ],
    ),
}


def test_loops_here_are_those_of_the_guide():
    text = (Path(__file__).parents[1] / "guide_commands.txt").read_text()
    blocks = [block.replace("\\\n", " ") for block in text.split("#### next block\n")]
    start = "uv run python generate_datasets.py "
    (first,) = [block for block in blocks if block.startswith("cd ")]
    commands = [line.removeprefix(start) for line in first.splitlines() if line.startswith(start)]
    loops = [shlex.split(values) for values in re.findall(r"^for \w+ in (.*); do$", text, re.M)]

    for command, ours in zip(commands, WORKFLOW_1, strict=True):
        words = shlex.split(command)
        at = words.index("--input")
        expected = ours.replace("{out}", "generated_datasets").split()
        assert words[:at] + words[at + 2 :] == expected
    assert [*loops[0], *loops[1]] == list(RANGES)
    assert loops[2:] == [["standardize", "minmax", "none"], list(TRAITS)]


@pytest.mark.parametrize("number", WORKFLOWS)
def test_workflow_of_the_guide_in_one_command_gives_the_files_of_its_loop(generate, number):
    together, loop = WORKFLOWS[number]
    for command in loop:
        assert generate(command.format(out="loop"))[0] == 0

    code, out, err = generate(together)

    assert (code, err) == (0, "")
    assert f"{len(loop)} written, 0 unchanged" in out
    assert len(contents("loop")) == len(loop)
    assert contents("one") == contents("loop")


def test_workflow_4_takes_all_traits_in_one_command(generate):
    for trait in TRAITS:
        command = f"{CONCEPT} --layers 0-5 --output loop/{trait}_h0-5_to_concept.npz"
        assert generate(command, source=f"{trait}_100_features")[0] == 0

    inputs = " ".join(f"--input {trait}_100_features" for trait in TRAITS)
    code, _, err = generate(
        f"{CONCEPT} {inputs} --layers 0-5 --output 'one/{{trait}}_{{name}}.npz'", source=None
    )

    assert (code, err) == (0, "")
    assert set(contents("one")) == {f"{trait}_h0-5_to_concept.npz" for trait in TRAITS}
    assert contents("one") == contents("loop")


def test_workflow_5_takes_the_top_features_of_the_csv(generate):
    rows = [f"{rank},{4 * rank},8,{rank * 7},0.5" for rank in range(1, 8)]
    write_csv(rows)
    for line in rows[:5]:
        _, layer, _, feature, _ = line.split(",")
        name = f"loop/dishonesty_h{layer}_to_f{feature}.npz"
        command = f"{FEATURE} --target-layer {layer} --target-feature {feature} --output {name}"
        assert generate(command)[0] == 0

    code, _, err = generate(
        f"{FEATURE} --features-from ranked_features.csv --top 5"
        " --output 'one/{trait}_{name}.npz'"
    )

    assert (code, err) == (0, "")
    assert len(contents("loop")) == 5
    # an average_l0 that names the only SAE there is gives the same dataset
    assert contents("one") == contents("loop")


def test_each_folder_is_read_once_however_many_datasets_are_made(generate, monkeypatch):
    reads = Counter()
    plain = NpzReader.__init__

    def counted(self, path):
        reads[Path(path).resolve().parent.name] += Path(path).name.startswith("sentence_")
        plain(self, path)

    monkeypatch.setattr(NpzReader, "__init__", counted)
    command = f"--input {FOLDER} --input brave_100_features"
    generate(f"{command} {CONCEPT} --layer 3 --output 'one/{{trait}}.npz'", source=None)
    single, _ = Counter(reads), reads.clear()
    code, out, _ = generate(
        f"{command} {CONCEPT} {FEATURE} --strategy embedding-to-concept --target-layer 1"
        " --target-layer 20 --target-feature 2 --target-feature 3 --layer 3 --layers 0-25"
        " --normalize none --normalize minmax --output 'many/{trait}_{name}_{norm}.npz'",
        source=None,
    )

    assert (code, out.splitlines()[-1]) == (0, "28 written, 0 unchanged")
    assert set(single) >= {FOLDER, "brave_100_features"}
    assert reads == single


def test_values_of_the_one_command_are_those_of_the_files(generate):
    code, _, _ = generate(
        f"{CONCEPT} {FEATURE} --layers 2-3,25 --target-layer 7 --target-feature 1234"
        " --normalize minmax --output '{name}.npz'"
    )
    final = [(f, int(np.flatnonzero(f["is_final_token"])[0])) for f in load_files(FOLDER)]
    X = np.array([f["hidden_states"][[2, 3, 25], t].reshape(-1) for f, t in final], np.float64)
    y = [f["activations"][7, t, 1234] for f, t in final]

    assert code == 0
    concept, feature = load_dataset("h2-3_25_to_concept.npz"), load_dataset("h7_to_f1234.npz")
    expected = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
    np.testing.assert_allclose(concept.X, expected, atol=1e-6)
    assert concept.y.tolist() == [int(f["concept_strength_label"]) for f, _ in final]
    assert feature.y.tolist() == y


def load_files(folder):
    return [np.load(path) for path in sorted(Path(folder).glob("sentence_*.npz"))]


def test_one_layer_by_either_flag_is_the_same_dataset(generate):
    generate(f"{CONCEPT} --layer 12 --output a/x.npz")
    generate(f"{CONCEPT} --layers 12 --output b/x.npz")
    generate(f"{CONCEPT} --layers 12-12,12 --output c/x.npz")

    assert contents("a") == contents("b") == contents("c")


# ---- what is combined with what --------------------------------------------------------------


def test_every_value_is_combined_with_every_other(generate):
    code, out, _ = generate(
        f"{FEATURE} --target-layer 1 --target-layer 9 --target-feature 0 --target-feature 5"
        " --input-layer 2 --input-layer 3 --normalize none --normalize minmax"
        " --output 'new/{input}+{strategy}+{target_layer}+{feature}+{input_layer}+{layers}+{norm}'"
    )
    expected = {
        f"{FOLDER}+hidden-to-feature+{layer}+{feature}+{source}+{source}+{norm}"
        for layer in (1, 9)
        for feature in (0, 5)
        for source in (2, 3)
        for norm in ("none", "minmax")
    }

    assert (code, out.splitlines()[-1]) == (0, "16 written, 0 unchanged")
    assert set(os.listdir("new")) == expected
    for name in expected:
        _, _, layer, feature, source, _, norm = name.split("+")
        dataset = load_dataset(f"new/{name}")
        assert dataset.meta["meta_target_layer"] == int(layer)
        assert dataset.meta["meta_target_feature"] == int(feature)
        assert dataset.meta["meta_input_layers"].tolist() == [int(source)]
        assert dataset.norm["norm_method"] == norm


def test_each_strategy_takes_the_options_that_it_uses(generate):
    code, _, err = generate(
        "--strategy embedding-to-concept --strategy hidden-to-concept"
        " --strategy embedding-to-feature --strategy hidden-to-feature"
        " --layer 4 --layers 1-2 --target-layer 6 --target-feature 1 --input-layer 3"
        " --output 'new/{name}.npz'"
    )

    assert (code, err) == (0, "")
    assert set(contents("new")) == {
        "emb_to_concept.npz",
        "h4_to_concept.npz",
        "h1-2_to_concept.npz",
        "emb_to_f1.npz",
        "h3_to_l6_f1.npz",
    }


def test_several_saes_of_a_layer_are_told_apart_by_l0(generate, tmp_path):
    write_folder(tmp_path / "two_features", 12, layers=(0, 1, 1))
    command = f"{FEATURE} --target-layer 1 --target-feature 2 --average-l0 80 --average-l0 90"

    code, _, err = generate(f"{command} --output '{{name}}.npz'", source="two_features")
    assert code == 2
    assert "{l0} is 80.0 and 90.0" in err
    code, _, err = generate(f"{command} --output 'new/{{name}}_{{l0}}.npz'", source="two_features")
    assert (code, err) == (0, "")
    made = {l0: load_dataset(f"new/h1_to_f2_{l0}.npz") for l0 in (80, 90)}
    for config, (l0, dataset) in enumerate(made.items(), start=1):
        assert dataset.meta["meta_average_l0"] == l0
        assert dataset.y.tolist() == [
            f["activations"][config, f["is_final_token"], 2].item()
            for f in load_files("two_features")
        ]


def test_all_layers_have_a_name(generate):
    assert generate(f"{CONCEPT} --layers all --layers 0 --output 'new/{{layers}}.npz'")[0] == 0
    assert set(contents("new")) == {"all.npz", "0.npz"}
    assert load_dataset("new/all.npz").X.shape == (14, 26 * 4)


def test_trait_is_the_name_of_the_folder_without_its_ending(tmp_path):
    for name, trait in {
        "dishonesty_100_features": "dishonesty",
        "brave_features": "brave",
        "not_brave_12_features": "not_brave",
        "my_dump": "my_dump",
    }.items():
        options = {"layers": [1]}
        (job,) = plan_datasets(
            [tmp_path / name], ["hidden-to-concept"], ["none"], options, "{trait}+{input}"
        )
        assert str(job.output) == f"{trait}+{name}"


def test_a_folder_given_as_a_path_ending_in_a_dot_has_its_own_name(generate, monkeypatch):
    monkeypatch.chdir(FOLDER)
    (job,) = plan_datasets([Path(".")], ["embedding-to-concept"], ["none"], {}, "{trait}")

    assert job.output == Path("dishonesty")


# ---- the pattern -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "pattern", "field"),
    [
        (f"{CONCEPT} --layers 0-1 --layers 2-3", "{norm}", "{layers}"),
        (f"{CONCEPT} --layer 1 --normalize none --normalize minmax", "{name}", "{norm}"),
        (f"{FEATURE} --target-layer 1 --target-feature 1 --target-feature 2", "x", "{feature}"),
        (
            f"{FEATURE} --target-layer 1 --target-layer 2 --target-feature 1",
            "{feature}",
            "{target_layer}",
        ),
        (
            f"{FEATURE} --target-layer 1 --target-feature 1 --input-layer 1 --input-layer 2",
            "{feature}",
            "{input_layer}",
        ),
        ("--strategy embedding-to-concept --input brave_100_features", "{norm}", "{trait}"),
        ("--strategy embedding-to-concept " + CONCEPT + " --layer 1", "x", "{strategy}"),
    ],
)
def test_pattern_without_a_field_that_varies_is_refused_before_any_work(
    generate, monkeypatch, arguments, pattern, field
):
    monkeypatch.setattr(
        "sklprep.activations.loading.open_activations", lambda *_, **__: pytest.fail("read")
    )

    code, out, err = generate(f"{arguments} --output 'new/{pattern}.npz'")

    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"Error: Two datasets would be written to new{os.sep}")
    assert f": {field} is " in err
    assert not Path("new").exists()


def test_help_names_the_fields_of_a_pattern(generate, capsys):
    _, _, err = generate(f"{CONCEPT} --layer 1 --output '{{}}'")
    fields = re.findall(r"\{\w+\}", err.split("its fields are")[1])

    assert main(["generate", "--help"]) == 0
    listed = capsys.readouterr().out.split("fields of an output pattern:")[1]
    assert sorted(re.findall(r"\{\w+\}", listed)) == sorted(fields)


def test_two_folders_of_one_trait_need_the_input_field(generate, tmp_path):
    (tmp_path / "dishonesty_50_features").symlink_to(FOLDER)
    (tmp_path / "other").mkdir()
    jobs = {"strategies": ["embedding-to-concept"], "normalize": ["none"], "options": {}}
    sources = [Path(FOLDER), tmp_path / "other" / "dishonesty_50_features"]

    with pytest.raises(UsageError, match=r"\{input\} is dishonesty_100_features and"):
        plan_datasets(sources, output="{trait}.npz", **jobs)
    assert len(plan_datasets(sources, output="{input}.npz", **jobs)) == 2
    sources = [tmp_path / "one" / "data", tmp_path / "two" / "data"]
    with pytest.raises(
        UsageError, match=r"one/data and .*two/data have the same name, .* to data.npz"
    ):
        plan_datasets(sources, output="{input}.npz", **jobs)


@pytest.mark.parametrize(
    "pattern", ["{nonsense}", "{}", "{0}", "{name", "name}", "{name:d}", "{norm[x]}", "{norm.x}"]
)
def test_pattern_that_cannot_be_filled_lists_the_fields(generate, pattern):
    code, out, err = generate(f"{CONCEPT} --layer 1 --output 'new/{pattern}.npz'")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"Error: The output pattern 'new/{pattern}.npz' cannot be filled")
    for field in ("trait", "input", "strategy", "name", "layers", "norm", "feature", "l0"):
        assert f"{{{field}}}" in err
    assert not Path("new").exists()


def test_doubled_braces_are_braces_of_the_file_name(generate):
    assert generate(f"{CONCEPT} --layer 1 --output 'new/{{{{x}}}}_{{layers}}.npz'")[0] == 0
    assert set(contents("new")) == {"{x}_1.npz"}


def test_output_that_is_no_place_to_write_is_refused_before_any_dataset(generate):
    Path("new").mkdir()
    Path("new/minmax").write_text("a file")

    code, out, err = generate(
        f"{CONCEPT} --layer 1 --normalize none --normalize minmax --output 'new/{{norm}}/x.npz'"
    )

    assert (code, out) == (2, "")
    assert "new/minmax is a file, not a folder" in err
    assert not Path("new/none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            f"{CONCEPT} --strategy embedding-to-concept --layer 1 --target-layer 1",
            "does not use --target-layer",
        ),
        (
            f"--strategy embedding-to-concept {CONCEPT} --layer 1 --input-layer 1",
            "does not use --input-layer",
        ),
        (
            "--strategy embedding-to-feature --strategy embedding-to-concept --layer 1"
            " --target-layer 1 --target-feature 1",
            "does not use --layer;",
        ),
        (f"{CONCEPT} {FEATURE} --layer 1", "hidden-to-feature needs --target-layer and --target-"),
        (
            f"{CONCEPT} {FEATURE} --target-layer 1 --target-feature 1",
            "hidden-to-concept needs --la",
        ),
        (f"{CONCEPT} --layer 1 --top 3", "--top needs --features-from"),
        (f"{FEATURE} --features-from f.csv --top 0", ".*--top"),
        (f"{FEATURE} --features-from f.csv --target-layer 1", "Give --features-from or"),
        (f"{FEATURE} --features-from f.csv --target-feature 1", "Give --features-from or"),
        (f"{FEATURE} --features-from f.csv --average-l0 1", "Give --features-from or"),
        (f"{CONCEPT} --features-from f.csv --layer 1", "hidden-to-concept does not use --target"),
        (f"{CONCEPT} --layer 1 --random-state 1", "--random-state and --stratify need --test-size"),
    ],
)
def test_options_that_do_not_fit_are_a_fault_of_the_command_line(generate, arguments, message):
    write_csv(["1,3,8,2,0"], name="f.csv")
    code, out, err = generate(f"{arguments} --output 'new/{{name}}.npz'")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err), err
    assert not Path("new").exists()


# ---- features of a CSV -----------------------------------------------------------------------


def test_features_come_in_the_order_of_their_rank(tmp_path):
    rows = ["3,1,8,30,x", "1,2,,10,y", "10,4,8.5,40,", "2,3,8,20,z"]
    path = tmp_path / write_csv(rows)

    expected = [(2, 10, None), (3, 20, 8.0), (1, 30, 8.0), (4, 40, 8.5)]
    assert read_features(path, None) == expected
    for top in (1, 3, 4, 9):
        assert read_features(path, top) == expected[:top]


def test_features_without_rank_and_average_l0_come_as_they_stand(tmp_path):
    path = tmp_path / write_csv(["7,2", "5,1"], header="feature_id,layer")

    assert read_features(path, None) == [(2, 7, None), (1, 5, None)]


def test_csv_of_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbflayer,feature_id\r\n1,5\r\n\r\n2,6\r\n")

    assert read_features(path, None) == [(1, 5, None), (2, 6, None)]


def test_csv_of_a_table_with_gaps_holds_whole_numbers_as_floats(tmp_path):
    path = tmp_path / "features.csv"
    path.write_text("rank,layer,average_l0,feature_id\n2.0,1.0,8.0,5.0\n1.0,2.0,,6.0\n")

    assert read_features(path, None) == [(2, 6, None), (1, 5, 8.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column 'layer' is missing; expected .*, got an empty file"),
        (b"rank,layer\n1,2\n", "column 'feature_id' is missing; .* got rank, layer"),
        (b"layer,feature_id\n", "has no features; expected one per line"),
        (b"layer,feature_id\n1,2\n\n1,x\n", r"line 4 holds \['1', 'x'\]; expected numbers"),
        (b"layer,feature_id\n1\n", "line 2 holds"),
        (b"layer,feature_id\n1.5,2\n", "line 2 holds"),
        (b"layer,feature_id\n-1,2\n", "line 2 holds"),
        (b"layer,feature_id,rank\n1,2,nan\n", "line 2 holds"),
        (b"layer,feature_id,rank\n1,2,first\n", "line 2 holds .* numbers for rank"),
        (b"layer,feature_id,average_l0\n1,2,much\n", "line 2 holds .* average_l0"),
        (b"layer,feature_id\n1,\xff\xfe\n", "is not a CSV file in UTF-8"),
        (b"layer,feature_id\n1," + b"9" * 200_000, "is not a CSV file in UTF-8 .field larger"),
    ],
)
def test_csv_that_cannot_be_read_is_one_clear_line(generate, content, message):
    Path("f.csv").write_bytes(content)
    code, out, err = generate(f"{FEATURE} --features-from f.csv --output 'new/{{name}}.npz'")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.match(f"Error: f.csv: .*{message}", err), err
    assert not Path("new").exists()


@pytest.mark.parametrize("name", ["nowhere.csv", "folder"])
def test_csv_that_is_not_there_is_named(generate, name):
    Path("folder").mkdir()
    code, _, err = generate(f"{FEATURE} --features-from {name} --output 'new/{{name}}.npz'")

    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"Error: {name}: ")


def test_csv_that_lists_a_feature_twice_is_said(generate):
    write_csv(["1,3,8,2,0", "2,3,8,2,0"])
    command = f"{FEATURE} --features-from ranked_features.csv --output '{{name}}.npz'"

    code, _, err = generate(command)

    assert code == 2
    assert err.startswith("Error: Two datasets would be written to h3_to_f2.npz: it was requested")


def test_feature_that_is_not_in_the_data_fails_alone(generate):
    write_csv(["1,3,8,2,0", "2,3,99,4,0", "3,44,8,2,0", "4,3,8,5000,0", "5,25,8,1299,0"])

    code, out, err = generate(
        f"{FEATURE} --features-from ranked_features.csv --output 'new/{{name}}.npz'"
    )

    assert code == 1
    assert set(contents("new")) == {"h3_to_f2.npz", "h25_to_f1299.npz"}
    assert "2 written, 0 unchanged, 3 failed" in out
    lines = err.splitlines()
    assert len(lines) == 3
    for line, start in zip(
        lines,
        [
            "new/h3_to_f4.npz was not written: average_l0 mismatch: ",
            "new/h44_to_f2.npz was not written: Layer 44 not found in data",
            "new/h3_to_f5000.npz was not written: Feature index must be 0-1299, got 5000",
        ],
        strict=True,
    ):
        assert line.startswith(f"Error: {start}")


def test_features_of_a_csv_go_with_both_feature_strategies_and_layers_with_the_concept(generate):
    write_csv(["1,3,8,2,0", "2,5,8,4,0"])

    code, _, _ = generate(
        f"{FEATURE} --strategy embedding-to-feature {CONCEPT} --layer 9"
        " --features-from ranked_features.csv --output 'new/{name}.npz'"
    )

    assert code == 0
    names = ("h3_to_f2", "h5_to_f4", "emb_to_f2", "emb_to_f4", "h9_to_concept")
    assert set(contents("new")) == {f"{name}.npz" for name in names}


# ---- dry runs --------------------------------------------------------------------------------


def test_dry_run_lists_what_is_then_written_and_writes_nothing(generate):
    command = (
        f"{CONCEPT} {FEATURE} --layers 0-25 --layer 3 --target-layer 2 --target-feature 1"
        " --output 'new/deep/{name}.npz'"
    )
    before = sorted(Path().iterdir())

    code, out, err = generate(f"{command} --dry-run")

    assert (code, err) == (0, "")
    assert sorted(Path().iterdir()) == before
    listed = re.findall(r"^(\S+)  X (\(.*\))  ([\d.]+) MB$", out, re.MULTILINE)
    assert len(listed) == 3
    assert generate(command)[0] == 0
    assert {name for name, _, _ in listed} == {f"new/deep/{name}" for name in contents("new/deep")}
    for name, shape, size in listed:
        X = np.load(name)["X"]
        assert ast.literal_eval(shape) == X.shape
        assert size == f"{X.nbytes / 1e6:.2f}"


def test_previewed_bytes_are_those_of_x(generate):
    jobs = plan_datasets(
        [Path(FOLDER)],
        ["hidden-to-concept", "embedding-to-concept"],
        ["none"],
        {"layers": ["all", 3, "1,2"]},
        "new/{name}.npz",
    )
    for job, found in preview_datasets(jobs, pooling="none", n_jobs=1):
        layers = f"--layers {job.options['layers']}" if job.options else ""
        generate(
            f"--strategy {job.strategy} {layers} --pooling none --normalize none"
            f" --output {job.output}"
        )
        X = np.load(job.output)["X"]
        assert (found.shape, found.n_bytes, found.unchanged) == (X.shape, X.nbytes, False)


def test_dry_run_marks_what_is_there_and_unchanged(generate):
    generate(f"{CONCEPT} --layer 1 --output new/1.npz")

    _, out, _ = generate(f"{CONCEPT} --layer 1 --layer 2 --output 'new/{{layers}}.npz' --dry-run")

    assert [line.endswith("(there, unchanged)") for line in out.splitlines()] == [True, False]


def test_dry_run_lists_the_rest_where_one_would_fail(generate):
    Path("broken_features").mkdir()

    code, out, err = generate(
        f"--input broken_features --input {FOLDER} {CONCEPT} --layer 1 --layer 40"
        " --output 'new/{trait}_{layers}.npz' --dry-run",
        source=None,
    )

    assert code == 1
    assert out.splitlines() == ["new/dishonesty_1.npz  X (14, 4)  0.00 MB"]
    starts = ("broken_1", "broken_40", "dishonesty_40")
    for line, name in zip(err.splitlines(), starts, strict=True):
        assert line.startswith(f"Error: new/{name}.npz would not be written: ")


# ---- what is there already -------------------------------------------------------------------


@pytest.fixture
def three(generate):
    """Make three datasets and return the command and the modification times by name."""
    command = f"{CONCEPT} --layer 1 --layer 2 --layer 3 --output 'new/{{layers}}.npz'"
    assert generate(command)[0] == 0
    for path in Path("new").iterdir():
        os.utime(path, ns=(10**18, 10**18))
    return command


def written():
    """Names of the datasets that were written since the fixture."""
    return {path.stem for path in Path("new").iterdir() if path.stat().st_mtime_ns != 10**18}


def test_unchanged_datasets_are_left_as_they_are(generate, three):
    code, out, err = generate(three)

    assert (code, err) == (0, "")
    assert written() == set()
    for layer in (1, 2, 3):
        assert f"Unchanged: new/{layer}.npz (--force writes it again)" in out
    assert "0 written, 3 unchanged" in out


def test_force_writes_the_same_bytes_again(generate, three):
    before = contents("new")

    code, out, _ = generate(f"{three} --force")

    assert (code, written()) == (0, {"1", "2", "3"})
    assert "3 written, 0 unchanged" in out
    assert contents("new") == before


def test_only_the_new_ones_are_written_when_values_are_added(generate, three):
    _, out, _ = generate(f"{three} --layer 4")

    assert written() == {"4"}
    assert "1 written, 3 unchanged" in out


@pytest.mark.parametrize("change", ["--normalize minmax", "--pooling mean", "--test-size 4"])
def test_changed_arguments_write_again(generate, three, change):
    assert generate(f"{three} {change}")[0] == 0
    assert written() == {"1", "2", "3"}


def test_another_seed_of_the_split_writes_again(generate, three):
    generate(f"{three} --test-size 4 --random-state 1")
    first = contents("new")
    generate(f"{three} --test-size 4 --random-state 2")

    assert all(first[name] != content for name, content in contents("new").items())


def test_changed_data_write_again(generate, tmp_path):
    write_folder(tmp_path / "own_features", 10)
    command = f"{CONCEPT} --layer 1 --output new/1.npz"
    generate(command, source="own_features")
    before = contents("new")
    assert "Unchanged" in generate(command, source="own_features")[1]

    write_folder(tmp_path / "own_features", 1, first=4, seed=99)

    assert "Wrote" in generate(command, source="own_features")[1]
    assert contents("new") != before


def test_datasets_of_other_versions_are_written_again(generate, three):
    before = contents("new")
    path = Path("new/2.npz")
    with np.load(path) as data:
        entries = dict(data)
    record = json.loads(str(entries["meta_provenance"]))
    record["versions"]["numpy"] = "1.0.0"
    entries["meta_provenance"] = np.array(json.dumps(record, sort_keys=True))
    np.savez(path, **entries)
    os.utime(path, ns=(10**18, 10**18))

    assert generate(three)[0] == 0
    assert written() == {"2"}
    assert contents("new") == before


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "no provenance"])
def test_broken_file_is_written_again(generate, three, damage):
    before = contents("new")
    path = Path("new/2.npz")
    if damage == "no provenance":
        np.savez(path, X=np.zeros((3, 2)))
    else:
        content = path.read_bytes()
        half = content[: len(content) // 2]
        flipped = half[:-1] + bytes([half[-1] ^ 1]) + content[len(half) :]
        harm = {"empty": b"", "cut": half, "flipped": flipped, "foreign": b"text " * 99}
        path.write_bytes(harm[damage])

    code, out, _ = generate(three)

    assert code == 0
    assert "1 written, 2 unchanged" in out
    assert contents("new") == before


# ---- failures --------------------------------------------------------------------------------


def test_one_failure_does_not_stop_the_rest(generate):
    code, out, err = generate(
        f"{CONCEPT} --layers 1 --layers 31 --layers 20-30 --layers 25 --output 'new/{{layers}}.npz'"
    )

    assert code == 1
    assert set(contents("new")) == {"1.npz", "25.npz"}
    assert "2 written, 0 unchanged" in out
    one, two = err.splitlines()
    assert one.startswith("Error: new/31.npz was not written: Layer 31 not found in data")
    assert two.startswith("Error: new/20-30.npz was not written: Layer 26 not found in data")


def test_a_broken_folder_among_several_fails_alone(generate, tmp_path):
    write_folder(tmp_path / "bad_features", 3)
    (tmp_path / "bad_features" / "sentence_000001.npz").write_bytes(b"PK")
    (tmp_path / "empty_features").mkdir()

    code, out, err = generate(
        f"--input bad_features --input {FOLDER} --input empty_features --input brave_100_features"
        f" {CONCEPT} --layer 1 --output 'new/{{trait}}.npz'",
        source=None,
    )

    assert code == 1
    assert set(contents("new")) == {"dishonesty.npz", "brave.npz"}
    bad, empty = err.splitlines()
    assert bad.startswith("Error: new/bad.npz was not written: bad_features/sentence_000001.npz:")
    assert empty.startswith(
        "Error: new/empty.npz was not written: No sentence_*.npz files found in empty_features"
    )
    assert "2 written, 0 unchanged" in out


def test_a_member_broken_in_one_file_stops_only_what_needs_it(generate, tmp_path):
    write_folder(
        tmp_path / "half_features",
        6,
        changes={3: {"embeddings": np.full((2, 5), np.nan, np.float32), "n_tokens": 2}},
    )

    code, _, err = generate(
        f"--strategy embedding-to-concept {CONCEPT} --layer 1 --output 'new/{{name}}.npz'",
        source="half_features",
    )

    assert code == 1
    assert set(contents("new")) == {"h1_to_concept.npz"}
    assert err.count("\n") == 1
    assert "sentence_000003.npz" in err
    assert "embeddings" in err


def test_quiet_says_nothing_but_the_failures(generate):
    code, out, err = generate(
        f"{CONCEPT} --layer 1 --layer 31 --quiet --output 'new/{{layers}}.npz'"
    )

    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_failures_leave_no_temporary_files(generate, monkeypatch):
    monkeypatch.setattr("sklprep.datasets.batch.SPOOL_BYTES", 0)
    generate(f"{CONCEPT} --layer 1 --layer 31 --output 'new/{{layers}}.npz'")

    assert os.listdir("new") == ["1.npz"]


def test_rows_through_a_temporary_pack_give_the_same_bytes(generate, monkeypatch):
    command = (
        f"{CONCEPT} {FEATURE} --strategy embedding-to-concept --layer 1 --layers 0-25"
        " --target-layer 4 --target-feature 2 --pooling mean --output '{out}/{name}.npz'"
    )
    assert generate(command.replace("{out}", "memory"))[0] == 0
    monkeypatch.setattr("sklprep.datasets.batch.SPOOL_BYTES", 0)
    assert generate(command.replace("{out}", "spooled"))[0] == 0

    assert contents("spooled") == contents("memory")
    assert set(os.listdir("spooled")) == set(contents("memory"))


# ---- splits ----------------------------------------------------------------------------------


def test_every_dataset_of_a_command_has_the_same_split(generate):
    code, _, _ = generate(
        f"{CONCEPT} {FEATURE} --layer 1 --target-layer 3 --target-feature 1"
        " --test-size 0.3 --random-state 7 --output 'new/{name}.npz'"
    )
    train, test = train_test_split(np.arange(14), test_size=0.3, random_state=7)

    assert code == 0
    for name in contents("new"):
        dataset = load_dataset(f"new/{name}")
        assert dataset.meta["meta_train_indices"].tolist() == train.tolist()
        assert dataset.meta["meta_test_indices"].tolist() == sorted(test)
        raw = dataset.X * dataset.norm["norm_std"] + dataset.norm["norm_mean"]
        np.testing.assert_allclose(dataset.norm["norm_mean"], raw[train].mean(axis=0), atol=1e-5)
