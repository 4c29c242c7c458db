"""Tensors wherever an array is taken: the answer is that of the float32 values they hold."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from tensors import Tensor

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    FeatureTargetExtractor,
    LayerSelector,
    RowSpaceProjector,
    SAEFeatureSelector,
    from_hidden_states,
    generate_dataset,
    layer_sweep,
    load_dataset,
    make_strategy,
    normalize_features,
    save_dataset,
)
from sklprep.exceptions import UsageError

N_ROWS, N_LAYERS, D_MODEL = 30, 3, 4


def values():
    """Arrays whose numbers bfloat16 holds exactly, and what is one a row."""
    rng = np.random.default_rng(0)
    labels = np.arange(N_ROWS) % 2
    states = rng.integers(-8, 8, (N_ROWS, N_LAYERS, D_MODEL)).astype("f4")
    states[:, 1, 0] += 4 * labels
    return {
        "states": states,
        "labels": labels.astype("f4"),
        "groups": np.arange(N_ROWS, dtype="f4") // 2,
    }


@pytest.fixture(params=["DLPack alone", "bfloat16", "with a gradient", "list of bfloat16"])
def as_tensor(request):
    if request.param == "DLPack alone":
        return lambda array: Tensor(array)
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'sklprep[hf]'")
    return {
        "bfloat16": lambda array: torch.tensor(array, dtype=torch.bfloat16, requires_grad=True),
        "with a gradient": lambda array: torch.tensor(array, requires_grad=True) * 1,
        "list of bfloat16": lambda array: [
            torch.tensor(row, dtype=torch.bfloat16) for row in array
        ],
    }[request.param]


def sweep(states, labels, groups):
    result = layer_sweep(None, states, labels, groups=groups, cv=3, inner_cv=3)
    return result.scores, result.scoring, result.best_layers


def fit_and_transform(transformer, X):
    fitted = transformer.fit(X)
    return fitted.fit_transform(X), fitted.transform(X)


DOORS = {
    "layer_sweep": sweep,
    "layer_sweep, groups by default": lambda states, labels, _: sweep(states, labels, None),
    "LayerSelector": lambda states, *_: fit_and_transform(LayerSelector([0, 2]), states),
    "SAEFeatureSelector": lambda states, *_: fit_and_transform(SAEFeatureSelector(1), states),
    "FeatureTargetExtractor": lambda states, *_: fit_and_transform(
        FeatureTargetExtractor(1, 2), states
    ),
    "a pipeline": lambda states, labels, _: fit_and_transform(
        make_pipeline(LayerSelector(1), ActivationNormalizer()), states
    ),
    "from_arrays": lambda states, labels, groups: (
        ActivationSet.from_arrays(hidden_states=states, labels=labels, groups=groups).fingerprint
    ),
}
MATRIX_DOORS = {
    "ActivationNormalizer": lambda X: fit_and_transform(ActivationNormalizer(), X),
    "its inverse": lambda X: ActivationNormalizer().partial_fit(X).inverse_transform(X),
    "RowSpaceProjector": lambda X: fit_and_transform(RowSpaceProjector(), X),
    "its inverse too": lambda X: RowSpaceProjector().fit(np.eye(4)).inverse_transform(X),
    "coefficients on its input": lambda X: RowSpaceProjector().fit(np.eye(4)).coef_on_input(X),
    "normalize_features": lambda X: normalize_features(X)[0],
}


def assert_same(expected, actual):
    if isinstance(expected, tuple | list):
        for one, other in zip(expected, actual, strict=True):
            assert_same(one, other)
    elif isinstance(expected, str | int):
        assert expected == actual
    else:
        one, other = (
            np.asarray(array.todense() if hasattr(array, "todense") else array)
            for array in (expected, actual)
        )
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("door", DOORS)
def test_layers_labels_and_groups_may_be_tensors(door, as_tensor):
    given = values()
    expected = DOORS[door](*given.values())

    actual = DOORS[door](*map(as_tensor, given.values()))

    assert_same(expected, actual)


@pytest.mark.parametrize("door", MATRIX_DOORS)
def test_matrices_may_be_tensors(door, as_tensor):
    X = values()["states"][:, 0]

    assert_same(MATRIX_DOORS[door](X), MATRIX_DOORS[door](as_tensor(X)))


def test_datasets_are_written_of_tensors(as_tensor, tmp_path):
    given = values()
    X, y = given["states"][:, 0], given["labels"]
    norm = {"strategy": "own", "norm_method": "minmax", "norm_min": X.min(0), "norm_max": X.max(0)}

    save_dataset(
        as_tensor(X), as_tensor(y), norm | {"norm_min": as_tensor(X.min(0))}, tmp_path / "d"
    )

    dataset = load_dataset(tmp_path / "d")
    np.testing.assert_array_equal(X, dataset.X)
    np.testing.assert_array_equal(y, dataset.y)
    np.testing.assert_array_equal(X.min(0), dataset.norm["norm_min"])


@pytest.mark.filterwarnings("ignore:Only 30 samples")
def test_rows_to_fit_on_may_be_a_tensor():
    given = values()
    acts = ActivationSet.from_arrays(hidden_states=given["states"], labels=np.arange(N_ROWS) % 4)
    strategy = make_strategy("hidden-to-concept", layers=1)
    rows = np.arange(0, N_ROWS, 2)

    actual = generate_dataset(acts, *strategy, fit_rows=Tensor(rows))

    np.testing.assert_array_equal(generate_dataset(acts, *strategy, fit_rows=rows).X, actual.X)


@pytest.mark.parametrize(
    "door",
    [
        lambda X: LayerSelector(0).fit(X),
        lambda X: ActivationNormalizer().fit(X),
        lambda X: RowSpaceProjector().fit(X),
        lambda X: layer_sweep(None, X, np.arange(N_ROWS) % 2),
        lambda X: from_hidden_states({0: X}),
    ],
)
def test_a_tensor_on_a_gpu_is_refused_in_one_line_at_every_door(door):
    X = Tensor(values()["states"][:, 0], on=(2, 0), device="cuda:0")

    with pytest.raises(UsageError, match=r"is on a GPU \(cuda:0\); .*\.cpu\(\)\.$"):
        door(X)
