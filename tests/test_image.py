"""Images: what is in the file is what is in the array."""

from __future__ import annotations

import builtins
import os
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest

from convext.enhancement import enlarge
from convext.image import pillow_files as _image_files
from convext.image.images import load_image, luminance, psnr, replace_luminance, save_image

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


@pytest.mark.parametrize("transparent", [{}, {"transparency": 1}, {"transparency": b"\0\x80"}])
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


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32, np.int16])
def test_values_without_a_known_range_are_taken_as_they_are(dtype, tmp_path):
    values = np.random.default_rng(0).normal(0, 1e4, (5, 4))
    pixels = np.abs(values).astype(dtype) if dtype == np.uint32 else values.astype(dtype)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="minisblack")
    np.testing.assert_array_equal(load_image(tmp_path / "image.tif"), pixels[np.newaxis])


def test_floating_point_values_that_are_missing_are_read(tmp_path):
    Image.fromarray(np.array([[np.nan, -np.inf, 3.0]], np.float32)).save(tmp_path / "image.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "image.tif"), [[[np.nan, -np.inf, 3.0]]])


@pytest.mark.parametrize("maximum", [1, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_ppm_values_are_divided_by_the_maximum_in_the_file(kind, maximum, tmp_path):
    shape = (5, 4) if kind == b"P5" else (5, 4, 3)
    pixels = np.random.default_rng(0).integers(0, maximum + 1, shape)
    data = pixels.astype(">u2" if maximum > 255 else "u1").tobytes()
    (tmp_path / "image.ppm").write_bytes(b"%s\n# comment\n4 5\n%d\n%s" % (kind, maximum, data))
    # Pillow scales 8-bit values to 255 levels.
    tolerance = 1e-12 if maximum in (1, 255) or maximum > 255 else 0.5 / 255
    np.testing.assert_allclose(
        load_image(tmp_path / "image.ppm"), planes(pixels, maximum), rtol=0, atol=tolerance
    )
    (tmp_path / "image.ppm").write_bytes(b"%s\n4 5\n%d\n%s" % (kind, maximum, data[:-3]))
    with pytest.raises(ValueError, match=r"image\.ppm cannot be read as an image"):
        load_image(tmp_path / "image.ppm")


def test_16_bit_images_whose_0_is_white_are_turned_round(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", GREY_16, photometric="miniswhite")
    np.testing.assert_array_equal(
        load_image(tmp_path / "image.tif"), planes(65535 - GREY_16, 65535)
    )


def test_signed_8_bit_values_are_refused_where_they_would_be_misread(tmp_path):
    options = {"photometric": "minisblack", "tile": (16, 16)}
    tifffile.imwrite(tmp_path / "image.tif", GREY.view(np.int8), **options)
    with pytest.raises(ValueError, match="signed integers of 8 bits are not supported"):
        load_image(tmp_path / "image.tif")


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_scientific_images_are_read_as_they_are(order, compression, kind, tmp_path):
    path = tmp_path / "image.tif"
    values = np.random.default_rng(0).normal(0, 40, (9, 7, 4))
    values = (np.abs(values) if kind[0] == "u" else values).astype(kind)
    for channels in (1, 3, 4):
        pixels = values[..., :channels].squeeze()
        options = {"photometric": "rgb" if channels > 1 else "minisblack", "rowsperstrip": 2}
        if channels == 4:
            options["extrasamples"] = ["unassalpha"]
        tifffile.imwrite(path, pixels, byteorder=order, compression=compression, **options)
        np.testing.assert_array_equal(load_image(path), planes(pixels, 1)[:3])
        header = _image_files.read_header(path)
        assert (header.size, header.bits) == ((9, 7), 32)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 40])
    with pytest.raises(ValueError, match=r"image\.tif "):
        load_image(path)
    tifffile.imwrite(path, np.moveaxis(values, 2, 0), photometric="minisblack")
    np.testing.assert_array_equal(load_image(path, page=2), values[np.newaxis, ..., 2])
    with pytest.warns(UserWarning, match="holds 4 images"):
        load_image(path)
    with pytest.raises(ValueError, match="page must be below 4"):
        load_image(path, page=4)
    with pytest.raises(ValueError, match="has more than 62 pixels"):
        load_image(path, page=0, max_pixels=62)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what is damaged
def test_damaged_scientific_images_are_a_value_error(tmp_path):
    path = tmp_path / "image.tif"
    save_image(path, np.random.default_rng(0).normal(0, 40, (3, 9, 7)), bits=32)
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 6)):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged[: generator.choice([len(whole), generator.integers(len(whole))])])
        with suppress(ValueError):
            load_image(path)


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


def exif_of_many_kinds():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a maker of cameras", 72.0
    exif[0x8769] = {0x9000: b"0230", 0x829A: 1 / 30, 0x927C: b"x" * 40}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif.tobytes()


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what is damaged
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_damaged_exif_leaves_the_pixels(suffix, tmp_path):
    exif = exif_of_many_kinds()
    path = tmp_path / f"image{suffix}"
    Image.fromarray(COLOUR).save(
        path, exif=exif, **({"lossless": True} if suffix != ".jpg" else {})
    )
    whole, expected = path.read_bytes(), np.sort(load_image(path), axis=None)
    begin = whole.index(exif[6:])
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(begin, begin + len(exif) - 6, generator.integers(1, 9)):
            damaged[place] = generator.integers(256)
        if suffix == ".png":
            chunk = bytes(damaged[begin - 4 : begin + len(exif) - 6])
            end = begin + len(exif) - 6
            damaged[end : end + 4] = struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(damaged)
        # It may be turned another way: the orientation is one of the values.
        np.testing.assert_array_equal(np.sort(load_image(path), axis=None), expected)


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


# Integers


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535), (bool, 1)])
@pytest.mark.parametrize("order", ["=", ">"])
def test_the_type_of_integers_says_what_stands_for_white(order, dtype, largest, tmp_path):
    generator = np.random.default_rng(0)
    pixels, others = (
        generator.integers(0, largest + 1, (3, 9, 8)).astype(np.dtype(dtype).newbyteorder(order))
        for _ in range(2)
    )
    floats = pixels / largest
    np.testing.assert_allclose(luminance(pixels), luminance(floats), rtol=1e-14)
    np.testing.assert_allclose(luminance(pixels[:1]), floats[:1], rtol=1e-15)
    np.testing.assert_allclose(
        replace_luminance(pixels, others[:1]),
        replace_luminance(floats, others[:1] / largest),
        atol=1e-14,
    )
    error = np.mean((floats - others / largest) ** 2)
    for a, b in ((pixels, others), (pixels, others / largest), (floats, others)):
        assert psnr(a, b) == pytest.approx(10 * np.log10(1 / error), rel=1e-12)
    save_image(tmp_path / "image.png", pixels)
    np.testing.assert_array_equal(load_image(tmp_path / "image.png"), floats)
    np.testing.assert_array_equal(enlarge(pixels, 2), enlarge(floats, 2))


def test_images_of_two_types_are_compared():
    wide = GREY.astype(np.uint16)[np.newaxis] * 257
    assert psnr(GREY[np.newaxis], wide) == np.inf


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint32])
def test_integers_of_other_types_are_an_error(dtype, tmp_path):
    image = np.ones((3, 4, 4), dtype)
    message = "is an image of type u?int.*, which does not say what stands for white"
    for function in (luminance, lambda i: psnr(i, i), lambda i: replace_luminance(i, i[:1])):
        with pytest.raises(TypeError, match=message):
            function(image)
    with pytest.raises(TypeError, match=message):
        save_image(tmp_path / "a.png", image)


# What a file keeps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (1, 300), (420, 2600)])
def test_16_bits_are_kept(shape, suffix, channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (channels, *shape), np.uint16)
    save_image(tmp_path / f"image{suffix}", pixels)
    np.testing.assert_array_equal(load_image(tmp_path / f"image{suffix}"), pixels / 65535)
    if suffix == ".tif":
        read = tifffile.imread(tmp_path / "image.tif").reshape(*shape, channels)
        np.testing.assert_array_equal(read, np.moveaxis(pixels, 0, -1))


def test_a_png_file_of_16_bit_colours_is_what_its_specification_says(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (3, 420, 2600), np.uint16)
    save_image(tmp_path / "image.png", pixels)
    data = (tmp_path / "image.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += 12 + length
    assert chunks[0] == (b"IHDR", struct.pack(">IIBBBBB", 2600, 420, 16, 2, 0, 0, 0))
    assert chunks[-1] == (b"IEND", b"")
    rows = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    rows = np.frombuffer(rows, np.uint8).reshape(420, 1 + 6 * 2600)
    assert (rows[:, 0] == 2).all()  # differences from the row above
    values = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).view(">u2").reshape(420, 2600, 3)
    np.testing.assert_array_equal(values, np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_8_bit_values_become_16_bits_and_back(channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 4), np.uint8)
    save_image(tmp_path / "a.png", pixels, bits=16)
    with Image.open(tmp_path / "a.png") as image:
        assert image.tile[0].args == ("I;16B" if channels == 1 else "RGB;16B")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), pixels / 255)
    save_image(tmp_path / "b.png", load_image(tmp_path / "a.png"))
    with Image.open(tmp_path / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.moveaxis(pixels, 0, -1).squeeze())


@pytest.mark.parametrize("channels", [1, 3])
def test_floating_point_values_are_kept_as_32_bits(channels, tmp_path):
    values = np.random.default_rng(0).normal(0, 100, (channels, 5, 4)).astype(np.float32)
    values[0, 0, 0] = np.nan
    save_image(tmp_path / "a.tif", values, bits=32)
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif"), values)
    read = tifffile.imread(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.atleast_3d(read), np.moveaxis(values, 0, -1))
    save_image(tmp_path / "b.tif", values, like=tmp_path / "a.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "b.tif"), values)


def test_bits_that_a_file_cannot_hold_are_an_error_or_a_warning(tmp_path):
    deep = np.full((3, 4, 4), 40000, np.uint16)
    for name, bits in (("a.jpg", 16), ("a.png", 32), ("a.tif", 12)):
        with pytest.raises(ValueError, match=rf"bits must be one of .* for .*{name}, got {bits}"):
            save_image(tmp_path / name, deep, bits=bits)
    with pytest.warns(UserWarning, match=r"a\.jpg holds 8 bits for each value, of 16"):
        save_image(tmp_path / "a.jpg", deep)
    save_image(tmp_path / "b.jpg", deep, bits=8)
    save_image(tmp_path / "source.png", deep)
    with pytest.warns(UserWarning, match=r"c\.jpg holds 8 bits"):
        save_image(tmp_path / "c.jpg", deep / 65535, like=tmp_path / "source.png")


def profile(space):
    """The header of a colour profile, and something behind it."""
    return b"\0" * 16 + space + bytes(range(200))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("source", "suffix", "bits"),
    [
        (".png", ".tif", 8),
        (".png", ".tif", 16),
        (".tif", ".png", 8),
        (".tif", ".png", 16),
        (".png", ".jpg", 8),
        (".tif", ".tif", 32),
    ],
)
def test_bits_profile_and_resolution_are_those_of_another_image(
    source, suffix, bits, channels, tmp_path
):
    own = profile(b"GRAY" if channels == 1 else b"RGB ")
    values = np.random.default_rng(0).random((channels, 6, 5))
    like, path = tmp_path / f"like{source}", tmp_path / f"new{suffix}"
    _image_files.write(
        like, np.zeros((3, 2, channels), _image_files.TYPES[bits]), own, (300.0, 150.0)
    )
    save_image(path, values, like=like)
    header = _image_files.read_header(path)
    assert (header.bits, header.profile) == (bits, own)
    assert header.dpi == pytest.approx((300, 150), abs=0.02)
    if bits == 32:
        np.testing.assert_array_equal(load_image(path), values.astype(np.float32))
        return
    with Image.open(path) as image:
        assert image.info["icc_profile"] == own
        assert [float(dots) for dots in image.info["dpi"]] == pytest.approx([300, 150], abs=0.02)
    if suffix != ".jpg":
        levels = 2**bits - 1
        np.testing.assert_array_equal(load_image(path), np.rint(values * levels) / levels)


def test_a_profile_for_other_channels_is_left_out(tmp_path):
    like = tmp_path / "like.png"
    _image_files.write(like, np.zeros((3, 2, 3), np.uint8), profile(b"RGB "), None)
    save_image(tmp_path / "grey.png", np.zeros((1, 4, 4)), like=like)
    with Image.open(tmp_path / "grey.png") as image:
        assert "icc_profile" not in image.info
    Image.new("CMYK", (3, 2)).save(tmp_path / "ink.tif", icc_profile=profile(b"CMYK"), dpi=(9, 9))
    save_image(tmp_path / "red.png", np.zeros((3, 4, 4)), like=tmp_path / "ink.tif")
    with Image.open(tmp_path / "red.png") as image:
        assert "icc_profile" not in image.info
        np.testing.assert_allclose(image.info["dpi"], (9, 9), atol=0.02)


def test_a_profile_of_an_unknown_kind_is_kept(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "like.png", icc_profile=b"of some kind")
    save_image(tmp_path / "new.png", np.zeros((3, 4, 4)), like=tmp_path / "like.png")
    with Image.open(tmp_path / "new.png") as image:
        assert image.info["icc_profile"] == b"of some kind"


def test_a_resolution_turns_with_the_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "like.jpg", exif=exif, dpi=(300, 150))
    save_image(tmp_path / "new.png", np.zeros((3, 4, 4)), like=tmp_path / "like.jpg")
    with Image.open(tmp_path / "new.png") as image:
        np.testing.assert_allclose(image.info["dpi"], (150, 300), atol=0.02)


# Files with several images, and large ones


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_the_page_says_which_image_is_read(suffix, tmp_path):
    pages = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = tmp_path / f"pages{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    for page in range(3):
        np.testing.assert_array_equal(load_image(path, page=page)[:, 1, 1], np.eye(3)[page])
    with pytest.warns(UserWarning, match=rf"pages{suffix} holds 3 images, of which the first"):
        np.testing.assert_array_equal(load_image(path)[:, 1, 1], [1, 0, 0])
    with pytest.raises(ValueError, match=rf"pages{suffix} .*page must be below 3, .* got 3"):
        load_image(path, page=3)
    with pytest.raises(ValueError, match="page must be at least 0"):
        load_image(path, page=-1)


def test_pages_of_16_bit_colours_are_read(tmp_path):
    pages = np.random.default_rng(0).integers(0, 65536, (2, 5, 4, 3), np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="rgb")
    for page in range(2):
        np.testing.assert_array_equal(
            load_image(tmp_path / "pages.tif", page=page), planes(pages[page], 65535)
        )


def test_the_second_image_of_a_phone_is_no_page(tmp_path):
    pages = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[:2])]
    pages[0].save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=pages[1:])
    assert load_image(tmp_path / "photo.jpg").shape == (3, 5, 4)


def test_max_pixels_is_the_limit_of_an_image(tmp_path, monkeypatch):
    path = tmp_path / "image.tif"
    save_image(path, planes(COLOUR))
    np.testing.assert_array_equal(load_image(path, max_pixels=20), planes(COLOUR))
    with pytest.raises(ValueError, match=r"image\.tif has more than 19 pixels: .* max_pixels"):
        load_image(path, max_pixels=19)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)
    with pytest.raises(ValueError, match="has more than 18 pixels: allow more by max_pixels"):
        load_image(path)
    np.testing.assert_array_equal(load_image(path, max_pixels=20), planes(COLOUR))
    assert Image.MAX_IMAGE_PIXELS == 9


def test_a_header_that_promises_too_much_is_an_error(tmp_path):
    write_16_bit_png(tmp_path / "image.png", COLOUR_16[:, :, :3], 2)
    data = bytearray((tmp_path / "image.png").read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "image.png").write_bytes(data)
    with pytest.raises(ValueError, match="has more than 178,956,970 pixels"):
        load_image(tmp_path / "image.png")


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
