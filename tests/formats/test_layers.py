"""Layer specifications: what they mean, and what is said about those that mean nothing."""

import numpy as np
import pytest

from sklprep.exceptions import LayerNotFoundError, LayerSpecError
from sklprep.formats.layers import format_layers, parse_layers, require_layers

HINT = "write single layers, ranges and commas, such as 12, 0-5 or 0-2,10,15-17"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("12", [12]),
        ("0", [0]),
        ("007", [7]),
        ("0-5", [0, 1, 2, 3, 4, 5]),
        ("3-3", [3]),
        ("0-2,10,15-17", [0, 1, 2, 10, 15, 16, 17]),
        ("15-17,10,0-2", [0, 1, 2, 10, 15, 16, 17]),
        ("3,1,2,1", [1, 2, 3]),
        ("0-4,2-6,4", [0, 1, 2, 3, 4, 5, 6]),
        (" 0 - 2 , 10 ", [0, 1, 2, 10]),
        ("\t1\n", [1]),
        ("0-9999", list(range(10_000))),
        ("999999999", [999_999_999]),
        (12, [12]),
        (0, [0]),
        (np.int64(12), [12]),
        (np.uint8(200), [200]),
        ([12], [12]),
        ([12, 0, 12], [0, 12]),
        ((2, 1), [1, 2]),
        ({3, 1}, [1, 3]),
        (range(3), [0, 1, 2]),
        (iter([5, 4]), [4, 5]),
        (np.array([2, 0, 2]), [0, 2]),
        ([np.int32(3), 1], [1, 3]),
    ],
)
def test_a_spec_becomes_ascending_distinct_plain_ints(spec, expected):
    actual = parse_layers(spec)
    assert actual == expected
    assert {type(layer) for layer in actual} == {int}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", f"Layer specification '' has an empty part; {HINT}."),
        (" ", f"Layer specification ' ' has an empty part; {HINT}."),
        ("1,", f"Layer specification '1,' has an empty part; {HINT}."),
        (",1", f"Layer specification ',1' has an empty part; {HINT}."),
        ("1,,2", f"Layer specification '1,,2' has an empty part; {HINT}."),
        ("5-2", "Layer range '5-2' runs backwards; did you mean 2-5?"),
        ("0,17-15", "Layer range '17-15' runs backwards; did you mean 15-17?"),
        *(
            (f"{before}{part}", f"Layer specification '{before}{part}' cannot be read at '{part}'")
            for part in (
                *("abc", "0-", "1-2-3", "1--2", "--1", "1.5", "1e3", "+3", "0x10", "1_0", "1 2"),
                *(
                    "0:5",
                    "0..5",
                    "0\u20135",
                    "all",
                    "embeddings",
                    "٣",
                    "²",
                    "1;2",
                    "[1]",
                    "L1",
                    "-",
                ),
            )
            for before in ("", "0-2,")
        ),
        ("-1", "Layers are numbered from 0, got '-1'; give the number of the layer"),
        ("0,- 1", "Layers are numbered from 0, got '0,- 1'; give the number of the layer"),
        (-1, "Layers are numbered from 0, got -1; give the number of the layer"),
        ([3, -2], "Layers are numbered from 0, got [3, -2]; give the number of the layer"),
        ("0-10000", "Layer range '0-10000' spans 10,001 layers, more than the 10,000 allowed."),
        ("0-999999999", "Layer range '0-999999999' spans 1,000,000,000 layers"),
        ("1000000000", "Layer specification '1000000000' has too large a layer number."),
        ("0-" + "9" * 5000, "Layer specification '0-9999"),
        ([], f"No layer given in []; {HINT}."),
        ((), f"No layer given in (); {HINT}."),
        (1.0, f"Layers must be an int, a list of ints or a string, got float 1.0; {HINT}."),
        (None, f"Layers must be an int, a list of ints or a string, got NoneType None; {HINT}."),
        (True, f"Layers must be an int, a list of ints or a string, got bool True; {HINT}."),
        ([1, 2.0], f"Layers must be whole numbers, got 2.0 in [1, 2.0]; {HINT}."),
        ([True], f"Layers must be whole numbers, got True in [True]; {HINT}."),
        (["1", "2"], f"Layers must be whole numbers, got '1' in ['1', '2']; {HINT}."),
        ([[1, 2]], f"Layers must be whole numbers, got [1, 2] in [[1, 2]]; {HINT}."),
        ([None], f"Layers must be whole numbers, got None in [None]; {HINT}."),
        (np.array([1.0]), "Layers must be whole numbers, got np.float64(1.0) in "),
        (np.array([True]), "Layers must be whole numbers, got np.True_ in "),
    ],
)
def test_a_spec_that_cannot_be_read_is_quoted_with_what_was_expected(spec, message):
    with pytest.raises(LayerSpecError) as error:
        parse_layers(spec)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", [b"12", np.array(12)], ids=["bytes", "0-d array"])
def test_a_spec_of_an_odd_type_is_refused(spec):
    with pytest.raises(LayerSpecError):
        parse_layers(spec)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], ""),
        ([0], "0"),
        ([12, 11], "11-12"),
        ([0, 2, 4], "0,2,4"),
        ([17, 0, 15, 1, 10, 2, 16, 2], "0-2,10,15-17"),
        (np.array([3, 4, 5]), "3-5"),
        (range(26), "0-25"),
    ],
)
def test_layers_are_written_as_the_shortest_spec(layers, expected):
    assert format_layers(layers) == expected


def test_what_is_written_is_read_back():
    rng = np.random.default_rng(0)
    for trial in range(200):
        layers = sorted(set(rng.integers(0, 40, rng.integers(1, 30)).tolist()))
        assert parse_layers(format_layers(rng.permutation(layers))) == layers, f"trial {trial}"


def test_layers_that_the_data_has_pass():
    require_layers([3, 1], [1, 2, 3])
    require_layers([], [1])
    require_layers([0, 25], range(26))


@pytest.mark.parametrize(
    ("wanted", "available", "message"),
    [
        ([31], range(26), "Layer 31 not found in data: it has layers 0-25. Choose one of these."),
        ([5, 6, 1], [5, 8, 9], "Layer 6 not found in data (nor 1): it has layers 5,8-9."),
        ([0, 30, 31, 32], [0], "Layer 30 not found in data (nor 31-32): it has layers 0."),
        ([0], [], "Layer 0 not found in data: it has layers none."),
    ],
)
def test_a_layer_that_the_data_lacks_is_named_with_those_it_has(wanted, available, message):
    with pytest.raises(LayerNotFoundError) as error:
        require_layers(wanted, available)
    assert str(error.value).startswith(message)
