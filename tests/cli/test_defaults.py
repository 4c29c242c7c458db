"""What a help text says can be typed: its defaults, which change nothing, and its example."""

import argparse
import re
import shlex
import textwrap

import pytest

from sklprep import make_activations
from sklprep.cli.main import main, make_parser

COMMANDS = next(
    action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)
).choices
NEEDED = {
    "generate": ["--strategy", "hidden-to-concept", "--input", "in", "--output", "out.npz"],
    "sweep": ["in"],
    "transfer": ["in", "others"],
    "probe": ["in", "--layer", "12", "--output", "out.safetensors"],
    "pack": ["in", "out"],
    "inspect": ["in"],
    "demo": [],
}


def named_defaults():
    """Command, option (or nothing for a position) and each default that its help names."""
    for command, parser in COMMANDS.items():
        for action in parser._actions:
            text = re.sub(r"\(.*?\)", "", (action.help or "") % {"default": action.default})
            for part in re.split(r",? or |; ", text.partition("default: ")[2]):
                if part:
                    typed = re.sub(r" (for|with) .*", "", part).strip()
                    yield command, (action.option_strings or [None])[-1], typed


DEFAULTS = list(named_defaults())


def test_defaults_are_found_in_the_help_texts():
    assert ("sweep", "--layers", "each sae") in DEFAULTS
    assert ("sweep", "--inner-cv", "auto") in DEFAULTS
    assert ("inspect", "--threshold", "0.95") in DEFAULTS
    assert ("demo", None, "sklprep_demo") in DEFAULTS
    assert COMMANDS.keys() == {command for command, *_ in DEFAULTS}


@pytest.mark.parametrize(("command", "option", "typed"), DEFAULTS)
def test_default_that_a_help_text_names_can_be_typed(command, option, typed):
    arguments = [typed] if option is None else [option, typed]

    make_parser().parse_args([command, *NEEDED[command], *arguments])  # exits where it cannot


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_that_can_be_typed(command):
    head, _, example = COMMANDS[command].format_help().rpartition("\nexample:\n")
    comment, *lines = textwrap.dedent(example).splitlines()

    assert head
    assert comment.startswith("# ")
    program, *arguments = shlex.split(" ".join(lines).replace("\\ ", " "))
    assert "sklprep" == program
    assert command == make_parser().parse_args(arguments).command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo"
    make_activations(
        64, n_layers=2, d_model=4, n_features=24, n_tokens=(2, 3), random_state=0, output=path
    )
    return str(path)


def typed(command, *, without=(), **choices):
    """The command line that names every default; of several, the one in `choices`."""
    words = []
    for name, option, value in DEFAULTS:
        if name == command and option not in (None, *without):
            value = choices.get(option.strip("-").replace("-", "_"), value)
            if option not in words:
                words += [option, value]
    return words


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("plain", "with_defaults"),
    [
        (
            ["sweep"],
            typed(
                "sweep",
                strategy="hidden-to-concept",
                estimator="logistic",
                layers="each",
                normalize="standardize",
                scoring="accuracy",
            ),
        ),
        (
            ["sweep", "--strategy", "feature-to-concept", "--cv", "2"],
            ["--layers", "each", "--normalize", "maxabs"],
        ),
        (["sweep", "--strategy", "feature-to-concept", "--cv", "2"], ["--layers", "each sae"]),
        (["inspect", "--audit"], typed("inspect", threshold="0.7")),
    ],
)
def test_naming_every_default_changes_nothing(folder, capsys, plain, with_defaults):
    def run(arguments):
        code = main([*plain, folder, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    expected = run([])

    assert 0 == expected[0]
    assert expected == run(with_defaults)


def test_inputs_of_sae_features_need_no_strategy(folder, capsys):
    options = [folder, "--cv", "2", "--inner-cv", "2", "--quiet"]
    assert 0 == main(["sweep", *options, "--strategy", "feature-to-concept", "--layers", "1"])
    expected = capsys.readouterr().out

    assert 0 == main(["sweep", *options, "--layers", "sae 1"])
    assert expected == capsys.readouterr().out
    assert 2 == main(["sweep", *options, "--strategy", "hidden-to-concept", "--layers", "sae 1"])
    assert "Use --strategy feature-to-concept" in capsys.readouterr().err
