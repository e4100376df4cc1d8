"""What a training prints, and where."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import re
import sys
import threading
import time

import numpy as np
import pytest

import convext
from convext._support.messages import columns, format_loss, language, say
from convext.train import reader
from convext.train.epoch_report import EpochReport, format_epoch
from convext.train.progress import Progress, waiting

VARIABLES = ("CONVEXT_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
ENGLISH = "Epoch: 1, average loss: 0.2157, learning rate: 0.1, training time: 1.99 s"
CHINESE = "轮次: 1, 平均损失: 0.2157, 学习率: 0.1, 训练时间: 1.99秒"


def report(epoch=1, loss=0.2157, learning_rate=0.1, seconds=1.99):
    return EpochReport(epoch, loss, learning_rate, seconds, np.zeros((1, 1, 2, 2)))


@pytest.fixture
def environment(monkeypatch):
    """A function that sets the variables for the language, and only those given."""

    def set_variables(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    set_variables()
    return set_variables


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(monkeypatch, stdout, num_epochs, **options):
    """Show epochs on a standard output."""
    monkeypatch.setattr(sys, "stdout", stdout)
    with Progress(num_epochs, **options) as progress:
        for epoch in range(1, num_epochs + 1):
            progress.epoch(report(epoch, loss=1 / epoch))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_TW.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_MESSAGES": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "C", "LC_MESSAGES": "zh_CN.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "zh_CN", "LANG": "C"}, "zh"),
        ({"LC_ALL": "", "LANG": "zh_CN.UTF-8"}, "zh"),
        ({"CONVEXT_LANG": "zh", "LC_ALL": "C"}, "zh"),
        ({"CONVEXT_LANG": "zh_CN"}, "zh"),
        ({"CONVEXT_LANG": "ZH"}, "zh"),
        ({"CONVEXT_LANG": "en", "LC_ALL": "zh_CN.UTF-8"}, "en"),
        ({"CONVEXT_LANG": "", "LANG": "zh_CN.UTF-8"}, "zh"),
    ],
)
def test_the_language_is_that_of_the_first_variable_that_is_set(environment, variables, expected):
    environment(**variables)
    assert language() == expected


def test_an_epoch_in_chinese_has_the_format_of_the_textbook(environment):
    environment(CONVEXT_LANG="zh")
    assert format_epoch(report()) == CHINESE
    assert format_epoch(report(10, 3.2e-5, 0.05, 0.00089)) == (
        "轮次: 10, 平均损失: 3.2e-05, 学习率: 0.05, 训练时间: 0.00089秒"
    )


def test_an_epoch_in_english_is_alike(environment):
    environment(LANG="en_US.UTF-8")
    assert format_epoch(report()) == ENGLISH
    assert format_epoch(report(), "zh") == CHINESE


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (12.34567, "12.3457"),
        (0.001, "0.0010"),
        (0.00089, "0.00089"),
        (3.2e-5, "3.2e-05"),
        (1.23456e-9, "1.235e-09"),
        (0.0, "0"),
        (1.5e30, "1.5e+30"),
        (float("inf"), "inf"),
    ],
)
def test_small_and_large_losses_keep_their_digits(loss, expected):
    assert format_loss(loss) == expected
    assert f"average loss: {expected}," in format_epoch(report(loss=loss), "en")
    assert f"平均损失: {expected}," in format_epoch(report(loss=loss), "zh")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1.999, "2.00"),
        (0.1, "0.10"),
        (0.0456, "0.046"),
        (0.000891, "0.00089"),
        (8.52e-5, "0.000085"),
        (8.52e-6, "0.0000085"),
        (3e-6, "3e-06"),
        (0, "0"),
    ],
)
def test_short_times_keep_their_digits(seconds, expected):
    assert format_epoch(report(seconds=seconds), "en").endswith(f"training time: {expected} s")
    assert format_epoch(report(seconds=seconds), "zh").endswith(f"训练时间: {expected}秒")


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.1, "0.1"), (1.0, "1"), (1e-7, "1e-07"), (0.1 * 3, "0.3")]
)
def test_rates_are_as_short_as_they_can_be(rate, expected):
    assert f"learning rate: {expected}," in format_epoch(report(learning_rate=rate), "en")
    assert f"学习率: {expected}," in format_epoch(report(learning_rate=rate), "zh")


def test_a_pipe_gets_a_line_for_every_epoch(environment, monkeypatch):
    stdout = io.StringIO()
    show(monkeypatch, stdout, 50)
    lines = stdout.getvalue().splitlines()
    assert len(lines) == 50
    assert lines[0].startswith("Epoch: 1, average loss: 1.0000,")
    assert lines[49].startswith("Epoch: 50, average loss: 0.0200,")


def test_a_terminal_gets_lines_when_the_epochs_are_few(environment, monkeypatch):
    environment(CONVEXT_LANG="zh")
    stdout = Terminal()
    show(monkeypatch, stdout, 20)
    assert stdout.getvalue().count("\n") == 20
    assert stdout.getvalue().startswith("轮次: 1, 平均损失: 1.0000, 学习率: 0.1,")


@pytest.mark.parametrize(
    ("lang", "summary"), [("en", "loss: 0.0200, rate: 0.1"), ("zh", "损失: 0.0200, 学习率: 0.1")]
)
def test_a_terminal_gets_a_bar_when_the_epochs_are_many(environment, monkeypatch, lang, summary):
    environment(CONVEXT_LANG=lang, COLUMNS="100", LINES="40")
    stdout = Terminal()
    show(monkeypatch, stdout, 50)
    last = stdout.getvalue().rstrip().split("\r")[-1]
    assert last.startswith("100%")
    assert "50/50" in last
    assert summary in last
    assert stdout.getvalue().count("\n") == 1


def test_the_bar_is_closed_when_the_training_fails(environment, monkeypatch):
    stdout = Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(KeyboardInterrupt), Progress(100):
        raise KeyboardInterrupt
    assert stdout.getvalue().endswith("\n")


class Clock:
    """Time that passes when told, for what looks at it from another thread."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("convext.train.progress.time.monotonic", lambda: self.now)
        monkeypatch.setattr("convext.train.progress._SECONDS_BETWEEN_LOOKS", 0.001)


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize(
    ("lang", "bar"), [("en", "Epoch 2:  25%|"), ("zh", "第 2 轮:  25%|")]
)  # fmt: skip
def test_a_long_epoch_shows_a_bar_on_a_terminal(environment, monkeypatch, lang, bar):
    environment(CONVEXT_LANG=lang, COLUMNS="80", LINES="40")
    stdout, clock, threads = Terminal(), Clock(monkeypatch), threading.active_count()
    monkeypatch.setattr(sys, "stdout", stdout)
    with Progress(3, within=lambda: (30, 120)) as progress:
        progress.epoch(report(1))
        first = stdout.getvalue()
        assert first.endswith("1.99 s\n" if lang == "en" else "1.99秒\n")
        clock.now += 0.4  # not yet long
        time.sleep(0.02)
        assert stdout.getvalue() == first
        clock.now += 3.6
        wait_for(lambda: bar in stdout.getvalue())
        assert "30/120 [" in stdout.getvalue()
        progress.epoch(report(2))
        *_, cleared, line = stdout.getvalue().rstrip("\n").split("\r")
        assert cleared.isspace()
        assert line == format_epoch(report(2))
        clock.now += 9
    assert threading.active_count() == threads
    assert max(columns(text) for text in re.split(r"[\r\n]", stdout.getvalue())) <= 80


def test_the_bar_leaves_room_for_the_loss_on_a_narrow_terminal(environment, monkeypatch):
    environment(CONVEXT_LANG="en", COLUMNS="40", LINES="40")
    stdout = Terminal()
    show(monkeypatch, stdout, 50)
    lines = stdout.getvalue().rstrip().split("\r")
    assert "| 50/50 epochs, loss: 0.0200" in lines[-1]
    assert max(map(columns, lines)) <= 40


def test_a_long_epoch_moves_the_bar_of_many(environment, monkeypatch):
    environment(CONVEXT_LANG="en", COLUMNS="100", LINES="40")
    stdout, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(sys, "stdout", stdout)
    with Progress(50, within=lambda: (30, 120)) as progress:
        progress.epoch(report(1))
        clock.now += 4
        wait_for(lambda: "1.25/50 epochs" in stdout.getvalue())
        for epoch in range(2, 51):
            progress.epoch(report(epoch))
    assert "| 50/50 epochs [" in stdout.getvalue().split("\r")[-1]
    assert "Epoch" not in stdout.getvalue()


def test_an_epoch_of_unknown_length_shows_what_is_done(environment, monkeypatch):
    environment(CONVEXT_LANG="en", COLUMNS="80", LINES="40")
    stdout, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(sys, "stdout", stdout)
    with Progress(2, within=lambda: (30, None)):
        clock.now += 4
        wait_for(lambda: "30/? [" in stdout.getvalue())
    with Progress(50, within=lambda: (30, None)):
        clock.now += 4
        wait_for(lambda: "0/50 epochs" in stdout.getvalue())


def test_the_first_epoch_has_the_number_that_it_has_in_the_training(environment, monkeypatch):
    environment(CONVEXT_LANG="en", COLUMNS="80", LINES="40")
    stdout, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(sys, "stdout", stdout)
    progress = Progress(3, within=lambda: (30, 120))
    progress.first_epoch = 12
    with progress:
        clock.now += 4
        wait_for(lambda: "Epoch 13:  25%|" in stdout.getvalue())


def test_a_pipe_gets_no_bar_of_an_epoch(environment, monkeypatch):
    stdout, clock = io.StringIO(), Clock(monkeypatch)
    monkeypatch.setattr(sys, "stdout", stdout)
    with Progress(3, within=lambda: (30, 120)):
        clock.now += 4
        time.sleep(0.05)
    assert stdout.getvalue() == ""


def test_a_training_needs_no_thread_for_its_bar(environment, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    stdout = Terminal()
    show(monkeypatch, stdout, 3, within=lambda: (30, 120))
    assert stdout.getvalue().count("Epoch: ") == 3


def test_a_terminal_that_goes_ends_the_bar_quietly(environment, monkeypatch):
    class Gone(Terminal):
        def write(self, text):
            raise BrokenPipeError

    clock = Clock(monkeypatch)
    monkeypatch.setattr(sys, "stdout", Gone())
    progress = Progress(3, within=lambda: (30, 120))
    progress.__enter__()
    clock.now += 4
    wait_for(lambda: not progress._watcher.is_alive())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("method", ["direct", "statistics"])
@pytest.mark.parametrize(
    ("batch_size", "shuffle"), [(1, False), (3, False), (7, True), (99, False)]
)
def test_a_training_says_how_far_its_epoch_is(monkeypatch, fused, method, batch_size, shuffle):
    size = 8 if fused else 90
    rng = np.random.default_rng(0)
    data = rng.random((20, 3, size, size)), rng.random((20, 2, size - 1, size - 1))
    seen = []
    monkeypatch.setattr(
        "convext.train.loop.Progress", lambda *arguments: Spy(*arguments, seen.append)
    )
    convext.train_model(
        *data, 2, (2, 2), 0.01, 2, batch_size=batch_size, method=method, shuffle=shuffle
    )
    assert seen == [(0, 20), (20, 20), (20, 20)]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_network_says_how_far_its_epoch_is(monkeypatch, layers):
    x = np.random.default_rng(0).random((20, 1, 9, 9)).astype(np.float32)
    y, seen = x[:, :, layers:-layers, layers:-layers], []
    monkeypatch.setattr(
        "convext.train.loop.Progress", lambda *arguments: Spy(*arguments, seen.append)
    )
    model = convext.Sequential([convext.Conv2D(1, 3) for _ in range(layers)])
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=3, epochs=2)
    # A single small layer has its samples counted by compiled code, others their batches.
    assert seen == [(0, 20), (20, 20), (20, 20)] if layers == 1 else [(0, 7), (7, 7), (7, 7)]
    pairs = [(x[:8], y[:8]), (x[8:], y[8:])]
    for batches, options, first in (
        (lambda: iter(pairs), {}, None),
        (pairs, {}, 2),
        (itertools.cycle(pairs), {"steps_per_epoch": 2}, 2),
    ):
        seen.clear()
        model.fit(batches, epochs=2, **options)
        assert seen == [(0, first), (2, 2), (2, 2)]


class Spy(Progress):
    """Notes how far the epoch is, at the start and at the end of each."""

    def __init__(self, num_epochs, verbose, within, note):
        super().__init__(num_epochs, False, within)
        self._note = note
        note(within())

    def epoch(self, report):
        self._note(self._within())


def test_the_bar_moves_while_compiled_code_runs():
    rng = np.random.default_rng(0)
    data = rng.random((40, 3, 90, 90)), rng.random((40, 8, 80, 80))
    trainers = []
    make = reader.Trainer

    def keep(*arguments):
        trainers.append(make(*arguments))
        return trainers[0]

    seen, ended = [], threading.Event()

    def watch():
        while not ended.wait(0.001):
            seen.extend(trainer.done for trainer in trainers)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "Trainer", keep)
            convext.train_model(*data, 8, (11, 11), 1e-6, 1, batch_size=10, verbose=False)
    finally:
        ended.set()
        watcher.join()
    assert seen == sorted(seen)
    assert len({done for done in seen if 0 < done < 40}) >= 3


@pytest.mark.parametrize("stdout", [io.StringIO(), Terminal()])
def test_nothing_is_shown_when_not_verbose(environment, monkeypatch, stdout):
    show(monkeypatch, stdout, 50, verbose=False)
    assert stdout.getvalue() == ""


@pytest.mark.parametrize("errors", ["strict", "replace", "surrogateescape", "backslashreplace"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_cannot_hold_chinese_gets_english(
    environment, monkeypatch, encoding, errors
):
    environment(CONVEXT_LANG="zh")
    binary = io.BytesIO()
    show(monkeypatch, io.TextIOWrapper(binary, encoding, errors, write_through=True), 1)
    assert binary.getvalue().startswith(b"Epoch: 1, average loss: 1.0000,")


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16-le"])
def test_an_output_that_can_hold_chinese_gets_chinese(environment, monkeypatch, encoding):
    environment(CONVEXT_LANG="zh")
    binary = io.BytesIO()
    show(monkeypatch, io.TextIOWrapper(binary, encoding, write_through=True), 1)
    assert binary.getvalue().decode(encoding).startswith("轮次: 1, 平均损失: 1.0000,")


def test_no_output_at_all_is_no_error(environment, monkeypatch):
    show(monkeypatch, None, 50)
    say("nobody listens")


def test_say_escapes_what_the_output_cannot_hold(monkeypatch):
    binary = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, "ascii", write_through=True))
    say("卷: 1")
    assert binary.getvalue() == b"\\u5377: 1\n"


def test_a_bar_whose_output_is_gone_keeps_no_other_waiting(monkeypatch):
    """Even while the thread that had it is still there."""
    done, end = threading.Event(), threading.Event()

    def show(output, after=lambda: None):
        output.isatty = lambda: True
        monkeypatch.setattr(sys, "stdout", output)
        with contextlib.suppress(OSError), waiting("Waiting") as tick:
            tick()
        done.set()
        after()

    full = io.StringIO()
    full.write = lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    first = threading.Thread(target=show, args=(full, end.wait), daemon=True)
    first.start()
    assert done.wait(10)
    terminal = io.StringIO()
    second = threading.Thread(target=show, args=(terminal,), daemon=True)
    second.start()
    second.join(10)
    end.set()
    assert not second.is_alive()
    assert "Waiting" in terminal.getvalue()
