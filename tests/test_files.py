"""Writing files: whole or not at all, with the permissions that files usually have."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from convext.files import atomic_write, check_writable

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
