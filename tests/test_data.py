"""Kernels to start from, random data sets, and loading arrays from files."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress

import numpy as np
import pytest
from array_files import BAD_FILES, SAMPLES, npz_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convext import generate_kernels, generate_random_data, load_data
from convext.ops import data


def save(path, array):
    np.save(path, array)
    return path


@pytest.fixture
def good(tmp_path):
    """A file that there is nothing wrong with."""
    return save(tmp_path / "good.npy", SAMPLES)


# Kernels


def test_kernels_are_uniform_on_0_to_1():
    kernels = generate_kernels(50, (7, 5), 40, seed=3)
    assert kernels.shape == (50, 40, 7, 5)
    assert kernels.dtype == np.float64
    assert kernels.min() >= 0
    assert kernels.max() < 1
    # The mean of 70,000 values has a standard deviation of 0.0011.
    np.testing.assert_allclose(kernels.mean(), 1 / 2, atol=0.006)
    np.testing.assert_allclose(kernels.var(), 1 / 12, atol=0.006)


def test_a_seed_makes_kernels_repeatable():
    assert np.array_equal(
        generate_kernels(2, (3, 3), 1, seed=1), generate_kernels(2, (3, 3), 1, seed=1)
    )
    assert not np.array_equal(
        generate_kernels(2, (3, 3), 1, seed=1), generate_kernels(2, (3, 3), 1, seed=2)
    )
    assert not np.array_equal(generate_kernels(2, (3, 3), 1), generate_kernels(2, (3, 3), 1))


def test_kernels_do_not_repeat_the_data_of_the_same_seed(tmp_path):
    files = tmp_path / "x.npy", tmp_path / "t.npy"
    generate_random_data((1, 1, 5, 5), (1, 1, 4, 4), *files, seed=0)
    values = np.concatenate([np.load(file).ravel() for file in files])
    assert not np.isin(generate_kernels(2, (2, 2), 3, seed=0), values).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, (2, 2), 1), ValueError, "num_kernels must be at least 1, got 0"),
        ((-1, (2, 2), 1), ValueError, "num_kernels must be at least 1, got -1"),
        ((2.0, (2, 2), 1), TypeError, "num_kernels must be an integer, got 2.0"),
        ((True, (2, 2), 1), TypeError, "num_kernels must be an integer, got True"),
        ((1, (2, 2), 0), ValueError, "num_channels must be at least 1, got 0"),
        ((1, (2, 2), "3"), TypeError, "num_channels must be an integer, got '3'"),
        ((1, (2, 0), 1), ValueError, r"kernel_shape\[1\] must be at least 1, got 0"),
        (
            (1, (2, 2, 2), 1),
            ValueError,
            r"kernel_shape must be an integer or \(kh, kw\)",
        ),
        ((1, (2.5, 2), 1), TypeError, r"kernel_shape\[0\] must be an integer, got 2.5"),
        ((1, "2", 1), TypeError, r"kernel_shape must be an integer or \(kh, kw\), got '2'"),
        ((10**10, (10**5, 10**5), 1), ValueError, "too large"),
        ((10**30, (2, 2), 1), ValueError, "num_kernels is too large"),
    ],
)
def test_bad_sizes_of_kernels_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        generate_kernels(*arguments)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "seed must be at least 0, got -1"),
        (1.5, TypeError, "seed must be an integer, got 1.5"),
        ("x", TypeError, "seed must be an integer, got 'x'"),
    ],
)
def test_a_bad_seed_is_named(seed, error, message, tmp_path):
    with pytest.raises(error, match=message):
        generate_kernels(1, (2, 2), 1, seed=seed)
    files = tmp_path / "x.npy", tmp_path / "t.npy"
    with pytest.raises(error, match=message):
        generate_random_data((1, 1, 2, 2), (1, 1, 1, 1), *files, seed=seed)
    assert not list(tmp_path.iterdir())


# Loading


@given(
    array=hnp.arrays(
        dtype=st.sampled_from(["<f8", ">f8", "<f4", ">f4", "<f2", "u1", "<i2", ">i8", "?"]),
        shape=hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
    ),
    fortran=st.booleans(),
    kind=st.sampled_from(["npy", "mapped", "npz", "compressed"]),
)
def test_what_was_saved_is_loaded_in_the_type_of_the_file(tmp_path_factory, array, fortran, kind):
    array = np.asfortranarray(array) if fortran else array
    path = tmp_path_factory.getbasetemp() / "array"
    if kind in {"npy", "mapped"}:
        with open(path, "wb") as stream:
            np.save(stream, array)
    else:
        path.write_bytes(npz_bytes(array=array, compress=kind == "compressed"))
    loaded, same = load_data(path, path, mmap=kind == "mapped")
    assert loaded.dtype == same.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)
    np.testing.assert_array_equal(same, array)
    assert isinstance(loaded, np.memmap) == (kind == "mapped")


def test_input_and_target_are_not_confused(tmp_path):
    before = save(tmp_path / "before.npy", SAMPLES)
    after = save(tmp_path / "after.npy", -SAMPLES[:, :1])
    input_data, target_output = load_data(str(before), after)
    np.testing.assert_array_equal(input_data, SAMPLES)
    np.testing.assert_array_equal(target_output, -SAMPLES[:, :1])


def test_mapped_files_cannot_be_written(good):
    mapped, _ = load_data(good, good, mmap=True)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1


def test_an_npz_file_cannot_be_mapped(tmp_path, good):
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes(a=SAMPLES))
    with pytest.raises(ValueError, match=r"target_output \(.*a.npz\) is a .npz file, only a .npy"):
        load_data(good, path, mmap=True)


def test_newer_versions_of_the_format_are_read(tmp_path):
    for version in [(2, 0), (3, 0)]:
        with open(tmp_path / "a.npy", "wb") as stream:
            np.lib.format.write_array(stream, SAMPLES, version=version)
        np.testing.assert_array_equal(data.load_array(tmp_path / "a.npy", "array"), SAMPLES)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named(kind, position, tmp_path, good):
    contents, error, message = BAD_FILES[kind]
    bad = tmp_path / "bad.file"
    bad.write_bytes(contents)
    files = [good, good]
    files[position] = bad
    name = ("input_data", "target_output")[position]
    with pytest.raises(error, match=rf"{name} \(.*bad.file\).*{message}"):
        load_data(*files)


@pytest.mark.parametrize("kind", [kind for kind in BAD_FILES if "npz" not in kind])
def test_a_bad_file_is_named_when_it_is_to_be_mapped(kind, tmp_path, good):
    contents, error, message = BAD_FILES[kind]
    (tmp_path / "bad.npy").write_bytes(contents)
    with pytest.raises(error, match=message):
        load_data(good, tmp_path / "bad.npy", mmap=True)


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_ever_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Bomb(tmp_path / "exploded")], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", np.array([Bomb(tmp_path / "exploded")], object))
    for file in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match="pickled"):
            load_data(tmp_path / file, tmp_path / file)
    assert not (tmp_path / "exploded").exists()


@given(
    contents=st.sampled_from([npz_bytes(a=SAMPLES), npz_bytes(a=SAMPLES, compress=True)])
    | st.just(BAD_FILES["complex"][0]),
    change=st.data(),
)
def test_any_damage_is_one_of_the_documented_errors(tmp_path_factory, contents, change):
    damaged = bytearray(contents)
    for _ in range(change.draw(st.integers(1, 4))):
        damaged[change.draw(st.integers(0, len(damaged) - 1))] = change.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: change.draw(st.integers(0, len(damaged)))])
    with warnings.catch_warnings(), suppress(TypeError, ValueError):
        warnings.simplefilter("ignore")  # NumPy warns of headers that look like Python 2's
        assert isinstance(data.load_array(path, "array"), np.ndarray)


def test_a_missing_file_is_the_systems_own_error(tmp_path, good):
    with pytest.raises(
        FileNotFoundError, match=r"No such file or directory.*nothing\.npy"
    ) as caught:
        load_data(tmp_path / "nothing.npy", good)
    assert caught.value.filename == str(tmp_path / "nothing.npy")
    with pytest.raises(FileNotFoundError, match=r"nothing.npy"):
        load_data(good, tmp_path / "nothing.npy")


def test_a_folder_is_the_systems_own_error(tmp_path, good):
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        load_data(tmp_path, good)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, good):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="must be a regular file, got a device or a pipe"):
        load_data(tmp_path / "pipe", good)


def test_an_array_in_place_of_a_file_is_a_type_error(good):
    with pytest.raises(TypeError, match="ndarray"):
        load_data(SAMPLES, good)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4, 5), (1, 2, 3, 4, 5)])
def test_a_wrong_number_of_dimensions_is_shown(shape, tmp_path, good):
    path = save(tmp_path / "flat.npy", np.ones(shape))
    message = rf"\(.*flat.npy\) must have the shape \(N, .*\), got {len(shape)} dimensions"
    with pytest.raises(ValueError, match=f"input_data {message}"):
        load_data(path, good)
    with pytest.raises(ValueError, match=f"target_output {message}"):
        load_data(good, path)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(("axis", "name"), list(enumerate(["N", "K", "OH", "OW"])))
def test_an_empty_array_is_an_error_that_names_the_axis(axis, name, mmap, tmp_path, good):
    shape = [2, 3, 4, 5]
    shape[axis] = 0
    path = save(tmp_path / "none.npy", np.ones(shape))
    with pytest.raises(ValueError, match=rf"target_output \(.*none.npy\) is empty: {name} is 0"):
        load_data(good, path, mmap=mmap)


def test_different_numbers_of_samples_are_shown(tmp_path, good):
    path = save(tmp_path / "more.npy", np.ones((3, 1, 4, 4)))
    with pytest.raises(
        ValueError,
        match=r"input_data \(.*good.npy\) has 2 samples but target_output \(.*more.npy\) has 3 "
        r"\(shapes \(2, 3, 4, 5\) and \(3, 1, 4, 4\)\)",
    ):
        load_data(good, path)


# Random data


def test_random_data_are_those_of_the_generator(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "_BLOCK", 7)  # so that the arrays take many blocks
    generate_random_data((2, 3, 4, 5), (2, 1, 3, 3), seed=11)
    generator = np.random.default_rng(11)
    input_data = np.load("input_data.npy")
    np.testing.assert_array_equal(input_data, generator.random((2, 3, 4, 5)))
    np.testing.assert_array_equal(np.load("target_output.npy"), generator.random((2, 1, 3, 3)))
    assert sorted(os.listdir()) == ["input_data.npy", "target_output.npy"]
    assert capsys.readouterr().out == (
        "Wrote input_data.npy: (2, 3, 4, 5) float64\n"
        "Wrote target_output.npy: (2, 1, 3, 3) float64\n"
    )
    np.save("expected.npy", input_data)
    assert (tmp_path / "expected.npy").read_bytes() == (tmp_path / "input_data.npy").read_bytes()


def test_a_block_of_random_data_is_all_that_is_in_memory(tmp_path, monkeypatch):
    sizes = []
    default_rng = np.random.default_rng

    class Recorder:
        def __init__(self, seed):
            self.generator = default_rng(seed)

        def random(self, size):
            sizes.append(size)
            return self.generator.random(size)

    monkeypatch.setattr(np.random, "default_rng", Recorder)
    shape = (3, 1, 1024, 1024)
    generate_random_data(shape, (3, 1, 1, 1), tmp_path / "x.npy", tmp_path / "t.npy", seed=0)
    assert np.load(tmp_path / "x.npy", mmap_mode="r").shape == shape
    assert max(sizes) == 1 << 20


@pytest.mark.parametrize(
    ("input_shape", "target_shape", "error", "message"),
    [
        (
            (2, 3, 4),
            (2, 1, 1, 1),
            ValueError,
            r"input_shape must be \(N, C, H, W\), got \(2, 3, 4\)",
        ),
        ((2, 3, 4, 4), (2, 1), ValueError, r"target_shape must be \(N, K, OH, OW\), got \(2, 1\)"),
        ((2, 3, 4, 4), 5, TypeError, r"target_shape must be \(N, K, OH, OW\), got 5"),
        ((2, 0, 4, 4), (2, 1, 1, 1), ValueError, r"input_shape\[1\] must be at least 1, got 0"),
        ((2, 3, 4.0, 4), (2, 1, 1, 1), TypeError, r"input_shape\[2\] must be an integer, got 4.0"),
        ((2, 3, 4, 4), (3, 1, 1, 1), ValueError, "has 2 samples but target_shape has 3"),
        ((2, 3, 2**31, 2**31), (2, 1, 1, 1), ValueError, "input_shape would be too large"),
    ],
)
def test_bad_shapes_of_random_data_are_named(input_shape, target_shape, error, message, tmp_path):
    with pytest.raises(error, match=message):
        generate_random_data(input_shape, target_shape, tmp_path / "x.npy", tmp_path / "t.npy")
    assert not list(tmp_path.iterdir())


def test_random_data_need_two_files(tmp_path):
    (tmp_path / "alias.npy").symlink_to(tmp_path / "x.npy")
    for other in ("x.npy", "alias.npy"):
        with pytest.raises(ValueError, match="must be two files"):
            generate_random_data((1, 1, 2, 2), (1, 1, 1, 1), tmp_path / "x.npy", tmp_path / other)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt])
def test_a_failure_leaves_the_old_data_whole(failure, tmp_path, monkeypatch):
    files = save(tmp_path / "x.npy", SAMPLES), save(tmp_path / "t.npy", -SAMPLES)
    write = data._write_random

    def fail_on_the_target(stream, shape, generator):
        write(stream, shape, generator)
        if shape[1] == 1:
            raise failure

    monkeypatch.setattr(data, "_write_random", fail_on_the_target)
    with pytest.raises((OSError, KeyboardInterrupt)):
        generate_random_data((2, 3, 4, 4), (2, 1, 3, 3), *files)
    np.testing.assert_array_equal(np.load(files[0]), SAMPLES)
    np.testing.assert_array_equal(np.load(files[1]), -SAMPLES)
    assert sorted(os.listdir(tmp_path)) == ["t.npy", "x.npy"]


def test_random_data_in_a_folder_that_does_not_exist_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"its folder does not exist.*nowhere"):
        generate_random_data(
            (1, 1, 2, 2), (1, 1, 1, 1), tmp_path / "x.npy", tmp_path / "nowhere" / "t.npy"
        )
    assert not list(tmp_path.iterdir())
