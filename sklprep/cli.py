"""The command line: arguments in, one line for every fault, exit codes 0, 1 and 2."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sklprep import __version__
from sklprep.exceptions import LayerSpecError, OutputError, SklprepError, SklprepWarning, UsageError
from sklprep.layers import ALL, format_layers, parse_layers
from sklprep.strategies import FEATURE, STRATEGIES, check_options

if TYPE_CHECKING:
    from sklprep.dataset import ProbeDataset

_NORMALIZE = ("standardize", "minmax", "none")
_POOLING = ("final", "mean", "max", "none")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 the data, 2 the command line at fault."""
    parser = _parser()
    try:
        arguments = parser.parse_args(_join_negative(sys.argv[1:] if argv is None else list(argv)))
    except SystemExit as stop:
        return int(stop.code or 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SklprepWarning)
        warnings.showwarning = _show_warning
        try:
            arguments.run(arguments)
        except (Exception, KeyboardInterrupt) as error:
            if arguments.debug:
                traceback.print_exc()
            message, code = _explain(error)
            sys.stderr.write(f"Error: {_one_line(message)}\n")
            return code
    return 0


def _explain(error: BaseException) -> tuple[str, int]:
    match error:
        case UsageError():
            return str(error), 2
        case SklprepError():
            return str(error), 1
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}.", 1
        case MemoryError():
            return "Out of memory; choose fewer layers.", 1
        case KeyboardInterrupt():
            return "Interrupted; nothing was left half-written.", 130
        case _:
            kind = type(error).__name__
            return f"Unexpected {kind}: {error}. Please report it with the output of --debug.", 1


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"Error: {_one_line(message)} (see {self.prog} --help)\n")
        raise SystemExit(2)


def _parser() -> _Parser:
    parser = _Parser(
        prog="sklprep",
        description="From LLM activation dumps to datasets, pipelines and leak-free answers.",
    )
    parser.add_argument("--version", action="version", version=f"sklprep {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="make a dataset from sentence files"))
    _add_demo(commands.add_parser("demo", help="see it all work on synthetic data"))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a dataset (X, y, parameters, pipeline) from a folder of sentence files."
    )
    parser.epilog = "strategies:\n" + "\n".join(
        f"  {name:<22}{strategy.summary}" for name, strategy in STRATEGIES.items()
    )
    parser.set_defaults(run=_generate)
    add = parser.add_argument
    add("--strategy", required=True, choices=STRATEGIES, metavar="NAME", help="see below")
    add("--input", required=True, type=Path, metavar="DIR", help="folder of sentence_*.npz files")
    add("--output", required=True, type=Path, metavar="FILE", help="dataset to write (.npz)")
    add(
        "--normalize",
        default="standardize",
        choices=_NORMALIZE,
        help="default: %(default)s",
    )
    add("--target-layer", type=int, metavar="N", help="layer of the SAE feature to predict")
    add("--target-feature", type=int, metavar="N", help="index of the SAE feature to predict")
    add("--average-l0", type=float, metavar="L0", help="which SAE, where the layer has several")
    add("--input-layer", type=_one_layer, metavar="N", help="input layer of hidden-to-feature")
    add("--layer", type=_one_layer, metavar="N", help="single input layer of hidden-to-concept")
    add("--layers", type=_layers, metavar="SPEC", help="several, such as 0-5 or 0-2,10,15-17")
    add("--pooling", default="final", choices=_POOLING, help="tokens to rows; default: %(default)s")
    add("--test-size", type=_test_size, metavar="SIZE", help="fit on training rows only")
    add("--random-state", type=int, metavar="SEED", help="of the split; default: 42")
    add("--stratify", action="store_true", help="split by label")
    add("--compress", action="store_true", help="deflate the dataset")
    _add_common(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write synthetic sentence files, run every strategy, compare the layers."
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("sklprep_demo"),
        metavar="DIR",
        help="default: %(default)s",
    )
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--jobs", type=int, default=-1, metavar="N", help="files read at once; default: all cores")
    add("--quiet", action="store_true", help="print nothing but warnings and errors")
    add("--debug", action="store_true", help="show the traceback of an error")


def _generate(arguments: argparse.Namespace) -> None:
    if arguments.layer is not None and arguments.layers is not None:
        raise UsageError("Give --layer N for one layer or --layers SPEC for several, not both.")
    given = {
        "layers": arguments.layers if arguments.layer is None else arguments.layer,
        "input_layer": arguments.input_layer,
        "target_layer": arguments.target_layer,
        "target_feature": arguments.target_feature,
        "average_l0": arguments.average_l0,
    }
    strategy = check_options(
        arguments.strategy, {name: value for name, value in given.items() if value is not None}
    )
    if arguments.test_size is None and (arguments.stratify or arguments.random_state is not None):
        raise UsageError("--random-state and --stratify belong to --test-size; give that too.")
    if arguments.stratify and strategy.output_type == FEATURE:
        raise UsageError(f"--stratify needs labels; the y of {arguments.strategy} is continuous.")
    _check_paths(arguments.input, arguments.output)

    from sklprep.activations import load_activations

    acts = load_activations(
        arguments.input,
        pooling=arguments.pooling,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
    )

    from sklprep.dataset import generate_dataset, read_only_needed, split_rows
    from sklprep.strategies import make_strategy

    pipeline, target = make_strategy(arguments.strategy, normalize=arguments.normalize, **given)
    read_only_needed(acts, pipeline, target)
    fit_rows = None
    if arguments.test_size is not None:
        seed = 42 if arguments.random_state is None else arguments.random_state
        fit_rows = split_rows(acts, arguments.test_size, seed, stratify=arguments.stratify)
    dataset = generate_dataset(
        acts,
        pipeline,
        target,
        output=arguments.output,
        strategy=arguments.strategy,
        fit_rows=fit_rows,
        compress=arguments.compress,
    )
    if not arguments.quiet:
        print(_summary(dataset, arguments.output))


def _demo(arguments: argparse.Namespace) -> None:
    from sklprep.demo import run_demo

    run_demo(arguments.folder, run_command=main, n_jobs=arguments.jobs)


def _summary(dataset: ProbeDataset, path: Path) -> str:
    import numpy as np

    meta, n = dataset.meta, len(dataset.y)
    layers = meta["meta_input_layers"]
    source = (
        f"hidden states of layer{'s' if len(layers) > 1 else ''} {format_layers(layers.tolist())}"
        if len(layers)
        else "embeddings"
    )
    if meta["meta_output_type"] == FEATURE:
        active = int(np.count_nonzero(dataset.y))
        target = (
            f"feature {meta['meta_target_feature']} of layer {meta['meta_target_layer']}"
            f" (average_l0 {meta['meta_average_l0']:g}), {dataset.y.min():.4g} to"
            f" {dataset.y.max():.4g}, active in {active} of {n} samples ({active / n:.1%})"
        )
    else:
        counts = zip(*np.unique(dataset.y, return_counts=True), strict=True)
        target = "labels " + ", ".join(f"{label}: {k} ({k / n:.1%})" for label, k in counts)
    fitted = "all rows"
    if "meta_train_indices" in meta:
        fitted = f"{len(meta['meta_train_indices'])} training rows"
    return "\n".join(
        [
            f"X  {dataset.X.shape} {dataset.X.dtype}: {source}, pooling {meta['meta_pooling']}",
            f"   normalized: {dataset.norm['norm_method']}, fitted on {fitted}",
            f"y  {dataset.y.shape} {dataset.y.dtype}: {target}",
            f"Wrote {path} ({path.stat().st_size / 1e6:.2f} MB)",
        ]
    )


def _check_paths(source: Path, output: Path) -> None:
    from sklprep.files import check_output

    check_output(output)
    if output.name.startswith("sentence_") and output.parent.resolve() == source.resolve():
        raise OutputError(f"Output {output} would be taken for an input; name another file.")


def _one_layer(text: str) -> int:
    try:
        layers = parse_layers(text)
    except LayerSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len(layers) > 1:
        raise argparse.ArgumentTypeError(
            f"takes one layer, got {text!r}; for several use --layers {text}"
        )
    return layers[0]


def _layers(text: str) -> str:
    if text == ALL:
        return text
    try:
        return format_layers(parse_layers(text))
    except LayerSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _test_size(text: str) -> float | int:
    number = int(text) if text.isdigit() else float(text)
    if not (isinstance(number, int) and number >= 1) and not 0 < number < 1:
        raise ValueError
    return number


_test_size.__name__ = "fraction between 0 and 1 or number of rows"


def _join_negative(argv: list[str]) -> list[str]:
    """Let ``--layers -1,3`` reach the layer parser, which says what is wrong with it."""
    joined: list[str] = []
    for token in argv:
        takes_layers = joined and joined[-1] in ("--layer", "--layers", "--input-layer")
        if takes_layers and re.match(r"-\s*[0-9]", token):
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"Warning: {_one_line(str(message))}\n")
