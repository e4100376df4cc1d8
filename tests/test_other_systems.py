"""What other systems than this one lack or forbid, as far as that can be tried here."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# What Windows has not, and that no file that is open is replaced or removed there.
AS_ON_WINDOWS = """
import os, signal, sys

import numpy  # which believes in Linux

for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("geteuid", "uname", "fork", "sched_getaffinity", "sysconf", "getuid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGALRM"):
    if hasattr(signal, name):
        delattr(signal, name)

def is_open(path):
    files = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    return os.path.realpath(path) in files

def forbidding(function):
    def call(*paths, **options):
        for path in paths:
            if is_open(path):
                raise PermissionError(13, "is used by another process", path)
        return function(*paths, **options)
    return call

for name in ("replace", "rename", "remove", "unlink"):
    setattr(os, name, forbidding(getattr(os, name)))
"""


def run_as_on_windows(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS + textwrap.dedent(code)],
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")


def test_trainings_write_and_replace_their_files_without_posix(tmp_path):
    code = """
        from convext.cli.main import main
        for _ in range(2):
            assert main(["train", "--epochs", "3", "--checkpoint", "run.npz"]) in (0, None)
    """
    run_as_on_windows(code, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"kernels.npz", "run.npz"}
    assert not list(tmp_path.glob(".convext-*"))


def test_what_a_killed_writer_left_is_removed_but_not_what_is_written(tmp_path):
    code = """
        from convext._support import atomic_files
        abandoned = f".convext-{atomic_files._machine()}-{'0' * 16}.tmp"
        written = f".convext-{atomic_files._machine()}-{'1' * 16}.tmp"
        open(abandoned, "w").close()
        with open(written, "w"):
            with atomic_files.atomic_write("new.txt") as stream:
                stream.write(b"new")
            print(sorted(os.listdir()))
    """
    out = run_as_on_windows(code, tmp_path)
    assert "1" * 16 in out
    assert "0" * 16 not in out
    assert (tmp_path / "new.txt").read_bytes() == b"new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "old.txt").write_bytes(b"old")
    code = """
        from convext._support.atomic_files import atomic_write
        try:
            with atomic_write("old.txt") as stream:
                stream.write(b"half")
                raise ValueError
        except ValueError:
            pass
        with open("old.txt"):
            try:
                with atomic_write("old.txt") as stream:
                    stream.write(b"new")
            except PermissionError as error:
                print(error.filename)
    """
    assert run_as_on_windows(code, tmp_path) == "old.txt\n"
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_bytes() == b"old"


def test_signals_that_a_system_has_not_are_not_asked_for(tmp_path):
    code = """
        import signal
        from convext._support.interruption import Stopped, stoppable
        try:
            with stoppable():
                signal.raise_signal(signal.SIGTERM)
        except Stopped as stopped:
            print(int(stopped.signal))
    """
    assert run_as_on_windows(code, tmp_path) == "15\n"
