"""Files that say of themselves what is not so: they are refused, before memory is taken for it."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from array_files import npy_bytes, npz_bytes, zip_bytes

import convext
from convext._support.array_files import MOST_CHARACTERS
from convext.kernels_file import load_kernels, save_kernels
from convext.ops.data import load_array

KERNELS = np.random.default_rng(0).random((2, 1, 3, 3))


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 1040), pytest.param(1, 20_000, marks=pytest.mark.slow)]
)
def test_damaged_files_of_every_format_are_read_or_refused(seed, count):
    script = Path(__file__).with_name("mutated_files.py")
    command = [sys.executable, script, str(seed), str(count)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    outcomes = json.loads(done.stdout)
    formats = {name.rsplit(" ", 1)[0] for name in outcomes}
    assert len(formats) == 13
    # That all were refused would say that no good file can be read.
    assert all(outcomes[f"{name} {outcome}"] for name in formats for outcome in ("read", "refused"))


def deflated(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in members.items():
            archive.writestr(f"{name}.npy", contents)
    return stream.getvalue()


def header(descr, shape):
    stream = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def peak(function, *arguments):
    """Return the error that a function raises, and how much memory it took at most."""
    tracemalloc.start()
    with pytest.raises(ValueError, match="kernels") as caught:
        function(*arguments)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return str(caught.value), most


def test_a_small_archive_with_an_enormous_record_takes_little_memory(tmp_path):
    record = header(f"<U{1 << 26}", ()) + bytes(1 << 28)
    path = tmp_path / "bomb.npz"
    path.write_bytes(deflated(kernels=npy_bytes(KERNELS), record=record))
    assert path.stat().st_size < 1 << 20
    message, most = peak(load_kernels, path)
    assert "record must be a text of at most 16777216 characters, got 67108864" in message
    assert most < 1 << 20


def test_the_longest_record_is_loaded_and_a_longer_one_not_saved(tmp_path):
    record = {"text": "é" * (MOST_CHARACTERS - len('{"text": ""}'))}
    save_kernels(tmp_path / "k.npz", KERNELS, record)
    assert load_kernels(tmp_path / "k.npz")[1] == record
    record["text"] += "!"
    with pytest.raises(ValueError, match="record takes 16777217 characters, of at most 16777216"):
        save_kernels(tmp_path / "longer.npz", KERNELS, record)
    assert not (tmp_path / "longer.npz").exists()


def understated(data):
    """Return an archive whose directory says that its first member has 4 GB."""
    data = bytearray(data)
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (understated(npz_bytes(kernels=KERNELS)), "is said to have 4294967294 bytes, packed in"),
        (
            understated(npz_bytes(compress=True, kernels=KERNELS)),
            "is said to have 4294967294 bytes, packed in",
        ),
        (
            deflated(kernels=header("<f8", (1 << 30, 1, 1, 1)) + bytes(99)),
            r"is truncated: its shape \(1073741824, 1, 1, 1\) of float64 takes 8589934592 bytes",
        ),
        (deflated(kernels=npy_bytes(KERNELS) + bytes(99_999)), "goes on after its values"),
        (
            zip_bytes(kernels_npy=npy_bytes(KERNELS), record=b"{}"),
            "record must be a text in the .npy format",
        ),
        (b"\x93NUMPY\1\0\x29\x23" + b"-" * 9000 + b"1", "is damaged"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff{}", "is damaged"),
        (header("<f" + "9" * 5000, (1, 1, 1, 1)), "is damaged"),
        (header("<f8", (0, 10**30)), "is damaged"),
        (header("<f8", (-1, -1, 3, 3)) + bytes(72), "has a negative size"),
    ],
)
def test_sizes_are_checked_before_memory_is_taken(contents, message, tmp_path):
    path = tmp_path / "k.npz"
    path.write_bytes(contents)
    said, most = peak(load_kernels, path)
    assert re.search(message, said)
    assert most < 1 << 20


@pytest.mark.parametrize("contents", [npy_bytes(KERNELS), npz_bytes(kernels=KERNELS)])
def test_a_file_is_whole_where_the_parser_fails_since_another_thread_parses(
    contents, tmp_path, monkeypatch
):
    """CPython says so of any text: https://github.com/python/cpython/issues/106905."""
    (tmp_path / "file").write_bytes(contents)
    parse, failures = ast.literal_eval, iter(range(3))

    def parse_with_failures(text):
        if next(failures, None) is not None:
            raise SystemError("AST constructor recursion depth mismatch (before=51, after=76)")
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", parse_with_failures)
    assert np.array_equal(load_array(tmp_path / "file", "kernels"), KERNELS)
    assert next(failures, None) is None
    failures = iter(range(1000))
    with pytest.raises(ValueError, match=r"kernels .* is damaged: AST constructor"):
        load_array(tmp_path / "file", "kernels")


def test_another_way_to_pack_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "k.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("kernels.npy", npy_bytes(KERNELS))
    with pytest.raises(ValueError, match="is packed in a way that NumPy does not know"):
        load_kernels(tmp_path / "k.npz")


def test_an_array_takes_its_own_memory_and_a_little_more(tmp_path):
    array = np.zeros(1 << 22)
    np.savez_compressed(tmp_path / "a.npz", array)
    tracemalloc.start()
    loaded = load_array(tmp_path / "a.npz", "array")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(loaded, array)
    assert most < array.nbytes + (8 << 20)


def with_member(path, name, value):
    """Put another array in place of a member of an archive."""
    with np.load(path) as archive:
        members = dict(archive)
    members[name] = value
    np.savez(path, **members)


def model_file(path):
    model = convext.build_model(4, (3, 3), 2)
    model.compile("sgd")
    model.save(path)
    with np.load(path) as archive:
        return json.loads(str(archive["config"]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("filters", 2**31),
        ("filters", 10**30),
        ("kernel_size", [2**20, 2**20]),
        ("kernel_size", [3, 10**4000]),
        ("input_channels", 2**40),
        ("dtype", "f" + "9" * 5000),
        ("dtype", "O"),
        ("iterations", 10**30),
        ("learning_rate", {"name": "step_decay", "arguments": ["x", 0.5, 10]}),
        ("learning_rate", {"name": "cosine_decay", "arguments": [0.1, -3, 0.0]}),
        (
            "learning_rate",
            {"name": "reduce_on_plateau", "arguments": [0.1], "state": {"_rate": "x"}},
        ),
        (
            "learning_rate",
            {"name": "reduce_on_plateau", "arguments": [0.1], "state": {"patience_": 1}},
        ),
        ("generator", {"bit_generator": "PCG64", "state": {"state": -1, "inc": 2**200}}),
    ],
)
def test_a_model_of_impossible_settings_is_refused(key, value, tmp_path):
    path = tmp_path / "model.npz"
    config = model_file(path)
    for part in (config, config["layers"][0], config["optimizer"]):
        if key in part:
            part[key] = value
    with_member(path, "config", json.dumps(config))
    with pytest.raises(ValueError, match=r"model \(.*model.npz\) cannot be read"):
        convext.load_model(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", {"num_channels": 2**31}),
        ("settings", {"num_kernels": 2**62}),
        ("settings", {"kernel_shape": [-3, 3]}),
        ("settings", {"kernel_shape": [2**40, 3]}),
        ("products", np.nan),
        ("products", np.inf),
        ("cross_products", np.nan),
        ("squares", -1.0),
        ("counts", -1),
    ],
)
def test_statistics_that_no_data_have_are_refused(name, value, tmp_path):
    path = tmp_path / "statistics.npz"
    statistics = convext.PatchStatistics(1, 2, (3, 3))
    statistics.update(np.ones((1, 5, 5)), np.ones((2, 3, 3)))
    statistics.save(path)
    assert repr(convext.PatchStatistics.load(path)) == repr(statistics)
    if name == "settings":
        with np.load(path) as archive:
            replaced = json.dumps(json.loads(str(archive["settings"])) | value)
    else:
        replaced = getattr(statistics, name).copy()
        replaced.flat[-1] = value
    with_member(path, name, replaced)
    with pytest.raises(ValueError, match=r"statistics \(.*statistics.npz\)"):
        convext.PatchStatistics.load(path)
