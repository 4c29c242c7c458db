"""One layer, or several at once?
==============================

One: chosen inside the folds, it scores 0.64. With its neighbours the score is 0.53, and with all
eight layers at once 0.50: these are 512 columns, most of them without information, for 128 training
sentences.

Compare a range with the layer that is chosen without seeing the test rows, not with the best of the
curve. The data is synthetic: the concept was planted to peak at layer 5. For your own data, give a
folder of sentence files or a pack:

    pip install '.[plot]'  # in a clone of sklprep
    python plot_several_layers.py dishonesty_100_features
"""

# %%
# The activations
# ---------------
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import sklprep

acts = sklprep.make_activations(
    160, n_layers=8, d_model=64, n_features=8, best_layer=5, random_state=0
)
if len(sys.argv) > 1:
    acts = sklprep.load_activations(sys.argv[1])

# %%
# A probe for many columns
# ------------------------
# Columns far outnumber rows, so the probe is fitted on the row space of its training rows: the same
# predictions, from fewer columns.
model = LogisticRegression(solver="newton-cg", max_iter=1000)
probe = make_pipeline(sklprep.ActivationNormalizer(), sklprep.RowSpaceProjector(), model)
plain = make_pipeline(sklprep.ActivationNormalizer(), model)
X = sklprep.LayerSelector().fit_transform(acts)
train, test = slice(0, len(X) * 4 // 5), slice(len(X) * 4 // 5, None)
predicted = []
for name, estimator in (("all columns", plain), ("row space", probe)):
    start = time.process_time()
    predicted.append(estimator.fit(X[train], acts.labels[train]).predict(X[test]))
    print(
        f"{name}: {estimator[-1].n_features_in_} columns, {time.process_time() - start:.2f} s CPU"
    )
print(f"same predictions for {np.mean(predicted[0] == predicted[1]):.0%} of the test sentences")

# %%
# Ranges against the single layer that the folds choose
# -----------------------------------------------------
# Both sweeps have the same folds.
layers = acts.layers.tolist()
single = sklprep.layer_sweep(probe, acts, acts.labels, layers=layers, baselines=False)
print(single.summary())
best = layers.index(single.naive_best_layer)
ranges = [layers[max(0, best - 1) : best + 2], layers[: len(layers) // 2]]
ranges += [layers[len(layers) // 2 :], layers]
several = sklprep.layer_sweep(probe, acts, acts.labels, layers=ranges, inner_cv=None)
for name, scores in zip(several.layers, several.mean_scores, strict=True):
    print(f"layers {name}: {scores:.2f}")

# %%
# The picture
# -----------
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
low, high = single.nested_interval
names = ["one, chosen inside the folds", *(f"layers {name}" for name in several.layers)]
rows = np.arange(len(names))
ax.errorbar(
    single.nested_score,
    0,
    xerr=[[single.nested_score - low], [high - single.nested_score]],
    fmt="D",
    color="#D55E00",
    label="95 % interval",
)
ax.errorbar(
    several.mean_scores,
    rows[1:],
    xerr=several.scores.std(axis=1),
    fmt="o",
    color="#0072B2",
    label="mean ± s.d. over folds",
)
ax.axvline(single.nested_score, color="#D55E00", linewidth=0.8, zorder=0)
majority = np.unique(acts.labels, return_counts=True)[1].max() / len(acts)
ax.axvline(majority, color="0.4", linestyle=":", label=f"majority {majority:.2f}")
columns = [1, *map(len, ranges)]
ax.set_yticks(
    rows,
    [f"{name}\n{n * acts.d_model:,} columns" for name, n in zip(names, columns, strict=True)],
)
ax.invert_yaxis()
ax.set_xlabel("Accuracy (5-fold)")
ax.set_title(
    f"One layer: {single.nested_score:.2f}; all {len(layers)} at once:"
    f" {several.mean_scores[-1]:.2f}",
    loc="left",
)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig("several_layers.png", dpi=120)
