"""The commands on images: strips, files of every kind, and what is said about them."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from reference import conv2d as reference_conv2d

import convext
from convext.cli import apply as apply_command
from convext.cli import main as cli
from convext.image import pillow_files as _image_files
from convext.image.images import load_image, save_image
from convext.kernels_file import load_kernels, save_kernels

Image = pytest.importorskip("PIL.Image")

BLUR = np.full((1, 1, 3, 3), 1 / 9)


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    np.save("blur.npy", BLUR)


def run(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize("seed", range(60))
def test_strips_are_the_rows_of_the_whole_result(seed, monkeypatch):
    generator = np.random.default_rng(seed)
    channels, count = (int(n) for n in generator.choice([1, 3], 2))
    size = tuple(generator.integers(1, 8, 2))
    groups = int(generator.choice([1, channels])) if count % channels == 0 else 1
    seen = channels // groups if generator.integers(3) else 1
    kernels = generator.normal(size=(count, seen, *size))
    each = seen == 1 and groups == 1 and channels > 1
    if seen * groups != channels and not each:
        kernels = np.repeat(kernels, channels // groups, axis=1)
    padding = [0, 1, 12, "same", "valid"][generator.integers(5)]
    bias = generator.normal(size=count) if generator.integers(2) else None
    pixels = generator.integers(0, 256, (channels, *generator.integers(8, 20, 2)), np.uint8)
    save_image("x.png", pixels)
    record = {"per_channel": groups > 1, "bias": None if bias is None else bias.tolist()}
    save_kernels("k.npz", kernels, record)

    def strips(rows, _, **__):
        cuts = np.unique([0, *generator.integers(0, rows + 1, 5), rows])
        yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)

    monkeypatch.setattr(apply_command, "strips_of", strips)
    apply_command.run(
        argparse.Namespace(
            kernels="k.npz",
            input="x.png",
            output="y.npy",
            padding=padding,
            channels=None,
            page=None,
            max_pixels=None,
        )
    )
    image = pixels / 255
    margin = 0 if padding == "valid" else padding
    if padding == "same":
        margin = [((n - 1) // 2, n // 2) for n in size]
        image, margin = np.pad(image, [(0, 0), *margin]), 0
    parts = [plane[np.newaxis] for plane in image] if each else [image]
    expected = [
        reference_conv2d(part, kernels, padding=margin, groups=groups).astype(float)
        for part in parts
    ]
    if bias is not None:
        expected = [part + bias[:, np.newaxis, np.newaxis] for part in expected]
    expected = np.stack(expected)
    expected = expected[0] if not each else expected[:, 0] if count == 1 else expected
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_profile_and_resolution_are_kept(channels, capsys):
    pixels = np.random.default_rng(0).integers(0, 65536, (channels, 9, 8), np.uint16)
    save_image("x.tif", pixels)
    for name in ("y.png", "y.tif"):
        out = run(capsys, "apply", "blur.npy", "x.tif", name, "--padding", "same")
        assert out == (f"Wrote {name}: {pixels.shape}\n", "")
        planes = [reference_conv2d(p[np.newaxis] / 65535, BLUR, padding=1)[0] for p in pixels]
        np.testing.assert_allclose(
            load_image(name), np.array(planes, float), rtol=0, atol=0.501 / 65535
        )
    out = run(capsys, "apply", "blur.npy", "x.tif", "y.jpg")
    assert out.err == "convext: warning: y.jpg holds 8 bits for each value, of 16 that there are\n"


def test_floating_point_images_stay_as_they_are(capsys):
    values = np.random.default_rng(0).normal(0, 1e4, (1, 9, 8)).astype(np.float32)
    save_image("x.tif", values, bits=32)
    out = run(capsys, "apply", "blur.npy", "x.tif", "y.tif", "--padding", "same")
    assert out == ("Wrote y.tif: (1, 9, 8)\n", "")
    expected = reference_conv2d(values.astype(float), BLUR, padding=1).astype(float)
    np.testing.assert_allclose(load_image("y.tif"), expected, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".ppm", ".pgm", ".gif", ".JPG", ".TIFF"])
def test_images_of_many_formats_are_convolved(suffix, capsys):
    grey = np.random.default_rng(0).integers(0, 256, (9, 8), np.uint8)
    Image.fromarray(grey).save(f"x{suffix}")
    run(capsys, "apply", "blur.npy", f"x{suffix}", "y.png")
    expected = [reference_conv2d(plane[np.newaxis], BLUR)[0] for plane in load_image(f"x{suffix}")]
    np.testing.assert_allclose(load_image("y.png"), np.array(expected, float), atol=0.501 / 255)


def test_the_page_is_chosen_and_others_are_mentioned(capsys):
    pages = [Image.new("L", (4, 3), level) for level in (0, 51, 255)]
    pages[0].save("x.tif", save_all=True, append_images=pages[1:])
    out = run(capsys, "apply", "blur.npy", "x.tif", "y.png", "--page", 1)
    assert out.err == ""
    np.testing.assert_allclose(load_image("y.png"), 0.2)
    out = run(capsys, "apply", "blur.npy", "x.tif", "y.png")
    note = "warning: x.tif holds 3 images, of which the first was read: see page (--page of apply "
    assert out.err == f"convext: {note}and enhance)\n"
    np.testing.assert_array_equal(load_image("y.png"), 0)
    assert cli.main(["apply", "blur.npy", "x.tif", "y.png", "--page", "3"]) == 2
    assert "page must be below 3" in capsys.readouterr().err


def test_max_pixels_lets_large_images_in(capsys, monkeypatch):
    save_image("x.png", np.zeros((1, 30, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert cli.main(["apply", "blur.npy", "x.png", "y.png"]) == 2
    assert "x.png has more than 1,000 pixels" in (error := capsys.readouterr().err)
    assert "--max-pixels" in error
    out = run(capsys, "apply", "blur.npy", "x.png", "y.png", "--max-pixels", 1200)
    assert out == ("Wrote y.png: (1, 28, 38)\n", "")


def test_solve_takes_no_value_of_a_scientific_image_for_clipped(capsys):
    values = np.random.default_rng(0).random((1, 30, 40)) * 1000 - 300
    save_image("x.tif", values, bits=32)
    blurred = reference_conv2d(load_image("x.tif"), BLUR).astype(float)
    save_image("y.tif", blurred, bits=32)
    out = run(capsys, "solve", "x.tif", "y.tif", "--kernel-shape", 3, 3, "--out", "k.npz")
    assert "clipped" not in out.out
    np.testing.assert_allclose(load_kernels("k.npz")[0], BLUR, rtol=1e-5)


def test_solve_and_enhance_have_a_limit_of_pixels_too(capsys, monkeypatch):
    save_image("x.png", np.random.default_rng(0).random((1, 30, 40)))
    layers = [convext.Conv2D(1, 3, kernel_initializer="zeros")]
    convext.Sequential(layers, input_channels=1, residual=True).save("m.npz")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for command in (
        ["enhance", "m.npz", "x.png", "y.png"],
        ["solve", "x.png", "x.png", "--kernel-shape", "1", "1"],
    ):
        assert cli.main(command) == 2
        assert "x.png has more than 1,000 pixels" in capsys.readouterr().err
        assert cli.main([*command, "--max-pixels", "1200"]) == 0
    np.testing.assert_array_equal(
        load_image("y.png", max_pixels=1200), load_image("x.png", max_pixels=1200)
    )


def test_enhance_keeps_bits_profile_and_resolution(capsys):
    pixels = np.random.default_rng(0).integers(0, 65536, (9, 8, 3), np.uint16)
    profile = b"\0" * 16 + b"RGB " + bytes(99)
    _image_files.write("x.png", pixels, profile, (200.0, 100.0))
    layers = [convext.Conv2D(1, 3, kernel_initializer="zeros")]
    model = convext.Sequential(layers, input_channels=1, residual=True, dtype="float64")
    model.save("m.npz")
    for name in ("y.png", "y.tif"):
        assert run(capsys, "enhance", "m.npz", "x.png", name).err == ""
        np.testing.assert_array_equal(load_image(name), load_image("x.png"))
        header = _image_files.read_header(name)
        assert (header.bits, header.profile) == (16, profile)
        assert header.dpi == pytest.approx((200, 100), abs=0.02)
