"""Does a probe of one trait transfer to another?
==============================================

As far as the traits share a direction. A probe of dishonesty ranks evasion, planted at a cosine of
0.7 to it, with an AUC of 0.87, and formality, planted at a right angle, with 0.58, near chance.

The weights of a probe are noisy, so compare the cosine of two probes with that of two probes of the
*same* trait from different sentences: dishonesty and evasion have a cosine of 0.58, while
dishonesty has 0.93 with itself.

The data is synthetic, with few and nearly uncorrelated dimensions; where dimensions correlate, a
probe's direction follows the correlations too, and cosines say less. For your own data, give
folders of sentence files or packs, one per trait; each probe then chooses its layer by its own
sentences:

    pip install '.[plot]'  # in a clone of sklprep
    python plot_transfer.py dishonesty_100_features aggression_100_features
"""

# %%
# Three traits in one residual stream
# -----------------------------------
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import sklprep


def plant_traits():
    rng = np.random.default_rng(0)
    one, two, three = np.linalg.qr(rng.normal(size=(8, 3)))[0].T
    directions = {"dishonesty": one, "evasion": 0.7 * one + 0.51**0.5 * two, "formality": three}
    stream = sklprep.make_activations(600, n_layers=1, d_model=8, n_features=8, random_state=0)
    for i, (name, direction) in enumerate(directions.items()):
        rows = stream[i::3]
        labels = rng.permutation(len(rows)) % 4
        states = rows.hidden_states + 2.0 * labels[:, None, None] * direction
        yield (
            name,
            sklprep.ActivationSet.from_arrays(
                hidden_states=states, labels=labels, sentences=rows.sentences
            ),
        )


if len(sys.argv) == 2:
    sys.exit("Give at least two folders: plot_transfer.py FOLDER FOLDER")
traits = dict(plant_traits()) if len(sys.argv) == 1 else {}
for path in sys.argv[1:]:
    traits[Path(path).name.removesuffix("_features")] = sklprep.load_activations(path)

# %%
# Train on each, test on each
# ---------------------------
# The folds split the sentences of all traits together, so that a sentence that two traits share is
# never on both sides. A label of 2 or 3 counts as present; AUC asks whether the probe ranks these
# sentences above the others, whatever its threshold. The layer is chosen within the training
# sentences, so that it does not depend on the other trait.
probe = make_pipeline(
    sklprep.ActivationNormalizer(), LogisticRegression(C=0.1, solver="newton-cg", max_iter=1000)
)
found = sklprep.transfer_matrix(
    probe,
    {name: (acts, acts.labels >= 2) for name, acts in traits.items()},
    layers=["each"],
    scoring="roc_auc",
)
print(found.summary())

# %%
# The directions
# --------------
# Dividing the weights by the scales of the columns gives the direction in the residual stream. Each
# trait has two directions, one from each half of the sentences.
cosines = found.cosines[found.layers.index(found.cosine_layer)]
for name, row in zip(found.sets, cosines, strict=True):
    print(f"{name:<12} cosines", *row.round(2))

# %%
# The picture
# -----------
display = sklprep.TransferMatrixDisplay.from_matrix(found)
display.figure_.savefig("transfer.png", dpi=120)
