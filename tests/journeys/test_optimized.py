"""What cannot work is refused in the same words under ``python -O``, which drops asserts."""

import subprocess
import sys
import warnings

import sklprep

ASK = """
import sys, warnings
import numpy as np
import sklprep
from sklprep.exceptions import SklprepError

warnings.simplefilter("ignore")
folder = sys.argv[1]
rng = np.random.default_rng(0)
bare = sklprep.ActivationSet.from_arrays(labels=[0, 1] * 4, sentences=["a"] * 8, layers=[3],
                                         hidden_states=rng.normal(size=(8, 1, 4)))
acts = sklprep.load_activations(folder)
for ask in (
    lambda: bare.embeddings,
    lambda: bare.sae_activations(3),
    lambda: sklprep.ActivationSet.from_arrays(embeddings=np.ones((2, 2))).hidden_states,
    lambda: sklprep.ActivationSet.from_arrays(embeddings=np.ones((2, 2))).layer(0),
    lambda: sklprep.ActivationSet.from_arrays(embeddings=np.ones((2, 2))).labels,
    lambda: acts.layer(9),
    lambda: acts.feature(1, 99),
    lambda: sklprep.LayerSelector("5-2").fit(acts),
    lambda: sklprep.LayerSelector("embeddings").fit(np.ones((4, 2, 3))),
    lambda: sklprep.ConceptTargetExtractor().fit_transform(np.ones((4, 2))),
    lambda: sklprep.make_strategy("hidden-to-feature", target_layer=1),
    lambda: sklprep.load_activations(f"{folder}/nowhere"),
    lambda: sklprep.load_dataset(f"{folder}/sentence_000000.npz"),
    lambda: sklprep.layer_sweep(None, acts, acts.labels, cv=99, inner_cv=None),
):
    try:
        found = ask()
    except (SklprepError, TypeError) as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print(f"nothing was refused: {found!r}")
"""


def test_refusals_do_not_depend_on_asserts(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo_features"
    sklprep.make_activations(
        12, n_layers=2, d_model=4, n_features=6, n_tokens=(2, 3), random_state=0, output=folder
    )

    done = subprocess.run(
        [sys.executable, "-O", "-c", f"assert False, 'this is -O'\n{ASK}", str(folder)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["", str(folder)])
    with warnings.catch_warnings():
        exec(ASK, {})

    assert capsys.readouterr().out == done.stdout
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines)) == (0, "", 14)
    for line, start in zip(
        lines,
        [
            "DataError: This set has no embeddings",
            "DataError: This set has no activations",
            "DataError: This set has no hidden_states",
            "DataError: This set has no hidden_states",
            "DataError: This set has no labels",
            "LayerNotFoundError: Layer 9 not found in data",
            "FeatureNotFoundError: Feature index must be 0-5",
            "LayerSpecError: Layer range '5-2' runs backwards",
            "TypeError: ",
            "TypeError: ",
            "UsageError: hidden-to-feature needs target_feature",
            "DataError: No sentence_*.npz files found in",
            "FileFormatError: ",
            "InsufficientDataError: ",
        ],
        strict=True,
    ):
        assert line.startswith(start)
