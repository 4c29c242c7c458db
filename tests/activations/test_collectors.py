"""`from_hidden_states`: only real tokens become rows, and each value lands in its own layer."""

import re
from collections.abc import Mapping

import numpy as np
import pytest
from sentence_files import write_sentence

from sklprep import from_hidden_states, layer_sweep, load_activations
from sklprep.exceptions import SklprepWarning, UsageError

POOLINGS = ["final", "mean", "max", "none"]


def make_batch(lengths, *, side="right", n_layers=3, seed=0, dtype="float32", width=4):
    """What a model returns for sentences of these lengths, NaN in the padding, and its mask."""
    rng = np.random.default_rng(seed)
    n_tokens = max(lengths)
    mask = np.zeros((len(lengths), n_tokens), int)
    for row, length in enumerate(lengths):
        mask[row, slice(None, length) if side == "right" else slice(n_tokens - length, None)] = 1
    shape = (len(lengths), n_tokens, width)
    states = [rng.normal(size=shape).astype(dtype) for _ in range(n_layers + 1)]
    for one in states:
        one[mask == 0] = np.nan
    return tuple(states), mask


def expected_rows(array, mask, pooling):
    """The rows of one layer, sentence by sentence, in plain loops."""
    rows = []
    for tokens, keep in zip(array, mask, strict=True):
        real = [token for token, there in zip(tokens, keep, strict=True) if there]
        rows += {
            "final": lambda real: [real[-1]],
            "mean": lambda real: [np.sum(real, axis=0, dtype="f8") / len(real)],
            "max": lambda real: [np.max(real, axis=0)],
            "none": lambda real: real,
        }[pooling](real)
    return np.array(rows, "f4")


class Cache:
    """As TransformerLens's ActivationCache: names and items, but no Mapping."""

    def __init__(self, arrays):
        assert not isinstance(self, Mapping)
        self.arrays = arrays

    def keys(self):
        return self.arrays.keys()

    def __getitem__(self, name):
        return self.arrays[name]

    def __iter__(self):
        return iter(self.arrays)


def as_hooks(states, kind=dict):
    return kind(
        {"hook_embed": states[0], "blocks.0.hook_resid_pre": np.ones((1, 2))}
        | {f"blocks.{i}.hook_resid_post": one for i, one in reversed([*enumerate(states[1:])])}
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_real_tokens_alone_become_rows_on_whichever_side_the_padding_is(pooling, side, dtype):
    states, mask = make_batch([3, 5, 1, 4], side=side, dtype=dtype)

    acts = from_hidden_states(states, mask, pooling=pooling)

    assert ([0, 1, 2], pooling) == (acts.layers.tolist(), acts.pooling)
    np.testing.assert_allclose(expected_rows(states[0], mask, pooling), acts.embeddings, rtol=1e-6)
    for layer in range(3):
        expected = expected_rows(states[layer + 1], mask, pooling)
        np.testing.assert_allclose(expected, acts.layer(layer), rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_equal_those_of_sentence_files_of_the_same_tokens_bit_for_bit(tmp_path, pooling):
    lengths, texts = [3, 5, 1, 4], ["a b c", "a b c d e", "a", "a b c d"]
    states, mask = make_batch(lengths)
    for i, n in enumerate(lengths):
        write_sentence(
            tmp_path / f"sentence_{i:06d}.npz",
            index=i,
            embeddings=states[0][i, :n],
            hidden_states=np.stack([one[i, :n] for one in states[1:]]),
            is_final_token=np.arange(n) == n - 1,
            sentence=texts[i],
            omit=["activations"],
        )
    expected = load_activations(tmp_path, pooling=pooling)

    acts = from_hidden_states(states, mask, pooling=pooling, labels=range(4), sentences=texts)

    for name in ("embeddings", "hidden_states", "labels", "sentences", "groups"):
        np.testing.assert_array_equal(getattr(expected, name), getattr(acts, name), name)
    np.testing.assert_array_equal(expected.sentence_indices, acts.sentence_indices)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("lazy", [False, True])
def test_batches_of_different_lengths_are_put_together(pooling, lazy):
    pairs = [
        make_batch([3, 2], side="left"),
        make_batch([7], seed=1),
        make_batch([1, 4, 6], seed=2),
    ]
    batches, masks = [states for states, _ in pairs], [mask for _, mask in pairs]
    given = (iter(batches), iter(masks)) if lazy else (batches, masks)

    acts = from_hidden_states(*given, pooling=pooling, labels=[5, 4, 3, 2, 1, 0])

    for layer in range(3):
        rows = [expected_rows(states[layer + 1], mask, pooling) for states, mask in pairs]
        np.testing.assert_allclose(np.concatenate(rows), acts.layer(layer), rtol=1e-6)
    counts = [3, 2, 7, 1, 4, 6] if pooling == "none" else [1] * 6
    assert np.repeat(np.arange(6), counts).tolist() == acts.groups.tolist()
    assert acts.groups.tolist() == acts.sentence_indices.tolist()
    assert np.repeat([5, 4, 3, 2, 1, 0], counts).tolist() == acts.labels.tolist()


@pytest.mark.parametrize("kind", [dict, Cache])
def test_hooks_of_transformer_lens_are_layers_by_their_number(kind):
    states, mask = make_batch([3, 5], n_layers=12)
    expected = from_hidden_states(states, mask)

    acts = from_hidden_states(as_hooks(states, kind), mask)

    assert list(range(12)) == acts.layers.tolist()
    assert expected.fingerprint == acts.fingerprint


def test_layers_may_be_missing_from_a_mapping():
    states, mask = make_batch([3, 5])
    hooks = {"blocks.10.hook_resid_post": states[1], "blocks.9.hook_resid_post": states[2]}

    acts = from_hidden_states([hooks, hooks], [mask, mask])

    assert [9, 10] == acts.layers.tolist()
    np.testing.assert_array_equal(expected_rows(states[1], mask, "final"), acts.layer(10)[:2])
    with pytest.raises(ValueError, match="has no embeddings"):
        acts.embeddings  # noqa: B018


# ---- layers by number ------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
def test_outputs_of_blocks_by_number_are_pooled_as_those_of_a_tuple_are(pooling):
    states, mask = make_batch([3, 5, 1])
    blocks = {2: states[3], 0: states[1], "embeddings": states[0], 1: states[2]}
    expected = from_hidden_states(states, mask, pooling=pooling)

    acts = from_hidden_states(blocks, mask, pooling=pooling)

    assert expected.fingerprint == acts.fingerprint


@pytest.mark.parametrize("kind", [int, np.int64, str])
def test_numbers_of_layers_are_those_of_the_keys_and_embeddings_may_be_missing(kind):
    states, mask = make_batch([3, 5])

    acts = from_hidden_states({kind(12): states[2], kind(5): states[1]}, mask)

    assert [5, 12] == acts.layers.tolist()
    np.testing.assert_array_equal(expected_rows(states[1], mask, "final"), acts.layer(5))
    np.testing.assert_array_equal(expected_rows(states[2], mask, "final"), acts.layer(12))
    with pytest.raises(ValueError, match="has no embeddings"):
        acts.embeddings  # noqa: B018


def test_batches_of_layers_by_number_may_be_read_from_an_npz_file(tmp_path):
    states, mask = make_batch([3, 5])
    np.savez(tmp_path / "batch.npz", **{"7": states[1], "embeddings": states[0]})

    with np.load(tmp_path / "batch.npz") as file:
        acts = from_hidden_states([file, file], [mask, mask])

    assert [7] == acts.layers.tolist()
    rows = expected_rows(states[0], mask, "final")
    np.testing.assert_array_equal(np.concatenate([rows, rows]), acts.embeddings)


def test_a_list_of_arrays_is_refused_unless_their_widths_tell_the_embeddings():
    states, mask = make_batch([3, 5])
    (narrow, *_), _ = make_batch([3, 5], width=3)
    message = "Batch 0 is a list of 4 arrays.*dict.enumerate.arrays.. for blocks.*tuple.arrays. for"

    with pytest.raises(UsageError, match=message):
        from_hidden_states(list(states), mask)
    with pytest.raises(UsageError, match=message):
        from_hidden_states([list(states), list(states)], [mask, mask])
    told = from_hidden_states([narrow, *states[1:]], mask)

    assert from_hidden_states((narrow, *states[1:]), mask).fingerprint == told.fingerprint


# ---- generated sequences ---------------------------------------------------------------------


def as_steps(states, n_prompt, *, cached=True):
    """The states of whole sequences as `generate()` returns them, step by step."""
    stops = range(n_prompt, states[0].shape[1] + 1)
    return tuple(
        tuple(one[:, stop - 1 if cached and stop > n_prompt else 0 : stop] for one in states)
        for stop in stops
    )


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("lengths", "n_prompt"), [([8, 8], 5), ([8], 1), ([6, 8, 7], 6)])
def test_generated_tokens_belong_to_the_sequence_of_their_prompt(
    lengths, n_prompt, pooling, cached
):
    states, mask = make_batch(lengths)
    steps = as_steps(states, n_prompt, cached=cached)
    of_sequences = np.pad(mask, ((0, 0), (0, 1)))  # with the last token, which was not read

    expected = from_hidden_states(states, mask, pooling=pooling, labels=range(len(lengths)))

    for one in (mask, of_sequences):
        acts = from_hidden_states(steps, one, pooling=pooling, labels=range(len(lengths)))
        assert expected.fingerprint == acts.fingerprint
        assert len(lengths) == len(np.unique(acts.groups))


def test_a_mask_of_the_prompt_makes_every_generated_token_real():
    states, mask = make_batch([6, 8], side="left")

    with pytest.warns(SklprepWarning, match=r"Batch 0: .* the 5 tokens of the prompt; the 3 gen"):
        acts = from_hidden_states(as_steps(states, 5), mask[:, :5], pooling="mean")

    np.testing.assert_allclose(expected_rows(states[2], mask, "mean"), acts.layer(1), rtol=1e-6)
    alone = tuple(one[1:] for one in states)  # which ends where generate() did
    one = from_hidden_states(as_steps(alone, 5), mask[1:, :5], pooling="mean")
    np.testing.assert_array_equal(acts.layer(1)[1:], one.layer(1))


def test_generated_sequences_without_a_mask_are_one_group_each():
    states, _ = make_batch([8, 8])

    with pytest.warns(SklprepWarning, match="2 sentences of 8 tokens and no attention_mask"):
        acts = from_hidden_states(as_steps(states, 5), pooling="none")

    assert np.repeat([0, 1], 8).tolist() == acts.groups.tolist()
    np.testing.assert_array_equal(states[3].reshape(16, -1), acts.layer(2))


def test_several_generated_batches_are_a_list_of_what_generate_returned():
    pairs = [make_batch([8, 7]), make_batch([4], seed=1)]
    states, masks = [one for one, _ in pairs], [mask for _, mask in pairs]
    steps = [as_steps(one, n_prompt) for one, n_prompt in zip(states, [5, 3], strict=True)]

    acts = from_hidden_states(steps, masks, pooling="none", labels=[2, 1, 0])

    expected = from_hidden_states(states, masks, pooling="none", labels=[2, 1, 0])
    assert expected.fingerprint == acts.fingerprint
    assert np.repeat([0, 1, 2], [8, 7, 4]).tolist() == acts.groups.tolist()


@pytest.mark.parametrize("lazy", [False, True])
def test_steps_that_are_listed_as_batches_are_warned_about(lazy):
    states, _ = make_batch([8, 8])
    steps = list(as_steps(states, 5))
    masks = [np.ones((2, len(step[0][0]))) for step in steps]
    given = (iter(steps), iter(masks)) if lazy else (steps, masks)

    with pytest.warns(SklprepWarning, match="Batches 1 to 3 have one token per sentence") as seen:
        acts = from_hidden_states(*given)

    assert (8, __file__) == (len(np.unique(acts.groups)), seen[0].filename)
    from_hidden_states([steps[0], tuple(one[:1] for one in steps[1])], [masks[0], masks[1][:1]])
    from_hidden_states(steps[1:], masks[1:])  # rows that were pooled, with an axis of one token


# ---- caches of hooks -------------------------------------------------------------------------


def as_saes(states, layer, features, output="hook_resid_post"):
    """The hooks that SAELens has where it put an SAE behind a block."""
    return {
        f"blocks.{layer}.{output}.{hook}": values
        for hook, values in {
            "hook_sae_input": states,
            "hook_sae_acts_pre": features - 1,
            "hook_sae_acts_post": features,
            "hook_sae_recons": states + 9,
            "hook_sae_error": states + 9,
            "hook_sae_output": states + 9,
        }.items()
    }


@pytest.mark.parametrize("output", ["hook_resid_post", "hook_out"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_sae_in_place_of_a_layer_gives_the_layer_and_its_features(pooling, output):
    states, mask = make_batch([3, 5, 1])
    (features, *_), _ = make_batch([3, 5, 1], seed=1, width=20)
    features = np.maximum(features, 0)
    cache = {
        "hook_embed": states[0],
        f"blocks.0.{output}": states[1],
        **as_saes(states[2], 1, features, output),
        f"blocks.2.{output}": states[3],
    }
    expected = from_hidden_states(states, mask, pooling=pooling)

    acts = from_hidden_states([cache, cache], [mask, mask], pooling=pooling)

    for layer in range(3):
        rows = expected.layer(layer)
        np.testing.assert_array_equal(np.concatenate([rows, rows]), acts.layer(layer))
    rows = np.concatenate([expected_rows(features, mask, pooling)] * 2)
    assert [1] == acts.sae_layers.tolist()
    np.testing.assert_allclose(rows, acts.sae_activations(1).toarray(), rtol=1e-6)
    assert [round((rows > 0).sum() / len(rows))] == acts.average_l0s.tolist()


def test_features_alone_are_a_set_without_hidden_states():
    (features, other, *_), mask = make_batch([3, 5], width=20)
    cache = {
        "blocks.7.hook_resid_post.hook_sae_acts_post": other,
        "blocks.3.hook_resid_post.hook_sae_acts_post": features,
    }

    acts = from_hidden_states(cache, mask, labels=[1, 0])

    assert ([3, 7], []) == (acts.sae_layers.tolist(), acts.layers.tolist())
    for layer, values in {3: features, 7: other}.items():
        rows = expected_rows(values, mask, "final")
        np.testing.assert_array_equal(rows, acts.sae_activations(layer).toarray())


def test_a_hook_of_the_layer_itself_counts_before_the_input_of_its_sae():
    states, mask = make_batch([3, 5])
    cache = {
        "blocks.0.hook_resid_post.hook_sae_input": states[0],
        "blocks.0.hook_out": states[1],
        "blocks.0.hook_resid_post": states[1],
    }

    acts = from_hidden_states(cache, mask)

    np.testing.assert_array_equal(expected_rows(states[1], mask, "final"), acts.layer(0))


UNREAD = {
    "another hook of a block that is not there": (
        ["blocks.1.hook_resid_mid", "blocks.1.attn.hook_z"],
        "blocks.1.hook_resid_mid not read",
    ),
    "an SAE before a block": (
        ["blocks.0.hook_resid_pre.hook_sae_acts_post", "blocks.0.hook_resid_pre.hook_sae_input"],
        "blocks.0.hook_resid_pre.hook_sae_acts_post not read",
    ),
    "the output of an SAE alone": (
        ["blocks.1.hook_resid_post.hook_sae_output"],
        "blocks.1.hook_resid_post.hook_sae_output not read",
    ),
    "SAEs of many MLPs": (
        [f"blocks.{n}.hook_mlp_out.hook_sae_acts_post" for n in range(1, 6)],
        "blocks.3.hook_mlp_out.hook_sae_acts_post and 2 more not read",
    ),
}


@pytest.mark.parametrize(("names", "message"), UNREAD.values(), ids=UNREAD)
def test_blocks_and_features_that_are_not_read_are_named_once(names, message):
    states, mask = make_batch([3, 5])
    cache = {"blocks.0.hook_resid_post": states[1]} | dict.fromkeys(names, states[2])

    with pytest.warns(SklprepWarning, match=re.escape(message)) as seen:
        acts = from_hidden_states([cache, cache], [mask, mask])

    assert ([0], 1) == (acts.layers.tolist(), len(seen))
    assert "blocks.N.hook_resid_post" in str(seen[0].message)


# ---- masks -----------------------------------------------------------------------------------


def test_a_mask_may_hold_booleans_floats_and_holes():
    states, mask = make_batch([4, 4])
    mask[0, 2], mask[1, 0] = 0, 0
    expected = expected_rows(states[2], mask, "mean")

    for one in (mask, mask.astype(bool), mask.astype("f4"), mask.tolist()):
        acts = from_hidden_states(states, one, pooling="mean")
        np.testing.assert_allclose(expected, acts.layer(1), rtol=1e-6)


def test_several_sentences_without_a_mask_are_warned_about_and_one_is_not():
    states, _ = make_batch([4, 4])

    with pytest.warns(
        SklprepWarning, match="2 sentences of 4 tokens and no attention_mask"
    ) as seen:
        acts = from_hidden_states(states)

    assert __file__ == seen[0].filename
    np.testing.assert_array_equal(states[1][:, -1], acts.layer(0))
    from_hidden_states(tuple(one[:1] for one in states))
    from_hidden_states(tuple(one[:, :1] for one in states))


def test_sentences_of_one_text_share_a_group_unless_groups_are_given():
    states, mask = make_batch([2, 1, 2])
    texts = ["a b", "c", "a b"]

    acts = from_hidden_states(states, mask, pooling="none", sentences=texts)
    given = from_hidden_states(states, mask, pooling="none", sentences=texts, groups=list("xyz"))

    assert [0, 0, 1, 0, 0] == acts.groups.tolist()
    assert [0, 0, 1, 2, 2] == acts.sentence_indices.tolist()
    assert [0, 0, 1, 2, 2] == given.groups.tolist()
    assert ["a b", "a b", "c", "a b", "a b"] == acts.sentences.tolist()


def test_a_selector_fitted_on_one_pooling_refuses_another():
    from sklprep import LayerSelector

    states, mask = make_batch([3, 5])
    selector = LayerSelector(1).fit(from_hidden_states(states, mask, pooling="mean"))

    with pytest.raises(ValueError, match="pooling"):
        selector.transform(from_hidden_states(states, mask, pooling="max"))


def test_it_goes_into_a_sweep():
    lengths = np.random.default_rng(0).integers(1, 6, 40).tolist()
    states, mask = make_batch(lengths)
    labels = np.arange(40) % 2
    states[2][mask == 1] += 3 * np.repeat(labels, lengths)[:, None]

    sweep = layer_sweep(None, from_hidden_states(states, mask, labels=labels), labels, cv=3)

    assert {1} == set(sweep.best_layers)


STATES, MASK = make_batch([3, 5])
OTHER, OTHER_MASK = make_batch([2], n_layers=2)
BAD = {
    "pooling": ((STATES, MASK), {"pooling": "last"}, "pooling must be one of final, mean, max"),
    "no batch": (([], None), {}, "hidden_states has no batches"),
    "one array": (
        (np.ones((4, 2, 5, 3)), MASK),
        {},
        "Batch 0 is one array of shape (4, 2, 5, 3); expected the tuple of n_layers + 1 arrays",
    ),
    "layers stacked": ((np.ones((4, 2, 5, 3)), MASK), {}, "Give dict(enumerate(array)) if its fir"),
    "one layer": ((STATES[1], MASK), {}, "For one layer, give {layer: array}."),
    "a tuple of batches": (
        ((STATES, STATES), [MASK, MASK]),
        {},
        "Batch 0 is a tuple of 2 tuples of 4, 4 arrays, with 5, 5 tokens each; expected the steps",
    ),
    "steps of other layers": (
        ((STATES, tuple(one[:, :1] for one in STATES[1:])), None),
        {},
        "2 tuples of 4, 3 arrays, with 5, 1 tokens each",
    ),
    "a mask of other tokens than were generated": (
        (as_steps(STATES, 3), MASK[:, :4]),
        {},
        "attention_mask has shape (2, 4); expected (2, 3) like the prompt, or (2, 6) like output",
    ),
    "one mask for listed steps": (
        (list(as_steps(STATES, 3)), MASK),
        {},
        "got ndarray. For generate(), give the tuple itself, which is one batch.",
    ),
    "nothing": ((None, None), {}, "Batch 0 is of type NoneType; expected"),
    "embeddings alone": (((STATES[0],), MASK), {}, "Batch 0 is a tuple of 1 (ndarray); expected"),
    "arrays and others": ((("x", STATES[0]), MASK), {}, "is a tuple of 2 (str, ndarray); expected"),
    "pooled already": (
        (tuple(one[:, 0] for one in STATES), None),
        {},
        "layer 0 is float32 of shape (2, 4); expected floats of shape (batch, n_tokens, d_model)."
        " For rows that are already pooled, use from_arrays",
    ),
    "an unknown key": (
        ({0: STATES[1], "embedding": STATES[0]}, MASK),
        {},
        "Batch 0 has layer numbers as keys, but also 'embedding'; expected numbers from 0, and 'em",
    ),
    "a negative layer": (({1: STATES[1], -1: STATES[2]}, MASK), {}, "keys, but also '-1'; expect"),
    "a layer twice": (({1: STATES[1], "1": STATES[2]}, MASK), {}, "has two keys for one layer"),
    "a layer twice, padded": (({1: STATES[1], "01": STATES[2]}, MASK), {}, "has two keys for one"),
    "a fractional layer": (({1: STATES[1], 2.0: STATES[2]}, MASK), {}, "keys, but also '2.0'; exp"),
    "names of modules": (
        ({"model.layers.0": STATES[1]}, MASK),
        {},
        "Batch 0 holds model.layers.0; expected blocks.N.hook_resid_post, and hook_embed for the"
        " embeddings, or layer numbers as keys, such as {12: array}",
    ),
    "all that a block returned": (
        ({0: (STATES[1], None)}, MASK),
        {},
        "Batch 0: layer 0 is a tuple of 2; expected one array. If a block returned it, give its",
    ),
    "tokens first": (
        (tuple(one.swapaxes(0, 1) for one in STATES), MASK),
        {},
        "attention_mask has shape (2, 5); expected (5, 2), one value for each token. The arrays"
        " have their tokens first: give array.swapaxes(0, 1).",
    ),
    "labels of tokens first": (
        (tuple(one.swapaxes(0, 1) for one in STATES), MASK.T),
        {"labels": [0, 1]},
        "each of the 5 sentences, got shape (2,). That is one for each token: the first axis of",
    ),
    "integers": ((tuple(one > 0 for one in STATES), MASK), {}, "layer 0 is bool of shape"),
    "other hooks": (
        ({"blocks.0.hook_resid_pre": 1, "hook_embed": 2}, MASK),
        {},
        "Batch 0 holds blocks.0.hook_resid_pre, hook_embed; expected blocks.N.hook_resid_post",
    ),
    "many other hooks": (
        ({f"blocks.{i}.attn.hook_z": 1 for i in range(9)}, None),
        {},
        "blocks.3.attn.hook_z and 5 more; expected",
    ),
    "a whole output": (({"hidden_states": STATES}, MASK), {}, "give output.hidden_states"),
    "a layer of other tokens": (
        ((*STATES[:3], STATES[3][:, 1:]), MASK),
        {},
        "Batch 0: layer 2 has shape (2, 4, 4), layer 0 (2, 5, 4); expected the same",
    ),
    "a layer of other width": (((*STATES[:3], STATES[3][..., 1:]), MASK), {}, "layer 2 has shape"),
    "other embeddings": (((STATES[0][:1], *STATES[1:]), MASK), {}, "embeddings has shape (1, 5,"),
    "mask of another shape": (
        (STATES, MASK[:, 1:]),
        {},
        "Batch 0: attention_mask has shape (2, 4); expected (2, 5), one value for each token",
    ),
    "all that a tokenizer returned": (
        (STATES, {"input_ids": MASK, "attention_mask": MASK}),
        {},
        "attention_mask is a dict; expected the array in it: tokens['attention_mask']",
    ),
    "additive mask": ((STATES, np.where(MASK, 0.0, -np.inf)), {}, "float64 values other than 0 an"),
    "no real token": (
        (STATES, MASK * [[1], [0]]),
        {},
        "Batch 0: sentence 1 has no real token in its attention_mask (1 of 2 sentences have none)",
    ),
    "one mask for a list": (([STATES], MASK), {}, "attention_mask must be a list of masks"),
    "fewer masks": (([STATES, STATES], [MASK]), {}, "There is no mask for batch 1"),
    "more masks": (([STATES], [MASK, MASK]), {}, "There is no batch for mask 1"),
    "batches of two models": (
        ([STATES, OTHER], [MASK, OTHER_MASK]),
        {},
        "Batch 1 has layers 0-1, d_model 4, embeddings 4, but batch 0 layers 0-2, d_model 4, em",
    ),
    "fewer labels": (
        (STATES, MASK),
        {"labels": [1], "pooling": "none"},
        "labels must hold one value for each of the 2 sentences, got shape (1,)",
    ),
    "labels of tokens": (
        (STATES, MASK),
        {"labels": [1] * 8, "pooling": "none"},
        "labels must hold one value for each of the 2 sentences, got shape (8,)",
    ),
    "fewer sentences": (
        (STATES, MASK),
        {"sentences": ["a"]},
        "sentences must hold one value for each",
    ),
    "fewer groups": ((STATES, MASK), {"groups": [0]}, "groups must hold one value for each"),
}


@pytest.mark.parametrize(("given", "options", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_in_one_line(given, options, message):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        from_hidden_states(*given, **options)
    assert 1 == len(str(error.value).splitlines())


# ---- torch and transformers themselves -------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: pip install 'sklprep[hf]'")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_torch_tensors_of_each_type_are_read_without_their_gradients(torch, pooling, dtype, side):
    states, mask = make_batch([3, 5, 1], side=side)
    tensors = tuple(torch.from_numpy(one).to(getattr(torch, dtype)) for one in states)
    values = [one.double().numpy() for one in tensors]
    tracked = tuple(one.requires_grad_() for one in tensors)

    acts = from_hidden_states(
        tracked, torch.from_numpy(mask), pooling=pooling, labels=torch.arange(3)
    )

    for layer in range(3):
        expected = expected_rows(values[layer + 1], mask, pooling)
        np.testing.assert_allclose(expected, acts.layer(layer), rtol=1e-6)


def tiny_models():
    common = {"num_hidden_layers": 3, "hidden_size": 16, "vocab_size": 50}
    heads = {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "Llama": common | heads,
        "Mistral": common | heads,
        "Qwen2": common | heads,
        "Gemma": common | heads | {"head_dim": 8},
        "Gemma2": common | heads | {"head_dim": 8},
        "GPT2": {"n_layer": 3, "n_embd": 16, "n_head": 2, "vocab_size": 50}
        | {
            "n_positions": 20,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
    }


@pytest.fixture(scope="module")
def transformers(torch):
    reason = "transformers is not installed: pip install 'sklprep[hf]'"
    return pytest.importorskip("transformers", reason=reason)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", ["Llama", "GPT2"])
@pytest.mark.filterwarnings("default")
def test_what_generate_returns_has_the_states_of_the_whole_sequences(
    torch, transformers, name, use_cache
):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**tiny_models()[name], pad_token_id=2)
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    model = getattr(transformers, kind)(config).eval()
    ids, mask = torch.tensor([[2, 2, 7, 8], [3, 4, 5, 6]]), torch.tensor([[0, 0, 1, 1], [1] * 4])
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        use_cache=use_cache,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    whole = torch.cat([mask, torch.ones(2, 5, dtype=mask.dtype)], dim=1)
    with torch.no_grad():
        read = {"input_ids": output.sequences[:, :-1], "attention_mask": whole[:, :-1]}
        if name == "GPT2":  # which does not count positions by the mask unless it generates
            read["position_ids"] = (whole[:, :-1].cumsum(1) - 1).clamp(min=0)
        states = model(**read, output_hidden_states=True).hidden_states
    expected = from_hidden_states(states, whole[:, :-1], pooling="none")

    acts = from_hidden_states(output.hidden_states, whole, pooling="none")

    assert np.repeat([0, 1], [6, 8]).tolist() == acts.groups.tolist()
    np.testing.assert_allclose(expected.hidden_states, acts.hidden_states, atol=1e-5)
    np.testing.assert_allclose(expected.embeddings, acts.embeddings, atol=1e-5)


@pytest.mark.parametrize("name", tiny_models())
@pytest.mark.filterwarnings("default")
def test_only_the_last_layer_of_a_model_comes_after_the_final_norm(torch, transformers, name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**tiny_models()[name])
    model = getattr(transformers, f"{name}Model")(config).eval()
    norm = model.ln_f if name == "GPT2" else model.norm
    blocks = model.h if name == "GPT2" else model.layers
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(2, 3, 16))
    raw = {}
    for number, block in enumerate(blocks):
        block.register_forward_hook(
            lambda _, __, out, number=number: raw.update(
                {number: out[0] if isinstance(out, tuple) else out}
            )
        )
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    with torch.no_grad():
        output = model(
            torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]]),
            attention_mask=mask,
            output_hidden_states=True,
        )
        normed = norm(raw[2])

    acts = from_hidden_states(output.hidden_states, mask)

    assert [0, 1, 2] == acts.layers.tolist()
    for layer in (0, 1):
        np.testing.assert_allclose(raw[layer][:, -1].numpy(), acts.layer(layer), rtol=1e-5)
    np.testing.assert_allclose(normed[:, -1].numpy(), acts.layer(2), rtol=1e-5)
    assert not np.allclose(raw[2][:, -1].numpy(), acts.layer(2), rtol=0.1)
