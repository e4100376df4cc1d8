"""The command line: what each command does, and one line and a status for every error."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
import reference
from array_files import BAD_FILES, npz_bytes

import convext
from convext._support.messages import columns
from convext.cli import main as cli
from convext.cli.commands import COMMANDS
from convext.image.images import load_image, save_image
from convext.kernels_file import load_kernels, save_kernels

BLUR = np.array([[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]) / 16


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, English and lines of up to 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def run(capsys):
    """A function that runs a command and returns its status, output and errors."""

    def run_command(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_command


@pytest.fixture
def succeed(run):
    """A function that runs a command that must succeed, and returns its output."""

    def run_command(*arguments):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        return out

    return run_command


@pytest.fixture
def fail(run):
    """A function that runs a command that must fail, and returns the line that says why."""

    def run_command(*arguments, status=2):
        got, _, err = run(*arguments)
        assert got == status
        assert err.startswith("convext: error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err

    return run_command


@pytest.fixture
def data():
    """Files of a blurred data set, without the noise that hides the kernel."""
    before = np.random.default_rng(0).random((6, 1, 10, 9))
    np.save("before.npy", before)
    np.save("after.npy", reference.conv2d(before, BLUR).astype(np.float64))
    return "before.npy", "after.npy"


def convext_process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "convext", *arguments],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        **options,
    )


def files():
    return sorted(os.listdir())


# Usage


def test_help_describes_every_command(succeed):
    out = succeed("--help")
    for command in ("train", "solve", "generate", "apply", "show", "info"):
        assert re.search(rf"^    {command} +\w", out, re.MULTILINE)


@pytest.mark.parametrize("command", ["train", "solve", "generate", "apply", "show", "info"])
def test_the_help_of_every_command_has_an_example(command, succeed):
    out = succeed(command, "--help")
    assert out.startswith(f"usage: convext {command}")
    assert re.search(rf"^example:\n  .*convext {command}", out, re.MULTILINE)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_examples_of_the_help_are_commands_for_any_shell(command, succeed):
    (examples,) = re.findall(r"^example:\n((?:  .*\n)+)", succeed(*command, "--help"), re.M)
    for line in examples.splitlines():
        program, name, *arguments = line.split()
        assert program == "convext"
        assert name in COMMANDS
        # Windows PowerShell 5 knows no `&&`.
        assert all(re.fullmatch(r"[\w.,-]+", argument) for argument in arguments)


def test_the_version_is_printed(succeed):
    assert succeed("--version") == f"convext {convext.__version__}\n"


def test_info_prints_the_configuration(succeed, capsys):
    out = succeed("info")
    convext.show_config()
    assert out == capsys.readouterr().out
    assert convext.__version__ in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see convext --help)"),
        (["learn"], "invalid choice: 'learn'"),
        (["train", "--speed", "9"], "unrecognized arguments: --speed"),
        (["train", "x.npy"], "INPUT needs a TARGET (see convext train --help)"),
        (["train", "--epochs", "0"], "argument --epochs: it must be at least 1, got 0"),
        (["train", "--epochs", "-3"], "argument --epochs: it must be at least 1, got -3"),
        (["train", "--epochs", "2.5"], "argument --epochs: expected an integer, got '2.5'"),
        (["train", "--epochs", "1" + "0" * 30], "argument --epochs: it is too large"),
        (["train", "--batch-size", "0"], "argument --batch-size: it must be at least 1, got 0"),
        (["train", "--num-kernels", "0"], "argument --num-kernels: it must be at least 1, got 0"),
        (["train", "--kernel-shape"], "argument --kernel-shape: expected 2 arguments"),
        (["train", "--out", ""], "error: the name of the file to write is empty"),
        (["train", "--kernel-shape", "2.5"], "argument --kernel-shape: expected 2 arguments"),
        (["train", "--kernel-shape", "-2"], "argument --kernel-shape: it must be at least 1"),
        (["train", "--kernel-shape", "2", "0"], "argument --kernel-shape: it must be at least 1"),
        (["train", "--seed", "-1"], "argument --seed: it must be at least 0, got -1"),
        (["train", "--threads", "0"], "argument --threads: it must be at least 1, got 0"),
        (["train", "--threads", "many"], "argument --threads: expected an integer, got 'many'"),
        (["train", "--padding", "full"], "expected valid, same or an integer of at least 0"),
        (["train", "--padding", "-1"], "expected valid, same or an integer of at least 0"),
        (["train", "--learning-rate", "0"], "expected a finite number above 0, got '0'"),
        (["train", "--learning-rate", "nan"], "expected a finite number above 0, got 'nan'"),
        (["train", "--learning-rate", "inf"], "expected a finite number above 0, got 'inf'"),
        (["train", "--learning-rate", "fast"], "expected a finite number above 0, got 'fast'"),
        (["train", "--schedule", "linear"], "argument --schedule: expected step[:DROP[:EVERY]]"),
        (["train", "--schedule", "exponential"], "exponential:FACTOR"),
        (["train", "--schedule", "step:0.5:10:3"], "got 'step:0.5:10:3'"),
        (["train", "--schedule", "step:half"], "'step:half': could not convert string to float"),
        (["train", "--schedule", "step:0.5:0"], "every must be at least 1, got 0"),
        (["train", "--schedule", "cosine:0.5"], "final_rate must be at least 0 and at most 0.1"),
        (["train", "--kernel-shape", "29", "2"], "do not fit input_data of 28x28"),
        (["generate", "--input-shape", "1", "2", "3"], "expected 4 arguments"),
        (["apply", "k.npz", "x.npy"], "the following arguments are required: OUTPUT"),
        (["show"], "the following arguments are required: KERNELS"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, message, fail):
    assert message in fail(*arguments)
    assert files() == []


# train


def test_train_without_files_trains_on_the_textbook_data_set(succeed):
    out = succeed("train")
    rng = np.random.default_rng(0)
    inputs, targets = rng.random((100, 3, 28, 28)), rng.random((100, 2, 27, 27))
    history = convext.History()
    expected = convext.train_model(
        inputs, targets, 2, (2, 2), 0.1, 10, seed=0, callbacks=[history], verbose=False
    )
    assert files() == ["kernels.npz"]
    kernels, record = load_kernels("kernels.npz")
    np.testing.assert_array_equal(kernels, expected)
    assert record["losses"] == history.loss

    lines = out.splitlines()
    assert lines[0] == "Training on random data: 100 samples of 3x28x28, seed 0"
    epoch = r"Epoch: {}, average loss: {:.4f}, learning rate: 0\.1, training time: .* s"
    for number, loss in enumerate(history.loss, 1):
        assert re.fullmatch(epoch.format(number, loss), lines[number])
    assert lines[11] == (
        f"Trained 2 kernels of 3x2x2 for 10 epochs: average loss {history.loss[0]:.4f} in the "
        f"first, {history.loss[-1]:.4f} in the last"
    )
    assert lines[12:] == ["Kernels: kernels.npz (to see them: convext show kernels.npz)"]


def test_train_speaks_chinese(succeed, monkeypatch):
    monkeypatch.setenv("CONVEXT_LANG", "zh")
    assert re.search(r"^轮次: 10, 平均损失: 0\.0\d{3}, 学习率: 0\.1, 训练时间: \d\S*秒$",
                     succeed("train"), re.MULTILINE)  # fmt: skip


def test_train_without_files_takes_sizes_and_seed(succeed):
    succeed("train", "--num-kernels", 3, "--kernel-shape", 4, 5, "--epochs", 1, "--seed", 7)
    kernels, record = load_kernels("kernels.npz")
    assert kernels.shape == (3, 3, 4, 5)
    assert record["seed"] == 7
    succeed("train", "--padding", "same", "--kernel-shape", 5, 5, "--epochs", 1)
    assert load_kernels("kernels.npz")[0].shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("before", "after"),
    [(["--kernel-shape", 3], []), (["--kernel-shape=3"], []), ([], ["--kernel-shape", 3]),
     (["--kernel-shape", 3, "--padding", 0], []), (["--kernel-shape", 3, 3], [])],
)  # fmt: skip
@pytest.mark.parametrize("command", ["train", "solve"])
def test_one_number_is_the_shape_of_a_square(command, before, after, data, succeed):
    if command == "solve" and "--padding" in before:
        before = [*before[:2], "--l2", 0]
    succeed(command, *before, *data, *after, "--out", "k.npz")
    assert load_kernels("k.npz")[0].shape == (1, 1, 3, 3)


def test_generate_and_train_is_the_same_as_train(succeed):
    out = succeed("generate", "--seed", 3)
    assert out == (
        "Wrote input_data.npy: (100, 3, 28, 28) float64\n"
        "Wrote target_output.npy: (100, 2, 27, 27) float64\n"
    )
    names = "input_data.npy", "target_output.npy"
    succeed("train", *names, "--epochs", 4, "--seed", 3, "--out", "a.npz", "--quiet")
    succeed("train", "--epochs", 4, "--seed", 3, "--out", "b.npz", "--quiet")
    np.testing.assert_array_equal(load_kernels("a.npz")[0], load_kernels("b.npz")[0])


def test_train_passes_every_option_on(succeed, data, monkeypatch):
    calls = []
    train_model = convext.train_model

    def record_call(*arguments, **options):
        calls.append((arguments, options))
        return train_model(*arguments, **options)

    monkeypatch.setattr("convext.cli.train.train_model", record_call)
    succeed(
        "train", "--num-kernels", 1, "--kernel-shape", 5, 5, "--padding", 1, "--epochs", 2,
        "--learning-rate", 0.05, "--schedule", "step:0.5:1", "--batch-size", 4, "--shuffle",
        "--seed", 9, "--threads", 2, "--method", "statistics", "--quiet",
        "--max-memory", "1GB", *data,
    )  # fmt: skip
    ((*positional, schedule, num_epochs), options) = calls[0]
    assert positional == ["before.npy", "after.npy", 1, (5, 5)]
    assert (schedule(0), schedule(1), num_epochs) == (0.05, 0.025, 2)
    assert len(options.pop("callbacks")) == 1
    assert options.pop("comm").size == 1
    assert options == {
        "max_memory": "1GB",
        "seed": 9,
        "batch_size": 4,
        "shuffle": True,
        "padding": 1,
        "method": "statistics",
        "verbose": False,
        "num_threads": 2,
    }
    assert load_kernels("kernels.npz")[1]["method"] == "statistics"


def test_train_learns_a_blur_from_files(succeed, data):
    out = succeed("train", *data, "--epochs", 300, "--learning-rate", 0.3, "--batch-size", 2)
    kernels, _ = load_kernels("kernels.npz")
    np.testing.assert_allclose(kernels, BLUR, atol=1e-3)
    assert out.startswith("From the shapes of the files: 1 kernel of 3x3\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (1, 1, 3, 3)),
        (["--padding", "1"], (1, 1, 5, 5)),
        (["--num-kernels", "1"], (1, 1, 3, 3)),
        (["--kernel-shape", "3", "3"], (1, 1, 3, 3)),
    ],
)
def test_train_infers_what_it_is_not_told(succeed, data, arguments, expected):
    out = succeed("train", *data, *arguments, "--epochs", 1)
    assert load_kernels("kernels.npz")[0].shape == expected
    assert f"From the shapes of the files: 1 kernel of {expected[2]}x{expected[3]}\n" in out


def test_train_infers_from_npz_files_as_well(succeed, folder):
    inputs = np.random.default_rng(0).random((3, 2, 8, 8), np.float32)
    (folder / "x.npz").write_bytes(npz_bytes(x=inputs))
    np.save("t.npy", inputs[:, :, :6, :5])
    succeed("train", "x.npz", "t.npy", "--epochs", 1, "--quiet")
    kernels, record = load_kernels("kernels.npz")
    assert kernels.shape == (2, 2, 3, 4)
    assert (record["input_file"], record["target_file"]) == ("x.npz", "t.npy")


def test_what_cannot_be_inferred_is_asked_for(fail, data):
    assert "TARGET is as large as INPUT: give --kernel-shape" in fail("train", data[0], data[0])
    assert "says nothing about the kernels: give --kernel-shape" in fail(
        "train", *data, "--padding", "same"
    )
    assert "TARGET is too large for any kernel on INPUT (shapes" in fail("train", *data[::-1])


def test_train_same_padding_learns_from_files_of_one_size(succeed):
    before = np.random.default_rng(0).random((5, 1, 8, 8))
    np.save("x.npy", before)
    np.save("t.npy", convext.conv2d(before, BLUR, padding="same"))
    succeed(
        "train", "x.npy", "t.npy", "--kernel-shape", 3, 3, "--padding", "same", "--quiet",
        "--epochs", 400, "--learning-rate", 0.3,
    )  # fmt: skip
    np.testing.assert_allclose(load_kernels("kernels.npz")[0], BLUR, atol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("step:0.5:2", [0.1, 0.1, 0.05, 0.05]),
        ("step", [0.1, 0.1, 0.1, 0.1]),
        ("exponential:0.5", [0.1, 0.05, 0.025, 0.0125]),
        ("cosine", 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4))),
        ("cosine:0.02", 0.06 + 0.04 * np.cos(np.pi * np.arange(4) / 4)),
        ("plateau", [0.1, 0.1, 0.1, 0.1]),
        ("plateau:0.5:1", None),
    ],
)
def test_train_follows_the_schedule(succeed, data, schedule, expected):
    out = succeed("train", *data, "--epochs", 4, "--schedule", schedule)
    rates = [float(rate) for rate in re.findall(r"learning rate: ([^,]+),", out)]
    assert load_kernels("kernels.npz")[1]["schedule"] == schedule
    if expected is not None:
        np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_train_records_how_it_trained(succeed, data):
    succeed("train", *data, "--epochs", 3, "--batch-size", 2, "--shuffle", "--out", "my kernels")
    _, record = load_kernels("my kernels")
    seconds, losses = record.pop("seconds"), record.pop("losses")
    assert seconds >= 0
    assert len(losses) == 3
    assert record == {
        "version": convext.__version__,
        "input_file": "before.npy",
        "target_file": "after.npy",
        "num_kernels": 1,
        "kernel_shape": [3, 3],
        "padding": "valid",
        "learning_rate": 0.1,
        "schedule": None,
        "num_epochs": 3,
        "batch_size": 2,
        "shuffle": True,
        "method": "direct",
        "seed": 0,
    }


def test_names_that_a_shell_would_split_are_quoted(succeed, data):
    out = succeed("train", *data, "--epochs", 1, "--out", "my kernels")
    assert "Kernels: my kernels (to see them: convext show 'my kernels')" in out


def test_train_plots(succeed, data, folder):
    out = succeed("train", *data, "--epochs", 3, "--plot", "loss.png")
    assert out.endswith("Plot: loss.png\n")
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_quiet_prints_nothing(succeed, data):
    assert succeed("train", *data, "--epochs", 3, "--plot", "loss.svg", "--quiet") == ""
    assert succeed("train", "--epochs", 1, "--quiet") == ""
    assert {"kernels.npz", "loss.svg"} <= set(files())


@pytest.fixture
def no_training(monkeypatch):
    """Make it an error to get as far as the training."""

    def train_model(*_, **__):
        raise AssertionError("the training was started")

    monkeypatch.setattr("convext.cli.train.train_model", train_model)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "nowhere/k.npz"], "nowhere/k.npz: its folder does not exist"),
        (["--out", "before.npy/k.npz"], "before.npy/k.npz: what should be its folder is a file"),
        (["--out", "."], ".: is a folder, expected a file to write"),
        (["--plot", "nowhere/loss.png"], "nowhere/loss.png: its folder does not exist"),
        (["--plot", "loss.txt"], "must end in one of .png, .pdf, .svg, got loss.txt"),
        (["--out", "after.npy"], "after.npy would overwrite after.npy, which is used as well"),
        (["--out", "./before.npy"], "./before.npy would overwrite before.npy"),
        (["--out", "x.png", "--plot", "x.png"], "x.png would overwrite x.png"),
    ],
)
def test_an_output_that_cannot_be_written_is_found_before_training(arguments, message, fail, data):
    assert message in fail("train", *data, *arguments)
    assert files() == ["after.npy", "before.npy"]


@pytest.mark.usefixtures("no_training")
def test_a_folder_that_is_not_writable_is_found_before_training(fail, monkeypatch, folder):
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda file, wanted: access(file, wanted) and str(file) != str(folder.resolve()),
    )
    assert "kernels.npz: its folder is not writable" in fail("train")


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_status_2(kind, position, fail, folder, data):
    contents, _, message = BAD_FILES[kind]
    (folder / "bad.file").write_bytes(contents)
    arguments = list(data)
    arguments[position] = "bad.file"
    name = ("input_data", "target_output")[position]
    error = rf"convext: error: {name} \(bad\.file\).*{message}"
    assert re.match(error, fail("train", *arguments))
    assert re.match(error, fail("train", *arguments, "--num-kernels", 1, "--kernel-shape", 3, 3))
    assert files() == ["after.npy", "bad.file", "before.npy"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((6, 1, 8), "target_output (t.npy) must have the shape (N, K, OH, OW), got 3 dimensions"),
        ((0, 1, 8, 7), "target_output (t.npy) is empty: N is 0 in its shape (0, 1, 8, 7)"),
        ((5, 1, 8, 7), "has 6 samples but target_output (t.npy) has 5"),
    ],
)
def test_targets_that_do_not_belong_to_the_input_are_an_error(shape, message, fail, data):
    np.save("t.npy", np.ones(shape))
    assert message in fail("train", data[0], "t.npy")


def test_a_target_of_the_wrong_shape_says_which_it_must_have(fail, data):
    assert "must have the shape (6, 1, 9, 8)" in fail("train", *data, "--kernel-shape", 2, 2)
    assert "must have the shape (6, 4, 8, 7)" in fail("train", *data, "--num-kernels", 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_are_an_error(value, fail, data):
    before = np.load(data[0])
    before[2, 0, 3, 4] = value
    np.save(data[0], before)
    error = fail("train", *data)
    assert "before.npy" in error
    assert "(2, 0, 3, 4)" in error
    assert "kernels.npz" not in files()


def test_missing_files_and_folders_are_one_line_and_status_2(fail, data):
    assert fail("train", "no.npy", data[1]) == (
        "convext: error: no.npy: No such file or directory\n"
    )
    assert "no.npy: No such file or directory" in fail("train", data[0], "no.npy")
    assert ".: Is a directory" in fail("train", ".", data[1])
    assert "no.npz: No such file or directory" in fail("show", "no.npz")
    assert "no.npz: No such file or directory" in fail("apply", "no.npz", data[0], "out.npy")


def test_divergence_is_one_line_and_status_1(fail, data):
    error = fail("train", *data, "--learning-rate", 1000, status=1)
    assert "learning_rate" in error
    assert "kernels.npz" not in files()


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "out of memory: Unable to allocate 9 TiB"),
        (OSError(28, "No space left on device", "k.npz"), "k.npz: No space left on device"),
        (OSError("the disk is gone"), "the disk is gone"),
        (
            ImportError('plots need\nMatplotlib: pip install "x"'),
            'need Matplotlib: pip install "x"',
        ),
        (ZeroDivisionError("division by zero"), "division by zero"),
        (KeyError("bug"), "unexpected KeyError: 'bug'"),
    ],
)
def test_a_run_that_fails_is_one_line_and_status_1(failure, message, fail, monkeypatch):
    def train_model(*_, **__):
        raise failure

    monkeypatch.setattr("convext.cli.train.train_model", train_model)
    assert message in fail("train", status=1)
    assert files() == []


def test_a_training_that_is_interrupted_before_an_epoch_ended_writes_nothing(
    run, monkeypatch, folder
):
    (folder / "kernels.npz").write_bytes(b"old")

    def train_model(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("convext.cli.train.train_model", train_model)
    status, _, err = run("train")
    assert (status, err) == (
        130, "convext: interrupted: no epoch has ended, there is nothing to save\n"
    )  # fmt: skip
    assert files() == ["kernels.npz"]
    assert (folder / "kernels.npz").read_bytes() == b"old"


# generate


def test_generate_writes_the_shapes_and_names_it_is_told(succeed):
    succeed("generate", "x.npy", "t.npy", "--input-shape", 4, 1, 6, 5, "--target-shape", 4, 2, 3, 3)
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(np.load("x.npy"), generator.random((4, 1, 6, 5)))
    np.testing.assert_array_equal(np.load("t.npy"), generator.random((4, 2, 3, 3)))
    assert files() == ["t.npy", "x.npy"]


def test_generate_refuses_what_it_cannot_write(fail):
    assert "nowhere/x.npy: its folder does not exist" in fail("generate", "nowhere/x.npy")
    assert "must be two files" in fail("generate", "x.npy", "x.npy")
    assert "has 5 samples but target_shape has 100" in fail(
        "generate", "--input-shape", 5, 3, 28, 28
    )
    assert files() == []


# apply


@pytest.mark.parametrize("shape", [(3, 7, 6), (2, 3, 7, 6)])
@pytest.mark.parametrize(
    ("padding", "margin"), [(None, 0), ("valid", 0), ("same", 1), ("0", 0), ("2", 2)]
)
def test_apply_convolves_arrays(succeed, shape, padding, margin):
    rng = np.random.default_rng(0)
    kernels, array = rng.normal(size=(2, 3, 3, 3)), rng.normal(size=shape)
    save_kernels("k.npz", kernels, {})
    np.save("x.npy", array)
    options = [] if padding is None else ["--padding", padding]
    out = succeed("apply", "k.npz", "x.npy", "y.npy", *options)
    result = np.load("y.npy")
    np.testing.assert_allclose(
        result,
        reference.conv2d(array, kernels, padding=margin).astype(float),
        rtol=1e-12,
        atol=1e-13,
    )
    assert out == f"Wrote y.npy: {result.shape}\n"


def test_apply_convolves_a_grey_image(succeed):
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 8)) / 255
    save_image("x.png", image)
    np.save("k.npy", BLUR)
    out = succeed("apply", "k.npy", "x.png", "y.png", "--padding", "same")
    expected = reference.conv2d(image, BLUR, padding=1).astype(float)
    np.testing.assert_allclose(load_image("y.png"), expected, atol=0.501 / 255)
    assert out == "Wrote y.png: (1, 9, 8)\n"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_apply_convolves_each_channel_of_a_colour_image(succeed, suffix):
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 8)) / 255
    save_image("x.png", image)
    np.save("k.npy", BLUR)
    succeed("apply", "k.npy", "x.png", f"y{suffix}")
    expected = np.concatenate([reference.conv2d(plane[np.newaxis], BLUR) for plane in image])
    result = np.load("y.npy") if suffix == ".npy" else load_image(f"y{suffix}")
    np.testing.assert_allclose(
        result, expected.astype(float), atol=1e-14 if suffix == ".npy" else 0.501 / 255
    )


def test_apply_keeps_the_results_of_several_kernels_for_each_channel_apart(succeed, fail):
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 5)) / 255
    save_image("x.png", image)
    np.save("k.npy", np.concatenate([BLUR, -BLUR]))
    succeed("apply", "k.npy", "x.png", "y.npy")
    result = np.load("y.npy")
    assert result.shape == (3, 2, 3, 3)
    expected = reference.conv2d(image[1:2], BLUR).astype(float)[0]
    np.testing.assert_allclose(result[1], [expected, -expected], rtol=1e-13)
    assert "array must have the shape (C, H, W), got 4 dimensions" in fail(
        "apply", "k.npy", "x.png", "y.png"
    )


def test_apply_mixes_the_channels_of_a_colour_image_with_kernels_of_three(succeed):
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 5)) / 255
    save_image("x.png", image)
    np.save("k.npy", np.full((1, 3, 1, 1), 1 / 3))
    succeed("apply", "k.npy", "x.png", "y.png")
    np.testing.assert_allclose(load_image("y.png")[0], image.mean(0), atol=0.501 / 255)


def test_apply_says_how_much_was_clipped(succeed):
    np.save("x.npy", np.array([[[0.25, 0.5, 0.75, 1.0]]]))
    np.save("k.npy", np.full((1, 1, 1, 1), 2.0))
    assert succeed("apply", "k.npy", "x.npy", "y.png") == (
        "Wrote y.png: (1, 1, 4)\n50.0% of the values lay outside [0, 1] and were clipped\n"
    )
    np.testing.assert_allclose(load_image("y.png"), [[[0.5, 1, 1, 1]]], atol=0.501 / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["k.npy", "x.npy", "y.gif"], "OUTPUT must end in .npy, or be an image, got y.gif"),
        (["k.npy", "x.npy", "nowhere/y.npy"], "nowhere/y.npy: its folder does not exist"),
        (["k.npy", "x.npy", "x.npy"], "x.npy would overwrite x.npy"),
        (["k.npy", "x.npy", "k.npy"], "k.npy would overwrite k.npy"),
        (["x.npy", "k.npy", "y.npy"], "kernels (x.npy) must have the shape (num_kernels, C, kh"),
        (["k.npy", "flat.npy", "y.npy"], "input_data (flat.npy) must have the shape (C, H, W)"),
        (["k.npy", "two.npy", "y.npy"], "kernels has 1 channels but input_data has 2"),
        (["k.npy", "tiny.npy", "y.npy"], "do not fit input_data of 2x2"),
        (["three.npy", "grey.png", "y.png"], "kernels has 3 channels but input_data has 1"),
        (["k.npy", "not.png", "y.png"], "not.png is not an image that Pillow can read"),
        (["k.npy", "text.txt", "y.npy"], "input_data (text.txt) is not an array file"),
        (["two_kernels.npy", "x.npy", "y.png"], "1 channel (grey) or 3 (colour), got 2"),
        (["k.npy", "nan.npy", "y.png"], "array holds NaN"),
    ],
)
def test_apply_refuses_what_does_not_fit(arguments, message, fail, folder):
    np.save("k.npy", BLUR)
    np.save("three.npy", np.ones((1, 3, 2, 2)))
    np.save("two_kernels.npy", np.ones((2, 1, 2, 2)))
    np.save("x.npy", np.ones((1, 6, 6)))
    np.save("nan.npy", np.full((1, 6, 6), np.nan))
    np.save("two.npy", np.ones((2, 6, 6)))
    np.save("tiny.npy", np.ones((1, 2, 2)))
    np.save("flat.npy", np.ones(6))
    save_image("grey.png", np.ones((1, 6, 6)))
    (folder / "not.png").write_bytes(b"nothing")
    (folder / "text.txt").write_bytes(b"nothing")
    before = files()
    assert message in fail("apply", *arguments)
    assert files() == before


# show


def test_show_prints_shape_record_and_values(succeed):
    kernels = np.arange(12.0).reshape(1, 2, 2, 3) - 6.5
    save_kernels("k.npz", kernels, {"num_epochs": 2, "schedule": None, "losses": [0.5, 3.2e-5]})
    assert succeed("show", "k.npz") == (
        "k.npz: 1 kernel of 2x2x3 (float64)\n"
        "training record:\n"
        "  num_epochs  2\n"
        "  schedule    null\n"
        "  losses      0.5000 to 3.2e-05 (2 epochs)\n"
        "kernel 1, channel 1:\n"
        "[[-6.5 -5.5 -4.5]\n"
        " [-3.5 -2.5 -1.5]]\n"
        "kernel 1, channel 2:\n"
        "[[-0.5  0.5  1.5]\n"
        " [ 2.5  3.5  4.5]]\n"
    )


def test_show_prints_plain_arrays(succeed):
    np.save("k.npy", BLUR.astype(np.float32))
    out = succeed("show", "k.npy")
    assert out.startswith("k.npy: 1 kernel of 1x3x3 (float32)\nkernel 1, channel 1:\n[[0.0625")


def test_show_elides_what_is_too_much_to_read(succeed):
    np.save("k.npy", np.ones((64, 6, 20, 20)))
    out = succeed("show", "k.npy")
    assert len(out.splitlines()) < 200
    assert "..." in out
    assert "kernel 4, channel 4:" in out
    assert "kernel 5" not in out
    assert out.count("... and 2 more channels\n") == 4
    assert out.endswith("... and 60 more kernels\n")


def test_show_prints_strange_records_harmlessly(succeed):
    record = {"text": "\x1b[31mred\nline", "long": "x" * 500, "losses": ["a"], "nested": {"a": [1]}}
    save_kernels("k.npz", BLUR, record)
    lines = succeed("show", "k.npz").splitlines()[2:6]
    assert lines[0] == r'  text    "\u001b[31mred\nline"'
    assert len(lines[1]) == 100
    assert lines[1].endswith("xxx...")
    assert lines[2:] == ['  losses  ["a"]', '  nested  {"a": [1]}']


@pytest.mark.parametrize("width", [40, 80])
def test_show_fits_the_terminal(succeed, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    record = {"text": "x" * 500, "chinese": "卷" * 60, "losses": [0.5] * 9}
    save_kernels("k.npz", np.random.default_rng(0).normal(size=(1, 1, 9, 31)), record)
    lines = succeed("show", "k.npz").splitlines()
    assert max(map(columns, lines)) <= width
    assert lines[2].endswith("xxx...")
    assert lines[3].endswith("卷...")


def test_numbers_beyond_any_float_in_a_record_are_no_losses_and_no_bias(succeed):
    save_kernels("k.npz", BLUR, {"losses": [10**400], "bias": [10**400]})
    assert "  losses  [1000" in succeed("show", "k.npz")
    np.save("x.npy", np.ones((1, 9, 9)))
    succeed("apply", "k.npz", "x.npy", "y.npy")


def test_a_record_holds_the_losses_of_a_bounded_number_of_epochs(succeed, monkeypatch):
    succeed("train", "--epochs", "10", "--out", "all.npz")
    monkeypatch.setattr("convext.cli.train._MOST_LOSSES", 4)
    succeed("train", "--epochs", "10", "--out", "few.npz")
    complete, record = (load_kernels(file)[1] for file in ("all.npz", "few.npz"))
    assert record["losses"] == complete["losses"][::3]
    assert (record["losses_of_every"], record["num_epochs"]) == (3, 10)
    assert "losses_of_every" not in complete


@pytest.mark.parametrize("record", [{}, {"losses": [0.5, 0.25]}, {"losses": "none"}])
def test_show_plots(succeed, record, folder):
    save_kernels("k.npz", BLUR, record)
    assert succeed("show", "k.npz", "--plot", "k.svg").endswith("Plot: k.svg\n")
    has_losses = b"average loss" in (folder / "k.svg").read_bytes()
    assert has_losses == isinstance(record.get("losses"), list)


def test_show_refuses_what_it_cannot_plot(fail):
    save_kernels("k.npz", BLUR, {})
    assert "must end in one of .png, .pdf, .svg, got k.txt" in fail(
        "show", "k.npz", "--plot", "k.txt"
    )
    assert "k.npz would overwrite k.npz" in fail("show", "k.npz", "--plot", "k.npz")


@pytest.mark.parametrize("kind", BAD_FILES)
def test_show_refuses_bad_files(kind, fail, folder):
    contents, _, message = BAD_FILES[kind]
    (folder / "k.npz").write_bytes(contents)
    assert re.match(rf"convext: error: kernels \(k.npz\).*{message}", fail("show", "k.npz"))


# As a process


def test_the_module_is_the_command(folder):
    process = convext_process("train", "--epochs", "2", cwd=folder)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.decode().splitlines()[1].startswith("Epoch: 1, average loss: 0.")
    assert files() == ["kernels.npz"]
    process = convext_process("show", "nothing.npz")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert err == b"convext: error: nothing.npz: No such file or directory\n"


def test_a_reader_that_goes_is_no_error():
    np.save("k.npy", np.ones((4, 4, 10, 10)))
    read, write = os.pipe()
    os.close(read)
    process = convext_process("show", "k.npy", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_is_full_is_one_line_and_status_1():
    with open("/dev/full", "wb") as full:
        process = convext_process("info", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == b"convext: error: <stdout>: No space left on device\n"


def test_chinese_file_names_are_printed_in_any_encoding(folder):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CONVEXT_LANG": "zh"}
    process = convext_process("train", "--epochs", "1", "--out", "卷积.npz", env=environment)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert b"Epoch: 1, average loss" in out
    assert rb"Kernels: \u5377\u79ef.npz" in out
    assert files() == ["卷积.npz"]


def test_a_long_training_shows_a_bar_on_a_terminal(folder):
    terminal, side = pty.openpty()
    process = convext_process("train", "--epochs", "200", stdout=side)
    os.close(side)
    out = b""
    try:
        while chunk := os.read(terminal, 65536):
            out += chunk
    except OSError:  # Linux says that the other side is closed
        pass
    finally:
        os.close(terminal)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"200/200" in out
    assert b"Epoch:" not in out
    assert b"Kernels: kernels.npz" in out


COMMANDS_THAT_WRITE = {
    "train": ["train", "before.npy", "after.npy", "--out"],
    "train --plot": ["train", "before.npy", "after.npy", "--plot"],
    "solve": ["solve", "before.npy", "after.npy", "--kernel-shape", "3", "3", "--out"],
    "solve --plot": ["solve", "before.npy", "after.npy", "--kernel-shape", "3", "3", "--plot"],
    "generate": ["generate", "x.npy"],
    "apply": ["apply", "k.npz", "before.npy"],
    "show": ["show", "k.npz", "--plot"],
    "train-images": ["train-images", "folder", "folder", "--layers", "1x3", "--out"],
    "enhance": ["enhance", "model.npz", "before.png"],
}


@pytest.mark.parametrize("command", COMMANDS_THAT_WRITE)
def test_what_cannot_be_written_is_found_before_the_work(command, data, fail, monkeypatch):
    def work(*_, **__):
        raise AssertionError("the work was done")

    for name in (
        "train.train_model",
        "solve.find_filter",
        "apply.load_kernels",
        "show.load_kernels",
        "train_images.train_on_folders",
        "enhance.load_model",
    ):
        monkeypatch.setattr(f"convext.cli.{name}", work)
    monkeypatch.setattr("convext.ops.data._write_random", work)
    os.mkdir("taken.png")
    os.symlink("loop.png", "loop.png")
    os.symlink("loop.npy", "loop.npy")
    before = files()
    suffix = ".npy" if command == "apply" else ".png"
    for name, message in {
        f"loop{suffix}": "Too many levels of symbolic links",
        f"nowhere/file{suffix}": "its folder does not exist",
        f"{'x' * 252}{suffix}": "File name too long",
        **({} if command == "apply" else {"taken.png": "is a folder, expected a file"}),
    }.items():
        assert message in fail(*COMMANDS_THAT_WRITE[command], name)
    for name in ("", "new/"):
        fail(*COMMANDS_THAT_WRITE[command], name)
    assert files() == before
