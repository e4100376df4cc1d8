"""Masked arrays: what their masks hide is never taken for data."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import reference

import convext
from convext import enhancement, image, kernels_file, plotting
from convext.ops import data

IMAGES, TARGETS = (2, 1, 7, 8), (2, 3, 5, 6)
KERNELS = (3, 1, 3, 3)


def ones(*shape):
    return np.ones(shape)


def model():
    layers = [convext.Conv2D(3, 3, seed=0)]
    return convext.Sequential(layers, input_channels=1)


def compiled():
    result = model()
    result.compile()
    return result


def statistics():
    result = convext.PatchStatistics(1, 3, (3, 3), bias=True)
    result.update(ones(*IMAGES), ones(*TARGETS))
    return result


# Each function, and its arguments that take arrays; those that it needs beside them.
CASES = {
    "conv2d": (
        convext.conv2d,
        {"input_data": IMAGES, "kernels": KERNELS, "bias": (3,), "out": TARGETS},
        {},
    ),
    "explain": (
        convext.explain,
        {"input_data": IMAGES, "kernels": KERNELS},
        {"operation": "conv2d"},
    ),
    "conv2d_kernel_grad": (
        convext.conv2d_kernel_grad,
        {"input_data": IMAGES, "output_grad": TARGETS},
        {"kernel_shape": (3, 3)},
    ),
    "conv2d_input_grad": (
        convext.conv2d_input_grad,
        {"output_grad": TARGETS, "kernels": KERNELS},
        {"input_shape": IMAGES},
    ),
    "conv2d_backprop": (
        convext.conv2d_backprop,
        {"input_data": IMAGES, "kernels": KERNELS, "target_output": TARGETS, "R": TARGETS},
        {},
    ),
    "mse_loss": (convext.mse_loss, {"predicted": (4,), "target": (4,)}, {}),
    "mse_loss_gradient": (convext.mse_loss_gradient, {"predicted": (4,), "target": (4,)}, {}),
    "prepare_kernels": (convext.prepare_kernels, {"kernels": KERNELS, "bias": (3,)}, {}),
    "suggest_learning_rate": (
        convext.suggest_learning_rate,
        {"input_data": IMAGES},
        {"kernel_shape": (3, 3)},
    ),
    "train_model": (
        convext.train_model,
        {"input_file": IMAGES, "target_file": TARGETS, "kernels": KERNELS},
        {"num_kernels": 3, "kernel_shape": (3, 3), "learning_rate": 0.01, "num_epochs": 1}
        | {"verbose": False},
    ),
    "PatchStatistics.loss": (
        lambda **arguments: statistics().loss(**arguments),
        {"kernels": KERNELS, "bias": (3,)},
        {},
    ),
    "PatchStatistics.gradient": (
        lambda **arguments: statistics().gradient(**arguments),
        {"kernels": KERNELS, "bias": (3,)},
        {},
    ),
    "Sequential.fit": (
        lambda **arguments: compiled().fit(verbose=0, **arguments),
        {"x": IMAGES, "y": TARGETS, "sample_weight": IMAGES[:1]},
        {},
    ),
    "Sequential.evaluate": (
        lambda **arguments: compiled().evaluate(**arguments),
        {"x": IMAGES, "y": TARGETS, "sample_weight": IMAGES[:1]},
        {},
    ),
    "Sequential.train_on_batch": (
        lambda **arguments: compiled().train_on_batch(**arguments),
        {"x": IMAGES, "y": TARGETS, "sample_weight": IMAGES[:1]},
        {},
    ),
    "Sequential.test_on_batch": (
        lambda **arguments: compiled().test_on_batch(**arguments),
        {"x": IMAGES, "y": TARGETS, "sample_weight": IMAGES[:1]},
        {},
    ),
    "Sequential.predict_on_batch": (
        lambda **arguments: model().predict_on_batch(**arguments),
        {"x": IMAGES},
        {},
    ),
    "Conv2D.set_weights": (
        lambda weights: model().layers[0].set_weights([weights, ones(3)]),
        {"weights": KERNELS},
        {},
    ),
    "Sequential.predict": (lambda **arguments: model().predict(**arguments), {"x": IMAGES}, {}),
    "Sequential.set_weights": (
        lambda weights: model().set_weights([weights, ones(3)]),
        {"weights": KERNELS},
        {},
    ),
    "extract_patches": (image.extract_patches, {"images": IMAGES}, {"size": 3}),
    "luminance": (image.luminance, {"image": IMAGES}, {}),
    "replace_luminance": (
        image.replace_luminance,
        {"image": (3, 4, 5), "new": (1, 4, 5)},
        {},
    ),
    "psnr": (image.psnr, {"image": IMAGES, "reference": IMAGES}, {}),
    "save_image": (image.save_image, {"array": (1, 7, 8)}, {"file": "image.png"}),
    "plot_kernels": (plotting.plot_kernels, {"kernels": KERNELS}, {}),
    "plot_training": (
        plotting.plot_training,
        {"losses": (4,), "kernels": KERNELS, "val_losses": (4,)},
        {},
    ),
    "plot_results": (
        lambda pictures, **arguments: plotting.plot_results(
            pictures={"before": pictures}, **arguments
        ),
        {"losses": (4,), "val_losses": (4,), "pictures": (1, 7, 8)},
        {},
    ),
    "plot_solution": (
        plotting.plot_solution,
        {"before": (1, 7, 8), "after": (3, 5, 6), "predicted": (3, 5, 6), "kernels": KERNELS},
        {},
    ),
    "save_kernels": (
        kernels_file.save_kernels,
        {"kernels": KERNELS},
        {"file": "kernels.npz", "record": {}},
    ),
    "enhance": (enhancement.enhance, {"image": (1, 7, 8)}, {"model": None}),
    "enlarge": (enhancement.enlarge, {"image": (1, 7, 8)}, {"scale": 2}),
    "paired_samples": (
        data.paired_samples,
        {"input_data": IMAGES, "target_output": TARGETS},
        {},
    ),
}

# Two use the masks: see below. The third is not public.
LEAVE_OUT = {"solve_kernels", "PatchStatistics.update", "as_floats"}


def functions():
    """Yield all public functions and methods."""
    for module in (convext, image, plotting, kernels_file, enhancement, data):
        for name, value in vars(module).items():
            where = getattr(value, "__module__", "")
            if name.startswith("_") or not where.startswith(module.__name__):
                continue
            if inspect.isfunction(value):
                yield name, value
            elif inspect.isclass(value):
                for method, function in inspect.getmembers(value, inspect.isfunction):
                    if not method.startswith("_"):
                        yield f"{value.__name__}.{method}", function


def test_all_functions_that_take_arrays_are_tried():
    for name, function in functions():
        taken = {
            parameter
            for parameter, value in inspect.signature(function).parameters.items()
            if "ArrayLike" in str(value.annotation)
        }
        if name not in LEAVE_OUT and taken:
            assert taken <= set(CASES[name][1]), name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(name, arrays):
    function, _, others = CASES[name]
    if "model" in others:
        last = convext.Conv2D(1, 1, seed=0)
        others = {"model": convext.Sequential([last], input_channels=1)}
    return function(**arrays, **others)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("masked", [None, "one", "all"])
@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, case in CASES.items() for argument in case[1]],
)
def test_hidden_values_are_refused_and_masks_that_hide_none_are_not(name, argument, masked):
    if name.startswith("plot_"):
        pytest.importorskip("matplotlib")
    if "image" in name or name == "enlarge":
        pytest.importorskip("PIL")
    arrays = {key: ones(*shape) for key, shape in CASES[name][1].items()}
    array = np.ma.MaskedArray(arrays[argument])
    if masked is not None:
        array.mask = np.zeros(array.shape, bool)
        if masked == "one":
            array[(-1,) * array.ndim] = np.ma.masked
        else:
            array[...] = np.ma.masked
    arrays[argument] = array
    if masked is None:
        call(name, arrays)
        return
    label = "" if name in RENAMED else argument
    with pytest.raises(ValueError, match=rf"{label}.* has \d+ masked elements"):
        call(name, arrays)


# Their arguments have other names in messages, or parts that are named.
RENAMED = {"Sequential.set_weights", "extract_patches", "plot_results", "train_model"}


def test_a_list_of_masked_arrays_is_refused_too():
    sample = np.ma.MaskedArray(ones(1, 7, 8), mask=np.eye(7, 8, dtype=bool)[np.newaxis])
    with pytest.raises(ValueError, match=r"input_data\[1\] has 7 masked elements"):
        convext.conv2d([ones(1, 7, 8), sample], ones(*KERNELS))


@pytest.mark.parametrize("argument", [0, 1])
def test_masked_validation_data_and_batches_are_refused(argument):
    arrays = [ones(*IMAGES), ones(*TARGETS)]
    masked = [*arrays]
    masked[argument] = np.ma.masked_less(arrays[argument], 2)
    with pytest.raises(ValueError, match="masked elements"):
        compiled().fit(*arrays, verbose=0, validation_data=tuple(masked))
    with pytest.raises(ValueError, match="masked elements"):
        compiled().fit(iter([tuple(masked)]), steps_per_epoch=1, verbose=0)


def test_an_array_that_hides_nothing_is_written_into():
    out = np.ma.MaskedArray(np.zeros((2, 3, 5, 6)))
    assert convext.conv2d(ones(*IMAGES), ones(*KERNELS), out=out) is out
    np.testing.assert_array_equal(out.data, 9)


OPTIONS = [{}, {"stride": (2, 1), "padding": ((1, 0), (2, 1))}, {"dilation": (1, 2)}]


def kept(hidden, kernel_shape, stride=1, padding=0, dilation=1):
    """Return which windows meet no hidden pixel, by counting those that they meet."""
    taps = np.ones((1, hidden.shape[1], *kernel_shape))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    return reference.conv2d(hidden.astype(float), taps, **options) == 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("where", ["input", "target", "both"])
@pytest.mark.parametrize("bad", [1e30, np.nan, -np.inf])
def test_solving_leaves_out_what_is_masked(where, bad, given, bias, options):
    rng = np.random.default_rng(1)
    kernels, offsets = rng.standard_normal((2, 2, 2, 3)), rng.standard_normal(2)
    before = rng.random((2, 2, 20, 23))
    after = reference.conv2d(before, kernels, offsets if bias else None, **options).astype(float)
    mask = rng.random(after.shape) < 0.8 if given else None
    counts = np.ones(after.shape, bool) if mask is None else mask.copy()
    if where != "target":
        hidden = rng.random(before.shape) < 0.01
        before = np.ma.MaskedArray(np.where(hidden, bad, before), hidden)
        counts = counts & kept(hidden, (2, 3), **options)
    if where != "input":
        hidden = rng.random(after.shape) < 0.1
        after = np.ma.MaskedArray(np.where(hidden, bad, after), hidden)
        counts &= ~hidden
    if given:
        np.ma.getdata(after)[~mask] = bad
    solution = convext.solve_kernels(before, after, (2, 3), bias=bias, mask=mask, **options)
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-12)
    assert solution.loss < 1e-24
    sums = convext.PatchStatistics(2, 2, (2, 3), bias=bias, **options)
    sums.update(before, after, mask)
    np.testing.assert_array_equal(sums.counts, counts.sum(axis=(0, 2, 3)))
    assert sums.loss(kernels, offsets if bias else None) < 1e-12
    for i in range(2):  # samples of three dimensions
        one = convext.solve_kernels(
            before[i],
            after[i],
            (2, 3),
            bias=bias,
            mask=None if mask is None else mask[i],
            **options,
        )
        np.testing.assert_allclose(one.kernels, kernels, atol=1e-11)


def test_a_border_that_is_left_out_takes_its_mask_along():
    rng = np.random.default_rng(2)
    before = rng.random((1, 1, 15, 16))
    kernels = rng.standard_normal((1, 1, 3, 3))
    after = np.full(before.shape, np.nan)
    after[..., 1:-1, 1:-1] = reference.conv2d(before, kernels)
    after[0, 0, 5, 5] = 99
    masked = np.ma.MaskedArray(after, after == 99)
    solution = convext.solve_kernels(before, masked, (3, 3))
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-12)


def test_what_counts_must_be_finite_and_the_error_says_where():
    before, after = ones(1, 1, 9, 9), ones(1, 1, 7, 7)
    before[0, 0, 0, 0] = before[0, 0, 8, 8] = np.nan
    mask = np.ones(after.shape, bool)
    mask[0, 0, 0, 0] = False
    with pytest.raises(ValueError, match=r"input_data contains 1 values.* at \(0, 0, 8, 8\)"):
        convext.solve_kernels(before, after, (3, 3), mask=mask)


def test_everything_hidden_is_an_error():
    hidden = np.ma.MaskedArray(ones(1, 9, 9), mask=True)
    with pytest.raises(ValueError, match="no element of the target counts"):
        convext.solve_kernels(hidden, ones(1, 7, 7), (3, 3))
