"""Images: what is in the file is what is in the array."""

from __future__ import annotations

import builtins
import os
import struct
import zlib

import numpy as np
import pytest

from convext.image import load_image, save_image

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

GREY = np.random.default_rng(0).integers(0, 256, (5, 4), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (5, 4, 3), np.uint8)
GREY_16 = np.random.default_rng(2).integers(0, 65536, (5, 4), np.uint16)
COLOUR_16 = np.random.default_rng(3).integers(0, 65536, (5, 4, 4), np.uint16)


def planes(pixels, largest=255):
    """Return (H, W) or (H, W, C) as (C, H, W) in [0, 1]."""
    return np.atleast_3d(pixels).transpose(2, 0, 1) / largest


def write_16_bit_png(path, pixels, colour_type):
    """Write what Pillow cannot: a PNG file of 16-bit colours."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# Reading


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_8_bit_images_are_divided_by_255(pixels, suffix, tmp_path):
    Image.fromarray(pixels).save(tmp_path / f"image{suffix}")
    image = load_image(tmp_path / f"image{suffix}")
    assert image.dtype == np.float64
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, planes(pixels))


def test_a_jpeg_file_is_read(tmp_path):
    row = np.linspace(0, 255, 32).astype(np.uint8)
    pixels = np.stack([np.tile(row, (16, 1)), np.full((16, 32), 128), np.full((16, 32), 30)], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "image.jpg", quality=95)
    np.testing.assert_allclose(load_image(tmp_path / "image.jpg"), planes(pixels), atol=0.03)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_images_are_divided_by_65535(suffix, tmp_path):
    Image.fromarray(GREY_16).save(tmp_path / f"image{suffix}")
    np.testing.assert_array_equal(load_image(tmp_path / f"image{suffix}"), planes(GREY_16, 65535))


@pytest.mark.parametrize(
    ("colour_type", "stored", "channels"), [(0, 1, 1), (2, 3, 3), (4, 2, 1), (6, 4, 3)]
)
def test_16_bit_png_images_keep_all_16_bits(colour_type, stored, channels, tmp_path):
    write_16_bit_png(tmp_path / "image.png", COLOUR_16[:, :, :stored], colour_type)
    np.testing.assert_array_equal(
        load_image(tmp_path / "image.png"), planes(COLOUR_16[:, :, :channels], 65535)
    )


@pytest.mark.parametrize("stored", [3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_tiff_images_keep_all_16_bits(byteorder, compression, stored, tmp_path):
    tifffile.imwrite(
        tmp_path / "image.tif",
        COLOUR_16[:, :, :stored],
        photometric="rgb",
        extrasamples=["unassalpha"] if stored == 4 else None,
        byteorder=byteorder,
        compression=compression,
    )
    np.testing.assert_array_equal(
        load_image(tmp_path / "image.tif"), planes(COLOUR_16[:, :, :3], 65535)
    )


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_planes_and_premultiplied_alpha_are_refused_and_not_misread(compression, tmp_path):
    path = tmp_path / "image.tif"
    options = {"photometric": "rgb", "compression": compression}
    tifffile.imwrite(path, COLOUR_16[:, :, :3].transpose(2, 0, 1), planarconfig=2, **options)
    with pytest.raises(ValueError, match=r"image\.tif .* separate planes are not supported"):
        load_image(path)
    tifffile.imwrite(path, COLOUR_16, extrasamples=["assocalpha"], **options)
    with pytest.raises(ValueError, match=r"image\.tif .* multiplied by their alpha"):
        load_image(path)


@pytest.mark.parametrize(("mode", "expected"), [("LA", GREY), ("RGBA", COLOUR)])
def test_alpha_is_dropped_and_the_colours_under_it_kept(mode, expected, tmp_path):
    alpha = np.arange(20, dtype=np.uint8).reshape(5, 4, 1)
    pixels = np.concatenate([np.atleast_3d(expected), alpha], -1)
    image = Image.fromarray(pixels)
    assert image.mode == mode
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(load_image(tmp_path / "image.png"), planes(expected))


@pytest.mark.parametrize("transparent", [{}, {"transparency": 1}])
def test_a_palette_is_converted_to_colours(transparent, tmp_path):
    image = Image.frombytes("P", (4, 5), (GREY % 3).tobytes())
    colours = [10, 20, 30, 40, 50, 60, 70, 80, 90]
    image.putpalette(colours)
    image.save(tmp_path / "image.png", **transparent)
    expected = np.reshape(colours, (3, 3))[GREY % 3]
    np.testing.assert_array_equal(load_image(tmp_path / "image.png"), planes(expected))


def test_black_and_white_is_0_and_1(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "image.png")
    np.testing.assert_array_equal(load_image(tmp_path / "image.png"), planes(GREY > 127, 1))


def test_other_colour_spaces_become_rgb(tmp_path):
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "image.tif")
    expected = np.broadcast_to(np.reshape([1.0, 0.0, 0.0], (3, 1, 1)), (3, 2, 3))
    np.testing.assert_array_equal(load_image(tmp_path / "image.tif"), expected)


def test_floating_point_images_in_range_are_taken_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).random((5, 4), np.float32)
    Image.fromarray(pixels).save(tmp_path / "image.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "image.tif"), planes(pixels, 1))


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_floating_point_images_out_of_range_are_an_error(value, tmp_path):
    Image.fromarray(np.full((2, 2), value, np.float32)).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match=r"image\.tif .* do not all lie in \[0, 1\]"):
        load_image(tmp_path / "image.tif")


def test_integers_of_unknown_range_are_an_error(tmp_path):
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match=r"image\.tif .* the range of its integers .* not known"):
        load_image(tmp_path / "image.tif")


# What each EXIF orientation asks for, from rows and columns as they are stored.
ORIENTATIONS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("pixels", [GREY, COLOUR, GREY_16])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_images_are_turned_as_exif_says(orientation, pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    largest = np.iinfo(pixels.dtype).max
    np.testing.assert_array_equal(
        load_image(tmp_path / "image.png"), planes(ORIENTATIONS[orientation](pixels), largest)
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_16_bit_colour_is_turned_as_exif_says(orientation, tmp_path):
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(
        tmp_path / "image.tif", COLOUR_16[:, :, :3], photometric="rgb", extratags=[tag]
    )
    np.testing.assert_array_equal(
        load_image(tmp_path / "image.tif"),
        planes(ORIENTATIONS[orientation](COLOUR_16[:, :, :3]), 65535),
    )


@pytest.mark.parametrize("contents", [b"", b"no image", b"\x93NUMPY"])
def test_what_is_no_image_is_an_error(contents, tmp_path):
    (tmp_path / "image.png").write_bytes(contents)
    with pytest.raises(ValueError, match=r"image\.png is not an image that Pillow can read"):
        load_image(tmp_path / "image.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_truncated_image_is_an_error(suffix, tmp_path):
    path = tmp_path / f"image{suffix}"
    save_image(path, np.random.default_rng(0).random((3, 40, 40)))
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"image{suffix} (cannot be read as|is not) an image"):
        load_image(path)


def test_missing_files_and_folders_are_the_systems_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(IsADirectoryError):
        load_image(tmp_path)


# Writing


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_what_is_saved_is_loaded(pixels, suffix, tmp_path):
    save_image(tmp_path / f"image{suffix}", planes(pixels))
    np.testing.assert_array_equal(load_image(tmp_path / f"image{suffix}"), planes(pixels))
    with Image.open(tmp_path / f"image{suffix}") as image:
        assert image.mode == ("L" if pixels.ndim == 2 else "RGB")
        np.testing.assert_array_equal(np.asarray(image), pixels)
    assert os.listdir(tmp_path) == [f"image{suffix}"]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_saved_as_jpeg_is_nearly_what_is_loaded(channels, suffix, tmp_path):
    ramp = np.linspace(0, 1, 64).reshape(1, 8, 8) * np.linspace(1, 0.2, channels)[:, None, None]
    save_image(tmp_path / f"image{suffix}", ramp)
    with Image.open(tmp_path / f"image{suffix}") as image:
        assert image.format == "JPEG"
    np.testing.assert_allclose(load_image(tmp_path / f"image{suffix}"), ramp, atol=0.03)


def test_values_are_clipped_and_rounded(tmp_path):
    save_image(tmp_path / "a.png", [[[-np.inf, -3, 0.4 / 255, 0.6 / 255, 1, 7, np.inf]]])
    np.testing.assert_array_equal(
        load_image(tmp_path / "a.png") * 255, [[[0, 0, 0, 1, 255, 255, 255]]]
    )


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones((2, 4, 4)), ValueError, r"1 channel \(grey\) or 3 \(colour\), got 2"),
        (np.ones((4, 4, 3)), ValueError, "got 4"),
        (np.ones((4, 4)), ValueError, r"array must have the shape \(C, H, W\), got 2 dimensions"),
        (np.ones((1, 1, 4, 4)), ValueError, "got 4 dimensions"),
        (np.ones((1, 0, 4)), ValueError, "H is 0"),
        (np.full((1, 2, 2), np.nan), ValueError, "array holds NaN"),
        (np.ones((1, 2, 2)) * 1j, TypeError, "array must hold real numbers"),
    ],
)
def test_what_is_no_image_is_not_saved(array, error, message, tmp_path):
    with pytest.raises(error, match=message):
        save_image(tmp_path / "a.png", array)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["image.gif", "image", "image.npy"])
def test_other_suffixes_are_an_error(name, tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of \.png, .*, got .*image"):
        save_image(tmp_path / name, np.ones((1, 2, 2)))


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        save_image(tmp_path / "nowhere" / "a.png", np.ones((1, 2, 2)))


def test_without_pillow_the_error_says_what_to_install(monkeypatch, tmp_path):
    real_import = builtins.__import__

    def no_pillow(name, *arguments, **options):
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(ImportError, match=r'images need Pillow: pip install "convext\[images\]"'):
        load_image(tmp_path / "a.png")
    with pytest.raises(ImportError, match=r'pip install "convext\[images\]"'):
        save_image(tmp_path / "a.png", np.ones((1, 2, 2)))
