"""Figures: they show the numbers they are given."""

from __future__ import annotations

import builtins
import os

import numpy as np
import pytest

from convext.plotting import check_plot_file, plot_kernels, plot_results, plot_training

matplotlib = pytest.importorskip("matplotlib")

KERNELS = np.random.default_rng(0).normal(size=(2, 3, 2, 2))


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_loss_of_each_epoch_is_drawn():
    figure = plot_training([0.3, 0.2, 0.15], KERNELS)
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [0.3, 0.2, 0.15])
    assert figure.axes[0].get_xlabel() == "epoch"
    assert figure.axes[0].get_ylabel() == "average loss"
    assert figure.axes[0].get_title() == "Loss: 0.1500 after 3 epochs"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, 0.2], "linear"),
        ([1.0, 0.05], "log"),
        ([1.0, 0.0], "linear"),
        ([1.0], "linear"),
        ([1.0, float("nan"), 0.01], "linear"),
    ],
)
def test_the_axis_is_logarithmic_when_the_loss_spans_more_than_a_factor_of_ten(losses, scale):
    assert plot_training(losses, KERNELS).axes[0].get_yscale() == scale


@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (2, 3, 2, 2), (64, 1, 3, 3), (3, 2, 1, 15)])
def test_every_channel_of_every_kernel_is_drawn_in_order(shape):
    kernels = np.random.default_rng(0).normal(size=shape)
    axes = plot_kernels(kernels).axes[0]
    drawn = [image.get_array() for image in axes.images]
    np.testing.assert_array_equal(np.reshape(drawn, shape), kernels)
    # They do not overlap, and lie within the axes.
    boxes = [image.get_window_extent() for image in axes.images]
    for i, box in enumerate(boxes):
        assert all(box.x1 <= other.x0 + 1e-6 or other.x1 <= box.x0 + 1e-6
                   or box.y1 <= other.y0 + 1e-6 or other.y1 <= box.y0 + 1e-6
                   for other in boxes[:i])  # fmt: skip
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    extents = np.array([image.get_extent() for image in axes.images])
    assert extents[:, :2].min() >= left - 1e-9
    assert extents[:, :2].max() <= right + 1e-9
    assert extents[:, 2:].min() >= top
    assert extents[:, 2:].max() <= bottom + 1e-9


def test_all_kernels_share_one_scale_around_zero():
    images = plot_kernels(KERNELS).axes[0].images
    largest = np.abs(KERNELS).max()
    assert {image.get_clim() for image in images} == {(-largest, largest)}
    assert plot_kernels(np.zeros((1, 1, 2, 2))).axes[0].images[0].get_clim() == (-1, 1)


def test_a_colour_bar_says_what_the_colours_mean():
    figure = plot_training([1.0], KERNELS)
    assert figure.axes[2].get_ylabel() == "weight"


def test_values_are_written_into_kernels_when_there_is_room():
    values = [f"{value:.2f}" for value in KERNELS.ravel()]
    axes = plot_kernels(KERNELS).axes[0]
    assert sorted(texts(axes)) == sorted([*values, "1", "2"])
    for value, text in [(0.0789, "0.079"), (3e-5, "3e-05"), (-1234.5, "-1e+03")]:
        assert texts(plot_kernels(np.full((1, 1, 1, 2), value)).axes[0]) == [text, text]
    assert len(texts(plot_kernels(np.ones((64, 1, 3, 3))).axes[0])) == 64  # the numbers only


@pytest.mark.parametrize(
    ("shape", "title", "drawn"),
    [
        ((1, 1, 5, 5), "1 kernel of 1x5x5", 1),
        ((64, 3, 3, 3), "64 kernels of 3x3x3", 192),
        ((100, 1, 2, 3), "100 kernels of 1x2x3, the first 64", 64),
        ((2, 20, 2, 2), "2 kernels of 20x2x2, 16 channels of each", 32),
    ],
)
def test_the_title_says_what_is_drawn(shape, title, drawn):
    axes = plot_kernels(np.ones(shape)).axes[0]
    assert axes.get_title() == title
    assert len(axes.images) == drawn


def test_values_that_are_not_finite_do_not_spoil_the_scale():
    kernels = np.array([[[[0.5, np.nan], [np.inf, -2.0]]]])
    assert plot_kernels(kernels).axes[0].images[0].get_clim() == (-2, 2)


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".png", b"\x89PNG"), (".PNG", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")],
)
def test_the_suffix_gives_the_format(suffix, start, tmp_path):
    path = tmp_path / f"figure{suffix}"
    plot_training([0.5, 0.2], KERNELS, path)
    assert path.read_bytes().startswith(start)
    plot_kernels(KERNELS, path)
    assert path.read_bytes().startswith(start)
    assert os.listdir(tmp_path) == [f"figure{suffix}"]


def test_a_png_is_not_blank(tmp_path):
    image = pytest.importorskip("PIL.Image")
    plot_training([0.5, 0.2], KERNELS, tmp_path / "figure.png")
    pixels = np.asarray(image.open(tmp_path / "figure.png").convert("RGB"))
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_the_backend_and_open_figures_are_left_alone(tmp_path):
    import matplotlib.pyplot

    backend, figures = matplotlib.get_backend(), matplotlib.pyplot.get_fignums()
    plot_training([0.5, 0.2], KERNELS, tmp_path / "figure.png")
    assert matplotlib.get_backend() == backend
    assert matplotlib.pyplot.get_fignums() == figures


@pytest.mark.parametrize("plot", [plot_kernels, lambda *a: plot_training([1.0], *a)])
def test_bad_kernels_are_named(plot):
    with pytest.raises(ValueError, match=r"kernels must have the shape \(num_kernels, C, kh, kw\)"):
        plot(np.ones((2, 2)))
    with pytest.raises(TypeError, match="kernels must hold real numbers"):
        plot(np.ones((1, 1, 2, 2), complex))


def test_a_training_without_epochs_cannot_be_drawn():
    with pytest.raises(ValueError, match="losses is empty"):
        plot_training([], KERNELS)


@pytest.mark.parametrize("name", ["figure", "figure.txt", "figure.jpg"])
def test_other_suffixes_are_an_error_before_and_after(name, tmp_path):
    message = r"must end in one of \.png, \.pdf, \.svg, got .*figure"
    with pytest.raises(ValueError, match=message):
        check_plot_file(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        plot_kernels(KERNELS, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        plot_kernels(KERNELS, tmp_path / "nowhere" / "figure.png")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def no_matplotlib(name, *arguments, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    for plot in (plot_kernels, lambda *a: plot_training([1.0], *a)):
        with pytest.raises(ImportError, match=r'plots need Matplotlib: pip install "convext\[plot'):
            plot(KERNELS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_images_are_drawn_by_what_their_type_says(dtype, channels):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (channels, 9, 8), dtype)
    floats = pixels / np.iinfo(dtype).max
    figures = [plot_results([0.5], [0.6], {"picture": image}) for image in (pixels, floats)]
    drawn = [np.asarray(figure.axes[1].images[0].get_array()) for figure in figures]
    np.testing.assert_allclose(*drawn, rtol=1e-6)
    assert 0.1 < drawn[0].mean() < 0.9
