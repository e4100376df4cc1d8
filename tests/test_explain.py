"""The list of ways: what applies is right, what is asked for runs, and what is said is done."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import reference
from test_operations import same_bits

import convext
from benchmarks.shapes import CASES
from convext.base import _dispatch
from convext.cli.main import main

OPERATIONS = ("conv2d", "conv2d_input_grad", "conv2d_kernel_grad")
TRANSFORMS = ("winograd", "fft", "separable")

TABLE = Path(__file__).parent / "ways_of_shapes.txt"


def draw(rng):
    """Draw shapes and options of a convolution that many ways compute."""
    groups, channels = [(1, 1), (1, 4), (3, 1), (2, 20)][rng.integers(4)]
    kernels = int(rng.integers(1, 4)) if rng.random() < 0.7 else 18
    size = (3, 3) if rng.random() < 0.3 else tuple(int(n) for n in rng.integers(1, 7, 2))
    stride = int(rng.choice([1, 1, 1, 2, 3]))
    dilation = int(rng.choice([1, 1, 1, 2]))
    padding = int(rng.integers(0, 3))
    least = [(n - 1) * dilation + 1 for n in size]
    image = [int(n + rng.integers(0, 30)) for n in least]
    shape = (int(rng.integers(1, 3)), groups * channels, *image)
    options = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    return shape, (groups * kernels, channels, *size), options


def arrays_of(operation, x, w, g):
    if operation == "conv2d":
        return x, w
    return (g, w, x.shape) if operation == "conv2d_input_grad" else (x, g, w.shape[2:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_way_that_applies_is_right_and_others_say_why(isa, dtype):
    rng = np.random.default_rng(18)
    seen, refused = set(), set()
    for _ in range(25):
        shape, kernels_shape, options = draw(rng)
        x = rng.standard_normal(shape).astype(dtype)
        w = rng.standard_normal(kernels_shape).astype(dtype)
        w = w[..., :1, :] * w[..., :1]
        g = rng.standard_normal(reference.conv2d(x, w, **options).shape).astype(dtype)
        for operation in OPERATIONS:
            arrays = arrays_of(operation, x, w, g)
            expected = getattr(reference, operation)(*arrays, **options, detailed=True)
            for way in convext.explain(operation, x, w, **options).ways:
                compute = getattr(convext, operation)
                if not way.applies:
                    with pytest.raises(
                        ValueError, match=rf"'{way.name}' does not apply: "
                    ) as found:
                        compute(*arrays, **options, algorithm=way.name)
                    assert way.reason in str(found.value)
                    refused.add((operation, way.name))
                    continue
                actual = compute(*arrays, **options, algorithm=way.name)
                assert actual.dtype == dtype
                # Transforms err in proportion to the largest of a tile.
                limit = 64 * np.finfo(dtype).eps * np.max(expected.magnitude)
                assert np.abs(actual - expected.value).max() <= limit, (way.name, operation)
                seen.add((operation, way.name))
    convolving = {"direct", "winograd", "fft", "separable", "depthwise", "shifted_sums"}
    of_gradient = {"direct", "winograd", "depthwise"}
    wanted = {(name, way) for name in OPERATIONS[:2] for way in convolving}
    assert seen == wanted | {(OPERATIONS[2], way) for way in of_gradient}
    assert refused == {(name, way) for name, way in seen if way not in ("direct", "fft")}


def test_what_is_said_to_be_taken_is_taken(isa):
    rng = np.random.default_rng(3)
    taken = set()
    shapes = [
        ((1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
        ((1, 1, 300, 300), (1, 1, 20, 20), {}),
        ((1, 16, 40, 40), (16, 1, 5, 5), {"groups": 16}),
        ((1, 128, 20, 40), (1, 128, 3, 3), {}),
        ((1, 3, 20, 20), (8, 3, 3, 3), {"stride": 2}),
        ((2, 1, 200, 200), (3, 1, 1, 9), {}),
    ]
    for shape, kernels_shape, options in shapes:
        x = rng.standard_normal(shape).astype(np.float32)
        w = rng.standard_normal(kernels_shape).astype(np.float32)
        g = rng.standard_normal(convext.conv2d(x, w, **options).shape).astype(np.float32)
        for operation in OPERATIONS:
            found = convext.explain(operation, x, w, **options)
            arrays = arrays_of(operation, x, w, g)
            compute = getattr(convext, operation)
            auto = compute(*arrays, **options)
            assert same_bits(auto, compute(*arrays, **options, algorithm=found.taken))
            by_name = convext.explain(operation, shape, kernels_shape, dtype="float32", **options)
            assert by_name.taken == found.taken
            taken.add(found.taken)
    assert taken == {"winograd", "fft", "depthwise", "shifted_sums", "direct", "separable"}


def test_the_values_of_kernels_decide_whether_they_are_separable():
    shape, w = (1, 300, 300), np.random.default_rng(0).standard_normal((1, 1, 5, 5))
    separable = w[..., :1, :] * w[..., :1]
    assert convext.explain("conv2d", shape, separable).taken == "separable"
    for kernels in (w, w.shape):
        found = convext.explain("conv2d", shape, kernels)
        assert found.taken == "direct"
        assert found.ways[1].reason == "all kernels must be separable"
    for call in (
        lambda: convext.conv2d(np.ones(shape), w, algorithm="separable"),
        lambda: convext.prepare_kernels(w, algorithm="separable"),
        lambda: convext.prepare_kernels(w, shape, algorithm="separable"),
        lambda: convext.conv2d_input_grad(np.ones((1, 296, 296)), w, shape, algorithm="separable"),
    ):
        with pytest.raises(ValueError, match="'separable' does not apply: all kernels must be"):
            call()


def test_prepared_kernels_keep_what_is_read_and_nothing_else(isa):
    rng = np.random.default_rng(5)
    kept_by = {}
    for _ in range(60):
        shape, kernels_shape, options = draw(rng)
        w = rng.standard_normal(kernels_shape)
        if rng.random() < 0.5:
            w = w[..., :1, :] * w[..., :1]
        for algorithm in ("auto", "shifted_sums", "depthwise"):
            try:
                prepared = convext.prepare_kernels(w, shape, algorithm=algorithm, **options)
            except ValueError:
                continue
            kept = dict(prepared._kept)
            x = rng.standard_normal(shape)
            result = convext.conv2d(x, prepared)
            assert kept.keys() == prepared._kept.keys()
            way = algorithm
            if algorithm == "auto":
                way = convext.explain("conv2d", x, w, **options).taken
            kept_by.setdefault(way, set()).update(key[0] for key in kept)
            assert same_bits(result, convext.conv2d(x, w, algorithm=algorithm, **options))
    assert kept_by["direct"] <= {"direct", "factors"}
    assert kept_by["shifted_sums"] <= {"factors"}
    assert kept_by["depthwise"] <= {"factors"}


def rows_of_shapes():
    """Yield what is taken for the shapes that are measured, a line for each."""
    for case in CASES:
        options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
        taken = []
        for dtype in ("float32", "float64"):
            for operation in OPERATIONS:
                arguments = (operation, case.shape, case.kernels_shape)
                found = {
                    convext.explain(*arguments, dtype=dtype, num_threads=n, **options).taken
                    for n in (1, 2)
                }
                taken += found
        yield f"{case.name}: {' '.join(taken)}"


def test_the_ways_taken_for_the_shapes_that_are_measured(isa):
    """After a change on purpose: python tests/test_explain.py."""
    assert list(rows_of_shapes()) == TABLE.read_text("utf-8").splitlines()


def test_an_explanation_is_a_value(capsys):
    found = convext.explain("conv2d", (3, 20, 20), (4, 3, 3, 3), num_threads=2)
    assert found == pickle.loads(pickle.dumps(found)) == copy.deepcopy(found)
    assert found.input_shape == (1, 3, 20, 20)
    assert found.output_shape == (1, 4, 18, 18)
    assert [way.name for way in found.ways][-1] == "direct"
    direct = found.ways[-1]
    assert direct.time >= math.prod((4, 3, 3, 3, 18, 18))
    assert direct.num_threads == 1
    assert direct.scratch == direct.scratch_per_thread + direct.scratch_shared > 0
    assert all(len(line) <= 80 for line in str(found).splitlines())
    assert repr(found) == str(found)


def test_nothing_is_computed_and_little_memory_taken():
    found = convext.explain("conv2d", (4, 3, 30000, 30000), (64, 3, 7, 7), num_threads=2)
    assert {way.num_threads for way in found.ways if way.applies} == {2}
    assert all(way.scratch < 1 << 26 for way in found.ways)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("conv3d", (3, 9, 9), (4, 3, 3, 3)), ValueError, "operation must be 'conv2d', .*'conv3d'"),
        (("conv2d", (3, 9, 9), (4, 2, 3, 3)), ValueError, "kernels has 2 channels but input_data"),
        (("conv2d", (9, 9), (4, 2, 3, 3)), ValueError, "input_data must be .C, H, W. or"),
        (("conv2d", (3, 9.0, 9), (4, 3, 3, 3)), TypeError, r"input_data\[1\] must be an integer"),
        (("conv2d", (3, -9, 9), (4, 3, 3, 3)), ValueError, r"input_data\[1\] must be at least 1"),
        (("conv2d", (3, 9, 9), (4, 3, 0, 3)), ValueError, r"kernels\[2\] must be at least 1"),
        (("conv2d", (3, 2**40, 2**40), (4, 3, 3, 3)), ValueError, "input_data would be too large"),
        (("conv2d", (3, 2, 2), (4, 3, 3, 3)), ValueError, "larger than|do not fit"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        convext.explain(*arguments)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("images", [(0, 3, 9, 9), [0, 3, 9, 9], np.ones((0, 3, 9, 9))])
def test_no_samples_are_an_error(operation, images):
    with pytest.raises(ValueError, match=r"input_data(\[0\] must be at least 1| is empty: N is 0)"):
        convext.explain(operation, images, (4, 3, 3, 3))


def test_shapes_may_be_lists_of_any_integers():
    found = convext.explain("conv2d", (3, 20, 20), (4, 3, 3, 3))
    assert convext.explain("conv2d", [3, np.int32(20), 20], [4, 3, 3, 3]) == found


@pytest.mark.parametrize("size", [30, 10**7])
def test_each_line_of_a_way_has_the_same_columns(size):
    found = convext.explain("conv2d", (1, size, size), (1, 1, 9, 9), num_threads=2)
    rows = [line.split() for line in str(found).splitlines() if line.endswith("iB")]
    names = [way.name for way in found.ways if way.applies]
    assert [row[-8] for row in rows] == names
    assert all(float(row[-7]) > 0 and row[-6] == "M" for row in rows)


def test_the_command_prints_the_same_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["explain", "conv2d_input_grad", "--input", "8", "40", "40", "--samples", "2"]
    arguments += ["--kernels", "8", "1", "5", "5", "--groups", "8", "--padding", "same"]
    assert main([*arguments, "--dtype", "float32", "--threads", "2"]) == 0
    printed = capsys.readouterr().out
    found = convext.explain(
        "conv2d_input_grad", (2, 8, 40, 40), (8, 1, 5, 5),
        groups=8, padding="same", dtype="float32", num_threads=2,
    )  # fmt: skip
    assert printed.split() == str(found).split()
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_the_command_says_where_the_number_of_samples_goes(capsys):
    sizes = ["--input", "2", "8", "40", "40", "--kernels", "8", "8", "5", "5"]
    assert main(["explain", *sizes]) == 2
    message = "a size too many, 40: --input takes C H W, and --samples how many samples"
    assert message in capsys.readouterr().err


if __name__ == "__main__":
    _dispatch.use_isa("baseline")
    TABLE.write_text("".join(f"{row}\n" for row in rows_of_shapes()), "utf-8")
