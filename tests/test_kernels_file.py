"""The kernels file: what is written is read, and nothing else is believed."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from array_files import BAD_FILES, npz_bytes

from convext.kernels_file import load_kernels, save_kernels

KERNELS = np.random.default_rng(0).normal(size=(2, 3, 4, 5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_and_record_come_back(dtype, tmp_path):
    record = {"losses": [0.5, 0.25], "file": "卷积.npy", "seed": 0, "schedule": None}
    save_kernels(tmp_path / "k.npz", KERNELS.astype(dtype), record)
    kernels, loaded = load_kernels(tmp_path / "k.npz")
    assert kernels.dtype == dtype
    np.testing.assert_array_equal(kernels, KERNELS.astype(dtype))
    assert loaded == record
    assert os.listdir(tmp_path) == ["k.npz"]


def test_the_file_has_exactly_the_name_that_is_given(tmp_path):
    save_kernels(tmp_path / "kernels", KERNELS, {})
    assert os.listdir(tmp_path) == ["kernels"]


def test_numpy_alone_can_read_the_file(tmp_path):
    save_kernels(tmp_path / "k.npz", KERNELS, {"seed": 7})
    with np.load(tmp_path / "k.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["kernels"], KERNELS)
        assert json.loads(str(archive["record"])) == {"seed": 7}


@pytest.mark.parametrize("name", ["plain.npy", "plain.npz"])
def test_a_plain_array_has_an_empty_record(name, tmp_path):
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, KERNELS)
    kernels, record = load_kernels(tmp_path / name)
    np.testing.assert_array_equal(kernels, KERNELS)
    assert record == {}


@pytest.mark.parametrize(
    ("dtype", "expected"), [(">f4", np.float32), ("f2", np.float32), ("i4", np.float64)]
)
def test_kernels_of_other_types_are_converted(dtype, expected, tmp_path):
    array = (KERNELS * 10).astype(dtype)
    np.save(tmp_path / "k.npy", array)
    kernels, _ = load_kernels(tmp_path / "k.npy")
    assert kernels.dtype == expected
    assert kernels.dtype.isnative
    np.testing.assert_array_equal(kernels, array)


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named(kind, tmp_path):
    contents, error, message = BAD_FILES[kind]
    (tmp_path / "k.npz").write_bytes(contents)
    with pytest.raises(error, match=rf"kernels \(.*k.npz\).*{message}"):
        load_kernels(tmp_path / "k.npz")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (np.array("{not JSON"), "record is not JSON"),
        (np.array("[" * 100_000), "record is not JSON"),
        (np.array("[1, 2]"), "record must be a JSON object, got list"),
        (np.array([1.0, 2.0]), "record must be a text, got float64"),
        (np.array(["{}", "{}"]), "record must be a text"),
        (np.array({"a": 1}, object), "record must be a text, got object"),
    ],
)
def test_a_bad_record_is_an_error(record, message, tmp_path):
    (tmp_path / "k.npz").write_bytes(npz_bytes(kernels=KERNELS, record=record))
    with pytest.raises(ValueError, match=rf"kernels \(.*k.npz\).*{message}"):
        load_kernels(tmp_path / "k.npz")


@pytest.mark.parametrize("shape", [(3, 3), (1, 3, 3), (1, 1, 1, 3, 3)])
def test_kernels_have_four_dimensions(shape, tmp_path):
    message = r"must have the shape \(num_kernels, C, kh, kw\)"
    with pytest.raises(ValueError, match=f"kernels {message}"):
        save_kernels(tmp_path / "k.npz", np.ones(shape), {})
    np.save(tmp_path / "k.npy", np.ones(shape))
    with pytest.raises(ValueError, match=rf"kernels \(.*k.npy\) {message}"):
        load_kernels(tmp_path / "k.npy")


@pytest.mark.parametrize(
    ("kernels", "record", "error"),
    [
        (KERNELS, {"array": KERNELS}, TypeError),
        (KERNELS, {"loss": float("nan")}, ValueError),
        (KERNELS * 1j, {}, TypeError),
        (KERNELS[:0], {}, ValueError),
    ],
)
def test_what_cannot_be_saved_leaves_the_old_file(kernels, record, error, tmp_path):
    path = tmp_path / "k.npz"
    save_kernels(path, KERNELS, {"old": True})
    with pytest.raises(error):
        save_kernels(path, kernels, record)
    assert load_kernels(path)[1] == {"old": True}
    assert os.listdir(tmp_path) == ["k.npz"]


def test_missing_files_and_folders_are_the_systems_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        load_kernels(tmp_path / "nothing.npz")
    with pytest.raises(IsADirectoryError):
        load_kernels(tmp_path)
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        save_kernels(tmp_path / "nowhere" / "k.npz", KERNELS, {})
