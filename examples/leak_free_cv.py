"""Leak-free cross-validation, on raw activations and on a dataset
==================================================================

How do you cross-validate a probe so that nothing about the test rows leaks into training: not
through the normalizer, not through other rows of a sentence, and not through the choice of the
layer?
"""

# %%
# The whole pipeline inside the cross-validation
# ----------------------------------------------
# The selector reads rows from the set, and the normalizer is refitted on the training rows of each
# fold.
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

import sklprep

acts = sklprep.make_activations(120, n_layers=8, best_layer=5, random_state=0)
y = acts.labels
folds = StratifiedKFold(5, shuffle=True, random_state=0)
model = LogisticRegression(max_iter=1000)
pipe = make_pipeline(sklprep.LayerSelector(5), sklprep.ActivationNormalizer(), model)
print("raw activations:", cross_val_score(pipe, acts, y, cv=folds).round(3))

# %%
# The same from a dataset
# -----------------------
# X in a dataset is normalized already. A fresh normalizer in front of the model undoes that, so the
# scores are those of the raw activations.
dataset = sklprep.generate_dataset(acts, *sklprep.make_strategy("hidden-to-concept", layers=5))
print(
    "dataset:        ",
    cross_val_score(dataset.make_pipeline(model), dataset.X, y, cv=folds).round(3),
)

# %%
# Rows of one sentence belong together
# ------------------------------------
# Every token is a row here, and labels are pure noise. Splitting by row finds a signal that is not
# there, because tokens of one sentence are alike. Splitting by sentence does not. `LayerSelector`
# warns of the leak.
rng = np.random.default_rng(0)
n_sentences, n_tokens, width = 100, 12, 32
states = 2 * rng.normal(size=(n_sentences, 1, 1, width)) + rng.normal(
    size=(n_sentences, n_tokens, 1, width)
)
groups = np.repeat(np.arange(n_sentences), n_tokens)
tokens = sklprep.ActivationSet.from_arrays(
    hidden_states=states.reshape(-1, 1, width),
    labels=rng.integers(0, 2, n_sentences)[groups],
    groups=groups,
)
noise = make_pipeline(sklprep.LayerSelector(0), sklprep.ActivationNormalizer(), model)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    by_row = cross_val_score(noise, tokens, tokens.labels, cv=folds)
print(*{f"Warning: {warning.message}" for warning in caught})
sweep = sklprep.layer_sweep(None, tokens, tokens.labels, inner_cv=None, baselines=False)
print(f"noise labels, by row: {by_row.mean():.2f}; by sentence: {sweep.mean_scores[0]:.2f}")

# %%
# The best layer is not as good as its score
# ------------------------------------------
# The sweep picks the layer inside each training set and scores it outside.
sweep = sklprep.layer_sweep(None, acts, y)
print(sweep.summary())
