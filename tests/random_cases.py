"""Random cases of all that reads and writes memory in compiled code, and what is right for each;
of damaged files; and of calls with wrong arguments.

A kind has two functions: one draws the parameters of a case, plain numbers and strings, the other
runs it and compares the results with NumPy's. What fixed tests do not vary is drawn: counts just
above and below whole vectors, images of one row or column or smaller than the kernel, kernels up to
15x15, last batches that are shorter, paddings larger than the image, parts of every size.
"""

from __future__ import annotations

import contextlib
import math
import warnings

import hostile_calls
import mutated_files
import numpy as np
import plain_network
import reference
from strategies import LAYOUTS, Case, lay_out

import convext
from convext.base import _dispatch
from convext.nn import prediction as forward
from convext.solve import blocks
from convext.train import _steps, _training

# Sizes of vectors, and how many kernels the micro-kernels take at once.
VECTORS = (4, 6, 8, 14, 16, 32)

# Images, channels and kernels are drawn smaller until a case takes no more products than these.
FEW_PRODUCTS, MANY_PRODUCTS = 2e3, 2e6

# Relative to the largest sum of absolute products: what Winograd's and Fourier's ways lose, too.
LOOSE = {"float32": 3e-5, "float64": 3e-13}


def some(rng, most):
    """Draw a count from 1 to `most`, often near whole vectors."""
    if rng.random() < 0.5:
        return int(rng.integers(1, rng.integers(1, most + 1) + 1))
    vector = rng.choice(VECTORS)
    near = vector * rng.integers(1, max(1, most // vector) + 1) + rng.integers(-1, 2)
    return int(min(max(near, 1), most))


def maybe_pair(rng, draw):
    """Draw one number for both axes, or one for each."""
    first = draw()
    return first if rng.random() < 0.5 else (first, draw())


def draw_kernel_shape(rng):
    size = [int(rng.choice([1, 2, 3, 3, 5, 7, rng.integers(1, 16)])) for _ in range(2)]
    return (size[0], size[0]) if rng.random() < 0.6 else tuple(size)


def draw_padding(rng):
    """Draw any form of padding, also more than a kernel or an image is large."""

    def edge():
        return int(rng.integers(0, rng.choice([2, 4, 20])))

    forms = (
        lambda: 0,
        lambda: "valid",
        lambda: "same",
        edge,
        lambda: (edge(), edge()),
        lambda: ((edge(), edge()), (edge(), edge())),
    )
    return forms[rng.integers(len(forms))]()


def draw_geometry(rng):
    """Draw the size of a kernel and the options of the convolution, apart from groups."""
    return draw_kernel_shape(rng), {
        "stride": maybe_pair(rng, lambda: int(rng.choice([1, 1, 1, 2, 3, rng.integers(1, 6)]))),
        "padding": draw_padding(rng),
        "dilation": maybe_pair(rng, lambda: int(rng.choice([1, 1, 1, 1, 2, rng.integers(1, 5)]))),
    }


def draw_image(rng, kernel_shape, options):
    """Draw the height and width of images that the kernel fits."""
    most = int(rng.choice([3, 12, 40]))
    size = [some(rng, most), some(rng, most)]
    if rng.random() < 0.1:  # a line, seldom a long one
        size[rng.integers(2)] = int(rng.integers(60, rng.choice([100, 300, 300, 5000])))
    edges = reference.resolve_padding(options["padding"], size, kernel_shape, 1, 1)
    extents = reference.kernel_extent(kernel_shape, options["dilation"])
    if options["padding"] == "same":
        return tuple(size)
    return tuple(
        max(n, extent - sum(edge), 1) for n, extent, edge in zip(size, extents, edges, strict=True)
    )


def draw_convolution(rng, with_groups=True):
    """Draw samples, groups, channels and kernels of a group, and the geometry of a convolution."""
    kernel_shape, options = draw_geometry(rng)
    image = draw_image(rng, kernel_shape, options)
    output = reference.output_size(image, kernel_shape, **options)
    budget = FEW_PRODUCTS * (MANY_PRODUCTS / FEW_PRODUCTS) ** rng.random()
    counts = [1, 1, 1, 1]
    most = [5, 1, 70, 70]
    if with_groups and rng.random() < 0.3:
        most = [3, 40, 4, 4]
    for i in rng.permutation(4):
        taken = math.prod(counts) * math.prod(output) * math.prod(kernel_shape)
        counts[i] = some(rng, int(max(1, min(most[i], budget / taken))))
    return counts, image, kernel_shape, options


def draw_run(rng):
    """Draw what any case has: type, threads, instruction set and the seed of its values."""
    return {
        "dtype": str(rng.choice(["float32", "float64"])),
        "num_threads": int(rng.choice([1, 1, 2, 3, 9])),
        "isa": str(rng.choice(convext.get_config()["isas_supported"])),
        "seed": int(rng.integers(2**32)),
    }


@contextlib.contextmanager
def instruction_set(isa):
    before = _dispatch.current_isa()
    _dispatch.use_isa(isa)
    try:
        yield
    finally:
        _dispatch.use_isa(before)


@contextlib.contextmanager
def replaced(module, **values):
    """Set constants of a module for a while."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


def values_of(rng, shape, dtype, layout="c_order"):
    return lay_out(rng.uniform(-1, 1, shape).astype(dtype), layout)


def draw_layout(rng):
    return str(rng.choice(LAYOUTS)) if rng.random() < 0.4 else "c_order"


def assert_close(actual, expected, magnitude, dtype, note=""):
    """Compare with what is right, relative to the sums of absolute products."""
    __tracebackhide__ = True
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = np.abs(actual - expected).max(initial=0)
    allowed = LOOSE[dtype] * np.max(magnitude, initial=0)
    # So written that NaN is wrong.
    assert not ~(error <= allowed), f"{note} error {error:.3g}, allowed {allowed:.3g}"


# Operations


def draw_operation(rng):
    (samples, groups, channels, kernels), image, kernel_shape, options = draw_convolution(rng)
    run = draw_run(rng)
    single = run["dtype"] == "float32"
    names = ["float32", "float32", "float16"] if single else ["float64", "float64", "int8", "bool"]
    ways = ["direct", "fft", "winograd", "separable", "depthwise", "shifted_sums"]
    algorithms = ["auto"] * 3 + [way for way in ways for _ in range(1 + (way == "winograd"))]
    batch = () if rng.random() < 0.2 else (samples,)
    return {
        "operation": str(rng.choice(["conv2d", "prepared", "kernel_grad", "input_grad"])),
        "algorithm": str(rng.choice(algorithms)),
        "input_shape": (*batch, groups * channels, *image),
        "kernels_shape": (groups * kernels, channels, *kernel_shape),
        "groups": groups,
        **options,
        "with_bias": bool(rng.random() < 0.4),
        "dtypes": tuple(str(name) for name in rng.choice(names, 3)),
        "layouts": tuple(str(name) for name in rng.choice(LAYOUTS, 3)),
        "given_out": bool(rng.random() < 0.2),
        "separable": bool(rng.random() < 0.3),
        "values": str(rng.choice(["even", "even", "even", "outliers", "halves", "not finite"])),
        **run,
    }


def with_values(array, values, layout, rng):
    """Return an array of floats with a few values, or half of the columns, unlike the others."""
    if values == "even" or array.dtype.kind != "f":
        return array
    array = np.array(array)
    if values == "halves":
        array[..., : array.shape[-1] // 2] *= 1e-4
    else:
        places = rng.random(array.shape) < rng.choice([1 / array.size, 0.001, 0.03])
        unlike = [np.nan, np.inf, -np.inf] if values == "not finite" else [100, -3e4, 6e4]
        array[places] = rng.choice(unlike, places.sum())
    return lay_out(array, layout)


def check_operation(operation, algorithm, dtype, isa, given_out, separable, values, **parameters):
    case = Case(**parameters)
    rng = np.random.default_rng(case.seed)
    x, w, g = case.input_data, case.kernels, case.output_grad
    x, g = (with_values(x, values, case.layouts[0], rng), with_values(g, values, "c_order", rng))
    if separable:
        w = w[..., :1, :] * w[..., :1]
    if dtype == "float64" and "float64" not in case.dtypes:
        x, w, g = (np.asarray(array, float) for array in (x, w, g))
    options = {**case.options, "algorithm": algorithm, "num_threads": case.num_threads}
    with instruction_set(isa):
        if not applies(algorithm, operation, x, w, case.options):
            options["algorithm"] = "auto"
    with instruction_set(isa), np.errstate(all="ignore"):
        if operation in ("conv2d", "prepared"):
            expected = reference.conv2d(x, w, case.bias, **case.options, detailed=True)
        elif operation == "kernel_grad":
            expected = reference.conv2d_kernel_grad(
                x, g, case.kernel_shape, **case.options, detailed=True
            )
        else:
            expected = reference.conv2d_input_grad(
                g, w, case.input_shape, **case.options, detailed=True
            )
        if operation == "conv2d":
            if given_out:
                options["out"] = np.full(expected.value.shape, np.nan, computed(x, w, case.bias))
            results = [convext.conv2d(x, w, bias=case.bias, **options)]
        elif operation == "prepared":
            threads = options.pop("num_threads")
            shape = case.input_shape if given_out else None
            prepared = convext.prepare_kernels(w, shape, bias=case.bias, **options)
            results = [convext.conv2d(x, prepared, num_threads=threads)]
            check_other_image(prepared, w, case, threads)
            results.append(convext.conv2d(x, prepared, num_threads=threads))
        elif operation == "kernel_grad":
            results = [convext.conv2d_kernel_grad(x, g, case.kernel_shape, **options)]
        else:
            results = [convext.conv2d_input_grad(g, w, case.input_shape, **options)]
    # Of Winograd's and Fourier's ways, all results share the errors.
    largest = [np.abs(np.asarray(a, float))[np.isfinite(a)].max(initial=0) for a in (x, w, g)]
    finite = np.isfinite(expected.value)
    magnitude = max(
        expected.magnitude[finite].max(initial=0), max(largest) ** 2 * math.sqrt(expected.taps)
    )
    for result in results:
        if options["algorithm"] not in ("winograd", "fft") or values != "not finite":
            np.testing.assert_array_equal(np.isfinite(result), finite)
            assert_close(result[finite], expected.value[finite], magnitude, result.dtype.name)


def applies(algorithm, operation, images, kernels, options):
    """Whether an algorithm can be asked for."""
    if operation == "prepared" and algorithm == "separable":
        return False  # rounded to the type of another image, kernels may not be separable
    name = "conv2d" if operation in ("conv2d", "prepared") else f"conv2d_{operation}"
    found = convext.explain(name, images, kernels, **options)
    return algorithm in {way.name for way in found.ways if way.applies}


def check_other_image(prepared, kernels, case, num_threads):
    """Use prepared kernels for an image of another size and type."""
    rng = np.random.default_rng(case.seed)
    *_, channels, height, width = case.input_shape
    image = rng.uniform(-1, 1, (channels, *rng.integers([height, width], [height + 9, width + 30])))
    image = image.astype(str(rng.choice(["float32", "float64"])))
    expected = reference.conv2d(image, kernels, case.bias, **case.options, detailed=True)
    result = convext.conv2d(image, prepared, num_threads=num_threads)
    largest = max(1, np.abs(np.asarray(kernels, float)).max())
    magnitude = max(expected.magnitude.max(), largest**2 * math.sqrt(expected.taps))
    assert_close(result, expected.value, magnitude, result.dtype.name, "another image:")


def computed(*arrays):
    """Return the type that a convolution of these is computed in."""
    small = all(a is None or a.dtype.newbyteorder("=") in ("float32", "float16") for a in arrays)
    return "float32" if small else "float64"


# Trainings


def draw_training(rng):
    (_, _, channels, kernels), image, kernel_shape, options = draw_convolution(rng, False)
    if rng.random() < 0.5:  # like the textbook's: each sample is taken in one go
        channels, kernels = int(rng.integers(1, 4)), some(rng, 33)
        kernel_shape = tuple(int(n) for n in rng.integers(1, 8, 2))
        image = tuple(n + int(rng.integers(0, rng.choice([26, 40]))) for n in kernel_shape)
        options |= {"stride": 1, "dilation": 1}
    samples = int(rng.integers(1, 10))
    return {
        "input_shape": (samples, channels, *image),
        "kernels_shape": (kernels, channels, *kernel_shape),
        **options,
        "batch_size": int(rng.integers(1, samples + 2)),
        "num_epochs": int(rng.integers(1, 4)),
        "method": str(rng.choice(["auto", "direct", "direct", "statistics"])),
        "shuffle": bool(rng.random() < 0.2),
        "part_bytes": int(rng.choice([1 << 24, 1 << 24, 1, 4000])),
        "layout": draw_layout(rng),
        **draw_run(rng),
    }


def check_training(
    input_shape, kernels_shape, batch_size, num_epochs, method, shuffle, part_bytes, layout,
    dtype, num_threads, isa, seed, **options,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    taps = math.prod(kernels_shape[1:])
    if method == "statistics" and taps > 400:
        method = "direct"
    x, start = (values_of(rng, shape, dtype, layout) for shape in (input_shape, kernels_shape))
    target_shape = (
        len(x),
        len(start),
        *reference.output_size(x.shape[2:], start.shape[2:], **options),
    )
    y = values_of(rng, target_shape, dtype, layout)
    rate = 0.2 / taps
    history = convext.History()
    with instruction_set(isa), replaced(_training, MAX_PREDICTION_BYTES=part_bytes):
        trained = convext.train_model(
            x, y, len(start), start.shape[2:], rate, num_epochs,
            kernels=start, batch_size=batch_size, method=method, shuffle=shuffle, seed=1,
            num_threads=num_threads, callbacks=[history], verbose=False, **options,
        )  # fmt: skip
    if shuffle and batch_size < len(x):
        assert np.isfinite(trained).all()
        return
    expected, losses = plain_training(x, y, start, rate, num_epochs, batch_size, options)
    scale = taps * 8
    assert_close(history.loss, np.array(losses), scale, dtype, "loss")
    assert_close(trained, expected, scale, dtype, "kernels")


def plain_training(x, y, kernels, rate, num_epochs, batch_size, options):
    kernels = np.array(kernels, reference.Wide)
    losses = []
    for _ in range(num_epochs):
        squares = 0.0
        for first in range(0, len(x), batch_size):
            some_x, some_y = (array[first : first + batch_size] for array in (x, y))
            residual = reference.conv2d(some_x, kernels, **options) - some_y
            squares += np.sum(residual**2)
            kernels -= rate * reference.conv2d_kernel_grad(
                some_x, 2 * residual / residual.size, kernels.shape[2:], **options
            )
        losses.append(float(squares / y.size))
    return kernels.astype(float), losses


# Networks


def draw_network(rng, most_layers=4, budget=3e5):
    """Draw layers, in the terms of plain_network, and the shape of images that they fit."""
    samples, channels = int(rng.integers(1, 5)), some(rng, 9)
    size = image = [some(rng, int(rng.choice([3, 20, 60]))), some(rng, 20)]
    layers = []
    residual = bool(rng.random() < 0.3)
    counts = [channels]
    for i in range(int(rng.integers(1, most_layers + 1))):
        kernel_shape, options = draw_geometry(rng)
        if residual:
            options = {"padding": "same", "stride": 1, "dilation": 1}
        output = reference.output_size(size, kernel_shape, **options)
        if min(output) < 1:
            kernel_shape, options["dilation"] = (1, 1), 1
            output = reference.output_size(size, kernel_shape, **options)
        products = samples * counts[-1] * math.prod(kernel_shape) * math.prod(output)
        if products > budget and i:
            break
        filters = some(rng, int(max(1, min(33, budget // products))))
        groups = 1
        if rng.random() < 0.2:
            groups = int(rng.choice([n for n in range(1, counts[-1] + 1) if counts[-1] % n == 0]))
            filters = groups * max(1, filters // groups)
        layers.append({
            "filters": filters,
            "kernel_size": kernel_shape,
            **options,
            "groups": groups,
            "activation": str(rng.choice(sorted(plain_network.ACTIVATIONS))),
            "use_bias": bool(rng.random() < 0.7),
        })  # fmt: skip
        counts.append(filters)
        size = output
    if residual:
        layers[-1]["filters"], layers[-1]["groups"] = channels, 1
    return {
        "layers": layers,
        "input_shape": (samples, channels, *image),
        "residual": residual,
        **draw_run(rng),
    }


KERAS_NAMES = {"stride": "strides", "dilation": "dilation_rate"}


def make_network(layers, input_shape, residual, dtype, rng):
    """Return the model, its weights, and its layers for plain_network."""
    made = [
        convext.Conv2D(**{KERAS_NAMES.get(name, name): value for name, value in layer.items()})
        for layer in layers
    ]
    model = convext.Sequential(
        made, residual=residual, input_channels=input_shape[1], dtype=dtype, seed=1
    )
    weights = [
        w if w.ndim == 4 else rng.normal(0, 0.3, w.shape).astype(dtype) for w in model.get_weights()
    ]
    model.set_weights(weights)
    drop = ("filters", "kernel_size")
    plain = [{k: v for k, v in layer.items() if k not in drop} for layer in layers]
    return model, weights, plain


def magnitude_of(plain, weights, x, residual):
    """Return a bound of all sums of absolute values in a network."""
    linear = [{**layer, "activation": "linear"} for layer in plain]
    largest = 1.0
    for count in range(1, len(plain) + 1):
        used = sum(1 + layer["use_bias"] for layer in plain[:count])
        values = plain_network.predict(
            linear[:count], [np.abs(w) for w in weights[:used]], np.abs(x) + 1
        )
        largest = max(largest, float(values.max()))
    return largest + residual


def draw_prediction(rng):
    return {
        **draw_network(rng),
        "strip_rows": int(rng.choice([1, 1, 2, 3, 7])),
        "strip_bytes": int(rng.choice([1, 2000, 20000])),
        "layout": draw_layout(rng),
    }


def check_prediction(
    layers, input_shape, residual, strip_rows, strip_bytes, layout, dtype, num_threads, isa, seed
):
    """Predictions in small strips are those in one piece, and what evaluate and NumPy compute."""
    rng = np.random.default_rng(seed)
    model, weights, plain = make_network(layers, input_shape, residual, dtype, rng)
    x = values_of(rng, input_shape, dtype, layout)
    expected = plain_network.predict(plain, weights, x, residual)
    magnitude = magnitude_of(plain, weights, x, residual)
    with instruction_set(isa):
        with replaced(forward, MIN_ROWS=strip_rows, MAX_BYTES=strip_bytes):
            in_strips = model.predict(x, num_threads=num_threads)
        with replaced(forward, MAX_BYTES=1 << 60):
            whole = model.predict(x, num_threads=num_threads)
        model.compile("sgd", "mse")
        loss = model.evaluate(x, np.zeros_like(whole), batch_size=3, num_threads=num_threads)
    assert_close(in_strips, expected, magnitude, dtype, "in strips:")
    assert_close(whole, expected, magnitude, dtype, "whole:")
    mean_square = np.asarray(float(np.mean(expected**2)))
    assert_close(loss, mean_square, magnitude**2, dtype, "evaluate:")


# Fits


def draw_fit(rng):
    network = draw_network(rng, most_layers=3, budget=1e5)
    samples = int(rng.integers(1, 9))
    network["input_shape"] = (samples, *network["input_shape"][1:])
    if rng.random() < 0.3:  # a single layer is trained like the textbook's
        network["layers"], network["residual"] = network["layers"][:1], False
    return {
        **network,
        "optimizer": str(rng.choice(["plain", "plain", "momentum", "nesterov", "adam", "clipped"])),
        "loss": str(rng.choice(["mse", "mse", "mae"])),
        "batch_size": int(rng.integers(1, samples + 2)),
        "epochs": int(rng.integers(1, 3)),
        "shuffle": bool(rng.random() < 0.3),
        "data": str(rng.choice(["same", "same", "uint8", "generator"])),
        "slice_bytes": int(rng.choice([1, 10000, 1 << 20])),
        "weighted": bool(rng.random() < 0.25),
        "metrics": bool(rng.random() < 0.25),
        "frozen": int(rng.integers(len(network["layers"]))) if rng.random() < 0.25 else None,
        "layout": draw_layout(rng),
    }


OPTIMIZERS = {
    "plain": lambda: convext.SGD(0.01),
    "momentum": lambda: convext.SGD(0.01, momentum=0.9),
    "nesterov": lambda: convext.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": convext.Adam,
    "clipped": lambda: convext.SGD(0.01, clipnorm=0.1),
}


def check_fit(
    layers, input_shape, residual, optimizer, loss, batch_size, epochs, shuffle, data, slice_bytes,
    weighted, metrics, frozen, layout, dtype, num_threads, isa, seed,
):  # fmt: skip
    """Plain gradient descent has the weights that NumPy finds; any model the loss that it says."""
    rng = np.random.default_rng(seed)
    model, weights, plain = make_network(layers, input_shape, residual, dtype, rng)
    x = values_of(rng, input_shape, dtype, layout)
    if data == "uint8":
        x = lay_out(rng.integers(0, 2, input_shape).astype(np.uint8), layout)
    predicted = plain_network.predict(plain, weights, x, residual)
    y = values_of(rng, predicted.shape, dtype, layout)
    magnitude = magnitude_of(plain, weights, x, residual) ** 2
    sample_weight = rng.uniform(0, 2, len(x)) if weighted else np.ones(len(x))
    wide_weight = sample_weight[:, np.newaxis, np.newaxis, np.newaxis]
    weighting = {"sample_weight": sample_weight} if weighted else {}
    options = {"epochs": epochs, "num_threads": num_threads, "verbose": 0}
    starts = range(0, len(x), batch_size)
    kept = range(0)
    if frozen is not None:
        model.layers[frozen].trainable = False
        first = sum(1 + layer["use_bias"] for layer in plain[:frozen])
        kept = range(first, first + 1 + plain[frozen]["use_bias"])
    with instruction_set(isa), replaced(_steps, MAX_SLICE_BYTES=slice_bytes):
        model.compile(OPTIMIZERS[optimizer](), loss, ["mse", "mae"] if metrics else None)
        if data == "generator":
            shuffle = False

            def given(_):
                arrays = (x, y, sample_weight) if weighted else (x, y)
                return [tuple(a[i : i + batch_size] for a in arrays) for i in starts]

            history = model.fit(given, **options)
        else:
            history = model.fit(
                x, y, batch_size=batch_size, shuffle=shuffle, **weighting, **options
            )
        weighting |= {"num_threads": num_threads, "return_dict": True}
        after = model.evaluate(x, y, batch_size=batch_size, **weighting)
    trained = model.get_weights()
    assert all(np.array_equal(trained[n], weights[n]) for n in kept)
    difference = plain_network.predict(plain, trained, x, residual) - y
    expected = {"loss": plain_network.LOSSES[loss](difference, wide_weight)}
    for name in ("mse", "mae") if metrics else ():
        expected[name] = plain_network.LOSSES[name](difference)
    assert after.keys() == expected.keys()
    largest = 2 * max(magnitude, magnitude_of(plain, trained, x, residual) ** 2)
    for name, value in expected.items():
        assert_close(after[name], np.asarray(float(value)), largest, dtype, f"{name} after:")
    smooth = all(layer["activation"] in ("linear", "sigmoid", "tanh") for layer in layers)
    if shuffle or optimizer != "plain" or loss != "mse" or not (smooth or dtype == "float64"):
        return
    losses = []
    for _ in range(epochs):
        total = 0.0
        for i in starts:
            batch, targets, factor = (a[i : i + batch_size] for a in (x, y, wide_weight))
            value, gradients = plain_network.differentiate(
                plain, weights, batch, targets, residual, factor
            )
            steps = (0 if n in kept else 0.01 * g for n, g in enumerate(gradients))
            weights = [w - step for w, step in zip(weights, steps, strict=True)]
            total += float(value) * len(batch)
        losses.append(total / len(x))
    assert_close(history.loss, np.array(losses), 100 * magnitude, dtype, "loss:")
    for actual, expected in zip(trained, weights, strict=True):
        assert_close(actual, expected, 100 * magnitude, dtype, "weights:")


# Solutions


def draw_solution(rng):
    kernel_shape, options = draw_geometry(rng)
    while math.prod(kernel_shape) > 60:
        kernel_shape, options = draw_geometry(rng)
    image = draw_image(rng, kernel_shape, options)
    samples = some(rng, 5)
    return {
        "input_shape": (samples, some(rng, max(1, 70 // math.prod(kernel_shape))), *image),
        "num_kernels": some(rng, 9),
        "kernel_shape": kernel_shape,
        **options,
        "bias": bool(rng.random() < 0.4),
        "l2": float(rng.choice([0, 0, 1e-3])),
        "mask": str(rng.choice(["none", "none", "shared", "each", "few", "masked arrays"])),
        "border": bool(rng.random() < 0.3),
        "block_elements": int(rng.choice([1, 300, 3000, 1 << 21])),
        "layout": draw_layout(rng),
        **draw_run(rng),
    }


def check_solution(
    input_shape, num_kernels, kernel_shape, bias, l2, mask, border, block_elements, layout,
    dtype, num_threads, isa, seed, **options,
):  # fmt: skip
    """Statistics are the sums of the patch matrix; solutions make its gradient vanish."""
    rng = np.random.default_rng(seed)
    x = values_of(rng, input_shape, dtype, layout)
    size = reference.output_size(x.shape[2:], kernel_shape, **options)
    y = values_of(rng, (len(x), num_kernels, *size), dtype)
    counts = np.ones(y.shape, bool)
    if mask != "none":
        share = 0.02 if mask == "few" else 0.7
        shape = (len(x), 1, *size) if mask == "shared" else y.shape
        given = rng.random(shape) < share
        given[0, :, 0, 0] = True
        counts = counts & given
        y[~counts] = np.nan
    targets, arguments = y, {}
    if mask == "masked arrays":
        targets = np.ma.masked_array(y, ~counts)
    elif mask != "none":
        arguments["mask"] = given
    whole = {"target_output": targets, **arguments}
    extents = reference.kernel_extent(kernel_shape, options["dilation"])
    plain = reference.pair(options["stride"]) == (1, 1) and options["padding"] in (0, "valid")
    if border and plain and mask != "masked arrays" and all(n % 2 == 1 for n in extents):
        edges = ((0, 0), (0, 0), *((n // 2, n // 2) for n in extents))
        whole = {name: np.pad(a, edges, constant_values=7) for name, a in whole.items()}
    rows = patches(x, kernel_shape, bias, options)
    flat = np.moveaxis(y, 1, -1).reshape(-1, num_kernels).astype(float)
    counted = np.moveaxis(counts, 1, -1).reshape(-1, num_kernels)
    statistics = convext.PatchStatistics(
        x.shape[1], num_kernels, kernel_shape, bias=bias, **options
    )
    with (
        instruction_set(isa),
        replaced(blocks, MAX_ELEMENTS=block_elements),
    ):
        cut = len(x) // 2
        for part in (slice(0, cut), slice(cut, len(x))):
            more = {name: array[part] for name, array in arguments.items()}
            if part.stop > part.start:
                statistics.update(x[part], targets[part], **more, num_threads=num_threads)
        solution = convext.solve_kernels(
            x, kernel_shape=kernel_shape, bias=bias, l2=l2, num_threads=num_threads,
            **whole, **options,
        )  # fmt: skip
    weights = solution.kernels.reshape(num_kernels, -1)
    if bias:
        weights = np.hstack([weights, solution.bias[:, np.newaxis]])
    penalty = np.full(rows.shape[1], l2 * counts.sum())
    if bias:
        penalty[-1] = 0
    for k in range(num_kernels):
        some_rows, some_y = rows[counted[:, k]], flat[counted[:, k], k]
        products = statistics.products[k if len(statistics.products) > 1 else 0]
        magnitude = len(some_rows) + 1
        assert_close(products, some_rows.T @ some_rows, magnitude, "float64", "products:")
        assert_close(
            statistics.cross_products[k], some_rows.T @ some_y, magnitude, "float64", "cross:"
        )
        assert statistics.counts[k] == len(some_rows)
        gradient = some_rows.T @ (some_rows @ weights[k] - some_y) + penalty * weights[k]
        steep = magnitude * (1 + np.abs(weights[k]).max())
        assert np.abs(gradient).max() <= 1e-6 * steep, ("gradient", np.abs(gradient).max(), steep)


def patches(x, kernel_shape, bias, options):
    """Return the patches of images as float64 rows, with a 1 at the end where there is a bias."""
    size = reference.output_size(x.shape[2:], kernel_shape, **options)
    edges = reference.resolve_padding(
        options["padding"], x.shape[2:], kernel_shape, options["stride"], options["dilation"]
    )
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), *edges))
    (down, across), (below, beside) = map(reference.pair, (options["stride"], options["dilation"]))
    rows = [
        padded[:, c, i * below :, j * beside :][:, ::down, ::across][
            :, : size[0], : size[1]
        ].ravel()
        for c in range(x.shape[1])
        for i in range(kernel_shape[0])
        for j in range(kernel_shape[1])
    ]
    return np.stack([*rows, np.ones_like(rows[0])][: len(rows) + bias], axis=1)


# Names of the kinds, and the functions that draw and check a case.
KINDS = {
    "operation": (draw_operation, check_operation),
    "training": (draw_training, check_training),
    "fit": (draw_fit, check_fit),
    "prediction": (draw_prediction, check_prediction),
    "solution": (draw_solution, check_solution),
    "file": (mutated_files.draw_file, mutated_files.check_file),
    "call": (hostile_calls.draw_call, hostile_calls.check_call),
}


def parameters_of(kind, seed, index):
    """Return the parameters of a case; the seed and its number say all."""
    rng = np.random.default_rng((seed, list(KINDS).index(kind), index))
    return KINDS[kind][0](rng)


def check(kind, parameters):
    """Run a case; AssertionError says what is wrong. Unusual shapes and data are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        KINDS[kind][1](**parameters)
