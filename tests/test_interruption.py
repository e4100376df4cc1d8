"""What a training leaves that is stopped early."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import convext
from convext import kernels_file
from convext._support.interruption import Stopped, stoppable, unused_name
from convext.cli.main import main
from convext.kernels_file import load_kernels

SAVED = r"convext: interrupted: the kernels of epoch (\d+) of 1000000 are in (\S+)\n"
NOTHING = "convext: interrupted: no epoch has ended, there is nothing to save\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, and English."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    return tmp_path


def start(*arguments, **options):
    """Start a training, and wait until it is under way."""
    # Where nohup started the tests, it would ignore SIGHUP, too.
    options = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)} | options
    command = [sys.executable, "-u", "-m", "convext", "train", "--epochs", "1000000", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stdout.readline().startswith("Training on random data")
    return process


def wait_for_an_epoch(process):
    """Wait until an epoch has surely ended: the next one is printed."""
    for number in (1, 2):
        assert process.stdout.readline().startswith(f"Epoch: {number},")


def trained(num_epochs, kernel_shape=(2, 2), rate=0.1):
    """The kernels and losses of the textbook's training after so many epochs, without files."""
    rng = np.random.default_rng(0)
    size = tuple(29 - side for side in kernel_shape)
    data = rng.random((100, 3, 28, 28)), rng.random((100, 2, *size))
    history = convext.History()
    kernels = convext.train_model(
        *data, 2, kernel_shape, rate, num_epochs, seed=0, callbacks=[history], verbose=False,
        method="direct",
    )  # fmt: skip
    return kernels, history.loss


@pytest.mark.parametrize(
    ("stop", "seconds"), [(signal.SIGINT, 0), (signal.SIGTERM, 0.05), (signal.SIGHUP, 0.2)]
)
def test_the_kernels_of_the_last_whole_epoch_are_saved(stop, seconds):
    process = start("--method", "direct", "--kernel-shape", "9", "8", "--learning-rate", "0.001")
    wait_for_an_epoch(process)
    time.sleep(seconds)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    epoch, file = re.fullmatch(SAVED, err).groups()
    assert (os.listdir(), file) == (["kernels.npz"], "kernels.npz")
    kernels, record = load_kernels(file)
    expected, losses = trained(int(epoch), (9, 8), 0.001)
    np.testing.assert_array_equal(kernels, expected)
    assert record["losses"] == losses
    assert (record["num_epochs"], record["interrupted"]) == (int(epoch), True)


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 60))]
)
def test_at_any_moment_there_is_a_whole_file_or_none(seed):
    rng = np.random.default_rng(seed)
    # The shape makes epochs of some 10 ms to 1 s.
    process = start("--kernel-shape", *map(str, rng.integers(1, 27, 2)), "--num-kernels", "20",
                    "--learning-rate", "1e-5")  # fmt: skip
    time.sleep(rng.uniform(0, 0.3))
    process.send_signal(signal.SIGTERM if seed % 2 else signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (143 if seed % 2 else 130)
    if err == NOTHING:
        assert os.listdir() == []
    else:
        assert os.listdir() == ["kernels.npz"]
        _, record = load_kernels("kernels.npz")
        assert record["num_epochs"] == len(record["losses"]) == int(re.match(SAVED, err)[1])


def test_before_the_first_epoch_has_ended_there_is_nothing_to_save(folder):
    (folder / "kernels.npz").write_bytes(b"old")
    process = start("--kernel-shape", "25", "25", "--num-kernels", "4000", "--method", "direct")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, NOTHING)
    assert os.listdir() == ["kernels.npz"]
    assert (folder / "kernels.npz").read_bytes() == b"old"


def test_an_interrupted_training_replaces_no_file(folder):
    (folder / "kernels.npz").write_bytes(b"old")
    for number in (1, 2):
        process = start()
        wait_for_an_epoch(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        name = f"kernels-interrupted{number}.npz"
        assert re.fullmatch(SAVED, err)[2] == name
        assert load_kernels(name)[1]["interrupted"]
    assert (folder / "kernels.npz").read_bytes() == b"old"
    assert len(os.listdir()) == 3


def test_a_reader_that_goes_leaves_the_kernels():
    process = start()
    wait_for_an_epoch(process)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
    assert load_kernels("kernels.npz")[1]["interrupted"]


def test_signals_that_are_ignored_stay_ignored():
    process = start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    for _ in range(100):
        assert process.stdout.readline().startswith("Epoch: ")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_an_interrupt_while_the_result_is_saved_saves_it(monkeypatch, capsys):
    save_kernels, calls = kernels_file.save_kernels, []

    def interrupted_at_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        save_kernels(*arguments)

    monkeypatch.setattr("convext.cli.train.save_kernels", interrupted_at_first)
    assert main(["train", "--epochs", "3", "--quiet"]) == 130
    assert capsys.readouterr().err == (
        "convext: interrupted: the kernels of epoch 3 of 3 are in kernels.npz\n"
    )
    kernels, record = load_kernels("kernels.npz")
    np.testing.assert_array_equal(kernels, trained(3)[0])
    assert "interrupted" not in record


def test_an_interrupt_between_two_epochs_leaves_kernels_and_losses_that_belong_together(
    monkeypatch,
):
    class History(convext.History):
        def __call__(self, report):
            if report.epoch == 3:
                self.loss.append(report.loss)
                raise KeyboardInterrupt
            super().__call__(report)

    monkeypatch.setattr("convext.cli.train.History", History)
    assert main(["train", "--epochs", "5", "--quiet"]) == 130
    kernels, record = load_kernels("kernels.npz")
    expected, losses = trained(2)
    np.testing.assert_array_equal(kernels, expected)
    assert record["losses"] == losses


def test_a_training_that_fails_saves_nothing(monkeypatch):
    def fail(*_, callbacks, **__):
        callbacks[0](convext.EpochReport(1, 0.5, 0.1, 1.0, np.ones((1, 1, 2, 2))))
        raise ValueError("it does not fit")

    monkeypatch.setattr("convext.cli.train.train_model", fail)
    assert main(["train", "--quiet"]) == 2
    assert os.listdir() == []


# Networks


@pytest.fixture
def folders(folder):
    """Two folders of images, sharp ones and blurred ones."""
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name in ("before", "after"):
        (folder / name).mkdir()
        pixels = rng.integers(0, 256, (90, 100), np.uint8)
        pillow.fromarray(pixels).save(folder / name / "image.png")
    return "before", "after", "--layers", "3x5,1x3"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_network_leaves_its_best_model(folders, folder, there, stop):
    if there:
        (folder / "model.npz").write_bytes(b"old")
    command = [sys.executable, "-u", "-m", "convext", "train-images", *folders]
    process = subprocess.Popen(
        [*command, "--epochs", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("Epoch: 3,"):  # so that two have surely ended
            break
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    name = "model-interrupted1.npz" if there else "model.npz"
    told = r"convext: interrupted: the best model so far, of epoch (\d+), is in (\S+)\n"
    epoch, file = re.fullmatch(told, err).groups()
    assert (int(epoch) >= 1, file) == (True, name)
    assert convext.load_model(name).count_params() == 106
    if there:
        assert (folder / "model.npz").read_bytes() == b"old"
    assert len(list(folder.glob("*.npz"))) == 1 + there


@pytest.mark.parametrize("out", ["model.npz", "{loss} {x.npz"])
def test_a_whole_training_of_a_network_replaces_the_file(folders, folder, out, capsys):
    (folder / out).write_bytes(b"old")
    assert main(["train-images", *folders, "--epochs", "2", "--out", out]) == 0
    assert f"Model: {out}\n" in capsys.readouterr().out
    assert convext.load_model(out).count_params() == 106
    assert [file.name for file in folder.glob("*.npz")] == [out]


def test_a_network_without_an_epoch_saves_nothing(folders, folder, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(convext.Sequential, "fit", interrupt)
    assert main(["train-images", *folders]) == 130
    assert capsys.readouterr().err == NOTHING
    assert list(folder.glob("*.npz")) == []


# The functions


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with stoppable(), pytest.raises(Stopped) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_other_threads_may_train():
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(main(["train", "--quiet"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_names_are_unused(folder):
    assert unused_name("k.npz") == "k.npz"
    assert unused_name(os.devnull) == os.devnull
    for name, following in (("k.npz", "k-interrupted1.npz"), ("a.b/k", "a.b/k-interrupted1")):
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        (folder / name).touch()
        assert unused_name(name) == following
