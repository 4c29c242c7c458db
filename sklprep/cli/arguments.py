"""What the commands' arguments have in common: the parser, option groups, argument types."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from sklprep.cli.messages import one_line
from sklprep.datasets.strategies import STRATEGIES
from sklprep.exceptions import LayerSpecError
from sklprep.formats.layers import (
    ALL,
    EACH,
    EACH_SAE,
    EMBEDDINGS,
    format_layers,
    parse_layers,
)
from sklprep.formats.pooling import POOLINGS


class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"Error: {one_line(message)} (see {self.prog} --help)\n")
        raise SystemExit(2)


class CommandParser(Parser):
    """Parser of one command; it reports a mistyped flag before any missing argument.

    The parsed arguments have `flags`, the flag of each parameter, for
    `sklprep.cli.messages.name_flags`; a flag that is not named after its parameter has that
    parameter as its `dest`. The help ends with a worked `example`.
    """

    example = ""

    def __init__(self, **kwargs: Any) -> None:
        self._flags: dict[str, str] = {}
        super().__init__(**kwargs)
        self.set_defaults(flags=self._flags)

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        action = super().add_argument(*names, **kwargs)
        if action.option_strings:
            self._flags[action.dest] = action.option_strings[-1]
        return action

    def format_help(self) -> str:
        lines = "".join(f"  {line}\n" for line in self.example.splitlines())
        return f"{super().format_help()}\nexample:\n{lines}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for text in itertools.takewhile(lambda text: text != "--", args or ()):
            flag = text.split("=")[0]
            if flag.startswith("--") and flag not in self._flags.values():
                import difflib

                close = difflib.get_close_matches(flag, self._flags.values(), 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                self.error(f"unrecognized argument {flag}{hint}")
        return super().parse_known_args(args, namespace)


def add_target(parser: argparse.ArgumentParser, *, repeated: bool) -> None:
    action, mark = ("append", "* ") if repeated else ("store", "")

    def add(flag: str, metavar: str, kind: Any, text: str) -> None:
        parser.add_argument(flag, type=kind, action=action, metavar=metavar, help=mark + text)

    add("--target-layer", "N", int, "layer of the SAE feature to predict")
    add("--target-feature", "N", int, "index of the SAE feature to predict")
    add("--average-l0", "L0", float, "average_l0 of its SAE, where the layer has several")
    if repeated:
        add(
            "--input-layer",
            "N",
            one_layer,
            "input layer of hidden-to-feature, if not the target layer",
        )


JOINED_HELP = (
    "CSV or Parquet file with a column {}, joined by a column sentence_index, file or sentence"
)


def add_joined(parser: argparse.ArgumentParser) -> None:
    for name in ("label", "group"):
        parser.add_argument(
            f"--{name}s",
            type=Path,
            metavar="CSV",
            help=JOINED_HELP.format(name),
        )


def add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--format",
        metavar="NAME",
        help="format of another tool's dump, where it should not be recognized automatically",
    )
    add("--key", metavar="NAME", help="name of the dump's arrays, such as 'layer_{layer}'")
    add(
        "--layer-offset",
        type=int,
        default=0,
        metavar="N",
        help="number to add to the dump's layer numbers; the sum -1 stands for the embeddings",
    )


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out files in which data that the command needs is damaged",
    )


def add_common(parser: argparse.ArgumentParser, *, pooling: bool = False) -> None:
    add = parser.add_argument
    if pooling:
        rows = (
            "how the tokens of a sentence become rows: its final token, their mean or max, or every"
            " token by itself (none); default: final (a pack keeps its own)"
        )
        add("--pooling", choices=POOLINGS, help=rows)
    parallel = "how many files to read or models to fit at once; default: all (of the CPU's cores)"
    add("--jobs", type=n_jobs, default=-1, metavar="N", help=parallel)
    add("--quiet", action="store_true", help="print only the result, warnings and errors")
    add("--debug", action="store_true", help="also print the traceback of an error")


def strategies_text() -> str:
    return "strategies:\n" + "\n".join(
        f"  {name:<22}{strategy.summary}" for name, strategy in STRATEGIES.items()
    )


def one_layer(text: str, advice: str = "") -> int:
    try:
        layers = parse_layers(text)
    except LayerSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len(layers) > 1:
        raise argparse.ArgumentTypeError(f"takes one layer, got {text!r}{advice}")
    return layers[0]


def several_layers(text: str) -> int | str:
    if text == ALL:
        return text
    try:
        layers = parse_layers(text)
    except LayerSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    # --layers 12 must give the same bytes as --layer 12
    return layers[0] if len(layers) == 1 else format_layers(layers)


def sweep_layers(text: str) -> int | str:
    """Read an input of a sweep as its results print it, or a word that stands for several."""
    if text in (EACH, EACH_SAE, EMBEDDINGS):
        return text
    kind, _, layers = text.partition(" ")
    try:
        read = several_layers(layers.partition(" l0 ")[0] if kind == "sae" else text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{error} An entry may also be {EMBEDDINGS}, {EACH}, 'sae 12' or '{EACH_SAE}'."
        ) from None
    return text if kind == "sae" else read


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


positive.__name__ = "whole number above 0"


def folds(text: str) -> int:
    number = int(text)
    if number < 2:
        raise ValueError
    return number


folds.__name__ = "number of folds"


def inner_folds(text: str) -> int | str:
    return text if text in ("auto", "outer") else folds(text)


inner_folds.__name__ = "number of folds, 'outer' or 'auto'"


def repeats(text: str) -> int | str:
    if text == "auto":
        return text
    number = int(text)
    if number < 1:
        raise ValueError
    return number


repeats.__name__ = "number of repeats or 'auto'"


def aggregate(text: str) -> tuple[str, dict[str, int] | None]:
    """Read a name, perhaps followed by ``=`` and its parameter."""
    name, _, number = text.partition("=")
    parameters = {"rolling_mean_max": "window", "top_k_mean": "k"}
    if not number:
        return name, None
    return name, {parameters.get(name, "n"): positive(number)}


aggregate.__name__ = "name, or name=number"


def not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


not_negative.__name__ = "whole number from 0"


def n_jobs(text: str) -> int:
    number = -1 if text == "all" else int(text)
    if number == 0:
        raise ValueError
    return number


n_jobs.__name__ = "number of jobs"


def test_size(text: str) -> float | int:
    number = int(text) if text.isdigit() else float(text)
    if not (isinstance(number, int) and number >= 1) and not 0 < number < 1:
        raise ValueError
    return number


test_size.__name__ = "fraction between 0 and 1 or number of rows"


def join_negative(argv: list[str]) -> list[str]:
    """Pass ``--layers -1,3`` on to the layer parser, which can say what is wrong with it."""
    joined: list[str] = []
    for token in argv:
        takes_layers = joined and joined[-1] in ("--layer", "--layers", "--input-layer")
        if takes_layers and re.match(r"-\s*[0-9]", token):
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined
