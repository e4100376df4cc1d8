"""One bit pattern: results depend on values, shapes, types and options alone.

Not on threads, nor on where and in which order values lie in memory, nor on whether kernels were
prepared.
"""

from __future__ import annotations

import numpy as np
import pytest
import random_cases
import reference
from strategies import LAYOUTS, lay_out

import convext

GEOMETRY = ("stride", "padding", "dilation")
REPEATING = [name for name in LAYOUTS if "broadcast" in name]
OTHERS = [name for name in LAYOUTS if "broadcast" not in name]

# Samples, groups, channels and kernels of a group, height and width, each from and to: what is
# computed in ways that other random cases seldom take, by shifted sums, channel by channel, and
# with rows that are cut.
RARE = [
    ((1, 2), (1, 1), (8, 80), (1, 4), (10, 40), (16, 140)),
    ((1, 2), (1, 1), (1, 4), (8, 80), (10, 40), (16, 140)),
    ((1, 2), (2, 40), (1, 1), (1, 2), (10, 40), (1, 140)),
    ((1, 1), (1, 2), (1, 1), (1, 1), (30, 200), (60, 300)),
    ((1, 2), (1, 1), (1, 3), (1, 3), (7, 20), (1000, 4200)),
]


def bits(value):
    """Return the bytes of a number, of an array, or of each of a list."""
    if isinstance(value, (list, tuple)):
        return [bits(part) for part in value]
    return np.asarray(value).tobytes()


def any_layout(rng, array):
    """Return the array in a layout that is drawn; where it repeats values already, perhaps so."""
    return array if rng.random() < 0.2 else lay_out(array, str(rng.choice(OTHERS)))


def values_of(rng, case, shape):
    """Draw the values of an array, some of which repeat without being copied."""
    values = random_cases.values_of(rng, shape, case["dtype"])
    values = random_cases.with_values(values, case["values"], "c_order", rng)
    return lay_out(values, str(rng.choice(REPEATING))) if rng.random() < 0.1 else values


def draw_case(rng):
    """Draw the parameters of an operation."""
    case = random_cases.draw_operation(rng)
    if rng.random() < 0.5:
        ends = RARE[rng.integers(len(RARE))]
        samples, groups, channels, kernels, *image = (int(rng.integers(a, b + 1)) for a, b in ends)
        size = int(rng.choice([n for n in (1, 3, 5, 7) if n <= min(image)]))
        case |= {
            "input_shape": (samples, groups * channels, *image),
            "kernels_shape": (groups * kernels, channels, size, size),
            "groups": groups,
            "stride": int(rng.choice([1, 1, 2])),
            "dilation": 1,
            "padding": int(rng.choice([0, size // 2])),
            "algorithm": str(rng.choice(["auto", "auto", "direct", "depthwise", "shifted_sums"])),
        }
    return case


def arrays_of(case):
    """Draw the input, the kernels and the output gradients of an operation."""
    rng = np.random.default_rng(case["seed"])
    shape, (kernels, channels, *size) = case["input_shape"], case["kernels_shape"]
    results = reference.output_size(shape[-2:], size, *(case[name] for name in GEOMETRY))
    x = values_of(rng, case, shape)
    w = values_of(rng, case, (kernels, channels, *size))
    g = values_of(rng, case, (*shape[:-3], kernels, *results))
    return x, w[..., :1, :] * w[..., :1] if case["separable"] else w, g


def conv2d(x, w, g, bias, options):
    return convext.conv2d(x, w, bias=bias, **options)


def conv2d_into(x, w, g, bias, options):
    out = lay_out(np.full(g.shape, np.nan, x.dtype.newbyteorder("=")), "odd_singles")
    return convext.conv2d(x, w, bias=bias, out=out, **options)


def prepared(x, w, g, bias, options, shape=None):
    threads = options["num_threads"]
    options = {name: value for name, value in options.items() if name != "num_threads"}
    kernels = convext.prepare_kernels(w, shape, bias=bias, **options)
    return convext.conv2d(x, kernels, num_threads=threads)


def prepared_for_a_shape(x, w, g, bias, options):
    return prepared(x, w, g, bias, options, x.shape)


def kernel_grad(x, w, g, bias, options):
    return convext.conv2d_kernel_grad(x, g, w.shape[2:], **options)


def input_grad(x, w, g, bias, options):
    return convext.conv2d_input_grad(g, w, x.shape, **options)


# Functions that all give the same.
OPERATIONS = {
    "conv2d": [conv2d, conv2d_into, prepared, prepared_for_a_shape],
    "kernel_grad": [kernel_grad],
    "input_grad": [input_grad],
}


def check_case(operation, rng, times):
    """Compute an operation in some layouts, on some threads, and compare with plain arrays."""
    case = draw_case(rng)
    options = {name: case[name] for name in (*GEOMETRY, "groups")}
    arrays = arrays_of(case)
    plain = [array.copy() for array in arrays]
    bias = plain[1][:, 0, 0, 0].copy() if case["with_bias"] else None
    functions = OPERATIONS[operation]
    with random_cases.instruction_set(case["isa"]), np.errstate(all="ignore"):
        known = random_cases.applies(case["algorithm"], operation, *plain[:2], options)
        options["algorithm"] = case["algorithm"] if known else "auto"
        expected = functions[0](*plain, bias, options | {"num_threads": 1})
        for _ in range(times):
            function = functions[rng.integers(len(functions))]
            views = [any_layout(rng, array) for array in arrays]
            options["num_threads"] = int(rng.choice([1, 1, 2, 3]))
            actual = function(*views, bias, options)
            strides = [(view.shape, view.strides) for view in views]
            assert bits(actual) == bits(expected), (function.__name__, case, options, strides)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_has_one_bit_pattern(operation):
    rng = np.random.default_rng(1)
    for _ in range(300):
        check_case(operation, rng, 4)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_has_one_bit_pattern_in_thousands_of_cases(operation):
    rng = np.random.default_rng(2)
    for _ in range(5000):
        check_case(operation, rng, 8)


def train(x, y, mask, case, options):
    return convext.train_model(
        x, y, y.shape[1], case["kernel_shape"], 0.01, 2, batch_size=2, seed=1, verbose=False,
        **{name: case[name] for name in GEOMETRY}, **options,
    )  # fmt: skip


def fit(x, y, mask, case, options):
    layers = [
        convext.Conv2D(3, case["kernel_shape"], activation="relu", padding="same"),
        convext.Conv2D(x.shape[1], 3, padding="same"),
    ]
    model = convext.Sequential(layers, input_channels=x.shape[1], seed=0, dtype=case["dtype"])
    model.compile(convext.Adam(), "mse", ["mae"])
    history = model.fit(x, x, batch_size=2, shuffle=False, verbose=0, **options)
    loss = model.evaluate(x, x, **options)
    return [model.get_weights(), history.loss, loss, model.predict(x, **options)]


def sum_up(x, y, mask, case, options):
    geometry = {name: case[name] for name in GEOMETRY}
    statistics = convext.PatchStatistics(
        x.shape[1], y.shape[1], case["kernel_shape"], bias=True, **geometry
    )
    statistics.update(x, y, mask=mask, **options)
    return [statistics.products, statistics.cross_products, statistics.counts]


def solve(x, y, mask, case, options):
    geometry = {name: case[name] for name in GEOMETRY}
    solution = convext.solve_kernels(
        x, y, case["kernel_shape"], mask=mask, bias=True, l2=1e-3, **geometry, **options
    )
    return [solution.kernels, solution.bias, solution.loss]


def measure(x, y, mask, case, options):
    energy = convext.suggest_learning_rate(x, (1, 1))
    return [energy, convext.mse_loss(y, y[::-1] / 2), convext.mse_loss_gradient(y, y[::-1] / 2)]


WHOLES = [train, fit, sum_up, solve, measure]


def check_whole(function, rng):
    """Train, solve or measure with arrays in some layout, and compare with plain arrays."""
    case = random_cases.draw_solution(rng)
    shape, count = case["input_shape"], case["num_kernels"]
    size = reference.output_size(shape[2:], case["kernel_shape"], *(case[n] for n in GEOMETRY))
    arrays = [
        random_cases.values_of(rng, whole, case["dtype"])
        for whole in (shape, (shape[0], count, *size))
    ]
    counted = None if case["mask"] == "none" else rng.random((shape[0], 1, *size)) < 0.7
    if counted is not None:
        counted[0, :, 0, 0] = True
    with random_cases.instruction_set(case["isa"]):
        expected = function(*arrays, counted, case, {"num_threads": 1})
        views = [any_layout(rng, array) for array in arrays]
        mask = counted if counted is None else np.asfortranarray(counted)
        actual = function(*views, mask, case, {"num_threads": int(rng.integers(1, 4))})
    strides = [(view.shape, view.strides) for view in views]
    assert bits(actual) == bits(expected), (case, strides)


@pytest.mark.parametrize("function", WHOLES)
def test_what_is_made_of_operations_has_one_bit_pattern(function):
    rng = np.random.default_rng(3)
    for _ in range(30):
        check_whole(function, rng)


@pytest.mark.slow
@pytest.mark.parametrize("function", WHOLES)
def test_what_is_made_of_operations_has_one_bit_pattern_in_many_cases(function):
    rng = np.random.default_rng(4)
    for _ in range(1000):
        check_whole(function, rng)
