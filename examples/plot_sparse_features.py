"""SAE features, or hidden states?
===============================

Features: the best one alone scores 0.70, and the best eight 0.84. The best single column of the
hidden states scores 0.49, and all 64 together 0.61: the concept is a direction, which a feature
reads, while a column mixes many directions.

The k best are chosen inside the pipeline, on the training rows of each fold. Chosen once on all
rows, they may look better than they are. The data is synthetic: feature 0 of each layer reads the
concept, which was planted to peak at layer 3. For your own data, give a folder of sentence files or
a pack, and a layer:

    pip install '.[plot]'  # in a clone of sklprep
    python plot_sparse_features.py dishonesty_100_features 12
"""

# %%
# The activations
# ---------------
import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

import sklprep

layer = 3
acts = sklprep.make_activations(
    200, n_layers=5, d_model=64, n_features=2048, best_layer=layer, random_state=0
)
if len(sys.argv) > 1:
    acts, layer = sklprep.load_activations(sys.argv[1]), int(sys.argv[2])
features = acts.sae_activations(layer)
print(
    f"{features.shape[1]:,} features, {features.nnz / len(acts):.0f} of them active in a sentence"
)

# %%
# The best k of each
# ------------------
# X stays sparse, as `maxabs` scales without shifting. Features that are dead in the training rows
# are left out.
folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
ks = [1, 2, 4, 8, 16, 32]


def accuracy(X, *steps):
    probe = make_pipeline(*steps, LogisticRegression(C=10, solver="newton-cg", max_iter=1000))
    return cross_val_score(probe, X, acts.labels, groups=acts.groups, cv=folds)


select, sparse = sklprep.LayerSelector(layer), sklprep.SAEFeatureSelector(layer)
scaler = sklprep.ActivationNormalizer("maxabs")
curves = {
    "SAE features": [
        accuracy(acts, sparse, VarianceThreshold(), scaler, SelectKBest(f_classif, k=k)) for k in ks
    ],
    "hidden-state columns": [
        accuracy(acts, select, sklprep.ActivationNormalizer(), SelectKBest(f_classif, k=k))
        for k in ks
    ],
}
alive = VarianceThreshold().fit_transform(features)
curves["SAE features, chosen on all rows (leak)"] = [
    accuracy(SelectKBest(f_classif, k=k).fit_transform(alive, acts.labels), scaler) for k in ks
]
whole = accuracy(acts, select, sklprep.ActivationNormalizer()).mean()
for name, scores in curves.items():
    print(f"{name}:", *(f"{k}: {s.mean():.2f}" for k, s in zip(ks, scores, strict=True)))
print(f"all {acts.d_model} columns: {whole:.2f}")

# %%
# The picture
# -----------
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
styles = (("#0072B2", "o-"), ("#D55E00", "s-"), ("#0072B2", "o:"))
for (name, scores), (color, style) in zip(curves.items(), styles, strict=True):
    means, spread = np.mean(scores, axis=1), np.std(scores, axis=1)
    leak = style.endswith(":")
    ax.plot(ks, means, style, color=color, label=name, fillstyle="none" if leak else "full")
    if not leak:
        ax.fill_between(ks, means - spread, means + spread, color=color, alpha=0.15, linewidth=0)
ax.axhline(whole, color="k", linestyle="--", label=f"all {acts.d_model} columns {whole:.2f}")
majority = np.unique(acts.labels, return_counts=True)[1].max() / len(acts)
ax.axhline(majority, color="0.4", linestyle=":", label=f"majority {majority:.2f}")
ax.set_xscale("log", base=2)
ax.set_xticks(ks, ks)
ax.set_xlabel("Features or columns in the probe, k")
ax.set_ylabel("Accuracy (5-fold, mean ± s.d.)")
one, same = (np.mean(curves[name][0]) for name in ("SAE features", "hidden-state columns"))
ax.set_title(f"One SAE feature scores {one:.2f}, one hidden-state column {same:.2f}", loc="left")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig("sparse_features.png", dpi=120)
