"""The command line: arguments in, one line for every fault, exit codes 0, 1 and 2."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence

from sklprep._version import __version__
from sklprep.cli import demo, generate, inspect, pack, probe, sweep, transfer
from sklprep.cli.arguments import CommandParser, Parser, join_negative
from sklprep.cli.messages import explain, print_error, show_each_once
from sklprep.exceptions import SklprepWarning

_COMMANDS = {
    "generate": (generate, "make datasets from sentence files"),
    "sweep": (sweep, "cross-validate every layer, and the choice of the best one"),
    "transfer": (transfer, "train on each of several sets, score on each of them"),
    "probe": (probe, "fit a linear probe on one layer, and save it with its score"),
    "pack": (pack, "write activations as a folder of arrays, which is read in place"),
    "inspect": (inspect, "show what a folder, pack, dataset or probe holds, and audit it"),
    "demo": (demo, "try all of it on synthetic data"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 done, 1 data at fault, 2 command line at fault."""
    parser = make_parser()
    try:
        arguments = parser.parse_args(join_negative(sys.argv[1:] if argv is None else list(argv)))
    except SystemExit as stop:
        return int(stop.code or 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SklprepWarning)
        warnings.showwarning = show_each_once(arguments.flags)
        try:
            code = int(arguments.run(arguments) or 0)
            print(end="", flush=True)  # there may be no stdout at all
            return code
        except BrokenPipeError:  # the reader of the output, such as head, has closed it
            with open(os.devnull, "w") as silence:
                os.dup2(silence.fileno(), sys.stdout.fileno())
            return 128 + getattr(signal, "SIGPIPE", 13)
        except Exception as error:
            if arguments.debug:
                traceback.print_exc()
            message, code = explain(error)
            print_error(message, arguments.flags)
            return code


def make_parser() -> Parser:
    """Build the parser of all commands."""
    parser = Parser(
        prog="sklprep",
        description="From LLM activation dumps to datasets, pipelines and leak-free answers.",
    )
    parser.add_argument("--version", action="version", version=f"sklprep {__version__}")
    parser.set_defaults(run_command=main)  # for the demo, which runs the other commands
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        module.add_arguments(command)
        command.example = module.EXAMPLE
    return parser
