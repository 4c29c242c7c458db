"""`sklprep sweep`: the layer curve, and the honest answer in one sentence."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklprep.cli.arguments import (
    add_common,
    add_joined,
    add_reading,
    add_skip_bad,
    add_target,
    aggregate,
    folds,
    inner_folds,
    not_negative,
    positive,
    repeats,
    strategies_text,
    sweep_layers,
)
from sklprep.cli.estimators import ESTIMATORS, add_estimator, choose_estimator, make_estimator
from sklprep.cli.pictures import picture_format
from sklprep.cli.results import give_result
from sklprep.cli.scorers import SCORING_HELP, require_scorer
from sklprep.datasets.strategies import (
    CONCEPT,
    SAE,
    STRATEGIES,
    Strategy,
    require_method,
    require_options,
)
from sklprep.exceptions import UsageError
from sklprep.formats.layers import ALL, EACH, EACH_SAE, EMBEDDINGS
from sklprep.transformers.normalization_methods import METHODS

if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.sweeps.feature_result import FeatureSweep
    from sklprep.sweeps.sweep_result import LayerSweep

EXAMPLE = """\
# the scores of every layer as a CSV file, the curve as a picture, the answer in the last line
sklprep sweep dishonesty_100_features --output sweep.csv --plot sweep.png"""

_FEATURES = "target features, from a ranked_features.csv"
_PERMUTATIONS = "number of permutations of y for a permutation test; default: %(default)s"
_SCORING = f"* the first of several chooses the layer; {SCORING_HELP}"
_INNER = (
    "number of inner folds, which choose the layer within each training set, or 'outer' for the"
    " other outer folds; auto is outer for 4 outer folds or more, and otherwise 5; default: auto"
)
_AGGREGATE = (
    "with --pooling none, score sentences instead of tokens, by the mean, max, rolling_mean_max or"
    " top_k_mean of the decisions for their tokens; rolling_mean_max=5 sets the number of tokens"
)
_CONFOUNDS = (
    "* variable that might predict the target by itself: length (of the sentence), position (in the"
    " folder), or a CSV file with sentence_index and columns of numbers or categories"
)
_NO_TEXTS = (
    "There are no texts, so the baselines TF-IDF and sentence length are missing, and no near-"
    "duplicate texts are looked for. Store the sentences with the activations."
)
_OUTPUT = (
    "write the score of every layer, repeat and fold to this CSV file, or with --features-from"
    " those of every feature"
)
_REPEATS = (
    "how often to repeat the cross-validation, each time with new folds; auto is 10 for logistic"
    " and ridge models on hidden states and embeddings, and otherwise 1; default: auto"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cross-validate a model on every layer with the same folds, and score the choice of the\n"
        "best layer by nested cross-validation. Options marked * may be repeated."
    )
    parser.epilog = strategies_text()
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="folder of sentence files, pack, or dump of another tool; several are taken together",
    )
    add(
        "--strategy",
        choices=STRATEGIES,
        metavar="NAME",
        help="what to predict; feature-to-concept sweeps SAE features, the others hidden states and"
        " embeddings; default: hidden-to-concept, or feature-to-concept with SAEs in --layers",
    )
    add_target(parser, repeated=False)
    add("--features-from", type=Path, metavar="CSV", help=_FEATURES)
    add("--top", type=positive, metavar="N", help="only the first N features of that file")
    _add_model(parser)
    add_joined(parser)
    add_reading(parser)
    add_skip_bad(parser)
    add("--row-space", action="store_true", help="project X onto its row space: faster if wide")
    _add_outputs(parser)
    add_common(parser, pooling=True)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_estimator(parser, ESTIMATORS)
    add(
        "--layers",
        action="append",
        type=sweep_layers,
        metavar="SPEC",
        help="* one entry of the curve, such as embeddings, 12, 0-5 (six layers joined) or"
        " 'sae 12'; default: each, or each sae for feature-to-concept",
    )
    add(
        "--normalize",
        choices=METHODS,
        help="scaling of each column; default: standardize, or maxabs for feature-to-concept",
    )
    add("--cv", type=folds, default=5, metavar="N", help="outer folds; default: %(default)s")
    add("--inner-cv", type=inner_folds, default="auto", metavar="N", help=_INNER)
    add("--repeats", type=repeats, default="auto", metavar="N", help=_REPEATS)
    add("--aggregate", type=aggregate, metavar="NAME", help=_AGGREGATE)
    add("--permutations", type=not_negative, default=0, metavar="N", help=_PERMUTATIONS)
    add("--scoring", action="append", metavar="NAME", help=_SCORING)
    add("--confounds", action="append", metavar="NAME", help=_CONFOUNDS)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--random-state", type=int, default=0, metavar="SEED", help="seed; default: %(default)s")
    add("--output", type=Path, metavar="CSV", help=_OUTPUT)
    add("--plot", type=Path, metavar="PNG", help="draw the layer curve to this file")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.features_from is not None:
        return _run_features(arguments)
    if arguments.top is not None:
        raise UsageError("--top needs --features-from; give that too.")
    arguments.strategy = arguments.strategy or _find_strategy(arguments.layers)
    strategy = STRATEGIES[arguments.strategy]
    options = _target_options(arguments, strategy)
    _check_arguments(arguments, strategy)
    acts, y, layers = _read(arguments, strategy, options)
    sweep = _sweep(arguments, strategy, acts, y, layers)
    return give_result(arguments, sweep, _print_sweep, _draw)


def _target_options(arguments: argparse.Namespace, strategy: Strategy) -> dict[str, Any]:
    """Give the options of the strategy's target, all layers among them where it needs layers."""
    given = {
        name: getattr(arguments, name)
        for name in ("target_layer", "target_feature", "average_l0")
        if getattr(arguments, name) is not None
    }
    every_layer: dict[str, Any] = {"layers": ALL} if "layers" in strategy.needs else {}
    require_options(arguments.strategy, given | every_layer)
    return given | every_layer


def _sweep(
    arguments: argparse.Namespace, strategy: Strategy, acts: ActivationSet, y: Any, layers: Any
) -> LayerSweep:
    """Say how many fits are ahead, and do them."""
    from sklprep.sweeps.sweep import count_fits, layer_sweep

    # labels of a CSV or a pack may be quantities
    model = _make_model(arguments, classify=y.dtype.kind != "f")
    counted: dict[str, Any] = {
        "layers": layers,
        "cv": arguments.cv,
        "inner_cv": arguments.inner_cv,
        "n_repeats": _count_repeats(arguments, strategy, model),
        "n_permutations": arguments.permutations,
        "scoring": arguments.scoring,
    }
    options: dict[str, Any] = {"random_state": arguments.random_state}
    if arguments.confounds is not None:
        options["confounds"] = _read_confounds(arguments.confounds, acts)
    if arguments.aggregate is not None:
        options["aggregate"], options["aggregate_params"] = arguments.aggregate
    if not arguments.quiet:
        print(f"{count_fits(acts, confounds=arguments.confounds, **counted)} fits on {acts}")
        if acts.sentences is None:
            print(_NO_TEXTS)
    progress = None if not arguments.quiet else False
    options |= {"n_jobs": arguments.jobs, "show_progress": progress}
    return layer_sweep(model, acts, y, **counted, **options)


def _make_model(arguments: argparse.Namespace, *, classify: bool) -> Any:
    return make_estimator(
        arguments.estimator,
        classify=classify,
        normalize=arguments.normalize,
        seed=arguments.random_state,
        row_space=arguments.row_space,
    )


def _read_confounds(given: Sequence[str], acts: ActivationSet) -> dict[str, Any]:
    """Give the confounds that are named, or the columns of tables."""
    from sklprep.files.csv_tables import read_columns
    from sklprep.sweeps.confounds import NAMED

    found: dict[str, Any] = {}
    for name in given:
        if name in NAMED:
            found[name] = None
        else:
            others = {"sentence": lambda: acts.sentences}
            found |= read_columns(name, acts.sentence_indices, others)
    return found


_NOT_OF_FEATURES = (
    "labels",
    "confounds",
    "scoring",
    "permutations",
    "aggregate",
    "plot",
    "skip_bad",
)
"""Parameters that apply to a single target only."""


def _run_features(arguments: argparse.Namespace) -> int:
    """Sweep the features of a table on the same folds, and print them sorted."""
    from sklprep.sweeps.features import feature_sweep

    _check_features(arguments)
    (path,) = arguments.inputs
    acts = _load(arguments, path)
    sweep = feature_sweep(
        _make_model(arguments, classify=False),
        acts,
        arguments.features_from,
        top=arguments.top,
        layers=arguments.layers or EACH,
        cv=arguments.cv,
        n_repeats=arguments.repeats,
        random_state=arguments.random_state,
        n_jobs=arguments.jobs,
        show_progress=None if not arguments.quiet else False,
    )
    return give_result(arguments, sweep, _print_features)


def _check_features(arguments: argparse.Namespace) -> None:
    from sklprep.formats.outputs import require_safe_outputs

    arguments.strategy = arguments.strategy or "hidden-to-feature"
    if STRATEGIES[arguments.strategy].output_type == CONCEPT:
        raise UsageError(f"--features-from is for a feature target, not {arguments.strategy}.")
    if arguments.target_layer or arguments.target_feature or arguments.average_l0:
        raise UsageError("Give --features-from or --target-layer and --target-feature, not both.")
    for name in _NOT_OF_FEATURES:
        if getattr(arguments, name):
            flag = arguments.flags[name]
            raise UsageError(f"{flag} is for one target; leave it out with --features-from.")
    if arguments.inner_cv != "auto":
        raise UsageError("--inner-cv is for one target; leave it out with --features-from.")
    if len(arguments.inputs) > 1:
        raise UsageError(f"--features-from takes one INPUT, got {len(arguments.inputs)}.")
    if saes := list(filter(_is_sae, arguments.layers or ())):
        raise UsageError(f"--features-from sweeps hidden states, got --layers {saes[0]!r}.")
    choose_estimator(arguments.estimator, classify=False)
    arguments.normalize = arguments.normalize or "standardize"
    inputs = [*arguments.inputs, arguments.groups, arguments.features_from]
    require_safe_outputs([arguments.output], inputs)


def _print_features(sweep: FeatureSweep) -> None:
    head = ("layer", "feature", "active", "R2", "95 %", "AUROC", "95 %", "from")
    row = "{:<7}{:<9}{:<8}{:<7}{:<16}{:<7}{:<14}{}".format
    print(f"\n{row(*head)}")
    for cells in sweep.lines():
        print(row(*cells).rstrip())
    print()


def _count_repeats(arguments: argparse.Namespace, strategy: Strategy, model: Any) -> int:
    from sklprep.sweeps.running import N_REPEATS
    from sklprep.sweeps.solver import recognise_pipeline

    if arguments.repeats != "auto":
        return int(arguments.repeats)
    is_cheap = strategy.input_member != SAE and recognise_pipeline(model) is not None
    return N_REPEATS if is_cheap else 1


def _find_strategy(layers: Sequence[int | str] | None) -> str:
    """Choose the strategy where none is named: only one takes SAE features."""
    return "feature-to-concept" if any(map(_is_sae, layers or ())) else "hidden-to-concept"


def _is_sae(layers: int | str) -> bool:
    return layers == EACH_SAE or str(layers).startswith("sae ")


def _check_arguments(arguments: argparse.Namespace, strategy: Strategy) -> None:
    """Refuse options that contradict each other, and set what depends on the strategy."""
    from sklprep.formats.outputs import require_safe_outputs

    arguments.normalize = arguments.normalize or strategy.default_normalize
    if strategy.input_member == SAE:
        _check_sparse(arguments)
    elif saes := list(filter(_is_sae, arguments.layers or ())):
        raise UsageError(
            f"{arguments.strategy} sweeps hidden states and embeddings, got --layers"
            f" {saes[0]!r}. Use --strategy feature-to-concept."
        )
    is_concept = strategy.output_type == CONCEPT
    if not is_concept:
        choose_estimator(arguments.estimator, classify=False)
    if arguments.labels and not is_concept:
        raise UsageError("--labels is for a concept target; leave it out.")
    tables = [path for path in arguments.confounds or () if path not in ("length", "position")]
    if len(arguments.inputs) > 1 and (arguments.labels or arguments.groups or tables):
        flag = "--labels" if arguments.labels else "--groups" if arguments.groups else "--confounds"
        raise UsageError(
            f"{flag} names sentences by their index, which several inputs share. Sweep one INPUT,"
            " or store the values in the files."
        )
    require_safe_outputs(
        [arguments.output, arguments.plot],
        [*arguments.inputs, arguments.labels, arguments.groups, *map(Path, tables)],
    )
    if arguments.plot is not None:
        picture_format(arguments.plot)
    for name in arguments.scoring or ():
        require_scorer(name)


def _read(
    arguments: argparse.Namespace, strategy: Strategy, options: dict[str, Any]
) -> tuple[ActivationSet, Any, Any]:
    """Give the set, y, and the inputs to sweep; --skip-bad leaves out faulty files."""
    from sklearn.base import clone

    from sklprep.activations.activation_set import ActivationSet
    from sklprep.datasets.strategies import make_strategy

    _, target = make_strategy(arguments.strategy, **options)
    sets: dict[str, ActivationSet] = {}
    for path in arguments.inputs:
        name = path.resolve().name
        if name in sets:
            raise UsageError(
                f"Two inputs are called {name}. Rename one: the name tells their rows apart."
            )
        acts = _load(arguments, path)
        layers = arguments.layers or EACH
        if strategy.input_member == SAE:
            layers = _name_saes(arguments, acts)
        sets[name] = _leave_out(acts, layers, strategy, target) if arguments.skip_bad else acts
    if len(sets) > 1:
        acts = ActivationSet.concatenate(sets)
    else:
        (acts,) = sets.values()
    # labels of a CSV may be text, which no dataset holds, but which a classifier takes
    is_concept = strategy.output_type == CONCEPT
    return acts, acts.labels if is_concept else clone(target).fit_transform(acts), layers


def _load(arguments: argparse.Namespace, path: Path) -> ActivationSet:
    from sklprep.activations.loading import load_activations

    return load_activations(
        path,
        pooling=arguments.pooling,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
        labels=arguments.labels,
        groups=arguments.groups,
        skip_bad={} if arguments.skip_bad else False,  # _leave_out checks what is used
        format=arguments.format,
        key=arguments.key,
        layer_offset=arguments.layer_offset,
    )


def _leave_out(acts: ActivationSet, layers: Any, strategy: Strategy, target: Any) -> ActivationSet:
    from sklprep.activations.loading import leave_out_faulty, warn_of_left_out
    from sklprep.sweeps.inputs import members_of, read_inputs

    opened = acts.left_out
    wanted = members_of(read_inputs(layers, acts), acts) | target.find_members(acts)
    is_concept = strategy.output_type == CONCEPT
    acts = leave_out_faulty(acts, wanted, labels=is_concept, keep=True)
    warn_of_left_out(acts, opened)
    return acts


def _check_sparse(arguments: argparse.Namespace) -> None:
    require_method(arguments.strategy, arguments.normalize)
    if arguments.row_space:
        raise UsageError(f"--row-space needs dense X, and {arguments.strategy} has sparse X.")
    if arguments.estimator == "lda":
        raise UsageError(f"--estimator lda needs dense X, and {arguments.strategy} has sparse X.")
    if EMBEDDINGS in (arguments.layers or ()):
        raise UsageError(f"{arguments.strategy} sweeps SAE features, and embeddings have none.")


def _name_saes(arguments: argparse.Namespace, acts: Any) -> list[Any]:
    """Write the inputs as `layer_sweep` takes them: a bare 12 would be hidden states there."""
    from sklprep.sweeps.inputs import each_sae

    l0 = "" if arguments.average_l0 is None else f" l0 {arguments.average_l0:.17g}"
    names: list[Any] = []
    for layers in arguments.layers or [EACH_SAE]:
        if layers in (EACH, EACH_SAE):
            names += [spec.name for spec in each_sae(acts, arguments.average_l0)]
        elif _is_sae(layers):
            names.append(f"{layers}{'' if ' l0 ' in layers else l0}")
        else:
            names.append(f"sae {layers}{l0}")
    return names


def _draw(sweep: LayerSweep) -> Any:
    from sklprep.sweeps.plotting import LayerSweepDisplay

    return LayerSweepDisplay.from_sweep(sweep).figure_


def _print_sweep(sweep: LayerSweep) -> None:
    spread = "fold spread" if sweep.band is None else "95 % band"
    p_head = "" if sweep.adjusted_p_values is None else "adjusted p  "
    others = sweep.other_scores
    heads = "".join(f"{name:<{len(name) + 2}}" for name in others)
    print(f"\n{'layer':<12}{sweep.scoring:<10}  {spread:<14}{p_head}{heads}")
    for i, (layer, scores) in enumerate(zip(sweep.layers, sweep.scores, strict=True)):
        bar = "#" * round(40 * max(0.0, scores.mean()))
        around = f"{scores.std():.3f}"
        if sweep.band is not None:
            around = f"{sweep.band[0, i]:.3f}, {sweep.band[1, i]:.3f}"
        p = "" if sweep.adjusted_p_values is None else f"{sweep.adjusted_p_values[i]:<12.3g}"
        more = [f"{one.mean_scores[i]:<{len(name) + 2}.3f}" for name, one in others.items()]
        print(f"{layer!s:<12}{scores.mean():<10.3f}  {around:<14}{p}{''.join(more)}{bar}")
    for name, baseline in sweep.baselines.items():
        print(f"{name:<16}{baseline.mean:.3f}")
    print()
