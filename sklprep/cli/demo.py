"""`sklprep demo`: the whole path on synthetic data, through the real commands."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sklprep.cli.arguments import add_common
from sklprep.exceptions import SklprepError

if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet

EXAMPLE = """\
# write 100 synthetic sentence files, make five datasets from them and compare the layers
sklprep demo sklprep_demo"""

BEST_LAYER = 15

_TRAIT = "demo_100_features"
_TARGET = ("--target-layer", "12", "--target-feature", "3")
_COMMANDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("embedding-to-feature", _TARGET, "demo_emb_to_l12_f3.npz"),
    ("hidden-to-feature", _TARGET, "demo_h12_to_f3.npz"),
    ("hidden-to-concept", ("--layer", str(BEST_LAYER)), f"demo_h{BEST_LAYER}_to_concept.npz"),
    ("hidden-to-concept", ("--layers", "0-5"), "demo_h0-5_to_concept.npz"),
    ("embedding-to-concept", (), "demo_emb_to_concept.npz"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write synthetic sentence files, make five datasets from them and compare the layers."
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("sklprep_demo"),
        metavar="DIR",
        help="folder to write to; default: %(default)s",
    )
    add_common(parser)


def _run(arguments: argparse.Namespace) -> None:
    run_demo(arguments.folder, run_command=arguments.run_command, n_jobs=arguments.jobs)


def run_demo(
    folder: Path, *, run_command: Callable[[Sequence[str]], int], n_jobs: int | None = None
) -> None:
    """Write a folder of synthetic sentence files, make datasets from it, compare the layers.

    Parameters
    ----------
    folder : Path
        Created if it is missing; sentence files of an earlier demo are used again.
    run_command : callable
        Runs a command line (a list of arguments) and returns its exit code.
    n_jobs : int or None
        Files read at once.

    Raises
    ------
    SklprepError
        If a command fails.
    """
    from sklprep.activations.loading import load_activations
    from sklprep.activations.synthetic import make_activations
    from sklprep.files.atomic import atomic_folder

    source = folder / _TRAIT
    if any(source.glob("sentence_*.npz")):
        print(f"Using the sentence files in {source}.")
    else:
        print(f"Writing 100 synthetic sentence files (26 layers) to {source} ...")
        with atomic_folder(source) as made:  # the next demo takes what it finds as complete
            make_activations(100, best_layer=BEST_LAYER, random_state=0, output=made)
    for strategy, options, name in _COMMANDS:
        output = folder / "generated_datasets" / name
        command = ["generate", "--strategy", strategy, "--input", str(source)]
        command += [*options, "--output", str(output)]
        print(f"\n$ sklprep {shlex.join(command)}")
        if run_command(command) != 0:
            raise SklprepError(
                f"The command above failed. If {folder} holds other files, name another folder."
            )
    print("\nWhich layer knows the concept? Leak-free 5-fold cross-validation on the raw folder:\n")
    _print_layer_table(load_activations(source, n_jobs=n_jobs))
    print(
        f"\nThe concept was planted to peak at layer {BEST_LAYER}; neighbouring layers are within"
        " noise of each other.\nNext: sklprep inspect YOUR_FOLDER, then sklprep sweep YOUR_FOLDER"
        " (docs/quickstart.md)"
    )


def _print_layer_table(acts: ActivationSet) -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    from sklprep.transformers.layer_selector import LayerSelector
    from sklprep.transformers.normalizers import ActivationNormalizer

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    print("layer       accuracy (mean +- s.d. over folds)")
    with threadpool_limits(1, user_api="blas"):
        for layers in ("embeddings", *acts.layers.tolist()):
            pipeline = make_pipeline(
                LayerSelector(layers), ActivationNormalizer(), LogisticRegression(max_iter=1000)
            )
            scores = cross_val_score(pipeline, acts, acts.labels, cv=folds)
            bar = "#" * round(40 * scores.mean())
            print(f"{layers!s:<11} {scores.mean():.2f} +- {scores.std():.2f}  {bar}")
    majority = np.unique(acts.labels, return_counts=True)[1].max() / len(acts)
    print(f"{'majority':<11} {majority:.2f}")
