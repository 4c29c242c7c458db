"""Does a probe of one trait transfer to another?
==============================================

As far as the traits share a direction. A probe of dishonesty ranks evasion, planted at a cosine of
0.7 to it, with an AUC of 0.87, and formality, planted at a right angle, with 0.58, near chance.

Weights of a probe are noisy, so hold a cosine of two probes against that of two probes of the
*same* trait from different sentences: dishonesty and evasion agree by 0.55, where dishonesty
agrees with itself by 0.79.

The data is synthetic, with few and nearly uncorrelated dimensions; where dimensions correlate, a
probe's direction follows them too, and cosines say less. For your own, give the layer to compare
at, and folders of sentence files or packs, one a trait:

    pip install 'sklprep[plot]'
    python plot_transfer.py 12 dishonesty_100_features aggression_100_features
"""

# %%
# Three traits in one residual stream
# -----------------------------------
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
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


if len(sys.argv) > 1:
    if len(sys.argv) < 4 or not sys.argv[1].isdigit():
        sys.exit("Give a layer and at least two folders: plot_transfer.py 12 FOLDER FOLDER")
    layer = int(sys.argv[1])
    traits = {
        Path(path).name.removesuffix("_features"): sklprep.load_activations(path)
        for path in sys.argv[2:]
    }
else:
    layer, traits = 0, dict(plant_traits())


# %%
# Train on one, test on the other
# -------------------------------
# The folds split the sentences of all traits together, so that a sentence which two traits share is
# never on both sides. A label of 2 or 3 counts as present; AUC asks whether the probe ranks these
# sentences above the others, wherever its threshold lies.
def fit(acts, rows):
    probe = make_pipeline(
        sklprep.LayerSelector(layer),
        sklprep.ActivationNormalizer(),
        LogisticRegression(C=0.1, solver="newton-cg", max_iter=1000),
    )
    return probe.fit(acts[rows], acts.labels[rows] >= 2)


names = list(traits)
texts = np.unique(np.concatenate([acts.sentences for acts in traits.values()]))
auc = np.zeros((5, len(names), len(names)))
for fold, (_, held_out) in enumerate(KFold(5, shuffle=True, random_state=0).split(texts)):
    is_test = {name: np.isin(traits[name].sentences, texts[held_out]) for name in names}
    for i, source in enumerate(names):
        probe = fit(traits[source], ~is_test[source])
        for j, target in enumerate(names):
            acts = traits[target][is_test[target]]
            auc[fold, i, j] = roc_auc_score(acts.labels >= 2, probe.decision_function(acts))
auc = auc.mean(axis=0)


# %%
# The directions
# --------------
# Dividing the weights by the scales of the columns gives the direction in the residual stream. Each
# trait has two, from either half of its sentences.
def directions(acts):
    half = np.isin(acts.sentences, texts[np.random.default_rng(0).permutation(len(texts))[::2]])
    for rows in (half, ~half):
        probe = fit(acts, rows)
        direction = probe[-1].coef_[0] / probe[1].norm_params_["norm_std"]
        yield direction / np.linalg.norm(direction)


first, second = np.swapaxes([list(directions(acts)) for acts in traits.values()], 0, 1)
cosines = first @ second.T
cosines = (cosines + cosines.T) / 2
for name, row, cosine in zip(names, auc, cosines, strict=True):
    print(f"{name:<12} AUC", *row.round(2), " cosines", *cosine.round(2))

# %%
# The picture
# -----------
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
panels = [(axes[0], auc, 0.5), (axes[1], cosines, 0)]
for ax, values, low in panels:
    ax.imshow(values, cmap="cividis", vmin=low, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        color = "k" if value > (low + 1) / 2 else "w"
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)
    ax.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    ax.set_yticks(range(len(names)), [name.replace("_", "\n") for name in names])
    ax.spines[:].set_visible(False)
axes[0].set(xlabel="tested on", ylabel="trained on", title="AUC of the probe\n(chance 0.5)")
axes[1].set(title="Cosine of the directions\n(diagonal: of two halves)")
figure.savefig("transfer.png", dpi=120)
