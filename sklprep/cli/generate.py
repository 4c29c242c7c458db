"""`sklprep generate`: datasets from sentence files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sklprep.cli.arguments import (
    add_common,
    add_joined,
    add_reading,
    add_skip_bad,
    add_target,
    one_layer,
    positive,
    several_layers,
    strategies_text,
    test_size,
)
from sklprep.cli.messages import explain, print_error
from sklprep.datasets.strategies import FEATURE, STRATEGIES
from sklprep.exceptions import UsageError
from sklprep.transformers.normalization_methods import METHODS

if TYPE_CHECKING:
    from sklprep.datasets.batch import HoldOut
    from sklprep.datasets.generation import FittedDataset
    from sklprep.datasets.plans import DatasetPlan

    _Failure: TypeAlias = tuple[DatasetPlan, Exception]


EXAMPLE = """\
# hidden states of layer 12 and the concept label of every sentence, standardized
sklprep generate --strategy hidden-to-concept --input dishonesty_100_features --layer 12 \\
  --output h12_to_concept.npz"""

_FIELDS = """\
fields of an output pattern:
  {input}, {trait}      name of the input folder, in full and without _100_features
  {strategy}, {name}    the strategy, and a short name such as h0-5_to_concept
  {layers}, {norm}      input layers, and normalization
  {target_layer}, {feature}, {l0}, {input_layer}
                        options of a strategy that predicts a feature"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a dataset (X, y, parameters, pipeline) from a folder of sentence files.\n"
        "Options marked * may be repeated: their values are combined in every way, each folder\n"
        "is read once, and FILE is then a pattern such as out/{trait}_{name}_{norm}.npz."
    )
    parser.epilog = f"{strategies_text()}\n\n{_FIELDS}"
    parser.set_defaults(run=_run)
    _add_combined(parser)
    add = parser.add_argument
    features = "target features, from a ranked_features.csv"
    add("--features-from", type=Path, metavar="CSV", help=features)
    add("--top", type=positive, metavar="N", help="only the first N features of that file")
    add_joined(parser)
    add_reading(parser)
    add_skip_bad(parser)
    add(
        "--test-size",
        type=test_size,
        metavar="SIZE",
        help="hold out this fraction or number of rows; the pipeline is fitted on the others",
    )
    add("--random-state", type=int, metavar="SEED", help="seed of the split; default: 42")
    add("--stratify", action="store_true", help="keep the proportions of the labels in the split")
    add("--compress", action="store_true", help="compress the dataset file")
    add("--dry-run", action="store_true", help="only list the datasets that would be written")
    add("--force", action="store_true", help="write datasets again that are unchanged")
    add_common(parser, pooling=True)


def _add_combined(parser: argparse.ArgumentParser) -> None:
    """Add the options whose values are combined, and the output."""

    def add(flag: str, **options: Any) -> None:
        parser.add_argument(flag, action="append", **options)

    strategies = "* what to predict from what; see below"
    add("--strategy", required=True, choices=STRATEGIES, metavar="NAME", help=strategies)
    folder = "* folder of sentence_*.npz files, pack, or dump of another tool"
    add("--input", required=True, type=Path, metavar="DIR", help=folder)
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="dataset to write (.npz), or a pattern"
    )
    methods = "* scaling of each column; default: standardize, or maxabs for feature-to-concept"
    add("--normalize", choices=METHODS, help=methods)
    add("--layer", type=_one_layer, metavar="N", help="* one input layer")
    several = "* several input layers, such as 0-5 or 0-2,10,15-17"
    add("--layers", type=several_layers, metavar="SPEC", help=several)
    add_target(parser, repeated=True)


def _one_layer(text: str) -> int:
    return one_layer(text, f"; for several use --layers {text}")


def _run(arguments: argparse.Namespace) -> int:
    from sklprep.formats.dumps.dump import Reading
    from sklprep.formats.outputs import require_safe_outputs

    _check_combinations(arguments)
    if arguments.layer and not arguments.layers:  # both set the parameter `layers`
        arguments.flags = {**arguments.flags, "layers": "--layer"}
    plans = _plan(arguments)
    options = {
        "pooling": arguments.pooling,
        "n_jobs": arguments.jobs,
        "labels": arguments.labels,
        "groups": arguments.groups,
        "reading": Reading(arguments.format, arguments.key, arguments.layer_offset),
        "hold_out": _read_hold_out(arguments),
        "skip_bad": arguments.skip_bad,
    }
    inputs = (*arguments.input, arguments.labels, arguments.groups, arguments.features_from)
    require_safe_outputs([plan.output for plan in plans], inputs)
    if arguments.dry_run:
        failed, what = _preview(plans, options), "would not be written"
    else:
        failed, what = _make(arguments, plans, options), "was not written"
    return _print_failures(failed, what, len(plans), arguments.flags)


def _plan(arguments: argparse.Namespace) -> list[DatasetPlan]:
    from sklprep.datasets.plans import plan_datasets
    from sklprep.files.csv_tables import read_features

    features = []
    if arguments.features_from is not None:
        if arguments.target_layer or arguments.target_feature or arguments.average_l0:
            raise UsageError(
                "Give --features-from or --target-layer and --target-feature, not both."
            )
        features = read_features(arguments.features_from, arguments.top)
    return plan_datasets(
        arguments.input,
        arguments.strategy,
        arguments.normalize or (),
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


def _preview(plans: Sequence[DatasetPlan], options: dict[str, Any]) -> list[_Failure]:
    """List what would be written; return what would not."""
    from sklprep.datasets.batch import preview_datasets

    failed = []
    for plan, found in preview_datasets(plans, **options):
        if isinstance(found, Exception):
            failed.append((plan, found))
            continue
        note = "  (there, unchanged)" if found.unchanged else ""
        print(f"{plan.output}  X {found.shape}  {found.n_bytes / 1e6:.2f} MB{note}")
    return failed


def _make(
    arguments: argparse.Namespace, plans: Sequence[DatasetPlan], options: dict[str, Any]
) -> list[_Failure]:
    """Make the datasets and say so; return those that failed."""
    from sklprep.datasets.batch import make_datasets

    report = make_datasets(
        plans,
        progress=not arguments.quiet,
        compress=arguments.compress,
        force=arguments.force,
        on_written=(lambda *_: None) if arguments.quiet else _print_summary,
        **options,
    )
    if not arguments.quiet:
        for plan in report.unchanged:
            print(f"Unchanged: {plan.output} (--force writes it again)")
        if len(plans) > 1:
            failed = f", {len(report.failed)} failed" if report.failed else ""
            print(f"{len(report.written)} written, {len(report.unchanged)} unchanged{failed}")
    return report.failed


def _check_combinations(arguments: argparse.Namespace) -> None:
    strategies = arguments.strategy
    if len(strategies) == 1 and arguments.layer and arguments.layers:
        raise UsageError("Give --layer N for one layer or --layers SPEC for several, not both.")
    if arguments.top is not None and arguments.features_from is None:
        raise UsageError("--top needs --features-from; give that too.")
    if len(arguments.input) > 1 and (arguments.labels or arguments.groups):
        raise UsageError(
            "--labels and --groups refer to the sentences of one --input; give only one --input."
        )
    if arguments.labels and all(STRATEGIES[name].output_type == FEATURE for name in strategies):
        raise UsageError("--labels is for a concept target; leave it out.")


def _print_failures(
    failed: Sequence[_Failure], what: str, n_plans: int, flags: Mapping[str, str]
) -> int:
    """Print each error, and each line about a faulty file once; return the exit code."""
    if failed and n_plans == 1:
        raise failed[0][1]
    from sklprep.files.faults import brief

    printed: set[str] = set()
    for plan, error in failed:
        head, *lines = explain(error)[0].splitlines()
        new = [line for line in lines if line not in printed]
        first = f"{plan.output} {what}: {head if new or not lines else brief(error)}"
        print_error("\n".join([first, *new]), flags)
        printed.update(new)
    return 1 if failed else 0


def _read_hold_out(arguments: argparse.Namespace) -> HoldOut | None:
    if arguments.test_size is None:
        if arguments.stratify or arguments.random_state is not None:
            raise UsageError("--random-state and --stratify need --test-size; give that too.")
        return None
    for name in arguments.strategy if arguments.stratify else ():
        if STRATEGIES[name].output_type == FEATURE:
            raise UsageError(f"--stratify needs labels; the y of {name} is continuous.")
    from sklprep.datasets.batch import HoldOut

    seed = 42 if arguments.random_state is None else arguments.random_state
    return HoldOut(arguments.test_size, seed, arguments.stratify)


def _print_summary(plan: DatasetPlan, dataset: FittedDataset) -> None:
    from sklprep.datasets.facts import gather_facts
    from sklprep.notebook.words import format_counts

    facts = gather_facts(
        dataset.shape, "float32", dataset.y, dataset.meta, dataset.norm, dataset.pipeline
    )
    y, n = facts.y, facts.y.n_rows
    if y.counts is None:
        target = (
            f"feature {facts.target_feature} of layer {facts.target_layer}"
            f" (average_l0 {facts.average_l0:g}), {y.low:.4g} to {y.high:.4g},"
            f" active in {y.n_active} of {n} samples ({y.n_active_rows / n:.1%})"
        )
    else:
        target = f"labels {format_counts(y.counts)}"
    grouped = f", rows of {facts.n_groups:,} groups" if facts.n_groups < n else ""
    fitted = "all rows" if facts.n_train is None else f"{facts.n_train} training rows"
    print(
        f"X  {facts.shape} {facts.dtype}: {facts.input}, pooling {facts.pooling}{grouped}\n"
        f"   normalized: {facts.norm}, fitted on {fitted}\n"
        f"y  {facts.y_shape} {facts.y_dtype}: {target}\n"
        f"Wrote {plan.output} ({plan.output.stat().st_size / 1e6:.2f} MB)"
    )
