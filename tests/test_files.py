"""Writing files: whole or not at all, with the permissions that files usually have."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import convext
from convext import enhancement, image, kernels_file, plotting
from convext._support import atomic_files
from convext._support.atomic_files import atomic_write, check_writable

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")


def write(path, contents=b"new"):
    with atomic_write(path) as stream:
        stream.write(contents)


def write_half(path, failure):
    with atomic_write(path) as stream:
        stream.write(b"half")
        raise failure


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def not_writable(monkeypatch, path):
    """Make `path` not writable, to root as well."""
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda file, wanted: access(file, wanted) and str(file) != str(path)
    )


def test_a_file_is_written(tmp_path):
    write(tmp_path / "new")
    write(str(tmp_path / "newer"), b"newer")
    assert (tmp_path / "new").read_bytes() == b"new"
    assert (tmp_path / "newer").read_bytes() == b"newer"
    assert sorted(os.listdir(tmp_path)) == ["new", "newer"]


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("failure", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_no_other(failure, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for target in (path, tmp_path / "other"):
        with pytest.raises(failure):
            write_half(target, failure)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_leaves_the_old_file_and_no_other(
    function, tmp_path, monkeypatch
):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left on device"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o666 & ~mask


@posix
def test_an_old_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(path)
    assert mode(path) == 0o640
    assert path.read_bytes() == b"new"


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    (tmp_path / "link").symlink_to(target)
    for contents in (b"first", b"second"):  # the target does not exist, then it does
        write(tmp_path / "link", contents)
        assert (tmp_path / "link").is_symlink()
        assert target.read_bytes() == contents
    assert os.listdir(tmp_path / "folder") == ["target"]


@posix
def test_a_device_is_written_and_not_replaced():
    write("/dev/null")
    with atomic_write("/dev/null") as stream:
        np.savez(stream, kernels=np.ones(3))  # which seeks
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_long_names_are_written(tmp_path):
    path = tmp_path / ("卷积" * 40 + ".npz")  # 244 bytes, of at most 255
    write(path)
    assert path.read_bytes() == b"new"


# Temporary files of writers that were killed

# Only the standard library, so that the process starts quickly.
WRITER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import _support.atomic_files as files
def write(path, contents, seconds=0.0):
    with files.atomic_write(path) as stream:
        stream.write(contents)
        stream.flush()
        print("writing", flush=True)
        time.sleep(seconds)
"""


@contextmanager
def writer(code, *arguments):
    """Run a process that writes files, to its end unless it is killed before."""
    package = Path(atomic_files.__file__).parents[1]
    command = [sys.executable, "-c", WRITER + code, package, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


def temporaries(folder):
    return [name for name in os.listdir(folder) if name.startswith(".convext-")]


@pytest.mark.parametrize("check", [write, check_writable])
def test_what_killed_writers_have_left_is_removed_at_the_next_write(check, tmp_path):
    for _ in range(3):
        with writer("write(sys.argv[2], b'half', 99)", tmp_path / "killed") as process:
            process.stdout.readline()
            process.kill()
    assert len(temporaries(tmp_path)) == 1  # each has removed that of the one before
    check(tmp_path / "next")
    assert temporaries(tmp_path) == []
    assert not (tmp_path / "killed").exists()


@pytest.mark.parametrize("seed", range(2))
def test_a_writer_that_is_killed_at_any_moment_leaves_nothing_for_long(seed, tmp_path):
    code = "while True: write(sys.argv[2], b'new' * 9999)"
    rng = np.random.default_rng(seed)
    for _ in range(5):
        with writer(code, tmp_path / "file") as process:
            process.stdout.readline()
            time.sleep(rng.random() * 0.02)
            process.kill()
    write(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_living_writer_keeps_its_file(tmp_path):
    slow = "write(sys.argv[2], b'whole', 0.5)"
    with writer(slow, tmp_path / "other") as process, atomic_write(tmp_path / "mine") as stream:
        process.stdout.readline()
        stream.write(b"whole")
        write(tmp_path / "third")
        check_writable(tmp_path / "fourth")
        assert len(temporaries(tmp_path)) == 2
    for name in ("mine", "other"):
        assert (tmp_path / name).read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["mine", "other", "third"]


def test_writers_in_one_folder_do_not_take_each_others_files(tmp_path):
    code = "for i in range(200): write(sys.argv[2], sys.argv[2].encode() * 99)"
    with ExitStack() as stack:
        names = [tmp_path / str(i) for i in range(4)]
        processes = [stack.enter_context(writer(code, name)) for name in names]
        assert [process.communicate()[0].count("writing") for process in processes] == [200] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(tmp_path.iterdir()) == names
    assert all(name.read_bytes() == str(name).encode() * 99 for name in names)


def test_what_others_have_made_stays(tmp_path):
    with atomic_write(tmp_path / "file") as stream:
        ours = Path(stream.name).name
    digits = ours.split("-")[1]
    theirs = f"{int(digits, 16) ^ 1:08x}"
    kept = {
        ".convext-notes.tmp",
        ours.replace(digits, theirs),  # of another machine
        ours + "~",
        "x" + ours,
        ours.upper(),
    }
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    numbers = [f"{i:016x}" for i in range(3)]
    folder, link, pipe = (f".convext-{digits}-{number}.tmp" for number in numbers)
    (tmp_path / folder).mkdir()
    (tmp_path / link).symlink_to(tmp_path / "x")
    os.mkfifo(tmp_path / pipe)
    write(tmp_path / "file")
    assert set(os.listdir(tmp_path)) == kept | {"file", folder, link, pipe}
    (tmp_path / ours).write_bytes(b"")  # and only the name makes it ours
    write(tmp_path / "file")
    assert ours not in os.listdir(tmp_path)


def test_files_are_written_where_there_are_no_locks(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with atomic_write(tmp_path / "slow") as stream:
        write(tmp_path / "file")
        stream.write(b"whole")
    assert (tmp_path / "slow").read_bytes() == b"whole"


# What is found before


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    path = tmp_path / "nowhere" / "file"
    for function in (write, check_writable):
        with pytest.raises(FileNotFoundError, match="its folder does not exist") as caught:
            function(path)
        assert caught.value.filename == str(path)


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="what should be its folder is a file"):
        write(tmp_path / "file" / "inside")


def test_a_file_that_is_a_folder_is_an_error(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder, expected a file"):
        write(tmp_path)


def test_a_folder_that_is_not_writable_is_an_error(tmp_path, monkeypatch):
    not_writable(monkeypatch, tmp_path.resolve())
    with pytest.raises(PermissionError, match="its folder is not writable"):
        write(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_not_writable_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    not_writable(monkeypatch, path.resolve())
    with pytest.raises(PermissionError, match="is not writable"):
        write(path)
    assert path.read_bytes() == b"old"


def bad_targets(folder):
    """Return files that cannot be written: {name: (type of the error, part of its message)}."""
    (folder / "loop").symlink_to(folder / "pool")
    (folder / "pool").symlink_to(folder / "loop")
    (folder / "taken").mkdir()
    (folder / "nowhere").symlink_to(folder / "no" / "file")
    (folder / "plain").write_bytes(b"old")
    return {
        "": (FileNotFoundError, "the name of the file to write is empty"),
        f"{folder}/taken/": (IsADirectoryError, "is a folder, expected a file"),
        f"{folder}/taken/.": (IsADirectoryError, "is a folder, expected a file"),
        f"{folder}/new/": (IsADirectoryError, "is a folder, expected a file"),
        f"{folder}/plain/": (NotADirectoryError, "what should be its folder is a file"),
        f"{folder}/loop": (OSError, "Too many levels of symbolic links"),
        f"{folder}/loop/file": (OSError, "Too many levels of symbolic links"),
        f"{folder}/nowhere": (FileNotFoundError, "its folder does not exist"),
        f"{folder}/{'x' * 256}": (OSError, "File name too long"),
        f"{folder}/{'x/' * 2100}file": (OSError, "File name too long"),
        f"{folder}/nul\0": (ValueError, "null"),
    }


@posix
def test_what_cannot_be_written_is_found_before_and_nothing_is_left(tmp_path):
    targets = bad_targets(tmp_path)
    before = sorted(os.listdir(tmp_path))
    for path, (error, message) in targets.items():
        for function in (check_writable, write):
            with pytest.raises(error, match=message):
                function(path)
        assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "plain").read_bytes() == b"old"


def test_a_check_leaves_no_trace(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    before = os.stat(tmp_path / "old")
    for name in ("old", "new"):
        check_writable(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert os.stat(tmp_path / "old") == before


@posix
def test_a_disk_that_is_full_is_found_before(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"{tmp_path}/old")) as caught:
            check_writable(tmp_path / "old")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["old"]


@posix
def test_another_users_file_in_a_sticky_folder_is_found_before():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        path = Path(folder, "file")
        path.write_bytes(b"old")
        path.chmod(0o666)
        if os.geteuid() != 0:
            pytest.skip("only root can make another user's file")
        with as_an_ordinary_user():
            for function in (write, check_writable):
                with pytest.raises(PermissionError, match="is another user's, in a folder where"):
                    function(path)
            write(Path(folder, "own"))
            write(Path(folder, "own"))
        assert path.read_bytes() == b"old"
        assert sorted(os.listdir(folder)) == ["file", "own"]


@contextmanager
def as_an_ordinary_user():
    """Give up root's right to write everywhere for a while, if it is there."""
    users = os.getresuid()
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(*users)


@posix
def test_the_permissions_of_a_folder_are_respected():
    # Not in tmp_path, which other users cannot enter.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with (
            as_an_ordinary_user(),
            pytest.raises(PermissionError, match="its folder is not writable"),
        ):
            write(Path(folder, "file"))
        os.chmod(folder, 0o700)


@posix
def test_a_pipe_is_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe")
    assert os.read(reader, 100) == b"new"
    os.close(reader)


ARRAY = np.ones((1, 4, 4))
# What is given the name of a file or a folder.
TAKES_A_FILE = {
    "check_plot_file": plotting.check_plot_file,
    "generate_random_data": lambda file: convext.generate_random_data(
        (1, 1, 4, 4), (1, 1, 2, 2), file, file
    ),
    "jpeg_steps": image.jpeg_steps,
    "jpeg_tables": image.jpeg_tables,
    "load": convext.PatchStatistics.load,
    "load_data": lambda file: convext.load_data(file, file),
    "load_image": image.load_image,
    "load_images": image.load_images,
    "load_kernels": kernels_file.load_kernels,
    "load_model": convext.load_model,
    "ModelCheckpoint": convext.ModelCheckpoint,
    "plot_kernels": lambda file: plotting.plot_kernels(ARRAY[None], file=file),
    "save": lambda file: convext.build_model(1, 3).save(file),
    "save_image": lambda file: image.save_image(file, ARRAY),
    "save_kernels": lambda file: kernels_file.save_kernels(file, ARRAY[None], {}),
    "train_on_folders": lambda file: enhancement.train_on_folders(file, file, [(1, 3)], file),
}


@pytest.mark.parametrize("name", TAKES_A_FILE)
def test_numbers_are_no_files(name):
    """Python's own `open` takes a number as an open file, and closes it."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    for wrong in (descriptor, True, 1.5, None, ["a"], 2**70):
        if (name, wrong) == ("plot_kernels", None):
            continue  # it shows the plot
        with pytest.raises(TypeError, match="a file must be given by its name, a str or a path"):
            TAKES_A_FILE[name](wrong)
    os.close(descriptor)
