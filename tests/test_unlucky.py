"""Disks that are full or fail, permissions that go: nothing is lost, and all is told."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from test_files import as_an_ordinary_user

import convext
from convext.enhancement import train_on_folders
from convext.image.images import save_image
from convext.kernels_file import load_kernels, save_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="calls of Linux are made to fail")

ALWAYS = 1 << 30
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The library that lets calls of the system fail."""
    library = tmp_path_factory.mktemp("shim") / "failing_files.so"
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip("there is no C compiler")
    subprocess.run(
        [*compiler, "-shared", "-fPIC", "-Wall", HERE / "failing_files.c", "-o", library, "-ldl"],
        check=True,
    )
    return library


def run(shim, *command, fail="", **options):
    """Run Python with the library; what it says in `fail` is from the start."""
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)]))
    environment = {**os.environ, "LD_PRELOAD": preload, "FAIL": fail, "CONVEXT_LANG": "en"}
    return subprocess.run(
        [sys.executable, *map(str, command)], check=False, capture_output=True, text=True,
        env=environment | options.pop("env", {}), **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "pace"), [(0, 0.3), *(pytest.param(s, 8, marks=pytest.mark.slow) for s in range(1, 5))]
)
def test_each_call_that_fails_is_told_and_leaves_the_old_file(seed, pace, shim, tmp_path):
    done = run(shim, HERE / "failing_calls.py", seed, tmp_path, pace)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    # Each kind of failure has come to each kind of file.
    counts = found["counts"]
    assert len(counts) > 120
    assert {name for name, count in counts.items() if count == 0 and " mmap " not in name} == set()
    assert any(count for name, count in counts.items() if " mmap " in name)


# The command line


@pytest.fixture
def places(tmp_path):
    """A folder for the output, the current one, and one for temporary files."""
    for name in ("work/out", "work/here", "temporary"):
        (tmp_path / name).mkdir(parents=True)
    rng = np.random.default_rng(5)
    np.save(tmp_path / "work/x.npy", rng.random((3, 1, 20, 20)))
    np.save(tmp_path / "work/y.npy", rng.random((3, 2, 18, 18)))
    return tmp_path


TRAIN = "train", "../x.npy", "../y.npy", "--epochs", 3, "--out", "../out/kernels.npz"
SOLVE = "solve", "../x.npy", "../y.npy", "--kernel-shape", 3, "--out", "../out/kernels.npz"


def run_command(shim, places, *arguments, fail="", **options):
    environment = {"TMPDIR": str(places / "temporary")}
    return run(
        shim, "-m", "convext", *arguments, cwd=places / "work/here", env=environment, fail=fail,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [TRAIN, SOLVE])
@pytest.mark.parametrize(
    ("call", "below", "place"),
    [
        ("write 28 1", "work/out", "./kernels.npz"),  # the first write tries whether it can be
        ("rename 5 0", "work/out", "./kernels.npz"),
        ("rename 116 0", "work", "temporary/kernels.npz"),
        ("fsync 122 0", ".", None),
    ],
)
def test_kernels_are_elsewhere_where_their_file_fails(
    call, below, place, arguments, shim, places, monkeypatch
):
    (places / "work/out/kernels.npz").write_bytes(b"old")
    fail = f"{call} {ALWAYS} {os.path.normpath(places / below)}"
    done = run_command(shim, places, *arguments, fail=fail)
    error = f"convext: error: ../out/kernels.npz: {os.strerror(int(call.split()[1]))}"
    if place is None:
        assert (done.returncode, done.stderr) == (1, f"{error}\n")
    else:
        what = "the kernels of epoch 3 of 3 are" if arguments is TRAIN else "the kernels are"
        place = place.replace("temporary", f"{places}/temporary")
        assert (done.returncode, done.stderr) == (1, f"{error}; {what} in {place}\n")
        assert run_command(shim, places, *arguments[:-1], "../whole.npz").returncode == 0
        monkeypatch.chdir(places / "work/here")
        assert np.array_equal(load_kernels(place)[0], load_kernels("../whole.npz")[0])
    assert (places / "work/out/kernels.npz").read_bytes() == b"old"
    files = [path for path in places.rglob("*") if path.is_file() and path.suffix != ".npy"]
    assert len(files) == (1 if place is None else 3)


def test_an_output_that_is_full_leaves_the_kernels_and_says_where(shim, places):
    with open("/dev/full", "wb") as full:
        environment = {**os.environ, "CONVEXT_LANG": "en"}
        done = subprocess.run(
            [sys.executable, "-m", "convext", "train", "--epochs", "3"], stdout=full,
            stderr=subprocess.PIPE, text=True, cwd=places, env=environment, check=False,
        )  # fmt: skip
    # Not even its first line could be printed.
    assert (done.returncode, done.stderr) == (
        1, "convext: error: <stdout>: No space left on device\n",
    )  # fmt: skip


def test_a_device_that_is_full_is_named(shim, places):
    done = run_command(shim, places, *TRAIN[:-1], "/dev/full")
    error = "convext: error: /dev/full: No space left on device"
    assert done.stderr.startswith(f"{error}; the kernels of epoch 3 of 3 are in ./full")


@pytest.mark.parametrize("call", ["write 28", "fsync 5"])
def test_a_data_set_is_written_whole_or_not_at_all(call, shim, places):
    here = places / "work/here"
    names = ["input_data.npy", "target_output.npy"]
    for file in names:
        (here / file).write_bytes(b"old")
    # Both are open at once, and are replaced when both are on the disk.
    for after in range(9):
        done = run_command(
            shim,
            places,
            "generate",
            "--input-shape",
            2,
            1,
            9,
            9,
            "--target-shape",
            2,
            1,
            8,
            8,
            fail=f"{call} {after} {ALWAYS} {here}",
        )
        if done.returncode == 0:
            break
        assert re.fullmatch(rf"convext: error: ({'|'.join(names)}): .*\n", done.stderr)
        assert [(here / file).read_bytes() for file in names] == [b"old", b"old"]
        assert sorted(os.listdir(here)) == names
    assert after > 1
    assert [(here / file).read_bytes() == b"old" for file in names] == [False, False]


# Trainings in Python

X = np.random.default_rng(0).random((6, 1, 12, 12))
Y = np.random.default_rng(1).random((6, 2, 10, 10))


def make_model():
    model = convext.Sequential([convext.Conv2D(2, 3, seed=0)], input_channels=1, seed=0)
    model.compile("adam")
    return model


def fit(model, epochs, *callbacks):
    return model.fit(X, Y, epochs=epochs, callbacks=callbacks, verbose=0)


@contextmanager
def gone(folder):
    shutil.rmtree(folder)
    yield FileNotFoundError
    os.mkdir(folder)


@contextmanager
def not_writable(folder):
    os.chmod(folder, 0o555)
    with as_an_ordinary_user():
        yield PermissionError
    os.chmod(folder, 0o777)


@contextmanager
def limited(what, limit):
    limits = resource.getrlimit(what)
    resource.setrlimit(what, (limit, limits[1]))
    try:
        yield OSError
    finally:
        resource.setrlimit(what, limits)


def file_size(_):
    return limited(resource.RLIMIT_FSIZE, 100)


def open_files(_):
    return limited(resource.RLIMIT_NOFILE, 3)


@pytest.fixture
def folder():
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        (Path(name) / "folder").mkdir()
        os.chmod(f"{name}/folder", 0o777)
        yield Path(name) / "folder"


MISFORTUNES = [gone, not_writable, file_size, open_files]


@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_a_model_keeps_its_weights_where_it_cannot_be_saved(misfortune, folder):
    model, reports = make_model(), []

    def saving(report):
        """Save after each epoch; in the fifth that fails."""
        reports.append(report.epoch)
        if report.epoch < 5:
            checkpoint(report)
            return
        with misfortune(folder) as error, pytest.raises(error) as caught:
            checkpoint(report)
        raise caught.value

    checkpoint = convext.ModelCheckpoint(folder / "model.npz", monitor="loss")
    with pytest.raises(OSError, match=re.escape("model.npz")) as caught:
        fit(model, 20, saving)
    assert caught.value.filename == str(folder / "model.npz")
    assert reports == [1, 2, 3, 4, 5]
    for epochs, weights in (
        (5, model.get_weights()),
        (4, None if misfortune is gone else convext.load_model(folder / "model.npz").get_weights()),
    ):
        if weights is None:
            continue
        whole = make_model()
        fit(whole, epochs)
        assert all(map(np.array_equal, whole.get_weights(), weights))
    model.save(folder / "model.npz")
    assert os.listdir(folder) == ["model.npz"]
    fit(model, 2)  # it is not in use any more


@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_a_history_keeps_the_kernels_where_they_cannot_be_saved(misfortune, folder):
    history = convext.History()

    def saving(report):
        if report.epoch < 5:
            save_kernels(folder / "kernels.npz", report.kernels, {})
            return
        with misfortune(folder) as error, pytest.raises(error) as caught:
            save_kernels(folder / "kernels.npz", report.kernels, {})
        raise caught.value

    with pytest.raises(OSError, match=re.escape("kernels.npz")):
        train(20, history, saving)
    assert np.array_equal(history.kernels, train(5))
    if misfortune is not gone:
        assert os.listdir(folder) == ["kernels.npz"]
        assert np.array_equal(load_kernels(folder / "kernels.npz")[0], train(4))


def train(epochs, *callbacks):
    return convext.train_model(
        X, Y, 2, 3, 0.01, epochs, seed=0, callbacks=callbacks, verbose=False, method="direct"
    )


def test_a_model_that_cannot_be_read_now_is_not_replaced_by_a_worse_one(tmp_path, monkeypatch):
    def best():
        return convext.ModelCheckpoint(tmp_path / "best.npz", monitor="loss", save_best_only=True)

    fit(make_model(), 9, best())
    good = (tmp_path / "best.npz").read_bytes()

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "best.npz")

    with monkeypatch.context() as patch:
        patch.setattr("convext.nn.checkpoint.load_record", failing)
        with pytest.raises(OSError, match=r"best\.npz"):
            fit(make_model(), 1, best())
    assert (tmp_path / "best.npz").read_bytes() == good


@pytest.mark.parametrize("epoch", [1, 3])
def test_the_best_model_is_elsewhere_where_its_file_fails(epoch, places, monkeypatch):
    monkeypatch.chdir(places / "work/here")
    rng = np.random.default_rng(0)
    for side in ("before", "after"):
        os.mkdir(f"../{side}")
        for name in "ab":
            save_image(f"../{side}/{name}.png", rng.random((1, 40, 40)))
    save, count = convext.Sequential.save, []
    weights = []

    def failing(model, file, *rest):
        if "out" in os.fspath(file):
            count.append(file)
            weights[:] = model.get_weights()
            if len(count) >= epoch:
                raise OSError(errno.EIO, os.strerror(errno.EIO), file)
        save(model, file, *rest)

    monkeypatch.setattr(convext.Sequential, "save", failing)
    with pytest.raises(OSError, match=r"the best model so far is in \./model\.npz") as caught:
        train_on_folders(
            "../before", "../after", [(2, 3), (1, 3)], "../out/model.npz", patch=9, stride=5,
            epochs=12, learning_rate=1e-3, seed=0, verbose=False,
        )  # fmt: skip
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "../out/model.npz")
    found = convext.load_model("model.npz").get_weights()
    assert all(map(np.array_equal, found, weights))


# Real disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    (tmp_path / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path / "disk"]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield tmp_path / "disk"
    subprocess.run(["umount", tmp_path / "disk"], check=True)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_is_full_or_read_only_keeps_the_old_file(how, small_disk):
    file = small_disk / "kernels.npz"
    save_kernels(file, np.ones((1, 1, 3, 3)), {})
    if how == "full":
        with pytest.raises(OSError, match="space"):
            (small_disk / "other").write_bytes(bytes(1 << 20))
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    large = np.random.default_rng(0).random((4, 4, 30, 30))
    for save in (
        lambda: save_kernels(file, large, {}),
        lambda: make_model().save(file),
        lambda: save_image(small_disk / "new.png", large[0, :3]),
        lambda: convext.ModelCheckpoint(file).on_train_begin(),
    ):
        with pytest.raises(OSError, match=r"kernels\.npz|new\.png") as caught:
            save()
        assert caught.value.errno == (errno.ENOSPC if how == "full" else errno.EACCES)
    assert np.array_equal(load_kernels(file)[0], np.ones((1, 1, 3, 3)))
    assert set(os.listdir(small_disk)) - {"other"} == {"kernels.npz"}
