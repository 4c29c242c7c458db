"""`sklprep probe`: a linear probe of one layer, cross-validated and written as a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklprep.cli.arguments import (
    add_common,
    add_joined,
    add_reading,
    add_skip_bad,
    add_target,
    folds,
    one_layer,
    repeats,
)
from sklprep.cli.estimators import LINEAR, add_estimator, choose_estimator, make_estimator
from sklprep.cli.scorers import SCORING_HELP, require_scorer
from sklprep.exceptions import UsageError
from sklprep.formats.layers import EMBEDDINGS
from sklprep.transformers.normalization_methods import METHODS

if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet


EXAMPLE = """\
# a probe of layer 12, with its score, as a file that numpy or torch can apply
sklprep probe dishonesty_100_features --layer 12 --output probe.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fit a linear probe on one layer and write it as a safetensors file: weight and bias in\n"
        "units of the residual stream, with the threshold and the cross-validated score."
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add(
        "input",
        type=Path,
        metavar="INPUT",
        help="folder of sentence files, pack, or dump of another tool",
    )
    add("--layer", required=True, type=_layer, metavar="N", help="layer number, or embeddings")
    add("--output", required=True, type=Path, metavar="FILE", help="safetensors file to write")
    add_target(parser, repeated=False)
    add_estimator(parser, LINEAR)
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
    add("--random-state", type=int, default=0, metavar="SEED", help="seed; default: %(default)s")
    add_joined(parser)
    add_reading(parser)
    add_skip_bad(parser)
    add_common(parser, pooling=True)


def _layer(text: str) -> int | str:
    return text if text == EMBEDDINGS else one_layer(text)


def _run(arguments: argparse.Namespace) -> int:
    from sklprep.formats.outputs import require_safe_outputs

    of_feature = _is_of_feature(arguments)
    if of_feature:
        choose_estimator(arguments.estimator, classify=False)
    if arguments.scoring is not None:
        require_scorer(arguments.scoring)
    inputs = [arguments.input, arguments.labels, arguments.groups]
    require_safe_outputs([arguments.output], inputs)

    from sklprep.probes.fitting import fit_probe
    from sklprep.probes.probe_file import save_probe

    acts = _load(arguments, of_feature)
    y = _read_target(arguments, acts) if of_feature else acts.labels
    model = make_estimator(
        arguments.estimator,
        classify=y.dtype.kind != "f",  # labels of a CSV or a pack may be quantities
        normalize=arguments.normalize,
        seed=arguments.random_state,
    )
    fitted = fit_probe(
        model,
        acts,
        y,
        arguments.layer,
        cv=arguments.cv,
        n_repeats=arguments.repeats,
        scoring=arguments.scoring,
        random_state=arguments.random_state,
        n_jobs=arguments.jobs,
        show_progress=None if not arguments.quiet else False,
    )
    save_probe(fitted.probe, arguments.output)
    if not arguments.quiet:
        print(f"{arguments.output}: {fitted.probe}")
        stability = fitted.probe.stability or {}
        print(
            f"Cosine of its directions across folds: mean {stability['mean']:.2f}, lowest"
            f" {stability['lowest']:.2f}"
        )
    print(fitted.sweep.summary())
    return 0


def _is_of_feature(arguments: argparse.Namespace) -> bool:
    """Whether the target is an SAE feature; refuse one that is only half given."""
    given = arguments.target_layer is not None, arguments.target_feature is not None
    if any(given) != all(given) or (arguments.average_l0 is not None and not all(given)):
        raise UsageError(
            "--target-layer, --target-feature and, where a layer has several SAEs, --average-l0"
            " name a feature together; give both numbers, or neither to predict the labels."
        )
    if all(given) and arguments.labels:
        raise UsageError("--labels is for a concept target; leave it out.")
    return all(given)


def _load(arguments: argparse.Namespace, of_feature: bool) -> ActivationSet:
    from sklprep.activations.loading import load_activations

    skip_bad: Any = False
    if arguments.skip_bad:
        is_layer = arguments.layer != EMBEDDINGS
        skip_bad = {"layers": [arguments.layer]} if is_layer else {"embeddings": True}
        if not of_feature:
            skip_bad["labels"] = True
    return load_activations(
        arguments.input,
        pooling=arguments.pooling,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
        labels=arguments.labels,
        groups=arguments.groups,
        skip_bad=skip_bad,
        format=arguments.format,
        key=arguments.key,
        layer_offset=arguments.layer_offset,
    )


def _read_target(arguments: argparse.Namespace, acts: ActivationSet) -> Any:
    from sklprep.transformers.targets import FeatureTargetExtractor

    target = FeatureTargetExtractor(
        arguments.target_layer, arguments.target_feature, arguments.average_l0
    )
    return target.fit_transform(acts)
