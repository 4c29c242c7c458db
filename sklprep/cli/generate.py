"""`sklprep generate`: datasets from sentence files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sklprep.cli.arguments import (
    add_common,
    add_joined,
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
from sklprep.formats.layers import format_layers
from sklprep.transformers.methods import METHODS

if TYPE_CHECKING:
    from sklprep.datasets.batch import Job, Split
    from sklprep.datasets.generation import FittedDataset


_FIELDS = """\
fields of an output pattern:
  {input}, {trait}      name of the folder, and the same without _100_features
  {strategy}, {name}    its name, and a short one such as h0-5_to_concept
  {layers}, {norm}      input layers, normalization
  {target_layer}, {feature}, {l0}, {input_layer}
                        of a feature target"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a dataset (X, y, parameters, pipeline) from a folder of sentence files.\n"
        "Options marked * may be repeated: every value is combined with every other, each folder\n"
        "is read once, and FILE is a pattern such as out/{trait}_{name}_{norm}.npz."
    )
    parser.epilog = f"{strategies_text()}\n\n{_FIELDS}"
    parser.set_defaults(run=_run)
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
        choices=METHODS,
        help="* default: standardize; for feature-to-concept maxabs",
    )
    add("--layer", type=one_layer, action="append", metavar="N", help="* one input layer")
    add(
        "--layers",
        type=several_layers,
        action="append",
        metavar="SPEC",
        help="* several input layers, such as 0-5 or 0-2,10,15-17",
    )
    add_target(parser, repeated=True)
    add("--features-from", type=Path, metavar="CSV", help="features of a ranked_features.csv")
    add("--top", type=positive, metavar="N", help="only the first N of them")
    add_joined(parser)
    add_skip_bad(parser)
    add(
        "--test-size",
        type=test_size,
        metavar="SIZE",
        help="fit on training rows only",
    )
    add("--random-state", type=int, metavar="SEED", help="of the split; default: 42")
    add("--stratify", action="store_true", help="split by label")
    add("--compress", action="store_true", help="deflate the dataset")
    add("--dry-run", action="store_true", help="list what would be written")
    add("--force", action="store_true", help="write even what is there and unchanged")
    add_common(parser, pooling=True)


def _run(arguments: argparse.Namespace) -> int:
    from sklprep.datasets.batch import plan_jobs, preview_jobs, run_jobs
    from sklprep.files.csv_tables import read_features
    from sklprep.formats.outputs import require_safe_outputs

    strategies = arguments.strategy
    _check_combinations(arguments)
    joined = {"labels": arguments.labels, "groups": arguments.groups}
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
    split = _read_split(arguments)
    require_safe_outputs(
        [job.output for job in jobs], [*arguments.input, *joined.values(), arguments.features_from]
    )
    if arguments.dry_run:
        faults = []
        for job, found in preview_jobs(
            jobs,
            pooling=arguments.pooling,
            n_jobs=arguments.jobs,
            split=split,
            skip_bad=arguments.skip_bad,
            **joined,
        ):
            if isinstance(found, Exception):
                faults.append((job, found))
                continue
            note = "  (there, unchanged)" if found.unchanged else ""
            print(f"{job.output}  X {found.shape}  {found.n_bytes / 1e6:.2f} MB{note}")
        return _print_faults(faults, "would not be written", len(jobs), arguments.flags)
    report = run_jobs(
        jobs,
        pooling=arguments.pooling,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
        split=split,
        **joined,
        compress=arguments.compress,
        force=arguments.force,
        skip_bad=arguments.skip_bad,
        on_written=(lambda *_: None) if arguments.quiet else _print_summary,
    )
    if not arguments.quiet:
        for job in report.unchanged:
            print(f"Unchanged: {job.output} (--force writes it again)")
        if len(jobs) > 1:
            failed = f", {len(report.failed)} failed" if report.failed else ""
            print(f"{len(report.written)} written, {len(report.unchanged)} unchanged{failed}")
    return _print_faults(report.failed, "was not written", len(jobs), arguments.flags)


def _check_combinations(arguments: argparse.Namespace) -> None:
    strategies = arguments.strategy
    if len(strategies) == 1 and arguments.layer and arguments.layers:
        raise UsageError("Give --layer N for one layer or --layers SPEC for several, not both.")
    if arguments.top is not None and arguments.features_from is None:
        raise UsageError("--top belongs to --features-from; give that too.")
    if len(arguments.input) > 1 and (arguments.labels or arguments.groups):
        raise UsageError("--labels and --groups name the sentences of one --input; give just one.")
    if arguments.labels and all(STRATEGIES[name].output_type == FEATURE for name in strategies):
        raise UsageError("--labels is for a concept target; leave it out.")


def _print_faults(
    faults: Sequence[tuple[Job, Exception]], what: str, n_jobs: int, flags: Mapping[str, str]
) -> int:
    if faults and n_jobs == 1:
        raise faults[0][1]
    from sklprep.files.faults import brief

    said: set[str] = set()
    for job, error in faults:
        head, *lines = explain(error)[0].splitlines()
        new = [line for line in lines if line not in said]
        first = f"{job.output} {what}: {head if new or not lines else brief(error)}"
        print_error("\n".join([first, *new]), flags)
        said.update(new)
    return 1 if faults else 0


def _read_split(arguments: argparse.Namespace) -> Split | None:
    if arguments.test_size is None:
        if arguments.stratify or arguments.random_state is not None:
            raise UsageError("--random-state and --stratify belong to --test-size; give that too.")
        return None
    for name in arguments.strategy if arguments.stratify else ():
        if STRATEGIES[name].output_type == FEATURE:
            raise UsageError(f"--stratify needs labels; the y of {name} is continuous.")
    from sklprep.datasets.batch import Split

    seed = 42 if arguments.random_state is None else arguments.random_state
    return Split(arguments.test_size, seed, arguments.stratify)


def _print_summary(job: Job, dataset: FittedDataset) -> None:
    import numpy as np

    meta, y, n = dataset.meta, dataset.y, len(dataset.y)
    layers = meta["meta_input_layers"]
    source = meta["meta_input_source"].replace("_", " ")
    if len(layers):
        source += f" of layer{'s' if len(layers) > 1 else ''} {format_layers(layers.tolist())}"
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
    grouped = ""
    if "meta_groups" in meta:
        grouped = f", rows of {len(np.unique(meta['meta_groups'])):,} groups"
    fitted = "all rows"
    if "meta_train_indices" in meta:
        fitted = f"{len(meta['meta_train_indices'])} training rows"
    print(
        f"X  {dataset.shape} float32: {source}, pooling {meta['meta_pooling']}{grouped}\n"
        f"   normalized: {dataset.norm['norm_method']}, fitted on {fitted}\n"
        f"y  {y.shape} {y.dtype}: {target}\n"
        f"Wrote {job.output} ({job.output.stat().st_size / 1e6:.2f} MB)"
    )
