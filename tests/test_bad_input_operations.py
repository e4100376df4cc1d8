"""Bad arguments of the operations: the right exception, naming the argument, and nothing lost."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from strategies import LAYOUTS, lay_out

import convext

# Legal arguments, of which each test spoils one. All sizes differ, so that none passes for another.
X, W, G = np.ones((2, 4, 8, 9)), np.ones((6, 4, 3, 2)), np.ones((2, 6, 6, 8))
BIAS = np.ones(6)
EITHER = (TypeError, ValueError)

ARGUMENTS = {
    "conv2d": {"input_data": X, "kernels": W},
    "conv2d_kernel_grad": {"input_data": X, "output_grad": G, "kernel_shape": (3, 2)},
    "conv2d_input_grad": {"output_grad": G, "kernels": W, "input_shape": X.shape},
    "conv2d_backprop": {"input_data": X, "kernels": W, "target_output": G, "R": 2 * G},
    "mse_loss": {"predicted": 2 * G, "target": G},
    "mse_loss_gradient": {"predicted": 2 * G, "target": G},
}
OPERATIONS = ("conv2d", "conv2d_kernel_grad", "conv2d_input_grad")

# (function, name of one of its array arguments)
ARRAYS = [
    (function, name)
    for function, arguments in ARGUMENTS.items()
    for name, value in arguments.items()
    if isinstance(value, np.ndarray)
] + [("conv2d", "bias")]


def call(function, **changes):
    """Call a function with its legal arguments but for the changes."""
    return getattr(convext, function)(**{**ARGUMENTS[function], **changes})


def legal(name):
    """Return the legal value of an array argument."""
    arrays = {"bias": BIAS, "input_data": X, "kernels": W}
    return arrays.get(name, G)


@pytest.mark.parametrize("function", ARGUMENTS)
def test_the_arguments_that_these_tests_spoil_are_legal(function):
    assert np.abs(call(function)).sum() > 0


# ---------------------------------------------------------------- types of arrays

NOT_REAL = {
    "complex64": lambda a: a.astype(np.complex64),
    "complex128": lambda a: a + 0j,
    "object": lambda a: a.astype(object),
    "string": lambda a: a.astype(str),
    "bytes": lambda a: a.astype(bytes),
    "datetime64": lambda a: a.astype(np.int64).astype("datetime64[s]"),
    "timedelta64": lambda a: a.astype(np.int64).astype("timedelta64[s]"),
    "structured": lambda a: np.zeros(a.shape, [("value", float)]),
}


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.parametrize("kind", NOT_REAL)
def test_arrays_of_anything_but_real_numbers_are_a_type_error(function, name, kind):
    array = NOT_REAL[kind](legal(name))
    with pytest.raises(TypeError, match=rf"\b{name}\b") as caught:
        call(function, **{name: array})
    # The message shows the type that came.
    shown = array.dtype.name if array.dtype.kind not in "USV" else str(array.dtype)
    assert shown.split("[")[0] in str(caught.value)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is float64 here")
def test_arrays_of_long_doubles_are_a_type_error(function, name):
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        call(function, **{name: legal(name).astype(np.longdouble)})


@pytest.mark.parametrize(("function", "name"), [a for a in ARRAYS if a[1] != "bias"])
@pytest.mark.parametrize("value", [None, "image.png", len, {1: 2}], ids=str)
def test_what_is_no_array_is_a_type_error(function, name, value):
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        call(function, **{name: value})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_ragged_lists_are_an_error(function, name):
    with pytest.raises(EITHER, match=rf"\b{name}\b"):
        call(function, **{name: [[[1.0, 2.0], [3.0]]]})


# ---------------------------------------------------------------- shapes of arrays


@pytest.mark.parametrize(("function", "name"), [a for a in ARRAYS if not a[0].startswith("mse")])
def test_a_wrong_number_of_dimensions_is_a_value_error(function, name):
    allowed = {"bias": (1,), "kernels": (4,)}.get(name, (3, 4))
    for dimensions in set(range(6)).difference(allowed):
        with pytest.raises(ValueError, match=rf"\b{name}\b") as caught:
            call(function, **{name: np.ones((2,) * dimensions)})
        assert "dimension" in str(caught.value) or "shape" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "name", "array"),
    [
        ("conv2d_kernel_grad", "output_grad", G[0]),
        ("conv2d_kernel_grad", "input_data", X[0]),
        ("conv2d_input_grad", "output_grad", G[0]),
        ("conv2d_backprop", "target_output", G[0]),
        ("conv2d_backprop", "R", G[0]),
    ],
)
def test_arrays_with_n_and_without_it_are_not_mixed(function, name, array):
    with pytest.raises(ValueError, match=r"\b(input|output|target|R)"):
        call(function, **{name: array})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_a_zero_size_of_any_axis_is_a_value_error(function, name):
    shape = legal(name).shape
    for axis in range(len(shape)):
        empty = np.ones((*shape[:axis], 0, *shape[axis + 1 :]))
        # An empty batch is one: tests/test_empty_batches.py.
        if (function, name, axis) in {("conv2d", "input_data", 0)}:
            continue
        # Of two arrays of different N either may be named.
        names = "input_shape|" if (name, axis) == ("output_grad", 0) else ""
        if axis == 0 and name in ("input_data", "output_grad"):
            names += "output_grad|R|target_output|"
        with pytest.raises(ValueError, match=rf"\b({names}{name})\b"):
            call(function, **{name: empty})


def test_the_loss_of_empty_arrays_is_a_value_error():
    with pytest.raises(ValueError, match="predicted"):
        call("mse_loss", predicted=np.ones((0, 6)), target=np.ones((0, 6)))


@pytest.mark.parametrize(
    ("function", "changes"),
    [
        ("conv2d", {"kernels": np.ones((6, 5, 3, 2))}),
        ("conv2d", {"input_data": np.ones((2, 5, 8, 9))}),
        ("conv2d", {"kernels": np.ones((6, 4, 3, 2)), "groups": 2}),
        ("conv2d", {"kernels": np.ones((6, 1, 3, 2))}),
        ("conv2d_backprop", {"kernels": np.ones((6, 5, 3, 2))}),
    ],
)
def test_channels_that_do_not_match_are_shown(function, changes):
    with pytest.raises(ValueError, match=r"channel") as caught:
        call(function, **changes)
    message = str(caught.value)
    assert "kernels" in message
    assert "input_data" in message
    kernels = changes.get("kernels", W)
    assert str(kernels.shape[1]) in message


def test_an_input_shape_whose_channels_do_not_match_is_a_value_error():
    with pytest.raises(ValueError, match=r"input_shape") as caught:
        call("conv2d_input_grad", input_shape=(2, 5, 8, 9))
    assert "5" in str(caught.value)
    assert "4" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"kernels": np.ones((6, 4, 9, 2))},
        {"kernels": np.ones((6, 4, 3, 10))},
        {"kernels": np.ones((6, 4, 11, 2)), "padding": 1},
        {"kernels": np.ones((6, 4, 11, 2)), "padding": ((2, 0), (9, 9))},
        {"dilation": (4, 1)},
        {"dilation": (1, 9)},
        {"kernels": np.ones((6, 4, 9, 2)), "padding": "valid"},
    ],
)
def test_a_kernel_larger_than_the_padded_input_is_a_value_error(changes):
    with pytest.raises(ValueError, match=r"kernel.*(larger|fit|exceed)|input_data.*small"):
        call("conv2d", **changes)
    kernels = changes.pop("kernels", W)
    with pytest.raises(ValueError, match=r"kernel"):
        call("conv2d_kernel_grad", kernel_shape=kernels.shape[2:], **changes)
    with pytest.raises(ValueError, match=r"kernel"):
        call("conv2d_input_grad", kernels=kernels, **changes)


def test_a_kernel_as_large_as_the_padded_input_is_legal():
    assert call("conv2d", kernels=np.ones((6, 4, 10, 11)), padding=1).shape == (2, 6, 1, 1)
    assert call("conv2d", kernels=np.ones((6, 4, 9, 30)), padding="same").shape == (2, 6, 8, 9)


@pytest.mark.parametrize("length", [1, 5, 7])
def test_a_bias_of_the_wrong_length_is_a_value_error(length):
    with pytest.raises(ValueError, match=r"\bbias\b") as caught:
        call("conv2d", bias=np.ones(length))
    assert "6" in str(caught.value)
    assert str(length) in str(caught.value)


@pytest.mark.parametrize(
    "shape", [(2, 6, 6, 7), (2, 6, 5, 8), (1, 6, 6, 8), (3, 6, 6, 8), (2, 6, 8, 6)]
)
@pytest.mark.parametrize("function", ["conv2d_kernel_grad", "conv2d_input_grad"])
def test_an_output_gradient_of_the_wrong_shape_says_which_it_must_have(function, shape):
    with pytest.raises(ValueError, match=r"\boutput_grad\b") as caught:
        call(function, output_grad=np.ones(shape))
    message = str(caught.value)
    assert str(shape)[1:-1] in message
    assert "(2, 6, 6, 8)" in message or "(2, K, 6, 8)" in message


def test_an_output_gradient_with_other_kernels_than_there_are_is_a_value_error():
    with pytest.raises(ValueError, match=r"\boutput_grad\b") as caught:
        call("conv2d_input_grad", output_grad=np.ones((2, 5, 6, 8)))
    assert "(2, 6, 6, 8)" in str(caught.value)


@pytest.mark.parametrize("name", ["target_output", "R"])
@pytest.mark.parametrize(
    "shape", [(2, 6, 6, 7), (2, 6, 7, 8), (2, 5, 6, 8), (3, 6, 6, 8), (2, 1, 6, 8), (6, 6, 8)]
)
def test_a_target_or_prediction_of_the_wrong_shape_says_which_it_must_have(name, shape):
    with pytest.raises(ValueError, match=rf"\b{name}\b") as caught:
        call("conv2d_backprop", **{name: np.ones(shape)})
    assert "(2, 6, 6, 8)" in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("function", ["mse_loss", "mse_loss_gradient"])
@pytest.mark.parametrize("shape", [(2, 6, 6, 7), (1, 6, 6, 8), (6, 6, 8), (2, 6, 1, 1)])
def test_losses_of_different_shapes_are_a_value_error_and_do_not_broadcast(function, shape):
    for name, other in (("predicted", "target"), ("target", "predicted")):
        with pytest.raises(ValueError, match=rf"\b{name}\b") as caught:
            call(function, **{name: np.ones(shape)})
        assert other in str(caught.value)
        assert str(shape) in str(caught.value)


# ---------------------------------------------------------------- kernel_shape and input_shape

SHAPE_ARGUMENTS = [("conv2d_kernel_grad", "kernel_shape"), ("conv2d_input_grad", "input_shape")]


@pytest.mark.parametrize(("function", "name"), SHAPE_ARGUMENTS)
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3, 4, 5), [2, 2, 2, 2, 2, 2]])
def test_shapes_of_the_wrong_length_are_a_value_error(function, name, shape):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        call(function, **{name: shape})


def test_a_kernel_shape_with_channels_and_an_input_shape_without_are_value_errors():
    with pytest.raises(ValueError, match="kernel_shape"):
        call("conv2d_kernel_grad", kernel_shape=(6, 4, 3, 2))
    with pytest.raises(ValueError, match="input_shape"):
        call("conv2d_input_grad", input_shape=(8, 9))


@pytest.mark.parametrize(("function", "name"), SHAPE_ARGUMENTS)
@pytest.mark.parametrize("size", [1.0, 2.5, "3", None, True, np.float64(3), 1j])
def test_shapes_of_anything_but_integers_are_a_type_error(function, name, size):
    shape = list(ARGUMENTS[function][name])
    for axis in range(len(shape)):
        with pytest.raises(TypeError, match=rf"\b{name}\b"):
            call(function, **{name: (*shape[:axis], size, *shape[axis + 1 :])})


@pytest.mark.parametrize(("function", "name"), SHAPE_ARGUMENTS)
@pytest.mark.parametrize("size", [0, -1, -(2**70)])
def test_shapes_with_zero_or_negative_sizes_are_a_value_error(function, name, size):
    shape = list(ARGUMENTS[function][name])
    for axis in range(len(shape)):
        # No samples are an empty batch, which does not fit these gradients.
        empty = size == 0 and (name, axis) == ("input_shape", 0)
        with pytest.raises(ValueError, match=rf"\b{'output_grad' if empty else name}\b"):
            call(function, **{name: (*shape[:axis], size, *shape[axis + 1 :])})


@pytest.mark.parametrize(("function", "name"), SHAPE_ARGUMENTS)
@pytest.mark.parametrize("value", [None, -3, 2.5, "33", {3, 2}])
def test_shapes_that_are_no_tuple_are_an_error(function, name, value):
    with pytest.raises(EITHER, match=rf"\b{name}\b"):
        call(function, **{name: value})


@pytest.mark.parametrize(
    ("function", "name"),
    [*SHAPE_ARGUMENTS]
    + [(f, name) for f in OPERATIONS for name in ("stride", "padding", "dilation", "groups")],
)
@pytest.mark.parametrize("array", [X, G, np.ones((3, 50, 50)), np.ones(99), np.array(2.5)])
def test_an_array_in_place_of_an_option_is_told_by_its_shape(function, name, array):
    with pytest.raises(EITHER, match=rf"{name}\b.* must be .* got") as caught:
        call(function, **{name: array})
    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)


def test_arrays_without_dimensions_are_integers():
    expected = call("conv2d", stride=2, padding=1, dilation=2)
    options = {"stride": np.array(2), "padding": np.array(1), "dilation": np.array(2)}
    assert (call("conv2d", **options) == expected).all()


@pytest.mark.parametrize(
    "input_shape", [(2, 4, 7, 9), (2, 4, 8, 8), (3, 4, 8, 9), (1, 4, 8, 9), (4, 9, 9)]
)
def test_an_input_shape_that_the_gradient_does_not_match_says_which_gradient_it_needs(input_shape):
    with pytest.raises(ValueError, match=r"output_grad|input_shape") as caught:
        call("conv2d_input_grad", input_shape=input_shape)
    needed = (input_shape[-2] - 2, input_shape[-1] - 1)
    assert ", ".join(map(str, needed)) in str(caught.value)


@pytest.mark.parametrize("kernel_shape", [(4, 2), (3, 3), (2, 3), (1, 1)])
def test_a_kernel_shape_that_the_gradient_does_not_match_says_which_gradient_it_needs(kernel_shape):
    with pytest.raises(ValueError, match=r"output_grad|kernel_shape") as caught:
        call("conv2d_kernel_grad", kernel_shape=kernel_shape)
    needed = (8 - kernel_shape[0] + 1, 9 - kernel_shape[1] + 1)
    assert ", ".join(map(str, needed)) in str(caught.value)


# ---------------------------------------------------------------- stride, dilation and padding

NOT_INTEGERS = [1.5, 1.0, "2", b"2", None, True, np.True_, np.float64(2), 2j, {1, 2}]


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_a_stride_or_dilation_that_is_no_integer_is_a_type_error(function, name, value):
    for wrong in (value, (value, 1), (1, value)):
        with pytest.raises(TypeError, match=rf"\b{name}\b"):
            call(function, **{name: wrong})


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [0, -1, -(2**70), np.int64(0)])
def test_a_stride_or_dilation_below_one_is_a_value_error(function, name, value):
    for wrong in (value, (value, 1), (1, value)):
        with pytest.raises(ValueError, match=rf"\b{name}\b") as caught:
            call(function, **{name: wrong})
        assert str(value) in str(caught.value)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("name", ["stride", "dilation", "padding"])
@pytest.mark.parametrize("value", [(), (1,), (1, 1, 1), [1, 1, 1, 1], np.ones(3, int)], ids=repr)
def test_pairs_of_the_wrong_length_are_a_value_error(function, name, value):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        call(function, **{name: value})


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [1.5, 1.0, None, True, np.False_, np.float64(2), 2j, {1, 2}])
def test_a_padding_that_is_no_integer_is_a_type_error(function, value):
    for wrong in (value, (value, 1), (1, value), ((value, 1), (1, 1)), ((1, 1), (1, value))):
        with pytest.raises(TypeError, match=r"\bpadding\b"):
            call(function, padding=wrong)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [-1, -(2**70)])
def test_a_negative_padding_is_a_value_error(function, value):
    for wrong in (value, (value, 1), (1, value), ((value, 1), (1, 1)), ((1, 1), (1, value))):
        with pytest.raises(ValueError, match=r"\bpadding\b") as caught:
            call(function, padding=wrong)
        assert str(value) in str(caught.value)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("word", ["", "full", "SAME ", "2"])
def test_an_unknown_word_for_the_padding_is_a_value_error_that_offers_the_known(function, word):
    with pytest.raises(ValueError, match=r"\bpadding\b") as caught:
        call(function, padding=word)
    assert "same" in str(caught.value)
    assert "valid" in str(caught.value)
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize(
    "value", [((1, 1),), ((1, 1, 1), (1, 1)), ((1, 1), (1,)), ((1, 1), (1, 1), (1, 1)), ((), ())]
)
def test_pairs_of_pairs_of_the_wrong_length_are_a_value_error(function, value):
    with pytest.raises(ValueError, match=r"\bpadding\b"):
        call(function, padding=value)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [("1", 1), ("same", "same"), ((1, "1"), (1, 1)), (b"1", 1)])
def test_words_inside_a_pair_are_an_error(function, value):
    with pytest.raises(EITHER, match=r"\bpadding\b"):
        call(function, padding=value)


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [*NOT_INTEGERS, (1, 1)], ids=repr)
def test_groups_that_are_no_integer_are_a_type_error(function, value):
    with pytest.raises(TypeError, match=r"\bgroups\b"):
        call(function, groups=value)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [0, -1, -(2**70)])
def test_groups_below_one_are_a_value_error(function, value):
    with pytest.raises(ValueError, match=r"\bgroups\b") as caught:
        call(function, groups=value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("function", ["conv2d", "conv2d_kernel_grad"])
@pytest.mark.parametrize("groups", [3, 5, 8, 2**40, 2**63, 2**70])
def test_channels_that_groups_do_not_divide_are_a_value_error(function, groups):
    # 3 divides the 6 kernels, but not the 4 channels.
    changes = {"kernels": np.ones((6, 1, 3, 2))} if function == "conv2d" else {}
    with pytest.raises(ValueError, match=r"\bgroups\b") as caught:
        call(function, groups=groups, **changes)
    assert str(groups) in str(caught.value)


@pytest.mark.parametrize("function", OPERATIONS)
def test_kernels_that_groups_do_not_divide_are_a_value_error(function):
    # 4 divides the 4 channels, but not the 6 kernels.
    changes = {} if function == "conv2d_kernel_grad" else {"kernels": np.ones((6, 1, 3, 2))}
    with pytest.raises(ValueError, match=r"\bgroups\b") as caught:
        call(function, groups=4, **changes)
    assert "4" in str(caught.value)
    assert "6" in str(caught.value)


# ---------------------------------------------------------------- num_threads


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [1.5, 2.0, "2", True, np.True_, (2,), np.float64(1)], ids=repr)
def test_a_number_of_threads_that_is_no_integer_is_a_type_error(function, value):
    with pytest.raises(TypeError, match=r"\bnum_threads\b"):
        call(function, num_threads=value)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [0, -1, -(2**70)])
def test_a_number_of_threads_below_one_is_a_value_error(function, value):
    with pytest.raises(ValueError, match=r"\bnum_threads\b") as caught:
        call(function, num_threads=value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("function", OPERATIONS)
def test_a_number_of_threads_that_no_machine_can_count_is_a_value_error(function):
    with pytest.raises(ValueError, match=r"\bnum_threads\b"):
        call(function, num_threads=2**70)


@pytest.mark.parametrize("value", [1.5, "2", True])
def test_set_num_threads_wants_an_integer(restored_num_threads, value):
    with pytest.raises(TypeError, match="integer"):
        convext.set_num_threads(value)
    assert convext.get_num_threads() == restored_num_threads


@pytest.mark.parametrize("value", [0, -1, 2**70, -(2**70)])
def test_set_num_threads_wants_a_possible_number(restored_num_threads, value):
    with pytest.raises(ValueError, match=r"thread|\bn\b"):
        convext.set_num_threads(value)
    assert convext.get_num_threads() == restored_num_threads


MANY_THREADS = """
    import numpy as np
    import convext

    x, w = np.ones((4, 16, 64, 64)), np.ones((16, 16, 3, 3))
    for num_threads in (1_000, 10**6, 2**31 - 1, 2**31, 2**32 + 1, 2**62):
        try:
            result = convext.conv2d(x, w, num_threads=num_threads)
            assert np.abs(result - 144).max() < 1e-9
        except ValueError as error:
            assert "num_threads" in str(error)
            assert num_threads > 1_000
    print("done")
"""


def test_a_huge_number_of_threads_is_limited_or_refused():
    # In a process of its own: a million threads would end it.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MANY_THREADS)],
        cwd=Path(convext.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["done"], done.stderr[-2000:]


# ---------------------------------------------------------------- sizes that overflow

HUGE = [2**31, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 + 1, 2**70]


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", [n for n in HUGE if n >= 2**61])
def test_a_padding_whose_output_overflows_is_a_value_error(function, value):
    for huge in (value, (value, 0), (0, value), ((value, 0), (0, 0)), ((0, 0), (0, value))):
        with pytest.raises(ValueError, match=r"padding|large|output_grad"):
            call(function, padding=huge)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("value", HUGE)
def test_a_huge_dilation_makes_the_kernel_larger_than_the_input(function, value):
    for huge in (value, (value, 1), (1, value)):
        with pytest.raises(ValueError, match=r"dilation|kernel"):
            call(function, dilation=huge)


@pytest.mark.parametrize("function", OPERATIONS)
def test_a_huge_dilation_and_padding_whose_sums_overflow_are_a_value_error(function):
    for dilation, padding in ((2**62, 2**62), (2**63 - 1, 2**62), (2**32, 2**61)):
        with pytest.raises(ValueError, match=r"dilation|padding|kernel|large|output_grad"):
            call(function, dilation=dilation, padding=padding)


@pytest.mark.parametrize("value", [100, *HUGE])
def test_a_huge_stride_gives_one_output_or_is_refused(value):
    for stride, column in (((value, 1), np.s_[:, :, :1, :]), ((1, value), np.s_[..., :1])):
        try:
            result = call("conv2d", stride=stride)
        except ValueError as error:
            assert "stride" in str(error)  # noqa: PT017
            assert value > 2**30
        else:
            np.testing.assert_array_equal(result, call("conv2d")[column])


@pytest.mark.parametrize("value", [100, *HUGE])
def test_a_huge_stride_reaches_the_gradients_of_one_output_or_is_refused(value):
    g = np.ones((2, 6, 1, 1))
    try:
        by_kernels = call("conv2d_kernel_grad", output_grad=g, stride=value)
        by_input = call("conv2d_input_grad", output_grad=g, stride=value)
    except ValueError as error:
        assert "stride" in str(error)  # noqa: PT017
        assert value > 2**30
    else:
        assert (by_kernels == 2).all()
        assert (by_input[..., :3, :2] == 6).all()
        assert by_input.sum() == 6 * 2 * 4 * 3 * 2


@pytest.mark.parametrize("value", HUGE)
def test_a_huge_dilation_of_a_kernel_of_one_is_no_dilation_or_refused(value):
    kernels = np.full((6, 4, 1, 1), 2.0)
    try:
        result = call("conv2d", kernels=kernels, dilation=value)
    except ValueError as error:
        assert "dilation" in str(error)  # noqa: PT017
    else:
        assert result.shape == (2, 6, 8, 9)
        assert (result == 8).all()


@pytest.mark.parametrize(
    "input_shape",
    [
        (2**40, 2**40, 2**40),
        (2, 4, 2**40, 2**40),
        (2**62, 4, 8, 9),
        (2**70, 4, 8, 9),
        (4, 2**63, 1),
    ],
)
def test_an_input_shape_that_overflows_is_a_value_error(input_shape):
    with pytest.raises(ValueError, match=r"input_shape|output_grad"):
        call("conv2d_input_grad", input_shape=input_shape)


@pytest.mark.parametrize("kernel_shape", [(2**40, 2**40), (2**62, 2), (3, 2**70), (2**63 - 1, 1)])
def test_a_kernel_shape_that_overflows_is_a_value_error(kernel_shape):
    for padding in (0, 2**61):
        with pytest.raises(ValueError, match=r"kernel|padding|large|output_grad"):
            call("conv2d_kernel_grad", kernel_shape=kernel_shape, padding=padding)


def test_a_result_that_could_not_be_addressed_is_a_value_error():
    # A legal input, since a broadcast view takes no memory; its eight outputs would take 2**65 B.
    x = np.broadcast_to(np.float32(1), (1, 2**30, 2**30))
    with pytest.raises(ValueError, match=r"large|output|result|size"):
        convext.conv2d(x, np.ones((8, 1, 1, 1), np.float32))


# ---------------------------------------------------------------- out


def expected_out():
    return np.full((2, 6, 6, 8), 7.0)


@pytest.mark.parametrize(
    "shape", [(2, 6, 6, 7), (2, 6, 8, 6), (1, 6, 6, 8), (3, 6, 6, 8), (6, 6, 8), (576,), (0,), ()]
)
def test_an_out_of_the_wrong_shape_says_which_it_must_have(shape):
    with pytest.raises(ValueError, match=r"\bout\b") as caught:
        call("conv2d", out=np.ones(shape))
    assert "(2, 6, 6, 8)" in str(caught.value)
    assert str(shape) in str(caught.value)


def test_an_out_with_n_for_an_input_without_it_is_a_value_error():
    with pytest.raises(ValueError, match=r"\bout\b") as caught:
        call("conv2d", input_data=X[0], out=np.ones((1, 6, 6, 8)))
    assert "(6, 6, 8)" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "complex128", "object", "bool"])
def test_an_out_of_the_wrong_type_says_which_it_must_have(dtype):
    out = np.ones((2, 6, 6, 8), dtype)
    with pytest.raises(TypeError, match=r"\bout\b") as caught:
        call("conv2d", out=out)
    assert "float64" in str(caught.value)
    assert dtype in str(caught.value)
    assert (out == 1).all()


def test_an_out_in_double_precision_for_a_single_precision_result_is_a_type_error():
    with pytest.raises(TypeError, match=r"\bout\b.*float32"):
        call("conv2d", input_data=X.astype("f4"), kernels=W.astype("f4"), out=expected_out())


@pytest.mark.parametrize("out", [[1.0], 5, "out.npy", np.float64(3), memoryview(b"12345678")])
def test_an_out_that_is_no_array_is_a_type_error(out):
    with pytest.raises(TypeError, match=r"\bout\b"):
        call("conv2d", out=out)


@pytest.mark.parametrize(
    "layout", ["fortran_order", "channels_last", "reversed", "stepped", "cropped"]
)
def test_an_out_that_is_not_contiguous_is_a_value_error(layout):
    out = lay_out(expected_out(), layout)
    with pytest.raises(ValueError, match=r"\bout\b.*contiguous"):
        call("conv2d", out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("layout", ["read_only", "broadcast_first"])
def test_an_out_that_cannot_be_written_is_a_value_error(layout):
    out = lay_out(expected_out(), layout)
    with pytest.raises(ValueError, match=r"\bout\b"):
        call("conv2d", out=out)
    assert (out == 7).all()


def test_an_out_in_the_other_byte_order_is_an_error():
    out = lay_out(expected_out(), "swapped_bytes")
    with pytest.raises(EITHER, match=r"\bout\b"):
        call("conv2d", out=out)
    assert (out == 7).all()


def test_an_unaligned_out_is_refused_or_right():
    out = lay_out(expected_out(), "unaligned")
    try:
        call("conv2d", out=out)
    except ValueError as error:
        assert "out" in str(error)  # noqa: PT017
        assert (out == 7).all()
    else:
        assert (out == 24).all()


ONE_BY_ONE = np.full((1, 1, 1, 1), 2.0)


@pytest.mark.parametrize("offset", [0, 1, 24, -24])
def test_an_out_that_overlaps_the_input_is_a_value_error(offset):
    buffer = np.ones(75)
    x = buffer[25:50].reshape(1, 5, 5)
    out = buffer[25 + offset : 50 + offset].reshape(1, 5, 5)
    with pytest.raises(ValueError, match=r"\bout\b.*(overlap|share)"):
        convext.conv2d(x, ONE_BY_ONE, out=out)
    assert (buffer == 1).all()


def test_an_out_that_overlaps_a_converted_or_strided_input_is_a_value_error():
    # The input is copied before it is used here; that is no reason to accept it only sometimes.
    buffer = np.ones(50)
    strided = buffer[::2].reshape(1, 5, 5)
    with pytest.raises(ValueError, match=r"\bout\b.*(overlap|share)"):
        convext.conv2d(strided, ONE_BY_ONE, out=buffer[:25].reshape(1, 5, 5))
    halves = buffer.view(np.float32)[:25].reshape(1, 5, 5)
    with pytest.raises(ValueError, match=r"\bout\b.*(overlap|share)"):
        convext.conv2d(halves, ONE_BY_ONE, out=buffer[:25].reshape(1, 5, 5))
    assert (buffer == 1).all()


def test_an_out_that_overlaps_the_kernels_or_the_bias_is_a_value_error():
    buffer = np.ones(25)
    kernels, bias = buffer[24:].reshape(1, 1, 1, 1), buffer[:1]
    out = buffer.reshape(1, 5, 5)
    for changes in ({"kernels": kernels}, {"kernels": ONE_BY_ONE, "bias": bias}):
        with pytest.raises(ValueError, match=r"\bout\b.*(overlap|share)"):
            convext.conv2d(np.ones((1, 5, 5)), **changes, out=out)
    assert (buffer == 1).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 0},
        {"padding": "full"},
        {"dilation": 50},
        {"groups": 3},
        {"num_threads": 0},
        {"bias": np.ones(5)},
        {"kernels": np.ones((6, 3, 3, 2))},
    ],
    ids=str,
)
def test_an_error_leaves_out_as_it_was(changes):
    out = expected_out()
    with pytest.raises(ValueError, match=r".+"):
        call("conv2d", out=out, **changes)
    assert (out == 7).all()


# ---------------------------------------------------------------- legal oddities


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "broadcast" not in name])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int16"])
@pytest.mark.parametrize("function", ["conv2d", "conv2d_kernel_grad", "conv2d_input_grad"])
def test_any_layout_gives_the_same_bits_as_a_plain_array(isa, function, dtype, layout):
    rng = np.random.default_rng(20)
    plain = {
        name: rng.integers(-99, 99, value.shape).astype(dtype)
        for name, value in ARGUMENTS[function].items()
        if isinstance(value, np.ndarray)
    }
    odd = {name: lay_out(values, layout) for name, values in plain.items()}
    expected, actual = call(function, **plain), call(function, **odd)
    assert np.abs(expected).sum() > 0
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("function", ARGUMENTS)
def test_broadcast_views_give_the_same_as_their_copies(function):
    arrays = {
        name: np.broadcast_to(np.arange(value.shape[-1]) / 3, value.shape)
        for name, value in ARGUMENTS[function].items()
        if isinstance(value, np.ndarray)
    }
    # Of equal values in "predicted" and "target" the loss would be zero.
    if "predicted" in arrays:
        arrays["predicted"] = np.broadcast_to(2.5, G.shape)
    copies = {name: view.copy() for name, view in arrays.items()}
    expected = call(function, **copies)
    assert np.abs(expected).sum() > 0 or function == "conv2d_backprop"
    np.testing.assert_array_equal(call(function, **arrays), expected)


@pytest.mark.parametrize("function", ARGUMENTS)
def test_nested_lists_give_the_same_as_arrays(function):
    rng = np.random.default_rng(21)
    arrays = {
        name: rng.random(value.shape)
        for name, value in ARGUMENTS[function].items()
        if isinstance(value, np.ndarray)
    }
    lists = {name: values.tolist() for name, values in arrays.items()}
    expected = call(function, **arrays)
    assert np.abs(expected).sum() > 0
    np.testing.assert_array_equal(call(function, **lists), expected)
    if function == "conv2d":
        bias = rng.random(6)
        expected = call(function, **arrays, bias=bias)
        np.testing.assert_array_equal(call(function, **lists, bias=bias.tolist()), expected)


def test_array_subclasses_and_array_likes_give_plain_arrays():
    class Image:
        def __array__(self, dtype=None, copy=None):
            return np.asarray(X[0], dtype=dtype)

    masked = np.ma.masked_array(X, mask=False)
    for image, expected in ((Image(), call("conv2d")[0]), (masked, call("conv2d"))):
        result = call("conv2d", input_data=image)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)


# Positions so far out once overflowed in compiled code: a corrupted heap, a crash, a wrong result.
FAR_OUT = [
    {"padding": 2**59, "dilation": 2**59},
    {"padding": 2**63 - 1, "dilation": 2**63 - 1, "stride": 2**63 - 1},
    {"padding": 2**62, "stride": 2**62},
    {"padding": ((0, 0), (0, 2**40)), "stride": 2**40},
]


@pytest.mark.parametrize("options", FAR_OUT, ids=str)
@pytest.mark.parametrize("operation", ["conv2d", "conv2d_kernel_grad", "conv2d_input_grad"])
def test_padding_that_positions_cannot_hold_is_a_value_error(operation, options):
    images, kernels = np.ones((16, 3, 3), "f4"), np.ones((4, 16, 3, 3), "f4")
    gradient = np.ones((4, 3, 3), "f4")
    arguments = {
        "conv2d": (images, kernels),
        "conv2d_kernel_grad": (images, gradient, (3, 3)),
        "conv2d_input_grad": (gradient, kernels, images.shape),
    }[operation]
    with pytest.raises(ValueError, match=r"padding"):
        getattr(convext, operation)(*arguments, **options)
