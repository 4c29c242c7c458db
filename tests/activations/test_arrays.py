"""Arrays of any collector: what is taken as it is, what is converted, what is refused."""

import re

import numpy as np
import pytest
from tensors import ArrayTensor, Tensor

from sklprep import ActivationSet
from sklprep.activations.arrays import to_numpy
from sklprep.exceptions import DataError, UsageError


def as_bfloat16(values):
    """Cut float32 values to the upper half of their bits, which is bfloat16."""
    return (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")


@pytest.mark.parametrize("kind", [Tensor, ArrayTensor])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_a_tensor_on_the_cpu_is_read_without_a_copy(kind, dtype):
    values = np.arange(12, dtype=dtype).reshape(3, 4)

    array = to_numpy(kind(values), "x")

    assert (dtype, (3, 4)) == (array.dtype, array.shape)
    assert np.shares_memory(values, array)
    np.testing.assert_array_equal(values, array)


def test_every_array_of_a_set_may_be_a_tensor():
    rng = np.random.default_rng(0)
    given = {
        "hidden_states": rng.normal(size=(4, 2, 3)).astype("f4"),
        "embeddings": rng.normal(size=(4, 5)).astype("f4"),
        "activations": rng.normal(size=(4, 2, 6)).astype("f4"),
        "labels": np.array([3, 1, 2, 1]),
        "layers": np.array([7, 9]),
        "average_l0s": np.array([20.5, 30]),
        "groups": np.array([0, 1, 1, 2]),
    }
    expected = ActivationSet.from_arrays(**given)

    acts = ActivationSet.from_arrays(**{name: Tensor(values) for name, values in given.items()})

    assert expected.fingerprint == acts.fingerprint
    listed = [Tensor(given["activations"][:, config]) for config in range(2)]
    acts = ActivationSet.from_arrays(**given | {"activations": listed})
    assert expected.fingerprint == acts.fingerprint


def test_a_tensor_that_requires_a_gradient_is_detached():
    values = np.arange(6.0).reshape(2, 3)

    class Tracked(ArrayTensor):
        requires_grad = True

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

        def detach(self):
            return Tensor(self.values)

    np.testing.assert_array_equal(values, to_numpy(Tracked(values), "x"))


def test_a_bfloat16_tensor_becomes_the_float32_values_it_holds():
    class BFloat16(ArrayTensor):
        dtype = "torch.bfloat16"

        def __array__(self, dtype=None, copy=None):
            raise TypeError("Got unsupported ScalarType BFloat16")

        def float(self):
            return Tensor((self.values.astype("<u4") << 16).view("<f4"))

    bits = as_bfloat16([[1.0, -2.5, 3e38], [1e-38, 0.15625, 0]])

    array = to_numpy(BFloat16(bits), "x")

    assert array.dtype == np.float32
    np.testing.assert_array_equal(bits, as_bfloat16(array))
    assert [1.0, -2.5] == array[0, :2].tolist()


def test_bfloat16_of_ml_dtypes_becomes_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    values = np.array([[1.0, -2.5], [0.15625, 3e38]], ml_dtypes.bfloat16)

    array = to_numpy(values, "x")

    assert array.dtype == np.float32
    np.testing.assert_array_equal(values.view("<u2"), as_bfloat16(array))


def test_two_bytes_without_a_meaning_are_refused_with_advice():
    bare = as_bfloat16(np.ones((4, 3))).view("V2")

    with pytest.raises(UsageError, match=r"embeddings has dtype void16.*convert it to float32"):
        ActivationSet.from_arrays(embeddings=bare)


@pytest.mark.parametrize("device", [(2, 0), (10, 1)])
def test_a_tensor_on_a_gpu_is_refused_with_advice(device):
    states = Tensor(np.ones((4, 2, 3)), device, device="cuda:0")

    with pytest.raises(UsageError) as error:
        ActivationSet.from_arrays(hidden_states=states)

    expected = (
        "hidden_states is on a GPU (cuda:0); expected main memory. Move it to the CPU: .cpu()."
    )
    assert expected == str(error.value)


def test_memory_that_cuda_pinned_is_main_memory():
    assert [1.0, 2.0] == to_numpy(ArrayTensor([1.0, 2.0], (3, 0)), "x").tolist()


def test_what_the_library_itself_refuses_is_one_line_with_its_reason():
    class Sparse(ArrayTensor):
        dtype = "torch.float32"

        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert Sparse layout tensor to numpy.\nUse Tensor.to_dense().")

    with pytest.raises(UsageError) as error:
        to_numpy(Sparse([1.0]), "labels")

    message = str(error.value)
    assert message.startswith("labels (Sparse torch.float32) cannot be read as an array: can't con")
    assert 1 == len(message.splitlines())


# ---- lists of tensors, and arrays of objects -------------------------------------------------


@pytest.mark.parametrize("kind", [Tensor, ArrayTensor, np.asarray])
def test_a_list_of_tensors_is_stacked_wherever_an_array_is_taken(kind):
    rng = np.random.default_rng(0)
    given = {
        "hidden_states": rng.normal(size=(4, 2, 3)).astype("f4"),
        "embeddings": rng.normal(size=(4, 5)).astype("f4"),
        "activations": rng.normal(size=(2, 4, 6)).astype("f4"),
        "labels": np.array([3.0, 1, 2, 1]),
        "groups": np.array([0.0, 1, 1, 2]),
    }
    expected = ActivationSet.from_arrays(**given | {"activations": list(given["activations"])})

    acts = ActivationSet.from_arrays(
        **{name: [kind(row) for row in values] for name, values in given.items()}
    )

    for name in ("hidden_states", "embeddings", "labels", "groups"):
        np.testing.assert_array_equal(getattr(expected, name), getattr(acts, name))
    for one, other in zip(expected.activations, acts.activations, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def objects(*entries):
    array = np.empty(len(entries), object)
    array[:] = entries
    return array


RAGGED = (
    "embeddings is ragged: its entries have different shapes, as sentences have different lengths."
)
NOT_NUMBERS = {
    "ragged array": (objects(np.ones((5, 4)), np.ones((3, 4))), RAGGED),
    "ragged list": ([np.ones((5, 4)), np.ones((3, 4))], RAGGED),
    "ragged list of one shape too few": ([np.ones((5, 4)), np.ones((5, 3))], RAGGED),
    "ragged numbers": ([[1, 2], [3]], RAGGED),
    "arrays of one shape": (
        objects(np.ones(4), np.ones(4), np.ones(4)),
        "embeddings is an object array of arrays of shape (4,). Give np.stack(embeddings).",
    ),
    "numbers": (
        np.ones((2, 3), object),
        "embeddings is an object array of numbers. Give embeddings.astype(np.float32).",
    ),
    "missing rows": (
        objects(np.ones(4), None, np.ones(4)),
        "embeddings is an object array with None in 1 of 3 entries. Leave those rows out, of every"
        " array, and give the others as float32.",
    ),
    "text": (
        np.array([["a", 1.0]], object),
        "embeddings is an object array of float, str. Expected numbers, float32 or float16.",
    ),
    "a mapping": ({0: np.ones(3)}, "embeddings is an object array of dict. Expected numbers"),
}


@pytest.mark.parametrize(("embeddings", "message"), NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_arrays_of_objects_say_what_they_hold_and_what_to_do(embeddings, message):
    with pytest.raises(UsageError) as error:
        ActivationSet.from_arrays(embeddings=embeddings)

    assert str(error.value).startswith(message)
    assert 1 == len(str(error.value).splitlines())


def test_what_the_messages_about_objects_advise_is_taken():
    stacked = np.stack(objects(np.ones(4), np.zeros(4), np.ones(4)))
    plain = np.ones((2, 3), object).astype(np.float32)

    assert (3, 4) == ActivationSet.from_arrays(embeddings=stacked).embeddings.shape
    assert (2, 3) == ActivationSet.from_arrays(embeddings=plain).embeddings.shape


@pytest.mark.parametrize("activations", [np.ones((4, 2, 3), object), [np.ones((4, 3), object)]])
def test_sae_features_of_objects_are_refused_in_the_same_words(activations):
    with pytest.raises(UsageError, match=r"activations is an object array of numbers\. Give acti"):
        ActivationSet.from_arrays(activations=activations)


# ---- axes ------------------------------------------------------------------------------------

LAYERS_FIRST = np.arange(3 * 40 * 8, dtype="f4").reshape(3, 40, 8)


@pytest.mark.parametrize("kind", [np.asarray, Tensor])
@pytest.mark.parametrize(
    "other",
    [
        {"labels": np.arange(40)},
        {"layers": [4, 5, 6]},
        {"embeddings": np.ones((40, 2))},
        {"activations": [np.ones((40, 5))], "layers": [4, 5, 6]},
        {"sentences": list(map(str, range(40)))},
    ],
)
def test_layers_before_rows_are_noticed_where_anything_tells(other, kind):
    with pytest.raises(UsageError) as error:
        ActivationSet.from_arrays(hidden_states=kind(LAYERS_FIRST), **other)

    expected = (
        "hidden_states has shape (3, 40, 8), layers first; expected (n_rows, n_layers, width),"
        " which is (40, 3, 8). Swap the axes: hidden_states.swapaxes(0, 1)."
    )
    assert expected == str(error.value)
    acts = ActivationSet.from_arrays(hidden_states=LAYERS_FIRST.swapaxes(0, 1), **other)
    np.testing.assert_array_equal(LAYERS_FIRST[1], acts.layer(int(acts.layers[1])))


@pytest.mark.parametrize("other", [{"labels": np.arange(40)}, {"sae_layers": [4, 5, 6]}])
def test_saes_before_rows_are_noticed_too(other):
    with pytest.raises(UsageError, match=r"activations has shape \(3, 40, 8\), layers first"):
        ActivationSet.from_arrays(activations=LAYERS_FIRST, **other)

    acts = ActivationSet.from_arrays(activations=LAYERS_FIRST.swapaxes(0, 1), **other)
    np.testing.assert_array_equal(LAYERS_FIRST[1], acts.activations[1].toarray())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"labels": np.arange(39)},
            "must have the same number of rows, got 3 of hidden_states, 39 of l",
        ),
        (
            {"labels": np.arange(40), "layers": [1, 2]},
            "must have the same number of rows, got 3 of hidd",
        ),
        ({"labels": np.arange(3), "layers": [1, 2, 3]}, "layers must be 40 integers, one for each"),
    ],
)
def test_axes_are_not_blamed_where_neither_way_fits(other, message):
    with pytest.raises(UsageError, match=message):
        ActivationSet.from_arrays(hidden_states=LAYERS_FIRST, **other)


def test_as_many_rows_as_layers_are_taken_as_they_lie():
    square = LAYERS_FIRST[:, :3]

    acts = ActivationSet.from_arrays(hidden_states=square, labels=range(3), layers=range(3))

    np.testing.assert_array_equal(square, acts.hidden_states)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (
            np.ones((4, 3)),
            "got float64 of shape (4, 3). For one layer, give hidden_states[:, None].",
        ),
        (np.ones((4, 2, 6, 3)), "For hidden states of tokens, use from_hidden_states"),
        ({5: np.ones((4, 3))}, "hidden_states is a mapping; expected an array. For {layer: array"),
    ],
)
def test_hidden_states_of_other_dimensions_get_a_next_step(states, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        ActivationSet.from_arrays(hidden_states=states)


# ---- lists of layers -------------------------------------------------------------------------


def layers(n_layers, n_rows):
    return np.random.default_rng(0).normal(size=(n_layers, n_rows, 2)).astype("f4")


@pytest.mark.parametrize(
    "other", [{"labels": range(5)}, {"layers": [4, 7, 8]}, {"groups": "aabbc"}]
)
@pytest.mark.parametrize("make", [np.asarray, Tensor])
def test_a_list_with_an_array_a_layer_is_stacked(other, make):
    states = layers(3, 5)
    other = {name: list(values) for name, values in other.items()}

    acts = ActivationSet.from_arrays(hidden_states=[make(one) for one in states], **other)

    np.testing.assert_array_equal(states.transpose(1, 0, 2), acts.hidden_states)
    assert other.get("layers", [0, 1, 2]) == acts.layers.tolist()


def test_a_list_with_an_array_a_row_stays_one():
    states = layers(5, 3)

    acts = ActivationSet.from_arrays(hidden_states=list(states), labels=range(5))

    np.testing.assert_array_equal(states, acts.hidden_states)


@pytest.mark.parametrize(
    ("states", "other"), [(layers(3, 5), {}), (layers(4, 4), {"labels": range(4)})]
)
def test_a_list_that_can_be_read_either_way_is_refused(states, other):
    with pytest.raises(
        UsageError, match=r"one per layer or one per row. Give np.stack\(arrays, axis"
    ):
        ActivationSet.from_arrays(hidden_states=list(states), **other)


def test_layers_of_different_shapes_are_refused():
    with pytest.raises(
        UsageError,
        match=r"one array per layer, all of shape \(n_rows, d_model\), got 2 of \(4, 2\), \(5, 2\)",
    ):
        ActivationSet.from_arrays(hidden_states=[np.ones((5, 2)), np.ones((4, 2))])


def test_a_list_that_fits_neither_way_names_the_rows():
    with pytest.raises(UsageError, match="got 5 of hidden_states, 4 of labels"):
        ActivationSet.from_arrays(hidden_states=list(layers(3, 5)), labels=range(4))


def test_nested_lists_of_numbers_are_rows():
    acts = ActivationSet.from_arrays(hidden_states=[[[1, 2]], [[3, 4]], [[5, 6]]])

    assert (3, 1, 2) == acts.hidden_states.shape


@pytest.mark.parametrize("name", ["labels", "groups"])
def test_one_number_for_all_rows_is_refused(name):
    with pytest.raises(UsageError, match=rf"{name} must be one-dimensional, got shape \(\)"):
        ActivationSet.from_arrays(hidden_states=np.ones((4, 2, 3)), **{name: 3})


def test_numbers_beyond_float32_are_an_error_where_they_are_used_and_no_warning():
    acts = ActivationSet.from_arrays(hidden_states=np.full((4, 1, 3), 1e300))

    with pytest.raises(DataError, match="3 NaN or infinite values"):
        acts.layer(0)
