"""`train_model` against the same loop written with the reference, and what it does when it ends."""

from __future__ import annotations

import pickle
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import reference

import convext
from convext import schedules
from convext.train import _training

TEXTBOOK_LOSSES = {2: 0.09680613394690772, 3: 0.0915034337251447, 10: 0.0902538192605756}


def textbook_data():
    rng = np.random.RandomState(0)
    inputs = rng.rand(100, 3, 28, 28)
    targets = rng.rand(100, 2, 27, 27)
    return inputs, targets, rng.rand(2, 3, 2, 2)


def plain_training(inputs, targets, kernels, rates, batch_size=1, **options):
    """Gradient descent as the textbook has it; returns the kernels and the losses of the epochs."""
    kernels = np.array(kernels, np.float64)
    losses = []
    for rate in rates:
        squares = 0.0
        for first in range(0, len(inputs), batch_size):
            batch, target = (a[first : first + batch_size] for a in (inputs, targets))
            predicted = reference.conv2d(batch, kernels, **options).astype(np.float64)
            residual = predicted - target
            squares += np.sum(residual**2)
            gradient = reference.conv2d_kernel_grad(
                batch, 2 * residual / residual.size, kernels.shape[2:], **options
            )
            kernels -= rate * gradient.astype(np.float64)
        losses.append(squares / targets.size)
    return kernels, losses


def train(*args, **options):
    """Train silently; return the kernels and the history."""
    history = convext.History()
    kernels = convext.train_model(*args, callbacks=[history], verbose=False, **options)
    return kernels, history


def small_data(samples=7, channels=2, num_kernels=3, kernel_shape=(3, 2), seed=0, **options):
    rng = np.random.default_rng(seed)
    inputs = rng.random((samples, channels, 9, 8))
    kernels = rng.random((num_kernels, channels, *kernel_shape))
    output = reference.conv2d(inputs, kernels, **options)
    return inputs, rng.random(output.shape), kernels


def test_the_textbook_program_has_the_textbook_losses(isa):
    inputs, targets, start = textbook_data()
    kernels, history = train(inputs, targets, 2, (2, 2), 0.1, 10, kernels=start)
    for epoch, loss in TEXTBOOK_LOSSES.items():
        assert history.loss[epoch - 1] == pytest.approx(loss, rel=1e-12)
    assert kernels.dtype == np.float64


def test_small_samples_agree_with_plain_loops_whatever_the_shape(isa):
    """Kernels and channels below, at and above whole vectors, and windows up to 7x7.

    Samples of this size are taken in one go, whichever way their gradient would go otherwise.
    """
    rng = np.random.default_rng(17)
    for _ in range(60):
        channels, num_kernels = rng.integers(1, 4), rng.choice([1, 3, 4, 7, 8, 9, 14, 16, 17, 33])
        kernel_shape = rng.integers(1, 8, 2)
        height, width = kernel_shape + rng.integers(0, 22, 2)
        samples, batch_size = rng.integers(1, 6), int(rng.integers(1, 4))
        dtype, precision = [(np.float32, 2e-4), (np.float64, 1e-11)][rng.integers(2)]
        inputs = rng.standard_normal((samples, channels, height, width)).astype(dtype)
        start = rng.standard_normal((num_kernels, channels, *kernel_shape)).astype(dtype)
        output_shape = reference.conv2d(inputs[:1], start).shape[1:]
        targets = rng.standard_normal((samples, *output_shape)).astype(dtype)
        expected, losses = plain_training(inputs, targets, start, [0.01] * 3, batch_size)
        kernels, history = train(
            inputs, targets, num_kernels, tuple(kernel_shape), 0.01, 3,
            kernels=start, batch_size=batch_size, method="direct",
        )  # fmt: skip
        np.testing.assert_allclose(history.loss, losses, rtol=precision)
        np.testing.assert_allclose(kernels, expected, rtol=precision, atol=precision)


@pytest.mark.parametrize("method", ["direct", "statistics"])
@pytest.mark.parametrize(
    ("channels", "num_kernels", "size", "kernel_shape"),
    [(1, 16, 40, (7, 7)), (2, 15, 27, (4, 7)), (3, 2, 40, (5, 5)), (16, 8, 24, (3, 2))],
)
def test_a_last_batch_that_is_shorter_agrees_with_plain_loops(
    channels, num_kernels, size, kernel_shape, method, isa
):
    """Of a whole batch, the kernel gradient is summed in more segments than the last has tiles."""
    rng = np.random.default_rng(8)
    inputs = rng.standard_normal((9, channels, size, size))
    start = rng.standard_normal((num_kernels, channels, *kernel_shape))
    targets = rng.standard_normal(reference.conv2d(inputs, start).shape)
    rate = 0.1 / start[0].size
    expected, losses = plain_training(inputs, targets, start, [rate] * 2, 8)
    kernels, history = train(
        inputs, targets, num_kernels, kernel_shape, rate, 2,
        kernels=start, batch_size=8, method=method,
    )  # fmt: skip
    np.testing.assert_allclose(history.loss, losses, rtol=1e-9)
    np.testing.assert_allclose(kernels, expected, rtol=1e-9, atol=1e-11)


def test_the_textbook_program_agrees_with_plain_loops():
    inputs, targets, start = textbook_data()
    kernels, history = train(inputs, targets, 2, (2, 2), 0.1, 3, kernels=start)
    expected, losses = plain_training(inputs, targets, start, [0.1] * 3)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(kernels, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"stride": (1, 3), "padding": 2},
        {"padding": "same"},
        {"dilation": (2, 3), "padding": ((1, 0), (2, 3))},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_options_and_batches_agree_with_plain_loops(batch_size, options):
    inputs, targets, start = small_data(**options)
    kernels, history = train(
        inputs, targets, 3, (3, 2), 0.05, 4, kernels=start, batch_size=batch_size, **options
    )
    expected, losses = plain_training(inputs, targets, start, [0.05] * 4, batch_size, **options)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(kernels, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("num_kernels", "kernel_shape", "padding"),
    [(1, (3, 3), 1), (1, (5, 5), 0), (70, (2, 2), 0), (2, (1, 6), (0, 3)), (15, (4, 1), 2)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_samples_of_any_size_agree_with_plain_loops(
    num_kernels, kernel_shape, padding, dtype, isa
):
    rng = np.random.default_rng(4)
    inputs = rng.random((3, 2, 33, 29)).astype(dtype)
    start = rng.random((num_kernels, 2, *kernel_shape)).astype(dtype)
    targets = rng.random(reference.conv2d(inputs, start, padding=padding).shape).astype(dtype)
    kernels, history = train(
        inputs, targets, num_kernels, kernel_shape, 0.05, 3, kernels=start, padding=padding
    )
    expected, losses = plain_training(inputs, targets, start, [0.05] * 3, padding=padding)
    precise = dtype == np.float64
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12 if precise else 1e-5)
    np.testing.assert_allclose(kernels, expected, rtol=1e-11 if precise else 1e-4)


def test_a_batch_too_large_for_its_predictions_to_be_kept_is_taken_in_parts():
    rng = np.random.default_rng(1)
    inputs = rng.random((5, 1, 700, 900))
    targets = rng.random((5, 2, 700, 900))
    start = rng.random((2, 1, 1, 1))
    kernels, history = train(inputs, targets, 2, (1, 1), 0.5, 2, kernels=start, batch_size=4)
    expected, losses = plain_training(inputs, targets, start, [0.5] * 2, 4)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(kernels, expected, rtol=1e-11)


def test_float32_data_are_trained_in_float32():
    inputs, targets, start = small_data()
    inputs, targets = inputs.astype(np.float32), targets.astype(np.float32)
    kernels, history = train(inputs, targets, 3, (3, 2), 0.05, 4, kernels=start.astype("f4"))
    expected, losses = plain_training(inputs, targets, start, [0.05] * 4)
    assert kernels.dtype == np.float32
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(kernels, expected, rtol=1e-4)


def test_generated_kernels_take_the_type_of_the_data():
    inputs, targets, _ = small_data()
    single, _ = train(inputs.astype("f4"), targets.astype("f4"), 3, (3, 2), 0.05, 1, seed=3)
    double, _ = train(inputs.astype("f4"), targets, 3, (3, 2), 0.05, 1, seed=3)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_result_has_the_same_bits_for_any_number_of_threads(batch_size, dtype, isa):
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((16, 8, 40, 50)).astype(dtype)
    targets = rng.standard_normal((16, 12, 38, 48)).astype(dtype)
    start = rng.standard_normal((12, 8, 3, 3)).astype(dtype)
    results = [
        train(
            inputs, targets, 12, (3, 3), 0.01, 2,
            kernels=start, batch_size=batch_size, num_threads=threads,
        )
        for threads in (1, 2, 5)
    ]  # fmt: skip
    for kernels, history in results[1:]:
        assert kernels.tobytes() == results[0][0].tobytes()
        assert history.loss == results[0][1].loss


def test_arrays_and_files_train_alike(tmp_path):
    inputs, targets, start = small_data()
    np.save(tmp_path / "before.npy", inputs)
    np.savez(tmp_path / "after.npz", targets)
    from_arrays, _ = train(inputs, targets, 3, (3, 2), 0.05, 3, kernels=start)
    from_files, _ = train(
        str(tmp_path / "before.npy"), tmp_path / "after.npz", 3, (3, 2), 0.05, 3, kernels=start
    )
    assert from_files.tobytes() == from_arrays.tobytes()


def test_a_single_sample_may_have_three_dimensions():
    inputs, targets, start = small_data(samples=1)
    three, _ = train(inputs[0], targets[0], 3, (3, 2), 0.05, 3, kernels=start)
    four, _ = train(inputs, targets, 3, (3, 2), 0.05, 3, kernels=start)
    assert three.tobytes() == four.tobytes()


def test_other_layouts_of_the_data_change_nothing():
    inputs, targets, start = small_data()
    expected, _ = train(inputs, targets, 3, (3, 2), 0.05, 3, kernels=start)
    swapped = inputs.astype(inputs.dtype.newbyteorder())
    fortran = np.asfortranarray(targets)
    flipped = start[..., ::-1].copy()[..., ::-1]
    for array in (swapped, fortran, flipped):
        array.setflags(write=False)
    kernels, _ = train(swapped, fortran, 3, (3, 2), 0.05, 3, kernels=flipped)
    assert kernels.tobytes() == expected.tobytes()


def test_the_kernels_to_start_from_are_not_changed():
    inputs, targets, start = small_data()
    before = start.copy()
    kernels, _ = train(inputs, targets, 3, (3, 2), 0.05, 1, kernels=start)
    np.testing.assert_array_equal(start, before)
    assert not np.shares_memory(kernels, start)


def test_a_seed_makes_the_training_repeatable():
    inputs, targets, _ = small_data()

    def run(seed):
        kernels, _ = train(inputs, targets, 3, (3, 2), 0.05, 2, seed=seed, shuffle=True)
        return kernels.tobytes()

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_shuffling_takes_every_sample_once_in_an_order_that_changes():
    # At a tiny rate the loss of an epoch is nearly that of all samples with the first kernels,
    # whatever their order, but only if each is taken once.
    inputs, targets, start = small_data()
    in_order, plain = train(inputs, targets, 3, (3, 2), 1e-3, 1, kernels=start)
    shuffled, mixed = train(
        inputs, targets, 3, (3, 2), 1e-3, 1, kernels=start, shuffle=True, seed=1
    )
    assert shuffled.tobytes() != in_order.tobytes()
    assert mixed.loss[0] == pytest.approx(plain.loss[0], rel=1e-2)
    np.testing.assert_allclose(shuffled, in_order, rtol=1e-2)


def test_a_schedule_gives_the_rate_of_each_epoch_from_0():
    inputs, targets, start = small_data()
    asked = []

    def schedule(epoch):
        asked.append(epoch)
        return 0.05 / (epoch + 1)

    kernels, history = train(inputs, targets, 3, (3, 2), schedule, 4, kernels=start)
    rates = [0.05, 0.025, 0.05 / 3, 0.0125]
    expected, _ = plain_training(inputs, targets, start, rates)
    assert asked == [0, 1, 2, 3]
    assert history.learning_rate == rates
    np.testing.assert_allclose(kernels, expected, rtol=1e-11)


def test_a_schedule_that_watches_the_loss_is_told_it_and_starts_afresh():
    inputs, targets, start = small_data()
    schedule = schedules.reduce_on_plateau(0.05, factor=0.5, patience=1, min_delta=0.9)
    rates = []
    for _ in range(2):
        _, history = train(inputs, targets, 3, (3, 2), schedule, 3, kernels=start)
        rates.append(history.learning_rate)
    assert rates == [[0.05, 0.05, 0.025]] * 2


def test_a_rate_of_zero_measures_the_loss():
    inputs, targets, start = small_data()
    kernels, history = train(inputs, targets, 3, (3, 2), 0, 1, kernels=start)
    expected = reference.conv2d(inputs, start)
    np.testing.assert_array_equal(kernels, start)
    assert history.loss[0] == pytest.approx(np.mean((expected - targets) ** 2), rel=1e-12)


def test_callbacks_are_told_of_every_epoch():
    inputs, targets, start = small_data()
    reports = []
    kernels = convext.train_model(
        inputs, targets, 3, (3, 2), 0.05, 3, kernels=start, callbacks=[reports.append],
        verbose=False,
    )  # fmt: skip
    expected, losses = plain_training(inputs, targets, start, [0.05])
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert all(report.seconds > 0 and report.learning_rate == 0.05 for report in reports)
    assert reports[0].loss == pytest.approx(losses[0], rel=1e-12)
    np.testing.assert_allclose(reports[0].kernels, expected, rtol=1e-11)
    np.testing.assert_array_equal(reports[-1].kernels, kernels)


def test_a_callback_can_stop_the_training():
    inputs, targets, start = small_data()

    def stop_after_two(report):
        if report.epoch == 2:
            raise convext.StopTraining

    history = convext.History()
    kernels = convext.train_model(
        inputs, targets, 3, (3, 2), 0.05, 50, kernels=start, callbacks=[history, stop_after_two],
        verbose=False,
    )  # fmt: skip
    expected, _ = train(inputs, targets, 3, (3, 2), 0.05, 2, kernels=start)
    assert history.epoch == [1, 2]
    assert kernels.tobytes() == expected.tobytes()


def test_an_epoch_is_printed_in_the_language_of_the_environment(monkeypatch, capsys):
    inputs, targets, start = small_data()
    lines = []
    for lang in ("zh_CN", "en"):
        monkeypatch.setenv("CONVEXT_LANG", lang)
        convext.train_model(inputs, targets, 3, (3, 2), 0.05, 1, kernels=start)
        lines.append(capsys.readouterr().out)
    _, losses = plain_training(inputs, targets, start, [0.05])
    assert lines[0].startswith(f"轮次: 1, 平均损失: {losses[0]:.4f}, 学习率: 0.05, 训练时间: ")
    assert lines[1].startswith(f"Epoch: 1, average loss: {losses[0]:.4f}, learning rate: 0.05, ")


def hessian_eigenvalue(batch, num_kernels, kernel_shape):
    """The largest eigenvalue of the loss's Hessian, from the matrix of all patches."""
    windows = np.lib.stride_tricks.sliding_window_view(batch, kernel_shape, axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(
        -1, batch.shape[1] * np.prod(kernel_shape)
    )
    return np.linalg.eigvalsh(2 * patches.T @ patches / (len(patches) * num_kernels))[-1]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_divergence_names_the_largest_stable_rate(batch_size):
    inputs, targets, start = small_data()
    with pytest.raises(convext.DivergenceError, match=r"diverged.*learning_rate up to") as caught:
        train(inputs, targets, 3, (3, 2), 50.0, 20, kernels=start, batch_size=batch_size)
    batches = [inputs[i : i + batch_size] for i in range(0, 7, batch_size)]
    expected = 2 / max(hessian_eigenvalue(batch, 3, (3, 2)) for batch in batches)
    stable = caught.value.stable_learning_rate
    assert stable == pytest.approx(expected, rel=1e-12)
    _, history = train(inputs, targets, 3, (3, 2), stable, 200, kernels=start, batch_size=7)
    assert history.loss[-1] < history.loss[0]


def test_just_above_the_largest_stable_rate_the_full_batch_diverges():
    inputs, targets, start = small_data()
    rate = 2 / hessian_eigenvalue(inputs, 3, (3, 2))
    _, history = train(inputs, targets, 3, (3, 2), 0.95 * rate, 2000, kernels=start, batch_size=7)
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(convext.DivergenceError):
        train(inputs, targets, 3, (3, 2), 1.05 * rate, 2000, kernels=start, batch_size=7)


@pytest.mark.parametrize("rate", [20.0, 1e6, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_carries_the_last_kernels_with_a_finite_loss(rate, dtype):
    inputs, targets, start = (array.astype(dtype) for array in small_data())
    with pytest.raises(convext.DivergenceError) as caught:
        train(inputs, targets, 3, (3, 2), rate, 500, kernels=start)
    error = caught.value
    assert error.kernels.shape == start.shape
    assert np.isfinite(convext.mse_loss(convext.conv2d(inputs, error.kernels), targets))
    assert error.learning_rate == rate
    assert error.epoch >= 1
    assert not error.loss < 1e3


def test_a_rate_that_shrinks_in_time_is_no_divergence():
    inputs, targets, start = small_data()
    rates = [1.0, *[0.05] * 400]
    _, history = train(inputs, targets, 3, (3, 2), rates.__getitem__, 300, kernels=start / 10)
    assert max(history.loss) > 2 * history.loss[-1]


def test_a_divergence_error_survives_pickling():
    error = convext.DivergenceError(
        "diverged", kernels=np.ones((1, 1, 1, 1)), epoch=3, loss=np.inf, learning_rate=9.0,
        stable_learning_rate=0.5,
    )  # fmt: skip
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.epoch, copy.stable_learning_rate) == ("diverged", 3, 0.5)


class AlarmError(Exception):
    pass


@contextmanager
def alarm_after(seconds):
    """Raise AlarmError from a signal handler, as Ctrl-C raises KeyboardInterrupt."""

    def handler(*_):
        raise AlarmError(time.monotonic())

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 500])
def test_a_signal_ends_an_epoch_that_would_take_minutes(batch_size, num_threads):
    # Samples that repeat without taking memory.
    inputs = np.broadcast_to(np.ones((16, 64, 64), np.float32), (500, 16, 64, 64))
    targets = np.broadcast_to(np.ones((64, 60, 60), np.float32), (500, 64, 60, 60))
    trainer = _training.Trainer(
        inputs, targets, np.zeros((64, 16, 5, 5), np.float32), batch_size,
        ((1, 1), (0, 0), (1, 1), 1), num_threads, convext.SGD().make_update([[25600]], np.float32),
    )  # fmt: skip
    order = np.arange(500).repeat(200)
    with alarm_after(0.3), pytest.raises(AlarmError) as caught:
        trainer.run_epoch(order, 0.0)
    assert time.monotonic() - caught.value.args[0] < 5


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_signal_ends_a_single_operation_that_would_take_minutes(num_threads):
    image = np.broadcast_to(np.float32(1), (64, 2000, 2000))
    kernels = np.broadcast_to(np.float32(1), (64, 64, 31, 31))
    gradient = np.broadcast_to(np.float32(1), (64, 1970, 1970))
    for operation in (
        lambda: convext.conv2d(image, kernels, num_threads=num_threads),
        lambda: convext.conv2d_input_grad(gradient, kernels, image.shape, num_threads=num_threads),
        lambda: convext.conv2d_kernel_grad(image, gradient, (31, 31), num_threads=num_threads),
    ):
        with alarm_after(0.3), pytest.raises(AlarmError) as caught:
            operation()
        assert time.monotonic() - caught.value.args[0] < 5


BAD_ARGUMENTS = [
    ({"num_kernels": 0}, ValueError, r"num_kernels must be at least 1, got 0"),
    ({"num_kernels": 2.0}, TypeError, r"num_kernels must be an integer"),
    ({"num_kernels": 4}, ValueError, r"target_output must have the shape \(7, 4, 7, 7\)"),
    ({"kernel_shape": (3, 0)}, ValueError, r"kernel_shape\[1\] must be at least 1"),
    ({"kernel_shape": (3,)}, ValueError, r"kernel_shape must be an integer or \(kh, kw\)"),
    ({"kernel_shape": True}, TypeError, r"kernel_shape must be an integer or \(kh, kw\)"),
    ({"kernel_shape": (10, 2)}, ValueError, r"kernels of 10x2 do not fit input_data of 9x8"),
    ({"kernel_shape": (2, 2)}, ValueError, r"target_output must have the shape \(7, 3, 8, 7\)"),
    ({"kernel_shape": (2**40, 2**40)}, ValueError, r"kernel_shape would be too large"),
    ({"learning_rate": float("nan")}, ValueError, r"learning_rate must be finite"),
    ({"learning_rate": float("inf")}, ValueError, r"learning_rate must be finite"),
    ({"learning_rate": -0.1}, ValueError, r"learning_rate must be at least 0"),
    ({"learning_rate": "0.1"}, TypeError, r"learning_rate must be a number"),
    ({"learning_rate": lambda epoch: np.nan}, ValueError, r"learning_rate\(0\) must be finite"),
    ({"num_epochs": 0}, ValueError, r"num_epochs must be at least 1"),
    ({"num_epochs": -3}, ValueError, r"num_epochs must be at least 1"),
    ({"num_epochs": 1.5}, TypeError, r"num_epochs must be an integer"),
    ({"num_epochs": 2**70}, ValueError, r"num_epochs is too large"),
    ({"batch_size": 0}, ValueError, r"batch_size must be at least 1"),
    ({"batch_size": -1}, ValueError, r"batch_size must be at least 1"),
    ({"batch_size": 2.5}, TypeError, r"batch_size must be an integer"),
    ({"batch_size": 2**70}, ValueError, r"batch_size is too large"),
    ({"stride": 0}, ValueError, r"stride must be at least 1"),
    ({"dilation": -1}, ValueError, r"dilation must be at least 1"),
    ({"padding": -1}, ValueError, r"padding must be at least 0"),
    ({"padding": "full"}, ValueError, r"padding must be .*'full'"),
    ({"num_threads": 0}, ValueError, r"num_threads must be at least 1"),
    ({"num_threads": 10**6}, ValueError, r"num_threads must be at most 1024"),
    ({"seed": -1}, ValueError, r"seed must be at least 0"),
    ({"seed": 1.5}, TypeError, r"seed must be an integer"),
    ({"callbacks": print}, TypeError, r"callbacks must be a sequence"),
    ({"callbacks": [3]}, TypeError, r"callbacks must be callable, got 3"),
    ({"callbacks": [convext.EarlyStopping]}, TypeError, r"got the class EarlyStopping: make one"),
    ({"callbacks": [convext.History]}, TypeError, r"callbacks must be objects, .*History\(\)"),
    ({"kernels": np.ones((3, 2, 3, 3))}, ValueError, r"kernels must have the shape \(3, 2, 3, 2\)"),
    ({"kernels": np.ones((3, 2, 3))}, ValueError, r"kernels must have the shape .*3 dimensions"),
    ({"kernels": np.full((3, 2, 3, 2), np.nan)}, ValueError, r"kernels contains 36 values"),
    ({"kernels": np.ones((3, 2, 3, 2), complex)}, TypeError, r"kernels must hold real numbers"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_ARGUMENTS)
def test_a_bad_argument_is_named(change, error, message):
    inputs, targets, _ = small_data()
    arguments = {"num_kernels": 3, "kernel_shape": (3, 2), "num_epochs": 1, "verbose": False}
    with pytest.raises(error, match=message):
        convext.train_model(inputs, targets, **{**arguments, **change})


BAD_DATA = [
    (lambda x, y: (x[:, 0], y), ValueError, r"target_output must have the shape \(K, OH, OW\)"),
    (lambda x, y: (x[0, 0], y), ValueError, r"input_data must have the shape"),
    (lambda x, y: (x, y[0]), ValueError, r"target_output must have the shape \(N, K, OH, OW\)"),
    (lambda x, y: (x[:6], y), ValueError, r"input_data has 6 samples but target_output has 7"),
    (lambda x, y: (x[:0], y[:0]), ValueError, r"input_data is empty: N is 0"),
    (lambda x, y: (x[:, :0], y), ValueError, r"input_data is empty: C is 0"),
    (lambda x, y: (x[:, :, :0], y), ValueError, r"input_data is empty: H is 0"),
    (lambda x, y: (x[..., :0], y), ValueError, r"input_data is empty: W is 0"),
    (lambda x, y: (x, y[:, :0]), ValueError, r"target_output is empty: K is 0"),
    (lambda x, y: (x, y[..., 1:]), ValueError, r"target_output must have the shape \(7, 3, 7, 7\)"),
    (lambda x, y: (x.astype(complex), y), TypeError, r"input_data must hold real numbers"),
    (lambda x, y: (x.astype(object), y), TypeError, r"input_data must hold real numbers"),
    (lambda x, y: (x, y.astype(str)), TypeError, r"target_output must hold real numbers"),
    (lambda x, y: (x, y.astype("M8[s]")), TypeError, r"target_output must hold real numbers"),
    (lambda x, y: ("before.npy", y), TypeError, r"must be two paths or two arrays"),
    (lambda x, y: (["x-0.npy"], y), TypeError, r"input_data .* got a list of names: .* pattern"),
    (lambda x, y: (x, (Path("y-0.npy"),)), TypeError, r"target_output .* got a tuple of names"),
    (lambda x, y: ({"x": x}, y), TypeError, r"input_data must be one array, got a dict with names"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_DATA)
def test_bad_data_are_named(change, error, message):
    inputs, targets, _ = small_data()
    with pytest.raises(error, match=message):
        convext.train_model(*change(inputs, targets), 3, (3, 2), verbose=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found_before_training(value, tmp_path):
    inputs, targets, _ = small_data()
    inputs[3, 1, 2, 4] = inputs[5, 0, 0, 0] = value
    before, after = tmp_path / "before.npy", tmp_path / "after.npy"
    np.save(before, inputs)
    np.save(after, targets)
    message = (
        r"before\.npy\) contains 2 values that are NaN or infinite, the first at \(3, 1, 2, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        convext.train_model(before, after, 3, (3, 2), verbose=False)
    message = r"target_output contains 2 values .* first at \(3, 1, 2, 4\)"
    with pytest.raises(ValueError, match=message):
        convext.train_model(targets[:, :2], inputs, 2, (1, 1), padding=((1, 1), (0, 1)))


def test_a_missing_file_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no_such_file\.npy"):
        convext.train_model(tmp_path / "no_such_file.npy", tmp_path / "other.npy", 1, (1, 1))
