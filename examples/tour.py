"""A tour: from a folder of sentence files to a dataset and back
================================================================

What does a folder of activation dumps hold, how does it become X and y, and what is in a dataset
file? The data is synthetic, with a concept planted to peak at layer 15.
"""

# %%
# Sentence files
# --------------
# There is one NPZ file per sentence, with embeddings, hidden states of every layer and SAE features
# of every token. Opening the folder reads labels and shapes only. A notebook shows a set as a card.
import tempfile
from pathlib import Path

import numpy as np

import sklprep

folder = Path(tempfile.mkdtemp()) / "dishonesty_100_features"
sklprep.make_activations(100, best_layer=15, random_state=0, output=folder)
acts = sklprep.load_activations(folder)
print(acts)
print("labels", np.bincount(acts.labels), "first sentence:", acts.sentences[0])
acts

# %%
# Transformers
# ------------
# `LayerSelector` makes X, and a target extractor makes y. Columns are named by layer and position.
selector = sklprep.LayerSelector("0-1,15")
X = selector.fit_transform(acts)
print(X.shape, selector.get_feature_names_out()[[0, -1]])

y = sklprep.FeatureTargetExtractor(layer=15, feature=3).fit_transform(acts)
print(f"the feature is active in {np.count_nonzero(y)} of {len(y)} samples")

# %%
# A strategy is a pair of them
# ----------------------------
# An input pipeline and a target extractor make a dataset. Its file holds X, y, how they were made,
# the normalization and the fitted pipeline.
pipeline, target = sklprep.make_strategy("hidden-to-concept", layers=15)
path = folder.parent / "h15_to_concept.npz"
sklprep.generate_dataset(acts, pipeline, target, output=path, strategy="hidden-to-concept")
with np.load(path) as data:
    for key in data.files:
        print(f"{key:<24}{data[key].dtype!s:<10}{data[key].shape}")

# %%
# And back
# --------
# The loaded pipeline gives X again, bit for bit, and can undo the normalization.
dataset = sklprep.load_dataset(path)
print("X again:", np.array_equal(dataset.pipeline.transform(acts), dataset.X))
raw = dataset.pipeline["activationnormalizer"].inverse_transform(dataset.X)
print("largest difference to the raw activations:", np.abs(raw - acts.layer(15)).max())
dataset
