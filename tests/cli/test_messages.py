"""What is printed of errors and warnings: parameters as flags of the command that was typed."""

import shutil

import pytest

from sklprep import make_activations
from sklprep.cli.main import main
from sklprep.cli.messages import name_flags

FLAGS = {"skip_bad": "--skip-bad", "average_l0": "--average-l0", "layers": "--layers"}


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("leave them out (skip_bad=True):", "leave them out (--skip-bad):"),
        ("Give average_l0=..., one of these.", "Give --average-l0, one of these."),
        ("Give average_l0=71.5.", "Give --average-l0 71.5."),
        ("Give average_l0=1e-3 or average_l0=-2.", "Give --average-l0 1e-3 or --average-l0 -2."),
        ("layers='0-2, 7' or layers=\"9\"", "--layers '0-2, 7' or --layers 9"),
        ("Give layers=[0, 5], layers=SPEC", "Give --layers 0,5, --layers SPEC"),
    ],
)
def test_a_parameter_with_its_value_is_printed_as_the_flag(written, printed):
    assert printed == name_flags(written, FLAGS)


@pytest.mark.parametrize(
    "text",
    [
        "average_l0 mismatch: layer 12 has layers 0-5",
        "give n_rows=5",  # no flag of this command
        "use load_activations(path, skip_bad=True) first",
        "dumps/layers=12/sentence_0.npz: is at fault",
        "layers=12/sentence_0.npz: is at fault",
        "layers=12: No sentence_*.npz files found",
        "line 3 has the label 'layers=12'; expected a number",
    ],
)
def test_what_is_no_parameter_of_the_command_stays_as_it_is(text):
    assert text == name_flags(text, FLAGS)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("sweep {folder}", "(--skip-bad)"),
        ("pack {folder} {folder}.pack", "(--skip-bad)"),
        ("inspect {folder}", "(--skip-bad)"),
        ("demo {parent}", "Error: "),  # it has no such flag, and reads a folder of its own
    ],
)
def test_each_command_names_its_own_flags(tmp_path, capsys, command, named):
    folder = tmp_path / "demo_100_features"
    make_activations(
        4, n_layers=2, d_model=4, n_features=6, n_tokens=(2, 3), random_state=0, output=folder
    )
    for path in sorted(folder.iterdir())[:2]:
        path.write_bytes(b"")

    assert main(command.format(folder=folder, parent=tmp_path).split()) == 1

    err = capsys.readouterr().err
    shutil.rmtree(folder)
    assert named in err
    assert "skip_bad" not in err or command.startswith("demo")
