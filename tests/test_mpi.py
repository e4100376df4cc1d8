"""Processes that share a training or a solution, by MPI."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import convext
from convext._support import ranks
from convext.kernels_file import load_kernels

pytest.importorskip("mpi4py")
BIN = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
if MPIEXEC is None:
    pytest.skip("there is no mpiexec", allow_module_level=True)

PROGRAM = Path(__file__).with_name("mpi_program.py")
CONVEXT = (sys.executable, "-m", "convext")


def start(number, *command, cwd=None):
    """Start some processes, each with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CONVEXT_LANG": "en"}
    if command[0] in ("sums", "threads"):
        del environment["OMP_NUM_THREADS"]
    if not Path(command[0]).exists():
        command = sys.executable, PROGRAM, *command
    return subprocess.Popen(
        [MPIEXEC, "-n", str(number), *command], cwd=cwd, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(number, *command, cwd=None, status=0):
    """Run some processes; return what they print."""
    process = start(number, *command, cwd=cwd)
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, f"{output}\n{errors}"
    return output, errors


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    """What one process computes, which never heard of MPI."""
    file = tmp_path_factory.mktemp("mpi") / "one.npz"
    subprocess.run([sys.executable, PROGRAM, "results", file], check=True)
    return dict(np.load(file))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_ranks_compute_what_one_process_does_and_the_same_bits_each_time(number, of_one, tmp_path):
    each = []
    for name in ("first.npz", "second.npz")[: 2 if number == 2 else 1]:
        run(number, "results", tmp_path / name)
        each.append(dict(np.load(tmp_path / name)))
    assert each[0].keys() == of_one.keys()
    for name, expected in of_one.items():
        if expected.size:
            found = each[0][name]
            assert found.shape == expected.shape, name
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, 1e-12, 1e-12 * scale, err_msg=name)
            assert np.abs(found).max() > 0, name
        if len(each) == 2 and name != "fits, seeds of its own":
            assert np.array_equal(each[0][name], each[1][name]), name


@pytest.mark.parametrize("number", [2, 3])
def test_sums_are_in_the_order_of_the_ranks(number, tmp_path):
    run(number, "sums", tmp_path)


@pytest.mark.parametrize(("computed", "looks"), [(0, 0.002), (0.04, 0.01), (60, 0.02)])
def test_a_rank_looks_for_messages_for_a_share_of_what_it_has_computed(
    computed, looks, monkeypatch
):
    now, sleeps = 100.0, []

    def tick():
        nonlocal now
        now += 1e-4
        return now

    clock = SimpleNamespace(monotonic=tick, sleep=lambda seconds: sleeps.append((now, seconds)))
    monkeypatch.setattr(ranks, "time", clock)
    ranks._wait(SimpleNamespace(Test=lambda: True))
    now += computed
    begun = now
    ranks._wait(SimpleNamespace(Test=lambda: len(sleeps) == 3))
    assert [first - begun for first, _ in sleeps] == pytest.approx([looks] * 3, abs=1e-3)
    assert max(seconds for _, seconds in sleeps) <= 1e-4
    # What it has waited is not what it has computed.
    del sleeps[:]
    begun = now
    ranks._wait(SimpleNamespace(Test=lambda: len(sleeps) == 1))
    assert sleeps[0][0] - begun == pytest.approx(0.002, abs=1e-3)


def test_rank_0_calls_the_callbacks_and_prints_and_all_follow_it(tmp_path):
    output, _ = run(2, "callbacks", tmp_path / "model.npz")
    assert output.count("Epoch: 1,") == output.count("Epoch: 4,") == 2
    assert "Epoch: 5," not in output
    assert output.count("files: True") == 2


def test_a_training_goes_on_from_its_checkpoint(tmp_path):
    run(2, "resumed", tmp_path / "run")
    assert len(list(tmp_path.iterdir())) == 4  # two, and those before them


def test_what_is_wrong_or_differs_is_an_error_on_all_ranks(tmp_path):
    run(2, "errors", tmp_path)


@pytest.mark.parametrize(
    ("how", "said", "status"),
    [("failing", "the disk of rank 1 is gone", 1), ("interrupted", "KeyboardInterrupt", 1),
     ("killed", "Killed", 9)],
)  # fmt: skip
def test_a_rank_that_ends_alone_ends_the_job(how, said, status, tmp_path):
    begun = time.monotonic()
    output, errors = run(2, how, tmp_path, status=status)
    assert said in output + errors
    assert how == "killed" or "rank 1 has failed" in errors
    assert time.monotonic() - begun < 30


def test_a_program_does_not_go_on_after_an_error_that_ends_the_job(tmp_path):
    _, errors = run(2, "stopped", tmp_path / "file", status=1)
    assert "the disk of rank 0 is gone" in errors
    assert not list(tmp_path.iterdir())


def test_ranks_may_have_different_numbers_of_threads(tmp_path):
    run(2, "threads", tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_a_checkpoint_and_no_process(number, tmp_path):
    command = *CONVEXT, "train", "--epochs", "1000000", "--checkpoint", "run.npz", "--shuffle"
    process = start(2, *command, cwd=tmp_path)
    assert any("Epoch: 1," in line for line in process.stdout)
    time.sleep(0.5)
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < 30
    assert process.returncode == 128 + number
    assert errors.count("convext: interrupted") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels.npz", "run.npz"]
    command = *(each.replace("1000000", "1") for each in command), "--resume", "--seed", "7"
    _, errors = run(2, *command, cwd=tmp_path, status=2)
    assert errors.count("is of another training: ") == 1


def test_commands_share_the_work_and_rank_0_alone_writes(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((9, 1, 20, 20)))
    x, kernels = np.load(tmp_path / "x.npy"), np.random.default_rng(1).random((2, 1, 3, 3))
    np.save(tmp_path / "y.npy", convext.conv2d(x, kernels))
    files = "x.npy", "y.npy"
    train = "train", *files, "--epochs", "3", "--batch-size", "4", "--out"
    solve = "solve", *files, "--kernel-shape", "3", "3", "--out"
    for command in (train, solve):
        outputs = []
        for count, name in ((2, "two.npz"), (1, "one.npz")):
            output, errors = run(count, *CONVEXT, *command, name, cwd=tmp_path)
            assert not errors
            outputs.append(output.replace(name, "").count("\n"))
        two, one = (load_kernels(tmp_path / name)[0] for name in ("two.npz", "one.npz"))
        np.testing.assert_allclose(two, one, 1e-12, 1e-13)
        assert outputs[0] == outputs[1]
    assert run(3, *CONVEXT, "generate", cwd=tmp_path)[0].count("Wrote") == 2
    _, errors = run(2, *CONVEXT, "train", "x.npy", "missing.npy", cwd=tmp_path, status=2)
    assert errors.count("missing.npy: No such file") == 1


def test_a_network_of_image_folders_is_trained_by_two_ranks(tmp_path):
    Image = pytest.importorskip("PIL.Image")  # noqa: N806
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    options = "--layers", "2x3,1x3", "--epochs", "2", "--batch-size", "3", "--patch", "16"
    command = *CONVEXT, "train-images", "before", "after", *options, "--out"
    weights = []
    for number, name in ((2, "two.npz"), (1, "one.npz")):
        output, _ = run(number, *command, name, cwd=tmp_path)
        assert output.count("Best: epoch") == 1
        model = convext.load_model(tmp_path / name)
        weights.append(np.concatenate([array.ravel() for array in model.get_weights()]))
    np.testing.assert_allclose(*weights, 1e-4, 1e-5)  # in float32
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_mpiexec_without_mpi4py_is_an_error_that_names_the_extra(name, monkeypatch):
    monkeypatch.setenv(name, "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'4 processes .* pip install "convext\[mpi\]"'):
        ranks.launched()
    monkeypatch.setenv(name, "1")
    assert ranks.launched() is None
