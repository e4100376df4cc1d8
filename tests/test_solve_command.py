"""`convext solve`: filters that others wrote, found from images before and after."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import reference
from scipy.ndimage import correlate, gaussian_filter

import convext
from convext.cli import main as cli
from convext.image.images import load_image, save_image
from convext.kernels_file import load_kernels
from convext.solve import verdict
from convext.solve.fractions import common_fraction

photographs = pytest.importorskip("skimage.data", reason="they come with scikit-image")
pillow = pytest.importorskip("PIL.Image")
filters = pytest.importorskip("PIL.ImageFilter")

# Those of Pillow, and whether they add something.
PILLOW = {
    "BLUR": False,
    "CONTOUR": True,
    "DETAIL": False,
    "EDGE_ENHANCE": False,
    "EDGE_ENHANCE_MORE": False,
    "EMBOSS": True,
    "FIND_EDGES": False,
    "SHARPEN": False,
    "SMOOTH": False,
    "SMOOTH_MORE": False,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    return tmp_path


@pytest.fixture
def run(capsys):
    """A function that runs `convext solve` and returns its status, output and errors."""

    def run_command(*arguments):
        status = cli.main(["solve", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run_command


@pytest.fixture
def solve(run):
    """A function that runs `convext solve`, which must succeed: its output, kernels and record."""

    def run_command(*arguments):
        status, out, err = run(*arguments, "--out", "found.npz")
        assert (status, err) == (0, "")
        return out, *load_kernels("found.npz")

    return run_command


def grey(name="camera"):
    picture = pillow.fromarray(getattr(photographs, name)()).convert("L")
    return picture.crop((0, 0, 320, 300))


def true_kernel(pillow_filter):
    """Return Pillow's kernel as it is applied, from the lowest row up, and its offset."""
    (width, height), scale, offset, values = pillow_filter.filterargs
    return np.reshape(values, (height, width))[::-1] / scale, scale, offset


@pytest.mark.parametrize("picture", ["camera", "chelsea"])
@pytest.mark.parametrize("name", PILLOW)
def test_the_filters_of_pillow_are_recovered_to_the_fraction(name, picture, solve):
    before, pillow_filter = grey(picture), getattr(filters, name)
    before.save("before.png")
    before.filter(pillow_filter).save("after.png")
    kernel, scale, offset = true_kernel(pillow_filter)
    options = ["--bias"] if PILLOW[name] else []
    out, found, record = solve(
        "before.png", "after.png", "--kernel-shape", *kernel.shape, "--ignore-saturated", *options
    )
    np.testing.assert_array_equal(np.rint(found[0, 0] * scale), np.rint(kernel * scale))
    text = "; ".join(" ".join(f"{v:.0f}" for v in row) for row in kernel * scale)
    divisor = np.gcd.reduce(np.rint(kernel * scale).astype(int).ravel())
    factor = scale / np.gcd(int(scale), divisor)
    text = "; ".join(" ".join(f"{v:.0f}" for v in row + 0.0) for row in kernel * factor)
    expected = f"[{text}]" if factor == 1 else f"1/{factor:.0f} × [{text}]"
    assert f"nearly {expected}\n" in out
    if PILLOW[name]:
        assert f"({offset:.0f} of 255)" in out
        assert record["bias"][0] * 255 == pytest.approx(offset, abs=0.5)
    else:
        assert record["bias"] is None


@pytest.mark.parametrize(("size", "sigma"), [(5, 1.1), (7, 1.5), (9, 2.0)])
def test_a_gaussian_blur_is_recovered(size, sigma, solve):
    """That of OpenCV where it is installed, which rounds its results likewise."""
    before = np.asarray(grey())
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    try:
        import cv2

        after = cv2.GaussianBlur(before, (size, size), sigma)
    except ImportError:
        after = np.rint(correlate(before.astype(float), kernel)).astype(np.uint8)
    pillow.fromarray(before).save("before.png")
    pillow.fromarray(after).save("after.png")
    _, found, _ = solve("before.png", "after.png", "--kernel-shape", size, size)
    assert np.abs(found[0, 0] - kernel).max() < 2e-3


BLURS = {
    "Gaussian": np.outer(*2 * [[0.1, 0.8, 0.1]]),
    "binomial": np.outer(*2 * [[1, 4, 6, 4, 1]]) / 256,
}


def filtered(image, name):
    """Return a grey image filtered by one of Pillow's filters, or blurred, and the kernel."""
    if name in PILLOW:
        pillow_filter = getattr(filters, name)
        return image.filter(pillow_filter), true_kernel(pillow_filter)[0]
    blurred = np.rint(correlate(np.asarray(image, float), BLURS[name])).astype(np.uint8)
    return pillow.fromarray(blurred), BLURS[name]


def solve_jpeg(solve, kernel, *options):
    out, found, record = solve("before.jpg", "after.jpg", "--kernel-shape", *kernel.shape, *options)
    assert "AFTER is a JPEG file: the kernel was fitted to its rounded coefficients\n" in out
    assert record["from_coefficients"]
    return out, found[0, 0], record


QUICK = ["EMBOSS", "SHARPEN"]


@pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in [*PILLOW, *BLURS]
            if name not in QUICK
        ),
    ],
)
def test_filters_of_a_jpeg_file_are_recovered(name, solve):
    grey().save("before.jpg", quality=95)
    after, kernel = filtered(pillow.open("before.jpg"), name)
    after.save("after.jpg", quality=95)
    _, found, record = solve_jpeg(solve, kernel, *["--bias"][: PILLOW.get(name, False)])
    assert np.abs(found - kernel).max() < 2e-2
    if PILLOW.get(name):
        offset = true_kernel(getattr(filters, name))[2]
        assert record["bias"][0] * 255 == pytest.approx(offset, abs=0.5)


# Where BEFORE has lost what the filter makes 5 to 17 times as strong, and half of the result may be
# cut off, more is uncertain.
BOUNDS = {"EDGE_ENHANCE": 0.03, "EDGE_ENHANCE_MORE": 0.15, "FIND_EDGES": 0.3, "CONTOUR": 0.4}
# Not in every run.
SLOW = ["DETAIL", "EMBOSS", "SHARPEN", "BLUR", "SMOOTH_MORE", "Gaussian", *BOUNDS]


@pytest.mark.parametrize(
    "name",
    [
        "SMOOTH",
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
    ],
)
def test_filters_are_recovered_when_both_images_are_saved_as_jpeg_afterwards(name, solve):
    before = pillow.fromarray(photographs.camera())
    after, kernel = filtered(before, name)
    before.save("before.jpg", quality=95)
    after.save("after.jpg", quality=95)
    _, found, _ = solve_jpeg(solve, kernel, *["--bias"][: PILLOW.get(name, False)])
    assert np.abs(found - kernel).max() < BOUNDS.get(name, 2e-2)


@pytest.mark.parametrize(
    ("name", "top", "left"),
    [
        ("SMOOTH", 0, 0),
        ("SMOOTH", 1, 1),
        pytest.param("SHARPEN", 0, 0, marks=pytest.mark.slow),
        pytest.param("SHARPEN", 1, 1, marks=pytest.mark.slow),
    ],
)
def test_two_jpegs_of_odd_sizes_whether_the_border_is_kept_or_not(name, top, left, solve):
    before = grey().crop((0, 0, 251, 243))
    after, kernel = filtered(before, name)
    after = after.crop((left, top, 251 - left, 243 - top))
    before.save("before.jpg", quality=95)
    after.save("after.jpg", quality=95)
    _, found, _ = solve_jpeg(solve, kernel)
    assert np.abs(found - kernel).max() < 3e-2


def test_a_jpeg_of_a_valid_convolution_and_an_exact_image_before(solve):
    before = np.asarray(grey())
    kernel = np.outer([1, 3, 0], [1, 2, 1, 2]) / 24
    after = np.rint(reference.conv2d(before[np.newaxis], kernel[np.newaxis, np.newaxis])[0])
    pillow.fromarray(before).save("before.png")
    pillow.fromarray(after.astype(np.uint8)).save("after.jpg", quality=95)
    _, found, record = solve("before.png", "after.jpg", "--kernel-shape", 3, 4)
    assert record["from_coefficients"]
    assert np.abs(found[0, 0] - kernel).max() < 2e-2


def test_the_error_left_in_a_jpeg_file_is_that_of_its_pixels(solve):
    grey().save("before.jpg", quality=95)
    after, kernel = filtered(pillow.open("before.jpg"), "EDGE_ENHANCE_MORE")
    after.save("after.jpg", quality=95)
    out, found, record = solve_jpeg(solve, kernel, "--ignore-saturated")
    assert "have been clipped: the fit allowed for it\n" in out
    x, y = (np.asarray(pillow.open(f)) / 255.0 for f in ("before.jpg", "after.jpg"))
    inside = y[1:-1, 1:-1]
    errors = reference.conv2d(x[np.newaxis], found[np.newaxis, np.newaxis])[0] - inside
    unclipped = (inside > 0) & (inside < 1)
    assert record["loss"] == pytest.approx(np.mean(np.square(errors[unclipped])))


@pytest.mark.parametrize("reason", ["colour", "turned", "small", "l2", "flat", "PNG"])
def test_what_cannot_be_fitted_to_coefficients_is_fitted_to_pixels(reason, run):
    before = grey().resize((20, 20)) if reason == "small" else grey()
    if reason == "flat":
        before = pillow.new("L", (90, 70), 99)
    if reason == "colour":
        before = before.convert("RGB")
    name = "after.png" if reason == "PNG" else "after.jpg"
    before.save("before.png")
    after = before.filter(filters.SMOOTH)
    exif = pillow.Exif()
    if reason == "turned":
        exif[274] = 3
        pillow.fromarray(np.asarray(before)[::-1, ::-1]).save("before.png")
    after.save(name, **({"quality": 95, "exif": exif} if name == "after.jpg" else {}))
    options = ["--l2", 1e-9] if reason == "l2" else []
    status, out, _ = run("before.png", name, "--kernel-shape", 3, 3, "--out", "k.npz", *options)
    assert status == 0
    assert "rounded coefficients" not in out
    assert ("warning" in out) == (reason == "flat")
    assert not load_kernels("k.npz")[1]["from_coefficients"]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_error_is_in_levels_of_the_image(bits, solve):
    levels = 2**bits - 1
    rng = np.random.default_rng(0)
    before = rng.integers(0, levels, (60, 60)).astype(f"uint{bits}")
    after = np.rint(correlate(before.astype(float), np.full((3, 3), 1 / 9)))
    pillow.fromarray(before).save("before.png")
    pillow.fromarray(after.astype(f"uint{bits}")).save("after.png")
    out, _, record = solve("before.png", "after.png", "--kernel-shape", 3, 3)
    assert "nearly 1/9 × [1 1 1; 1 1 1; 1 1 1]\n" in out
    error = float(re.search(rf"\(([\d.]+) of {levels}\), root mean square of 3364", out).group(1))
    assert 0.2 < error < 0.35  # of rounding: 0.29
    assert np.sqrt(record["loss"]) * levels == pytest.approx(error, rel=1e-2)


def test_colour_images_mix_all_channels_or_none(solve):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, (3, 40, 50)) / 255
    swap = np.zeros((3, 3, 1, 1))
    swap[0, 2] = swap[1, 0] = swap[2, 1] = 1
    save_image("before.png", before)
    save_image("after.png", convext.conv2d(before, swap))
    out, found, _ = solve("before.png", "after.png", "--kernel-shape", 1, 1)
    np.testing.assert_allclose(found, swap, atol=1e-12)
    assert "kernel 3, channel 2:\n[[1.]]\n" in out
    assert "nearly [0 | 1 | 0]\n" in out

    blurs = np.array([[[[0.5, 0.5]]], [[[1.0, 0.0]]], [[[0.25, 0.75]]]])
    after = convext.conv2d(before, blurs, groups=3)
    np.save("after.npy", after)
    np.save("before.npy", before)
    out, found, record = solve("before.npy", "after.npy", "--kernel-shape", 1, 2, "--per-channel")
    np.testing.assert_allclose(found, blurs, atol=1e-12)
    assert record["per_channel"] is True
    assert "nearly 1/4 × [1 3]\n" in out
    # What was found can be applied.
    assert cli.main(["apply", "found.npz", "before.png", "again.png"]) == 0
    np.testing.assert_allclose(load_image("again.png"), after, atol=0.51 / 255)


def test_a_filter_with_a_bias_can_be_applied(solve):
    before = np.random.default_rng(0).random((1, 30, 30))
    after = reference.conv2d(before, np.full((1, 1, 2, 2), 0.125), [0.25]).astype(float)
    np.save("before.npy", before)
    np.save("after.npy", after)
    out, _, record = solve("before.npy", "after.npy", "--kernel-shape", 2, 2, "--bias")
    assert record["bias"] == [pytest.approx(0.25, abs=1e-12)]
    assert "bias 0.25\n" in out
    assert cli.main(["apply", "found.npz", "before.npy", "again.npy"]) == 0
    np.testing.assert_allclose(np.load("again.npy"), after, atol=1e-12)


def test_values_that_may_have_been_clipped_are_counted_or_left_out(solve):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, (1, 50, 50)) / 255
    sharp = np.array([[[[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]]])
    after = convext.conv2d(before, sharp)
    save_image("before.png", before)
    save_image("after.png", after)
    rounded = np.rint(after * 255)
    count = int(np.count_nonzero((rounded <= 0) | (rounded >= 255)))
    arguments = "before.png", "after.png", "--kernel-shape", 3, 3
    out, found, _ = solve(*arguments)
    assert np.abs(found - sharp).max() > 0.5
    assert f"{count} values of AFTER ({count / 2304:.1%}) are 0 or at the maximum" in out
    assert "see --ignore-saturated" in out
    out, found, record = solve(*arguments, "--ignore-saturated")
    np.testing.assert_allclose(found, sharp, atol=1e-12)
    assert f"root mean square of {2304 - count} values" in out
    assert "they were left out" in out
    assert record["ignore_saturated"] is True


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_end_where_their_type_does_or_at_their_largest_value(dtype, solve):
    before = np.random.default_rng(0).integers(0, 200, (1, 40, 40))
    true = 2 * before
    np.save("before.npy", before)
    np.save("after.npy", np.minimum(true, 255).astype(dtype))
    arguments = "before.npy", "after.npy", "--kernel-shape", 1, 1
    out, _, _ = solve(*arguments)
    assert ("may have been clipped" in out) == (dtype == "uint8")
    out, found, _ = solve(*arguments, "--ignore-saturated")
    np.testing.assert_allclose(found, [[[[2.0]]]], rtol=1e-12)
    assert "nearly [2]\n" in out


def test_samples_of_arrays_are_solved_together(solve):
    rng = np.random.default_rng(0)
    before, kernels = rng.random((5, 2, 12, 12)), rng.standard_normal((3, 2, 3, 3))
    np.save("before.npy", before)
    np.savez("after.npz", after=convext.conv2d(before, kernels))
    out, found, record = solve("before.npy", "after.npz", "--kernel-shape", 3, 3)
    np.testing.assert_allclose(found, kernels, atol=1e-12)
    assert "nearly" not in out
    assert (record["rank"], record["l2"]) == (18, 0)
    assert 1 < record["condition"] < 100


def test_undetermined_kernels_come_with_a_warning(solve):
    np.save("before.npy", np.full((1, 9, 9), 0.5))
    np.save("after.npy", np.full((1, 7, 7), 0.5))
    out, found, record = solve("before.npy", "after.npy", "--kernel-shape", 3, 3)
    assert "warning: the data determine only 1 of the 9 numbers of a kernel" in out
    np.testing.assert_allclose(found, np.full((1, 1, 3, 3), 1 / 9), rtol=1e-12)
    assert (record["rank"], record["condition"]) == (1, None)
    out, found, record = solve("before.npy", "after.npy", "--kernel-shape", 3, 3, "--l2", 0.25)
    assert "warning" not in out
    # The loss (9 w / 2 - 1 / 2)² + 9 w² / 4 is least at w = 0.1.
    np.testing.assert_allclose(found, np.full((1, 1, 3, 3), 0.1), rtol=1e-12)


def test_nothing_is_written_unless_asked_for(run, folder):
    np.save("before.npy", np.random.default_rng(0).random((1, 9, 9)))
    before = sorted(os.listdir())
    status, out, _ = run("before.npy", "before.npy", "--kernel-shape", 3, 3)
    assert status == 0
    assert "nearly [0 0 0; 0 1 0; 0 0 0]\n" in out
    assert sorted(os.listdir()) == before


def test_more_kernels_than_fit_a_screen_are_not_printed(solve, monkeypatch):
    monkeypatch.setattr("convext.cli.filter_report.MOST_SHOWN", 2)
    before = np.random.default_rng(0).random((1, 9, 9))
    np.save("before.npy", before)
    np.save("after.npy", np.repeat(before, 5, axis=0))
    out, _, _ = solve("before.npy", "after.npy", "--kernel-shape", 1, 1)
    assert "kernel 2, " in out
    assert "kernel 3, " not in out
    assert "... and 3 more kernels\n" in out


def test_channels_that_are_not_printed_are_counted(solve):
    before = np.random.default_rng(0).random((12, 9, 9))
    np.save("before.npy", before)
    np.save("after.npy", before[:1])
    out, _, _ = solve("before.npy", "after.npy", "--kernel-shape", 1, 1)
    assert "kernel 1, channel 9:" in out
    assert "channel 10" not in out
    assert "... and 3 more channels\n" in out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_report_is_drawn(channels, per_channel, solve):
    pytest.importorskip("matplotlib")
    before = np.random.default_rng(0).integers(0, 256, (channels, 30, 40)) / 255
    save_image("before.png", before)
    options = ["--per-channel"] if per_channel else []
    out, _, _ = solve(
        "before.png", "before.png", "--kernel-shape", 3, 3, *options, "--plot", "report.png"
    )
    assert out.endswith("\nPlot: report.png\n")
    assert load_image("report.png").shape[0] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["b.npy", "a.npy"], "the following arguments are required: --kernel-shape"),
        (["b.npy", "a.npy", "--kernel-shape", "3", "0"], "it must be at least 1, got 0"),
        (["b.npy", "a.npy", "--kernel-shape", "3", "3", "--l2", "-1"], "of at least 0, got '-1'"),
        (["no.npy", "a.npy", "--kernel-shape", "3", "3"], "no.npy: No such file"),
        (["b.npy", "bad.png", "--kernel-shape", "3", "3"], "bad.png is not an image"),
        (["b.npy", "a.npy", "--kernel-shape", "10", "3"], "kernels of 10x3 do not fit"),
        (["b.npy", "a.npy", "--kernel-shape", "5", "5"], "AFTER must be 9x9, or 5x5 without its"),
        (["b.npy", "two.npy", "--kernel-shape", "3", "3", "--per-channel"], "got 1 and 2"),
        (["row.npy", "a.npy", "--kernel-shape", "3", "3"], "BEFORE (row.npy) must have"),
        (["hwc.npy", "a.npy", "--kernel-shape", "3", "3"], "(64, 48, 3), as if the channels came"),
        (["b.npy", "s.npy", "--kernel-shape", "3", "3"], "(b.npy) has 1 samples but AFTER (s.npy)"),
        (["b.npy", "white.npy", "--kernel-shape", "3", "3", "--ignore-saturated"], "no element"),
        (["b.npy", "a.npy", "--kernel-shape", "3", "3", "--out", "b.npy"], "would overwrite"),
        (["b.npy", "a.npy", "--kernel-shape", "3", "3", "--out", "no/k.npz"], "does not exist"),
        (["b.npy", "a.npy", "--kernel-shape", "3", "3", "--plot", "x.txt"], "must end in one of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, run):
    np.save("b.npy", np.random.default_rng(0).random((1, 9, 9)))
    np.save("a.npy", np.ones((1, 7, 7)))
    np.save("two.npy", np.ones((2, 7, 7)))
    np.save("row.npy", np.ones(9))
    np.save("hwc.npy", np.ones((64, 48, 3)))
    np.save("s.npy", np.ones((2, 1, 7, 7)))
    np.save("white.npy", np.full((1, 7, 7), 255, np.uint8))
    with open("bad.png", "w") as file:
        file.write("not an image")
    status, _, err = run(*arguments)
    assert status == 2
    assert err.startswith("convext: error: ")
    assert err.count("\n") == 1
    assert message in err


# What is said about what was found


def png(name, values):
    pillow.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).save(name)


def pair(kind):
    """Save images before and after, and return the arguments and what is to be said."""
    rng = np.random.default_rng(3)
    image = np.asarray(grey(), float)
    box = correlate(image, np.full((3, 3), 1 / 9))
    png("before.png", image)
    size = ["--kernel-shape", 3, 3]
    if kind == "median":
        grey().filter(filters.MedianFilter(3)).save("after.png")
        return size, "a median filter leaves 0 (0 of 255)"
    if kind == "erosion":
        grey().filter(filters.MinFilter(3)).save("after.png")
        return size, "a minimum filter (erosion) leaves 0 (0 of 255)"
    if kind == "gamma":
        png("after.png", 255 * (image / 255) ** 0.5)
        return size, "with a curve of brightness, such as a gamma"
    if kind == "blur and gamma":
        png("after.png", 255 * (box / 255) ** 1.8)
        return size, "with a curve of brightness, such as a gamma"
    if kind == "shift":
        png("after.png", np.roll(image, 7, axis=1))
        return ["--kernel-shape", 5, 5], "shifted by 0 pixels down and 7 to the right"
    if kind == "blur and shift":
        png("after.png", np.roll(box, (-9, 4), axis=(0, 1)))
        return ["--kernel-shape", 5, 5], "shifted by -9 pixels down and 4 to the right"
    if kind == "emboss":
        grey().filter(filters.EMBOSS).save("after.png")
        return size, "try --bias\n"
    if kind == "clipped":
        png("after.png", image + 3 * (image - box))
        return size, "try --ignore-saturated\n"
    if kind == "brighter":
        png("after.png", box + 60)
        return size, "try --bias\n"
    if kind == "more contrast":
        png("after.png", 3 * box - 150)
        return size, "try --bias --ignore-saturated\n"
    if kind == "black and white":
        png("after.png", 255.0 * (box > 128))
        return size, "the filter may be none that is linear\n"
    if kind == "one grey":
        png("after.png", np.full(image.shape, 77))
        return size, "try --bias\n"
    if kind == "small":
        png("before.png", image[:12, :12])
        png("after.png", rng.normal(128, 20, (12, 12)))
        return [*size, "--bias"], "noise, or what no kernel makes: without flat parts"
    if kind == "larger":
        png("after.png", correlate(image, np.full((7, 5), 1 / 35)))
        return size, "try --kernel-shape 7 7\n"
    if kind == "far larger":
        grey().filter(filters.GaussianBlur(12)).save("after.png")
        return size, "a kernel of 7x7, a bias, a shift and a curve of brightness do not help: a far"
    if kind == "nonlinear":
        png("after.png", np.where(np.abs(image - box) > 8, image, box))  # edges stay
        return size, "the filter may be none that is linear\n"
    if kind == "noise":
        png("after.png", box + rng.normal(0, 4, image.shape))
        return size, "noise, which no kernel explains\n"
    png("after.png", box)
    return size, "no more than rounding to 256 levels leaves\n"


EXPLAINED = ["noise", "box"]
UNCLEAR = ["small"]
UNEXPLAINED = [
    *["median", "erosion", "gamma", "blur and gamma", "shift", "blur and shift", "emboss"],
    *[
        "clipped",
        "brighter",
        "more contrast",
        "black and white",
        "one grey",
        "larger",
        "far larger",
        "nonlinear",
    ],
]


@pytest.mark.parametrize("kind", [*EXPLAINED, *UNCLEAR, *UNEXPLAINED])
def test_what_no_kernel_explains_is_not_said_to_be_one(kind, run):
    options, message = pair(kind)
    status, out, err = run("before.png", "after.png", *options)
    assert (status, err) == (0, "")
    assert message in out
    advice = [line for line in out.splitlines() if "leaves" in line or "is left" in line]
    assert all(message.strip() in line for line in advice) or kind == "shift"
    assert ("explains this pair. The nearest one is:" in out) == (kind in UNEXPLAINED)
    assert ("nearly 1/9" in out) == (kind in EXPLAINED)
    assert ("nearly" in out) == (kind in EXPLAINED)


def test_a_picture_that_was_turned_is_no_median_of_itself(run):
    png("before.png", np.asarray(grey()))
    grey().rotate(2, resample=pillow.Resampling.BICUBIC).save("after.png")
    assert "filter leaves" not in run("before.png", "after.png", "--kernel-shape", 3, 3)[1]


@pytest.mark.parametrize(
    ("quality", "fit"),
    [(quality, "pixels") for quality in (30, 50, 75)] + [(50, "coefficients")],
)
def test_what_jpeg_files_leave_open_is_no_fraction(quality, fit, run):
    image = grey().crop((64, 64, 224, 224))
    blurred = gaussian_filter(np.asarray(image, float), 1.0)
    image.save("before.png")
    pillow.fromarray(np.rint(blurred).astype(np.uint8)).save("after.jpg", quality=quality)
    status, out, _ = run("before.png", "after.jpg", "--kernel-shape", 5, 5, "--fit", fit)
    assert status == 0
    assert "nearly" not in out
    assert "no more than the rounding in JPEG files may leave" in out
    assert ("rounded coefficients" in out) == (fit == "coefficients")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
@pytest.mark.parametrize("options", [[], ["--per-channel"]])
def test_grey_images_in_colour_files_are_grey(mode, options, solve):
    for name, image in (("before.png", grey()), ("after.png", grey().filter(filters.SMOOTH))):
        image.convert(mode).save(name)
    out, found, _ = solve("before.png", "after.png", "--kernel-shape", 3, 3, *options)
    assert found.shape == (1, 1, 3, 3)
    assert out.count("nearly 1/13 × [1 1 1; 1 5 1; 1 1 1]\n") == 1
    assert ("before.png is grey: one of its three equal" in out) == (mode != "LA")


def test_a_grey_image_may_become_a_coloured_one(solve):
    image = np.asarray(grey(), float)
    pillow.fromarray(image.astype(np.uint8)).convert("RGB").save("before.png")
    sepia = np.stack([image, image * 0.5, np.zeros_like(image)], axis=-1)
    pillow.fromarray(np.rint(sepia).astype(np.uint8)).save("after.png")
    _, found, _ = solve("before.png", "after.png", "--kernel-shape", 1, 1)
    assert found.shape == (3, 1, 1, 1)


@pytest.mark.parametrize("size", [(4, 4), (2, 3), (1, 2)])
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_even_kernels_are_tried_with_both_middles(size, later, per_channel, run):
    rng = np.random.default_rng(0)
    channels = 3 if per_channel else 1
    before = rng.integers(0, 256, (channels, 40, 41)).astype(float)
    centre = [n // 2 if later else (n - 1) // 2 for n in size]
    origin = [c - n // 2 for n, c in zip(size, centre, strict=True)]
    kernel = np.full(size, 1 / np.prod(size))
    after = [correlate(channel, kernel, origin=origin) for channel in before]
    np.save("before.npy", before)
    np.save("after.npy", after)
    options = ["--per-channel"] if per_channel else []
    status, out, _ = run("before.npy", "after.npy", "--kernel-shape", *size, *options)
    assert status == 0
    assert f"that in row {centre[0] + 1} and column {centre[1] + 1} fits AFTER\n" in out
    assert out.count(f"nearly 1/{np.prod(size)} × [1") == channels
    solution = convext.solve_kernels(before, np.array(after), size)
    assert solution.centre == tuple(centre)
    assert solution.loss < 1e-20


def test_arrays_may_be_grey_and_have_their_channels_last(run):
    rng = np.random.default_rng(0)
    before = rng.random((40, 50))
    np.save("before.npy", before)
    np.save("after.npy", before * 0.25)
    status, out, _ = run("before.npy", "after.npy", "--kernel-shape", 1, 1)
    assert (status, "nearly 1/4 × [1]\n" in out) == (0, True)
    colours = rng.random((40, 50, 3))
    np.save("before.npy", colours)
    np.save("after.npy", colours[..., ::-1])
    status, _, err = run("before.npy", "after.npy", "--kernel-shape", 1, 1)
    assert status == 2
    assert "give --channels-last, or --channels-first if they do not" in err
    status, out, _ = run("before.npy", "after.npy", "--kernel-shape", 1, 1, "--channels-last")
    assert (status, "nearly [0 | 0 | 1]\n" in out) == (0, True)
    status, _, err = run("before.npy", "after.npy", "--kernel-shape", 1, 4, "--channels-first")
    assert (status, "kernels of 1x4 do not fit BEFORE of 50x3" in err) == (2, True)


def test_fractions_are_right_or_left_out(solve):
    """Kernels of whole numbers, and others, under noise of any strength."""
    rng = np.random.default_rng(9)
    found = 0
    for case in range(24):
        denominator = int(rng.integers(1, 40))
        numerators = rng.integers(-5, 10, (1, 1, 3, 3))
        image = rng.normal(0, 1, (1, 60, 60))
        noise = 10.0 ** rng.uniform(-6, 1)
        after = reference.conv2d(image, numerators / denominator)
        np.save("before.npy", image)
        np.save("after.npy", (after + noise * rng.standard_normal(after.shape)).astype(float))
        out, _, _ = solve("before.npy", "after.npy", "--kernel-shape", 3, 3)
        if "nearly" in out:
            found += 1
            divisor = np.gcd.reduce([denominator, *numerators.ravel()])
            text = "; ".join(" ".join(map(str, row)) for row in numerators[0, 0] // divisor)
            factor = denominator // divisor
            assert f"nearly {'' if factor == 1 else f'1/{factor} × '}[{text}]\n" in out, case
        else:
            assert noise > 0.05 / denominator, case
    assert 9 < found < 24


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_standard_errors_are_the_spread_of_the_kernels(bias, correlated):
    rng = np.random.default_rng(4)
    image = gaussian_filter(rng.random((1, 1, 82, 82)), (0, 0, 1, 1))
    true = rng.standard_normal((2, 1, 3, 3))
    kernels, errors = [], []
    for _ in range(40):
        noise = rng.standard_normal((1, 2, 80, 80))
        if correlated:
            noise = gaussian_filter(noise, (0, 0, 1.5, 1.5))
        after = convext.conv2d(image, true) + noise
        solution = convext.solve_kernels(image, after, (3, 3), bias=bias)
        pair = verdict.SolvedPair(image, after, None, None, solution.kernels, solution.bias)
        kernels.append(solution.kernels)
        errors.append(verdict.standard_errors(pair))
    ratio = np.mean(errors, axis=0) / np.std(kernels, axis=0)
    assert 0.7 < ratio.min() < ratio.max() < (3 if correlated else 1.6)  # the larger of two


def test_a_long_fit_shows_that_it_goes_on(run, monkeypatch):
    monkeypatch.setattr("convext.train.progress._is_terminal", lambda: True)
    grey().crop((0, 0, 96, 96)).save("before.png")
    grey().crop((0, 0, 96, 96)).filter(filters.SMOOTH).save("after.jpg", quality=90)
    _, out, _ = run("before.png", "after.jpg", "--kernel-shape", 3, 3)
    assert re.search(
        r"Fitting the coefficients of JPEG files \(--fit pixels is quick\): \d+ \[", out
    )


def test_noise_in_the_image_before_makes_no_fraction_wrong():
    """It makes kernels smaller, by more than their standard errors."""
    rng = np.random.default_rng(0)
    image = np.asarray(grey(), float)[:160, :170]
    found = 0
    for _ in range(30):
        kernel = rng.integers(-3, 8, (3, 3)) / rng.integers(1, 30)
        noise = 10 ** rng.uniform(-3, 1.3, 2)
        before = image + noise[0] * rng.standard_normal(image.shape)
        after = correlate(image, kernel) + noise[1] * rng.standard_normal(image.shape)
        before, after = before[np.newaxis, np.newaxis], after[np.newaxis, np.newaxis]
        kernels = convext.solve_kernels(before, after, (3, 3)).kernels
        pair = verdict.SolvedPair(before, after[:, :, 1:-1, 1:-1], None, None, kernels, None)
        fraction = common_fraction(kernels[0], verdict.standard_errors(pair)[0])
        if fraction is not None:
            found += 1
            np.testing.assert_allclose(fraction.numerators[0] / fraction.denominator, kernel)
    assert found > 7
