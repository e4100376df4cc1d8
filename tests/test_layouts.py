"""Arrays with fewer dimensions than they need, with channels last, and kernels of one size."""

from __future__ import annotations

import inspect
import re
import warnings

import numpy as np
import pytest

import convext
from convext.cli import main as cli
from convext.ops.shapes import seems_channels_last


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")


RNG = np.random.default_rng(0)
IMAGES, TARGETS = RNG.random((4, 2, 8, 9)), RNG.random((4, 3, 6, 7))
WITH_KERNEL_SHAPE = {
    "conv2d_kernel_grad": lambda size: convext.conv2d_kernel_grad(IMAGES, TARGETS, size),
    "generate_kernels": lambda size: convext.generate_kernels(3, size, 2, seed=0),
    "train_model": lambda size: convext.train_model(
        IMAGES, TARGETS, 3, size, 0.01, 2, seed=0, verbose=False
    ),
    "build_model": lambda size: convext.build_model(3, size, 2, seed=0).get_weights()[0],
    "solve_kernels": lambda size: convext.solve_kernels(IMAGES, TARGETS, size).kernels,
    "suggest_learning_rate": lambda size: convext.suggest_learning_rate(IMAGES, size),
    "PatchStatistics": lambda size: convext.PatchStatistics(2, 3, size).kernel_shape,
}


def test_all_functions_that_take_a_kernel_shape_are_tried():
    values = {name: getattr(convext, name) for name in convext.__all__}
    functions = {
        name: value.__init__ if inspect.isclass(value) else value
        for name, value in values.items()
        if callable(value)
    }
    taking = {
        name
        for name, value in functions.items()
        if "kernel_shape" in inspect.signature(value).parameters
    }
    assert taking == WITH_KERNEL_SHAPE.keys()


@pytest.mark.parametrize("name", WITH_KERNEL_SHAPE)
@pytest.mark.parametrize("size", [3, np.int64(3), [3, 3], np.array([3, 3])], ids=repr)
def test_one_number_is_height_and_width(name, size):
    function = WITH_KERNEL_SHAPE[name]
    np.testing.assert_array_equal(function(size), function((3, 3)))


@pytest.mark.parametrize("name", WITH_KERNEL_SHAPE)
@pytest.mark.parametrize("size", [True, 3.0, "3", None], ids=repr)
def test_what_is_no_size_is_refused(name, size):
    with pytest.raises(TypeError, match=r"kernel_s\w+ must be an integer"):
        WITH_KERNEL_SHAPE[name](size)


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (convext.conv2d, {"input_data": (8, 9), "kernels": (2, 1, 3, 3)}),
        (convext.conv2d, {"input_data": (1, 8, 9), "kernels": (3, 3)}),
        (convext.conv2d, {"input_data": (1, 8, 9), "kernels": (2, 3, 3)}),
        (
            lambda input_data, target_output: convext.solve_kernels(input_data, target_output, 3),
            {"input_data": (8, 9), "target_output": (1, 6, 7)},
        ),
        (
            lambda input_data, target_output: convext.solve_kernels(input_data, target_output, 3),
            {"input_data": (1, 8, 9), "target_output": (6, 7)},
        ),
        (
            lambda input_data: convext.suggest_learning_rate(input_data, 3),
            {"input_data": (8, 9)},
        ),
    ],
)
def test_the_error_says_how_to_add_what_is_missing(function, arrays):
    values = {name: RNG.random(shape) for name, shape in arrays.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.RankWarning)
        with pytest.raises(ValueError, match=": sizes that are missing are 1, as in ") as caught:
            function(**values)
        # What it says works.
        text = re.search(r"as in (.*)", str(caught.value))[1].split(" or ")[-1]
        name = text.partition("[")[0]
        values[name] = eval(text, {name: values[name]})
        function(**values)


IMAGES_LAST = [
    *[(512, 512, 3), (480, 640, 3), (16, 16, 4), (28, 28, 1), (300, 200, 1), (1080, 1920, 3)],
    *[(10, 28, 28, 1), (2, 64, 48, 3)],
]
CHANNELS_FIRST = [
    *[(3, 512, 512), (1, 28, 28), (3, 5, 3), (4, 7, 4), (8, 9, 3), (64, 7, 7), (512, 3, 3)],
    *[(64, 1000, 1), (5, 3, 32, 32), (5, 16, 1, 1), (2, 32, 8, 1), (128, 56, 56), (3, 100, 3)],
    *[(1, 64, 64, 64), (16, 14, 3)],
]


def test_shapes_of_images_with_channels_last_are_told_from_others():
    assert [shape for shape in IMAGES_LAST if not seems_channels_last(shape)] == []
    assert [shape for shape in CHANNELS_FIRST if seems_channels_last(shape)] == []


def test_solving_arrays_with_channels_last_warns_at_once():
    image = RNG.random((30, 40, 3))
    with pytest.warns(
        UserWarning, match=r"taken for 30 channels.*np.moveaxis\(input_data, -1, -3\)"
    ):
        convext.solve_kernels(image, image[..., :1], (1, 3), l2=1.0)


def test_a_convolution_of_channels_that_come_last_says_what_to_do():
    with pytest.raises(ValueError, match=r"if its channels come last, give np.moveaxis"):
        convext.conv2d(RNG.random((30, 40, 3)), RNG.random((2, 3, 1, 1)))


@pytest.mark.parametrize("mmap", [False, True])
def test_files_with_channels_last_are_loaded(mmap):
    before, after = RNG.random((2, 9, 8, 3)), RNG.random((2, 7, 6, 4))
    np.save("before.npy", before)
    np.save("after.npy", after)
    loaded = convext.load_data("before.npy", "after.npy", mmap=mmap, data_format="channels_last")
    for array, original in zip(loaded, (before, after), strict=True):
        np.testing.assert_array_equal(array, np.moveaxis(original, -1, 1))
    with pytest.raises(ValueError, match="data_format must be 'channels_first' or"):
        convext.load_data("before.npy", "after.npy", data_format="last")


def test_training_and_applying_take_channels_last(capsys):
    before = RNG.random((3, 20, 21, 3))
    after = np.moveaxis(convext.conv2d(np.moveaxis(before, -1, 1), np.ones((2, 3, 3, 3))), 1, -1)
    np.save("before.npy", before)
    np.save("after.npy", after)
    train = ["train", "before.npy", "after.npy", "--epochs", "1", "--learning-rate", "0.001"]
    assert cli.main(train) == 2
    assert "as if the channels came last: give --channels-last" in capsys.readouterr().err
    assert cli.main([*train, "--channels-last"]) == 0
    assert "2 kernels of 3x3" in capsys.readouterr().out
    assert cli.main([*train, "--channels-first"]) == 0
    assert np.load("kernels.npz")["kernels"].shape == (18, 20, 3, 2)
    np.savez("ones.npz", kernels=np.ones((2, 3, 3, 3)))
    assert cli.main(["apply", "ones.npz", "before.npy", "out.npy"]) == 2
    assert cli.main(["apply", "ones.npz", "before.npy", "out.npy", "--channels-last"]) == 0
    np.testing.assert_allclose(np.load("out.npy"), after)
    np.save("grey.npy", before[0, :, :, 0])
    np.savez("ones.npz", kernels=np.ones((1, 1, 1, 1)))
    assert cli.main(["apply", "ones.npz", "grey.npy", "out.npy"]) == 0
    np.testing.assert_array_equal(np.load("out.npy"), before[:1, :, :, 0])
