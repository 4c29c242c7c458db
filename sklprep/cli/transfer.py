"""`sklprep transfer`: train on each of several sets, and score on each of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklprep.cli.arguments import (
    JOINED_HELP,
    add_common,
    add_reading,
    add_target,
    folds,
    repeats,
    sweep_layers,
)
from sklprep.cli.estimators import ESTIMATORS, add_estimator, choose_estimator, make_estimator
from sklprep.cli.pictures import picture_format
from sklprep.cli.results import give_result
from sklprep.cli.scorers import SCORING_HELP, require_scorer
from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH
from sklprep.transformers.normalization_methods import METHODS

if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.sweeps.transfer_result import TransferMatrix


EXAMPLE = """\
# does a probe of one concept work for another? prints a table and draws a heat map
sklprep transfer dishonesty_100_features caring_100_features --plot transfer.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a model on each set and score it on each: on its own set by nested\n"
        "cross-validation, on the others with the layer chosen on its own set. Sentences that\n"
        "two sets share are never in both the training and the test rows.\n"
        "Options marked * may be repeated."
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="folder of sentence files, pack, or dump of another tool: two or more",
    )
    add_target(parser, repeated=False)
    joined = f"{JOINED_HELP}; give one for each INPUT, in the same order"
    for name in ("label", "group"):
        add(f"--{name}s", type=Path, action="append", metavar="CSV", help=joined.format(name))
    add_estimator(parser, ESTIMATORS)
    add(
        "--layers",
        action="append",
        type=sweep_layers,
        metavar="SPEC",
        help="* one input to choose from, such as embeddings, 12 or 0-5 (six layers joined);"
        " default: each",
    )
    normalize = "scaling of each column; default: %(default)s"
    add("--normalize", choices=METHODS, default="standardize", help=normalize)
    add("--cv", type=folds, default=5, metavar="N", help="outer folds; default: %(default)s")
    add(
        "--repeats",
        type=repeats,
        default="auto",
        metavar="N",
        help="how often to repeat the cross-validation, as in sweep; default: auto",
    )
    add("--scoring", metavar="NAME", help=SCORING_HELP)
    add(
        "--no-leave-one-out",
        action="store_true",
        help="leave out the rows that train on all sets but one",
    )
    add_reading(parser)
    add("--random-state", type=int, default=0, metavar="SEED", help="seed; default: %(default)s")
    add("--output", type=Path, metavar="CSV", help="write the cells of the matrix to this file")
    add("--plot", type=Path, metavar="PNG", help="draw the heat map and the cosines to this file")
    add_common(parser, pooling=True)


def _run(arguments: argparse.Namespace) -> int:
    _check_arguments(arguments)

    from sklprep.sweeps.transfer import transfer_matrix

    sets = _read(arguments)
    y = next(iter(sets.values()))[1]
    matrix = transfer_matrix(
        make_estimator(
            arguments.estimator,
            classify=y.dtype.kind != "f",  # labels of a CSV or a pack may be quantities
            normalize=arguments.normalize,
            seed=arguments.random_state,
        ),
        sets,
        layers=arguments.layers or EACH,
        cv=arguments.cv,
        n_repeats=arguments.repeats,
        scoring=arguments.scoring,
        leave_one_out=not arguments.no_leave_one_out,
        random_state=arguments.random_state,
        n_jobs=arguments.jobs,
        show_progress=None if not arguments.quiet else False,
    )
    return give_result(arguments, matrix, _print_matrix, _draw)


def _check_arguments(arguments: argparse.Namespace) -> None:
    from sklprep.formats.outputs import require_safe_outputs

    n_inputs = len(arguments.inputs)
    if n_inputs < 2:
        raise UsageError("transfer needs at least two INPUTs, got one.")
    tables: list[Path] = []
    for name in ("labels", "groups"):
        given = getattr(arguments, name) or []
        if given and len(given) != n_inputs:
            raise UsageError(
                f"Give --{name} once for each of the {n_inputs} INPUTs, or not at all."
            )
        tables += given
    of_feature = _is_of_feature(arguments)
    if of_feature:
        choose_estimator(arguments.estimator, classify=False)
        if arguments.labels:
            raise UsageError("--labels is for a concept target; leave it out.")
    if arguments.scoring is not None:
        require_scorer(arguments.scoring)
    require_safe_outputs([arguments.output, arguments.plot], [*arguments.inputs, *tables])
    if arguments.plot is not None:
        picture_format(arguments.plot)


def _is_of_feature(arguments: argparse.Namespace) -> bool:
    """Whether the target is an SAE feature; refuse one that is only half given."""
    given = arguments.target_layer is not None, arguments.target_feature is not None
    if any(given) != all(given) or (arguments.average_l0 is not None and not all(given)):
        raise UsageError(
            "--target-layer, --target-feature and, where a layer has several SAEs, --average-l0"
            " name a feature together; give both numbers, or neither to predict the labels."
        )
    return all(given)


def _read(arguments: argparse.Namespace) -> dict[str, tuple[ActivationSet, Any]]:
    from sklprep.activations.loading import load_activations
    from sklprep.transformers.targets import FeatureTargetExtractor

    sets: dict[str, tuple[ActivationSet, Any]] = {}
    nothing = [None] * len(arguments.inputs)
    tables = arguments.labels or nothing, arguments.groups or nothing
    for path, labels, groups in zip(arguments.inputs, *tables, strict=True):
        name = path.resolve().name
        if name in sets:
            raise UsageError(
                f"Two inputs are called {name}. Rename one: the name identifies the set."
            )
        acts = load_activations(
            path,
            pooling=arguments.pooling,
            n_jobs=arguments.jobs,
            progress=not arguments.quiet,
            labels=labels,
            groups=groups,
            format=arguments.format,
            key=arguments.key,
            layer_offset=arguments.layer_offset,
        )
        y = acts.labels
        if _is_of_feature(arguments):
            feature = arguments.target_layer, arguments.target_feature, arguments.average_l0
            y = FeatureTargetExtractor(*feature).fit_transform(acts)
        sets[name] = acts, y
    return sets


def _draw(matrix: TransferMatrix) -> Any:
    from sklprep.sweeps.transfer_plotting import TransferMatrixDisplay

    return TransferMatrixDisplay.from_matrix(matrix).figure_


def _print_matrix(matrix: TransferMatrix) -> None:
    from sklprep.sweeps.wording import name_input

    width = max(map(len, (*matrix.rows, "majority"))) + 2
    columns = [max(len(name), 19) + 2 for name in matrix.sets]

    def line(name: str, cells: list[str]) -> str:
        padded = [f"{cell:<{n}}" for cell, n in zip(cells, columns, strict=True)]
        return f"{name:<{width}}{''.join(padded)}".rstrip()

    print(f"\n{line('', matrix.sets)}")
    for i, name in enumerate(matrix.rows):
        print(line(name, [matrix.write_cell(i, j) for j in range(len(matrix.sets))]))
    if matrix.majority is not None:
        print(line("majority", [f"{score:.2f}" for score in matrix.majority]))
    print()
    if matrix.no_cosines:
        return
    where = name_input(matrix.cosine_layer)
    print(f"cosine of the directions at {where}, of two halves of the sentences")
    cosines = matrix.cosines[matrix.layers.index(matrix.cosine_layer)]
    for name, row in zip(matrix.sets, cosines, strict=True):
        print(line(name, [f"{value:.2f}" for value in row]))
    print()
