"""Can embeddings predict an SAE feature?
======================================

Hardly, and only where they are averaged over the sentence: R2 is 0.20 for features of layer 0 and
0.01 at layer 2, where hidden states reach 0.78. The trap is the *final* token: its embedding is
that of a full stop, the same in every sentence, and predicts no feature at all.

The data is synthetic. For your own data, give a folder of sentence files (not a pack, which has one
pooling only, while this compares two):

    pip install '.[plot]'  # in a clone of sklprep
    python plot_predict_feature.py dishonesty_100_features
"""

# %%
# Sentences that end in a full stop
# ---------------------------------
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

import sklprep


def make_folder():
    folder = Path(tempfile.mkdtemp(), "synthetic")
    sklprep.make_activations(
        300, n_layers=3, d_model=8, n_features=8, n_tokens=(6, 14), random_state=0, output=folder
    )
    full_stop = np.random.default_rng(0).normal(size=8)
    for path in folder.glob("*.npz"):
        members = dict(np.load(path))
        members["embeddings"][-1] = full_stop
        np.savez(path, **members)
    return folder


folder = sys.argv[1] if len(sys.argv) > 1 else make_folder()


# %%
# Five features of each layer
# ---------------------------
# They are those that are active most often. A feature that is active in a handful of sentences
# cannot be scored.
def most_active(acts, layer, n=5):
    n_active = (acts.sae_activations(layer) != 0).sum(axis=0)
    return np.argsort(-n_active, kind="stable")[:n]


def r2(acts, layer, inputs):
    """Mean over the features, and over 5 folds of whole sentences."""
    probe = make_pipeline(
        sklprep.LayerSelector(inputs),
        sklprep.ActivationNormalizer(),
        RidgeCV(np.logspace(-1, 4, 6)),
    )
    folds = GroupKFold(5, shuffle=True, random_state=0)
    return np.mean(
        [
            cross_val_score(probe, acts, acts.feature(layer, feature), groups=acts.groups, cv=folds)
            for feature in most_active(acts, layer)
        ]
    )


# %%
# Final token against mean over the tokens
# ----------------------------------------
# The pooling applies to X and to y.
scores = {}
for pooling in ("final", "mean"):
    acts = sklprep.load_activations(folder, pooling=pooling)
    layers = [int(layer) for layer in acts.layers if layer in acts.sae_layers]
    scores[pooling, "hidden states of the layer"] = [r2(acts, layer, layer) for layer in layers]
    scores[pooling, "embeddings"] = [r2(acts, layer, "embeddings") for layer in layers]
for (pooling, inputs), values in scores.items():
    print(f"{pooling:<6}{inputs:<28}", *(f"{value:6.2f}" for value in values))

# %%
# The picture
# -----------
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for ax, pooling in zip(axes, ("final", "mean"), strict=True):
    for (where, inputs), values in scores.items():
        if where == pooling:
            color, marker = ("#D55E00", "s") if inputs == "embeddings" else ("#0072B2", "o")
            ax.plot(layers, values, marker=marker, color=color, label=inputs)
    ax.axhline(0, color="0.4", linestyle=":", label="predicting the mean")
    ax.set_xticks(layers)
    ax.set_xlabel("Layer of the features")
    ax.spines[["top", "right"]].set_visible(False)
    best = max(scores[pooling, "embeddings"])
    where = {"final": "Final token", "mean": "Mean over tokens"}[pooling]
    ax.set_title(f"{where}: embeddings reach $R^2$ {best + 0:.2f}", fontsize="medium", loc="left")
axes[0].set_ylabel("$R^2$ (5-fold, mean of 5 features)")
axes[0].set_ylim(min(-0.1, *np.ravel(list(scores.values()))), 1)
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
)
figure.savefig("predict_feature.png", dpi=120)
