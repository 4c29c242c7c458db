"""How many sentences are enough?
==============================

More than 320, here. A probe of one layer scores 0.42 with 20 sentences, 0.73 with 183 and 0.78
with 320, and the curve still rises. A probe of all six layers needs even more: with 320 it scores
0.61.

Count sentences, not rows: tokens of one sentence are not independent examples. So the training set
grows by whole groups (``acts.groups``), which are sentences unless you gave others.

The data is synthetic: the concept was planted to peak at layer 4. For your own data, give a folder
of sentence files or a pack, and a layer:

    pip install '.[plot]'  # in a clone of sklprep
    python plot_learning_curve.py dishonesty_100_features 12
"""

# %%
# The activations
# ---------------
import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LearningCurveDisplay, StratifiedGroupKFold, cross_validate
from sklearn.pipeline import make_pipeline

import sklprep

layer = 4
acts = sklprep.make_activations(
    400, n_layers=6, d_model=12, n_features=32, best_layer=layer, random_state=0
)
if len(sys.argv) > 1:
    acts, layer = sklprep.load_activations(sys.argv[1]), int(sys.argv[2])

# %%
# Folds, and training sets that grow by whole sentences
# -----------------------------------------------------
# `learning_curve` takes the first n rows, which can split a sentence of several rows.
# Here the test rows of a fold stay the same, and its training rows are those of its first n
# sentences.
folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
splits = list(folds.split(acts.labels, acts.labels, acts.groups))
order = np.random.default_rng(0).permutation(np.unique(acts.groups))


def first_sentences(rows, n):
    there = order[np.isin(order, acts.groups[rows])]
    return rows[np.isin(acts.groups[rows], there[:n])]


fewest = min(len(np.unique(acts.groups[train])) for train, _ in splits)
sizes = np.geomspace(20, fewest, 6).astype(int)


def learning_curve(layers):
    """Scores of training and of test rows, each (n_sizes, n_folds)."""
    probe = make_pipeline(
        sklprep.LayerSelector(layers),
        sklprep.ActivationNormalizer(),
        sklprep.RowSpaceProjector(),
        LogisticRegression(solver="newton-cg", max_iter=1000),
    )
    results = [
        cross_validate(
            probe,
            acts,
            acts.labels,
            cv=[(first_sentences(train, n), test) for train, test in splits],
            return_train_score=True,
        )
        for n in sizes
    ]
    return [
        np.array([result[name] for result in results]) for name in ("train_score", "test_score")
    ]


# %%
# The picture
# -----------
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
styles = {f"layer {layer}": (layer, "#0072B2", "-"), "all layers": ("all", "#D55E00", "--")}
for name, (layers, color, dashes) in styles.items():
    train_scores, test_scores = learning_curve(layers)
    display = LearningCurveDisplay(
        train_sizes=sizes, train_scores=train_scores, test_scores=test_scores
    ).plot(
        ax=ax,
        score_type="test",
        score_name="Accuracy (5-fold)",
        line_kw={"color": color, "linestyle": dashes, "marker": "o"},
        fill_between_kw={"color": color, "alpha": 0.15},
    )
    display.lines_[0].set_label(f"{name}, mean ± s.d. over folds")
    means = test_scores.mean(axis=1)
    print(f"{name}: " + ", ".join(f"{n}: {mean:.2f}" for n, mean in zip(sizes, means, strict=True)))
    if layers == layer:
        ax.set_title(
            f"From {sizes[-2]} to {sizes[-1]} sentences, layer {layer} gains"
            f" {means[-1] - means[-2]:.2f}",
            loc="left",
        )
majority = np.unique(acts.labels, return_counts=True)[1].max() / len(acts)
ax.axhline(majority, color="0.4", linestyle=":", label=f"majority {majority:.2f}")
ax.set_ylim(bottom=majority - 0.05)
ax.set_xscale("log")
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.set_xlabel("Sentences in the training set")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
figure.savefig("learning_curve.png", dpi=120)
