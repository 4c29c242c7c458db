"""Which normalization?
====================

It depends on the model, so include it in the search; standardizing is a good start. For ridge it
hardly matters. A linear SVM scores 0.82 on standardized and 0.65 on raw activations. An SVM with an
RBF kernel drops from 0.60 to 0.28, hardly more than guessing: it takes the width of its kernel from
the variance of all values, which a few massive columns, hundreds of times larger than the others,
make huge.

The normalization is a step of the pipeline, refitted in every fold. The data is synthetic, with
massive columns such as language models have. For your own data, give a folder of sentence files or
a pack, and a layer:

    pip install '.[plot]'  # in a clone of sklprep
    python plot_normalization.py dishonesty_100_features 12
"""

# %%
# The activations
# ---------------
import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import sklprep

layer = 3
acts = sklprep.make_activations(
    200, n_layers=4, d_model=16, n_features=8, best_layer=layer, random_state=0
)
if len(sys.argv) > 1:
    acts, layer = sklprep.load_activations(sys.argv[1]), int(sys.argv[2])
sizes = np.abs(acts.layer(layer)).mean(axis=0)
print(f"mean size of a column: median {np.median(sizes):.1f}, largest {sizes.max():.0f}")

# %%
# Three normalizations, four models, the same folds
# -------------------------------------------------
models = {
    "ridge": RidgeClassifier(),
    "SVM, linear": SVC(kernel="linear"),
    "SVM, RBF": SVC(),
    "5 nearest, cosine": KNeighborsClassifier(metric="cosine"),
}
methods = ("standardize", "minmax", "none")
folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
scores = np.array(
    [
        [
            cross_val_score(
                make_pipeline(
                    sklprep.LayerSelector(layer), sklprep.ActivationNormalizer(method), model
                ),
                acts,
                acts.labels,
                groups=acts.groups,
                cv=folds,
            )
            for method in methods
        ]
        for model in models.values()
    ]
)
for name, of_model in zip(models, scores.mean(axis=2), strict=True):
    print(
        f"{name:<20}",
        *(f"{method} {score:.2f}" for method, score in zip(methods, of_model, strict=True)),
    )

# %%
# The picture
# -----------
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
styles = (("#0072B2", "o"), ("#009E73", "s"), ("#D55E00", "^"))
for i, (method, (color, marker)) in enumerate(zip(methods, styles, strict=True)):
    ax.errorbar(
        scores[:, i].mean(axis=1),
        np.arange(len(models)) + 0.2 * (i - 1),
        xerr=scores[:, i].std(axis=1),
        fmt=marker,
        color=color,
        label=method,
    )
majority = np.unique(acts.labels, return_counts=True)[1].max() / len(acts)
ax.axvline(majority, color="0.4", linestyle=":", label=f"majority {majority:.2f}")
ax.set_yticks(range(len(models)), models)
ax.invert_yaxis()
ax.set_xlabel("Accuracy (5-fold, mean ± s.d. over folds)")
worst = np.argmax(scores[:, 0].mean(axis=1) - scores[:, 2].mean(axis=1))
ax.set_title(
    f"{list(models)[worst]}: {scores[worst, 0].mean():.2f} standardized,"
    f" {scores[worst, 2].mean():.2f} raw",
    loc="left",
)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig("normalization.png", dpi=120)
