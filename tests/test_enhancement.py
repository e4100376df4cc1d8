"""Networks for images: patches, luminance, quality; trained on folders, applied to images."""

from __future__ import annotations

import numpy as np
import pytest

import convext
from convext import enhancement
from convext.cli import main as cli
from convext.enhancement import enhance, enhanced_strips, enlarge
from convext.image.images import (
    extract_patches,
    load_image,
    load_images,
    luminance,
    psnr,
    replace_luminance,
    save_image,
)
from convext.image.pictures import as_picture
from convext.image.pillow_files import is_image

Image = pytest.importorskip("PIL.Image")
metrics = pytest.importorskip("skimage.metrics")
color = pytest.importorskip("skimage.color")


def picture(shape=(3, 40, 30), seed=0):
    """Return an image that is smooth enough to be enhanced."""
    scipy = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(seed).random(shape)
    smooth = scipy.gaussian_filter(image, (0, 1.5, 1.5))
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


# Images


def test_luminance_is_that_of_scikit_image():
    image = picture()
    expected = color.rgb2ycbcr(np.moveaxis(image, 0, -1))[..., 0] / 255
    np.testing.assert_allclose(luminance(image)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(luminance(np.stack([image, image]))[1, 0], expected, rtol=1e-12)
    np.testing.assert_array_equal(luminance(image[:1]), image[:1])


def test_a_new_luminance_leaves_the_chroma():
    image = picture()
    new = luminance(image)[:, ::-1]
    before, after = (
        color.rgb2ycbcr(np.moveaxis(i, 0, -1)) for i in (image, replace_luminance(image, new))
    )
    np.testing.assert_allclose(after[..., 0] / 255, new[0], rtol=1e-9)
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=0.02)


def test_psnr_is_that_of_scikit_image():
    a, b = picture(seed=0), picture(seed=1)
    expected = metrics.peak_signal_noise_ratio(a, b, data_range=1)
    assert psnr(a, b) == pytest.approx(expected, rel=1e-12)
    inner = metrics.peak_signal_noise_ratio(a[:, 3:-3, 3:-3], b[:, 3:-3, 3:-3], data_range=1)
    assert psnr(a, b, border=3) == pytest.approx(inner, rel=1e-12)
    assert psnr(a, a) == np.inf
    with pytest.raises(ValueError, match="a border of 15 leaves nothing"):
        psnr(a, b, border=15)
    with pytest.raises(ValueError, match="must have the same shape"):
        psnr(a, b[:, 1:])


@pytest.mark.parametrize(("size", "stride"), [(4, 3), ((5, 2), (1, 4)), (6, None)])
def test_patches_are_those_of_plain_loops(size, stride):
    images = [picture((2, 17, 13)), picture((2, 3, 13)), picture((2, 9, 20))]
    height, width = size if isinstance(size, tuple) else (size, size)
    down, across = stride if isinstance(stride, tuple) else (stride or height, stride or width)
    expected = [
        image[:, y : y + height, x : x + width]
        for image in images
        for y in range(0, image.shape[1] - height + 1, down)
        for x in range(0, image.shape[2] - width + 1, across)
    ]
    np.testing.assert_array_equal(extract_patches(images, size, stride), expected)
    one = extract_patches(images[0], size, stride)
    np.testing.assert_array_equal(one, expected[: len(one)])


SUFFIXES = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".gif"]


def test_a_folder_holds_all_images_that_can_be_read(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8)
    names = [f"{i}{s.upper() if i % 2 else s}" for i, s in enumerate(SUFFIXES)]
    for name in names:
        Image.fromarray(grey).save(tmp_path / name)
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    for name in ("._0.jpg", ".DS_Store", "Thumbs.db", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    images = load_images(tmp_path)
    assert list(images) == [*names, "link.png"]
    for name, image in images.items():
        assert is_image(name)
        np.testing.assert_array_equal(image, load_image(tmp_path / name))


def test_what_may_be_an_image_and_is_skipped_is_named(tmp_path):
    save_image(tmp_path / "a.png", picture())
    for name in ("b.heic", "c.cr2", "d.qqq", "e", "f.cr2"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"b\.heic, c\.cr2, d\.qqq and 2 more skipped"):
        assert list(load_images(tmp_path)) == ["a.png"]


def test_bad_images_are_named():
    with pytest.raises(ValueError, match="no image is as large as a patch of 50x50"):
        extract_patches([picture()], 50)
    with pytest.raises(ValueError, match=r"images\[1\] must have the shape"):
        extract_patches([picture(), np.ones((4, 4))], 2)
    with pytest.raises(ValueError, match="image must have 1 channel or 3, got 2"):
        luminance(np.ones((2, 4, 4)))


def test_a_folder_of_images_is_read_in_the_order_of_the_names(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.jpg"):
        load_images(tmp_path)
    for name in ("b.PNG", "a.jpg"):
        save_image(tmp_path / name, picture())
    assert list(load_images(tmp_path)) == ["a.jpg", "b.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        load_images(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        load_images(tmp_path / "missing")


# Models


def identity(channels, size, padding="valid", **options):
    """Return a model that leaves images as they are."""
    layer = convext.Conv2D(channels, size, padding=padding, kernel_initializer="zeros")
    model = convext.Sequential([layer], input_channels=channels, dtype="float64", **options)
    kernels, bias = model.get_weights()
    for k in range(channels):
        kernels[k, k, (size - 1) // 2, (size - 1) // 2] = 1
    model.set_weights([kernels, bias])
    return model


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_enhancing_keeps_the_place_and_the_size(size, padding, channels, data_format):
    image = picture()
    model = identity(channels, size, padding, data_format=data_format)
    np.testing.assert_allclose(enhance(model, image), image, atol=1e-12)
    if channels == 1:
        np.testing.assert_allclose(enhance(model, image[:1]), image[:1], atol=1e-12)


def random_model(generator, channels):
    """Return a network of stride 1 that makes nothing larger, its layers padded or not."""
    layers = []
    for last in [False] * generator.integers(0, 3) + [True]:
        size = tuple(int(n) for n in generator.integers(1, 6, 2))
        layers.append(
            convext.Conv2D(
                channels if last else int(generator.integers(1, 4)),
                size,
                padding=str(generator.choice(["valid", "same"])),
                dilation_rate=int(generator.integers(1, 3)),
                activation="linear" if last else "relu",
            )
        )
    model = convext.Sequential(
        layers,
        input_channels=channels,
        residual=bool(generator.integers(2)),
        dtype="float64",
        data_format=str(generator.choice(["channels_first", "channels_last"])),
    )
    model.set_weights([generator.normal(0, 0.3, array.shape) for array in model.get_weights()])
    return model


def enhanced_at_once(model, image):
    """What `enhance` is to return, without strips."""
    values = luminance(image) if model.layers[-1].filters == 1 else image
    sides = model.margins((len(values), 99, 99))
    padded = np.pad(values, ((0, 0), *sides), mode="edge")
    if model.data_format == "channels_last":
        result = np.moveaxis(model.predict(np.moveaxis(padded, 0, -1)), -1, 0)
    else:
        result = model.predict(padded)
    return replace_luminance(image, result) if len(values) < len(image) else result


@pytest.mark.parametrize("seed", range(60))
def test_strips_fit_together_as_if_there_were_none(seed, monkeypatch):
    generator = np.random.default_rng(seed)
    channels, scale = int(generator.choice([1, 3])), int(generator.integers(1, 4))
    model = random_model(generator, channels)
    colours = 3 if channels == 3 else int(generator.choice([1, 3]))
    # Some are smaller than the kernels.
    height, width = (int(n) for n in generator.integers(1, 40, 2))
    image = generator.integers(0, 256, (colours, height, width), np.uint8)
    expected = enhanced_at_once(model, enlarge(image / 255, scale))

    def strips(rows, _, **__):
        cuts = np.unique([0, *generator.integers(0, rows + 1, 5), rows])
        yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)

    monkeypatch.setattr(enhancement, "strips_of", strips)
    if scale == 1:
        np.testing.assert_allclose(enhance(model, image), expected, atol=1e-12)
    result = np.empty(expected.shape)
    for begin, rows in enhanced_strips(model, as_picture("image", image), scale):
        result[:, begin : begin + rows.shape[1]] = rows
    # The enlarged image is of float32.
    np.testing.assert_allclose(result, expected, atol=1e-12 if scale == 1 else 1e-5)


def test_models_that_change_the_size_are_refused():
    larger = convext.Sequential([convext.Conv2D(1, 1, padding=2)], input_channels=1)
    with pytest.raises(ValueError, match="larger"):
        enhance(larger, picture())
    strided = convext.Sequential([convext.Conv2D(1, 3, strides=2)], input_channels=1)
    with pytest.raises(ValueError, match="strides of 1"):
        enhance(strided, picture())


def test_enlarging_is_bicubic():
    image = picture((3, 9, 7))
    expected = Image.fromarray(image[1].astype(np.float32)).resize((21, 27), Image.BICUBIC)
    np.testing.assert_array_equal(enlarge(image, 3)[1], np.asarray(expected))
    assert enlarge(image, 1) is image


# The command line


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Folders of images before and after a blur."""
    scipy = pytest.importorskip("scipy.ndimage")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        grey = picture((1, 60, 50), seed)
        image = np.concatenate([grey, 0.8 * grey + 0.1, 0.9 * grey])
        save_image(tmp_path / "after" / f"{seed}.png", image)
        save_image(tmp_path / "before" / f"{seed}.png", scipy.gaussian_filter(image, (0, 1, 1)))
    return tmp_path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("layers", ["6x5,1x3", "6x5,3x3"])
def test_a_network_is_trained_on_folders_and_enhances_an_image(folders, layers, capsys):
    options = ("--layers", layers, "--residual", "--patch", 21, "--stride", 7, "--epochs", 30)
    rate = ("--learning-rate", 0.01, "--batch-size", 4, "--activation", "leaky_relu")
    assert run("train-images", "before", "after", *options, *rate, "--plot", "report.png") == 0
    out = capsys.readouterr().out
    assert "3 images, 90 patches of 21x21" in out
    assert "Best: epoch " in out
    assert load_image("report.png").shape[0] == 3
    assert run("enhance", "model.npz", "before/1.png", "out.png") == 0
    before, after, out = (load_image(f) for f in ("before/1.png", "after/1.png", "out.png"))
    assert psnr(out, after) > psnr(before, after) + 1


def test_enhance_enlarges_first(folders, capsys):
    identity(1, 5).save("identity.npz")
    assert run("enhance", "identity.npz", "before/0.png", "large.png", "--scale", 3) == 0
    assert capsys.readouterr().out == "Wrote large.png: (3, 180, 150)\n"
    expected = np.clip(enlarge(load_image("before/0.png"), 3), 0, 1)
    np.testing.assert_allclose(load_image("large.png"), expected, atol=0.6 / 255)


def test_train_images_can_be_quiet(folders, capsys):
    options = ("--layers", "1x3", "--patch", 20, "--epochs", 1, "--quiet")
    assert run("train-images", "before", "after", *options) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train-images", "before", "missing"), "missing: No such file or directory"),
        (("train-images", "before", "after", "--layers", "64x9,x"), "expected FILTERSxSIZE"),
        (("train-images", "before", "after", "--layers", "2x3"), "must have 1 filter or 3, got 2"),
        (("train-images", "before", "after", "--patch", "90"), "no image is as large"),
        (("train-images", "before", "after", "--patch", "9"), "do not fit"),
        (("train-images", "before", "after", "--activation", "gelu"), "invalid choice: 'gelu'"),
        (("train-images", "before", "odd"), "0.png has the shape"),
        (("train-images", "before", "few"), "1.png is in only one of before and few"),
        (("train-images", "before", "after", "--out", "no/m.npz"), "folder does not exist"),
        (("enhance", "before/0.png", "before/0.png", "out.png"), "is not an array file"),
        (("enhance", "identity.npz", "before/0.png", "out.txt"), "must end in one of"),
        (("enhance", "identity.npz", "before/0.png", "before/0.png"), "would overwrite"),
        (("enhance", "plain.npy", "before/0.png", "out.png"), "not a model"),
    ],
)
def test_what_does_not_fit_is_one_line_and_status_2(arguments, message, folders, capsys):
    identity(1, 3).save("identity.npz")
    np.save("plain.npy", np.ones((1, 1, 3, 3)))
    for name, sizes in (("odd", [(3, 8, 8)] * 3), ("few", [(3, 60, 50)])):
        (folders / name).mkdir()
        for i, size in enumerate(sizes):
            save_image(folders / name / f"{i}.png", picture(size))
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
