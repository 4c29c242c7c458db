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
from sklprep.exceptions import LayerSpecError, SklprepError, SklprepWarning, UsageError
from sklprep.layers import ALL, EMBEDDINGS, format_layers, parse_layers
from sklprep.strategies import CONCEPT, FEATURE, STRATEGIES, check_options

if TYPE_CHECKING:
    from sklprep.batch import Job, Split
    from sklprep.dataset import FittedDataset
    from sklprep.sweep import LayerSweep

_NORMALIZE = ("standardize", "minmax", "none")
_ESTIMATORS = ("logistic", "ridge", "svm", "random-forest")
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
            return int(arguments.run(arguments) or 0)
        except (Exception, KeyboardInterrupt) as error:
            if arguments.debug:
                traceback.print_exc()
            message, code = _explain(error)
            _print_error(message)
            return code


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
            return "Out of memory; use a pack (sklprep pack), or fewer layers.", 1
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
    _add_generate(commands.add_parser("generate", help="make datasets from sentence files"))
    _add_sweep(commands.add_parser("sweep", help="ask which layer knows it, honestly"))
    _add_pack(commands.add_parser("pack", help="make a folder of arrays, read in place"))
    _add_demo(commands.add_parser("demo", help="see it all work on synthetic data"))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a dataset (X, y, parameters, pipeline) from a folder of sentence files.\n"
        "Options marked * may be repeated: every value is combined with every other, each folder\n"
        "is read once, and FILE is a pattern such as out/{trait}_{name}_{norm}.npz."
    )
    parser.epilog = _strategies_text()
    parser.set_defaults(run=_generate)
    add = parser.add_argument
    add("--strategy", required=True, action="append", choices=STRATEGIES, metavar="NAME", help="*")
    add(
        "--input",
        required=True,
        action="append",
        type=Path,
        metavar="DIR",
        help="* folder of sentence_*.npz files, or a pack",
    )
    add("--output", required=True, metavar="FILE", help="dataset to write (.npz), or a pattern")
    add(
        "--normalize",
        action="append",
        choices=_NORMALIZE,
        help="* default: standardize",
    )
    add("--layer", type=_one_layer, action="append", metavar="N", help="* one input layer")
    add(
        "--layers",
        type=_layers,
        action="append",
        metavar="SPEC",
        help="* several input layers, such as 0-5 or 0-2,10,15-17",
    )
    _add_target(parser, repeated=True)
    add("--features-from", type=Path, metavar="CSV", help="features of a ranked_features.csv")
    add("--top", type=_positive, metavar="N", help="only the first N of them")
    add("--test-size", type=_test_size, metavar="SIZE", help="fit on training rows only")
    add("--random-state", type=int, metavar="SEED", help="of the split; default: 42")
    add("--stratify", action="store_true", help="split by label")
    add("--compress", action="store_true", help="deflate the dataset")
    add("--dry-run", action="store_true", help="list what would be written")
    add("--force", action="store_true", help="write even what is there and unchanged")
    _add_common(parser, pooling=True)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cross-validate a model on every layer with the same folds, and score the choice of the\n"
        "best layer by nested cross-validation."
    )
    parser.epilog = _strategies_text()
    parser.set_defaults(run=_sweep)
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="folder of sentence_*.npz files, or a pack")
    add(
        "--strategy",
        default="hidden-to-concept",
        choices=STRATEGIES,
        metavar="NAME",
        help="its target is y; default: %(default)s",
    )
    _add_target(parser, repeated=False)
    add("--estimator", choices=_ESTIMATORS, help="default: logistic for labels, ridge for features")
    add(
        "--layers",
        action="append",
        type=_sweep_layers,
        metavar="SPEC",
        help="* one entry of the curve, such as embeddings, 12 or 0-5; default: each",
    )
    add("--normalize", default="standardize", choices=_NORMALIZE, help="default: %(default)s")
    add("--cv", type=_folds, default=5, metavar="N", help="outer folds; default: %(default)s")
    add("--permutations", type=_not_negative, default=0, metavar="N", help="permutation control")
    add("--scoring", metavar="NAME", help="a scikit-learn scorer; default: accuracy or r2")
    add("--groups", type=Path, metavar="CSV", help="columns sentence_index, group")
    add("--row-space", action="store_true", help="project onto the row space: faster when wide")
    add("--random-state", type=int, default=0, metavar="SEED", help="default: %(default)s")
    add("--output", type=Path, metavar="CSV", help="write the scores there")
    add("--plot", type=Path, metavar="PNG", help="draw the layer curve there")
    _add_common(parser, pooling=True)


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a folder of sentence files as plain arrays that are read in place, or add its new\n"
        "files to such a pack. An interrupted run goes on where it stopped."
    )
    parser.set_defaults(run=_pack)
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="folder of sentence files; a pack to --verify")
    add("output", type=Path, nargs="?", metavar="OUT", help="the pack")
    add("--verify", action="store_true", help="compare every digest")
    _add_common(parser, pooling=True)


def _add_target(parser: argparse.ArgumentParser, *, repeated: bool) -> None:
    action, mark = ("append", "* ") if repeated else ("store", "")

    def add(flag: str, metavar: str, kind: Any, text: str) -> None:
        parser.add_argument(flag, type=kind, action=action, metavar=metavar, help=mark + text)

    add("--target-layer", "N", int, "layer of the SAE feature to predict")
    add("--target-feature", "N", int, "index of the SAE feature to predict")
    add("--average-l0", "L0", float, "which SAE, where the layer has several")
    if repeated:
        add("--input-layer", "N", _one_layer, "input layer of hidden-to-feature")


def _strategies_text() -> str:
    return "strategies:\n" + "\n".join(
        f"  {name:<22}{strategy.summary}" for name, strategy in STRATEGIES.items()
    )


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


def _add_common(parser: argparse.ArgumentParser, *, pooling: bool = False) -> None:
    add = parser.add_argument
    if pooling:
        add("--pooling", default="final", choices=_POOLING, help="default: %(default)s")
    add("--jobs", type=_jobs, default=-1, metavar="N", help="files read at once; default: all")
    add("--quiet", action="store_true", help="print nothing but warnings and errors")
    add("--debug", action="store_true", help="show the traceback of an error")


def _generate(arguments: argparse.Namespace) -> int:
    from sklprep.batch import plan_jobs, preview_jobs, read_features, run_jobs
    from sklprep.files import check_output

    strategies = arguments.strategy
    if len(strategies) == 1 and arguments.layer and arguments.layers:
        raise UsageError("Give --layer N for one layer or --layers SPEC for several, not both.")
    if arguments.top is not None and arguments.features_from is None:
        raise UsageError("--top belongs to --features-from; give that too.")
    features = []
    if arguments.features_from is not None:
        if arguments.target_layer or arguments.target_feature or arguments.average_l0:
            raise UsageError(
                "Give --features-from or --target-layer and --target-feature, not both."
            )
        features = read_features(arguments.features_from, arguments.top)
    jobs = plan_jobs(
        arguments.input,
        strategies,
        arguments.normalize or ["standardize"],
        {
            "layers": [*(arguments.layer or ()), *(arguments.layers or ())],
            "input_layer": arguments.input_layer or (),
            "target_layer": arguments.target_layer or (),
            "target_feature": arguments.target_feature or (),
            "average_l0": arguments.average_l0 or (),
            "features": features,
        },
        arguments.output,
    )
    split = _read_split(arguments)
    for job in jobs:
        check_output(job.output)
    if arguments.dry_run:
        faults = []
        for job, found in preview_jobs(
            jobs, pooling=arguments.pooling, n_jobs=arguments.jobs, split=split
        ):
            if isinstance(found, Exception):
                faults.append((job, found))
                continue
            note = "  (there, unchanged)" if found.unchanged else ""
            print(f"{job.output}  X {found.shape}  {found.n_bytes / 1e6:.2f} MB{note}")
        return _print_faults(faults, "would not be written", n_jobs=len(jobs))
    report = run_jobs(
        jobs,
        pooling=arguments.pooling,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
        split=split,
        compress=arguments.compress,
        force=arguments.force,
        on_written=(lambda *_: None) if arguments.quiet else _print_summary,
    )
    if not arguments.quiet:
        for job in report.unchanged:
            print(f"Unchanged: {job.output} (--force writes it again)")
        if len(jobs) > 1:
            print(f"{len(report.written)} written, {len(report.unchanged)} unchanged")
    return _print_faults(report.failed, "was not written", n_jobs=len(jobs))


def _print_faults(faults: Sequence[tuple[Job, Exception]], what: str, *, n_jobs: int) -> int:
    if faults and n_jobs == 1:
        raise faults[0][1]
    for job, error in faults:
        _print_error(f"{job.output} {what}: {_explain(error)[0]}")
    return 1 if faults else 0


def _read_split(arguments: argparse.Namespace) -> Split | None:
    if arguments.test_size is None:
        if arguments.stratify or arguments.random_state is not None:
            raise UsageError("--random-state and --stratify belong to --test-size; give that too.")
        return None
    for name in arguments.strategy if arguments.stratify else ():
        if STRATEGIES[name].output_type == FEATURE:
            raise UsageError(f"--stratify needs labels; the y of {name} is continuous.")
    from sklprep.batch import Split

    seed = 42 if arguments.random_state is None else arguments.random_state
    return Split(arguments.test_size, seed, arguments.stratify)


def _sweep(arguments: argparse.Namespace) -> int:
    from sklprep.files import check_output

    strategy = STRATEGIES[arguments.strategy]
    given = {
        name: getattr(arguments, name)
        for name in ("target_layer", "target_feature", "average_l0")
        if getattr(arguments, name) is not None
    }
    every_layer: dict[str, Any] = {"layers": ALL} if "layers" in strategy.needs else {}
    check_options(arguments.strategy, given | every_layer)
    estimator = arguments.estimator or ("logistic" if strategy.output_type == CONCEPT else "ridge")
    if (estimator in ("logistic", "ridge")) and (
        (estimator == "logistic") != (strategy.output_type == CONCEPT)
    ):
        other = "ridge" if estimator == "logistic" else "logistic"
        raise UsageError(
            f"--estimator {estimator} does not fit this target; use {other}, svm or random-forest."
        )
    for path in (arguments.output, arguments.plot):
        if path is not None:
            check_output(path)
    if arguments.plot is not None:
        _picture_format(arguments.plot)
    if arguments.scoring is not None:
        _check_scorer(arguments.scoring)

    from sklprep.activations import load_activations

    acts = load_activations(
        arguments.input,
        pooling=arguments.pooling,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
    )

    from sklearn.base import clone

    from sklprep.strategies import make_strategy
    from sklprep.sweep import count_fits, layer_sweep

    _, target = make_strategy(arguments.strategy, **given, **every_layer)
    model = _make_estimator(estimator, strategy.output_type, arguments)
    counted: dict[str, Any] = {
        "layers": arguments.layers or "each",
        "cv": arguments.cv,
        "n_permutations": arguments.permutations,
    }
    options: dict[str, Any] = {
        "scoring": arguments.scoring,
        "groups": None if arguments.groups is None else _read_groups(arguments.groups, acts),
        "random_state": arguments.random_state,
    }
    y = clone(target).fit_transform(acts)
    if not arguments.quiet:
        print(f"{count_fits(acts, **counted)} fits on {acts}")
    sweep = layer_sweep(
        model,
        acts,
        y,
        n_jobs=arguments.jobs,
        show_progress=None if not arguments.quiet else False,
        **counted,
        **options,
    )
    if arguments.output is not None:
        sweep.to_csv(arguments.output)
    if arguments.plot is not None:
        _save_plot(sweep, arguments.plot)
    if not arguments.quiet:
        _print_sweep(sweep)
    print(sweep.summary())
    return 0


def _save_plot(sweep: LayerSweep, path: Path) -> None:
    import matplotlib as mpl

    from sklprep.files import atomic_write
    from sklprep.plotting import LayerSweepDisplay

    mpl.use("Agg")
    figure = LayerSweepDisplay.from_sweep(sweep).figure_
    with atomic_write(path) as file:
        figure.savefig(file, format=_picture_format(path), dpi=150, bbox_inches="tight")


def _check_scorer(name: str) -> None:
    from difflib import get_close_matches

    from sklearn.metrics import get_scorer_names

    names = get_scorer_names()
    if name not in names:
        near = get_close_matches(name, names) or ["accuracy", "balanced_accuracy", "r2"]
        raise UsageError(
            f"--scoring {name} is no scorer of scikit-learn; choose one such as {', '.join(near)}."
        )


def _picture_format(path: Path) -> str:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise UsageError(
            "--plot needs matplotlib, which is not installed: pip install 'sklprep[plot]'."
        ) from None
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in FigureCanvasBase.filetypes:
        raise UsageError(f"--plot {path}: {kind} is no picture format; name it .png, .svg or .pdf.")
    return kind


def _print_sweep(sweep: LayerSweep) -> None:
    print(f"\n{'layer':<12}{sweep.scoring:<10}  fold spread")
    for layer, scores in zip(sweep.layers, sweep.scores, strict=True):
        bar = "#" * round(40 * max(0.0, scores.mean()))
        print(f"{layer!s:<12}{scores.mean():<10.3f}  {scores.std():<11.3f}  {bar}")
    for name, baseline in sweep.baselines.items():
        print(f"{name:<16}{baseline.mean:.3f}")
    print()


def _make_estimator(name: str, output_type: str, arguments: argparse.Namespace) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC, LinearSVR

    from sklprep.normalizers import ActivationNormalizer
    from sklprep.rowspace import RowSpaceProjector

    classify = output_type == CONCEPT
    seed = arguments.random_state
    model = {
        "logistic": lambda: LogisticRegression(solver="newton-cg", max_iter=1000),
        "ridge": Ridge,
        "svm": lambda: (
            LinearSVC(dual=True, max_iter=10_000, random_state=seed)
            if classify
            else LinearSVR(dual=True, max_iter=10_000, random_state=seed)
        ),
        "random-forest": lambda: (
            RandomForestClassifier(random_state=seed)
            if classify
            else RandomForestRegressor(random_state=seed)
        ),
    }[name]()
    projector = [RowSpaceProjector()] if arguments.row_space else []
    if projector and name == "random-forest":
        raise UsageError("--row-space changes what a random forest sees; leave it out.")
    return make_pipeline(ActivationNormalizer(arguments.normalize), *projector, model)


def _read_groups(path: Path, acts: Any) -> Any:
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns, rows = reader.fieldnames or (), list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{path}: is no CSV file in UTF-8 ({error}).") from None
    if not {"sentence_index", "group"} <= set(columns):
        raise UsageError(
            f"{path}: expected the columns sentence_index and group, got"
            f" {', '.join(columns) or 'an empty file'}."
        )
    try:
        group_of = {int(row["sentence_index"]): row["group"] for row in rows if row["group"]}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: sentence_index must be whole numbers ({error}).") from None
    missing = [index for index in acts.sentence_indices.tolist() if index not in group_of]
    if missing:
        raise UsageError(
            f"{path}: {len(missing)} sentences have no group, sentence_index {missing[0]} first;"
            " expected a line for each."
        )
    import numpy as np

    return np.array([group_of[index] for index in acts.sentence_indices.tolist()])


def _pack(arguments: argparse.Namespace) -> int:
    from sklprep.packs import Pack, build_pack, is_pack
    from sklprep.sentences import SentenceFolder

    if arguments.output is None:
        if not (arguments.verify and is_pack(arguments.input)):
            raise UsageError("Give INPUT and OUT; one path alone is a pack to --verify.")
        pack = Pack(arguments.input, pooling=None)
    else:
        source = SentenceFolder(
            arguments.input,
            pooling=arguments.pooling,
            n_jobs=arguments.jobs,
            progress=not arguments.quiet,
        )
        pack = build_pack(source, arguments.output)
    faults = pack.verify() if arguments.verify else []
    for fault in faults:
        _print_error(fault)
    if not arguments.quiet and not faults:
        n_files = pack.manifest["n_sentences"]
        verified = ", every digest is right" if arguments.verify else ""
        print(f"{pack.path}: {n_files} sentences, {pack.n_rows} rows{verified}")
    return 1 if faults else 0


def _demo(arguments: argparse.Namespace) -> None:
    from sklprep.demo import run_demo

    run_demo(arguments.folder, run_command=main, n_jobs=arguments.jobs)


def _print_summary(job: Job, dataset: FittedDataset) -> None:
    import numpy as np

    meta, y, n = dataset.meta, dataset.y, len(dataset.y)
    layers = meta["meta_input_layers"]
    source = (
        f"hidden states of layer{'s' if len(layers) > 1 else ''} {format_layers(layers.tolist())}"
        if len(layers)
        else "embeddings"
    )
    if meta["meta_output_type"] == FEATURE:
        active = int(np.count_nonzero(y))
        target = (
            f"feature {meta['meta_target_feature']} of layer {meta['meta_target_layer']}"
            f" (average_l0 {meta['meta_average_l0']:g}), {y.min():.4g} to {y.max():.4g},"
            f" active in {active} of {n} samples ({active / n:.1%})"
        )
    else:
        counts = zip(*np.unique(y, return_counts=True), strict=True)
        target = "labels " + ", ".join(f"{label}: {k} ({k / n:.1%})" for label, k in counts)
    fitted = "all rows"
    if "meta_train_indices" in meta:
        fitted = f"{len(meta['meta_train_indices'])} training rows"
    print(
        f"X  {dataset.shape} float32: {source}, pooling {meta['meta_pooling']}\n"
        f"   normalized: {dataset.norm['norm_method']}, fitted on {fitted}\n"
        f"y  {y.shape} {y.dtype}: {target}\n"
        f"Wrote {job.output} ({job.output.stat().st_size / 1e6:.2f} MB)"
    )


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


def _layers(text: str) -> int | str:
    if text == ALL:
        return text
    try:
        layers = parse_layers(text)
    except LayerSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    # --layers 12 asks for what --layer 12 does, down to the bytes
    return layers[0] if len(layers) == 1 else format_layers(layers)


def _sweep_layers(text: str) -> int | str:
    return text if text == EMBEDDINGS else _layers(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "whole number above 0"


def _folds(text: str) -> int:
    number = int(text)
    if number < 2:
        raise ValueError
    return number


_folds.__name__ = "number of folds"


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


_not_negative.__name__ = "whole number from 0"


def _jobs(text: str) -> int:
    number = int(text)
    if number == 0:
        raise ValueError
    return number


_jobs.__name__ = "number of jobs"


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


def _print_error(message: str) -> None:
    sys.stderr.write(f"Error: {_one_line(message)}\n")
