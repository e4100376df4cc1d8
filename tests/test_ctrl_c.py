"""Ctrl-C ends every large operation soon.

Time is what this process takes of its CPUs, so that others on a busy machine do not count.
"""

from __future__ import annotations

import resource
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import convext
from convext._support.interruption import interruptible

LONGEST = 0.3


def images(*shape):
    return np.ones(shape, np.float32)


def kernel_of_rank_one(taps):
    return np.arange(1, taps + 1, dtype=np.float32)[:, None] * np.ones(taps, np.float32)


def training():
    layers = [convext.Conv2D(64, 9, activation="relu"), convext.Conv2D(1, 5)]
    model = convext.Sequential(layers)
    model.compile(convext.Adam(1e-9))
    x, y = images(8, 1, 256, 256), images(8, 1, 244, 244)
    return lambda: model.fit(x, y, epochs=100, verbose=0)


def convolution(shape, kernels, **options):
    x, k = images(*shape), np.ones(kernels, np.float32)
    x += np.arange(shape[-1]) % 7
    return lambda: [convext.conv2d(x, k, **options) for _ in range(50)]


def kernel_gradient(shape, grad, size, **options):
    x, g = images(*shape), images(*grad)
    return lambda: [convext.conv2d_kernel_grad(x, g, size, **options) for _ in range(50)]


def separable():
    x, k = images(1, 1, 3000, 3000), kernel_of_rank_one(31)[None, None]
    return lambda: [convext.conv2d(x, k) for _ in range(50)]


def input_gradient():
    g, k = images(1, 256, 300, 300), images(256, 64, 5, 5)
    return lambda: convext.conv2d_input_grad(g, k, (1, 64, 304, 304), algorithm="direct")


def outliers():
    x, k = images(1, 64, 400, 400), images(64, 64, 3, 3)
    x[:, :, ::4] = 1e8
    return lambda: [convext.conv2d(x, k) for _ in range(50)]


def statistics():
    x, y = images(1, 8, 400, 400), images(1, 1, 380, 380)
    return lambda: convext.solve_kernels(x, y, (21, 21))


WAYS = {
    "direct": lambda: convolution((1, 64, 400, 400), (256, 64, 5, 5), algorithm="direct"),
    "1x1": lambda: convolution((4, 512, 100, 100), (1024, 512, 1, 1)),
    "winograd": lambda: convolution((1, 64, 400, 400), (256, 64, 5, 5), algorithm="winograd"),
    "fft": lambda: convolution((1, 64, 400, 400), (256, 64, 5, 5), algorithm="fft"),
    "large kernels": lambda: convolution((1, 1, 1000, 1000), (4, 1, 101, 101)),
    "depthwise": lambda: convolution((2, 128, 300, 300), (128, 1, 9, 9), groups=128),
    "shifted sums": lambda: convolution((1, 1024, 100, 100), (3, 1024, 7, 7)),
    "separable": separable,
    "input gradient": input_gradient,
    "outliers": outliers,
    "kernel gradient": lambda: kernel_gradient(
        (1, 64, 300, 300), (1, 256, 296, 296), (5, 5), algorithm="direct"
    ),
    "kernel gradient, winograd": lambda: kernel_gradient(
        (1, 64, 300, 300), (1, 256, 298, 298), (3, 3), algorithm="winograd"
    ),
    "kernel gradient, depthwise": lambda: kernel_gradient(
        (4, 64, 200, 200), (4, 64, 192, 192), (9, 9), groups=64
    ),
    "statistics": statistics,
    "fit": training,
}
# A fraction of a second each.
QUICK = ("fft", "1x1", "fit")


class Alarm(BaseException):
    """What the handler raises, as that of Ctrl-C raises KeyboardInterrupt."""


def user_time():
    """Without that of the system, which clears memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


@contextmanager
def after(seconds):
    """Let the alarm go off in the block."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@pytest.fixture
def alarm(restored_num_threads):
    def ring(*_):
        raise Alarm

    convext.set_num_threads(1)
    before = signal.signal(signal.SIGVTALRM, ring)
    yield
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main one"
)
@pytest.mark.parametrize(
    "way", [way if way in QUICK else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]
)
def test_ctrl_c_ends_every_way(alarm, way):
    assert_it_ends_soon(WAYS[way]())


@pytest.mark.parametrize("way", ["fft", "fit"])
def test_ctrl_c_ends_the_work_of_several_threads(alarm, way):
    convext.set_num_threads(2)
    assert_it_ends_soon(WAYS[way]())


def assert_it_ends_soon(run):
    took = []
    for delay in (0.05, 0.2):
        start = user_time()
        with pytest.raises(Alarm), after(delay):
            run()
        took.append(user_time() - start - delay)
    assert min(took) < LONGEST


def test_ctrl_c_leaves_the_weights_of_a_finished_step(alarm):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 1, 60, 60), np.float32), images(400, 1, 50, 50)

    def new_model():
        layers = [convext.Conv2D(16, 7, activation="relu"), convext.Conv2D(1, 5)]
        model = convext.Sequential(layers, seed=1)
        model.compile(convext.SGD(0.01))
        model.build(1)
        return model

    expected, model = [], new_model()
    for i in range(len(x)):
        expected.append([weights.copy() for weights in model.get_weights()])
        model.train_on_batch(x[i : i + 1], y[i : i + 1])
    model = new_model()
    with pytest.raises(Alarm), after(0.01):
        model.fit(x, y, epochs=1, batch_size=1, shuffle=False, verbose=0)
    found = model.get_weights()
    steps = [all(map(np.array_equal, found, weights)) for weights in expected]
    assert any(steps)


def test_ctrl_c_need_not_wait_for_linear_algebra():
    release = threading.Event()
    main = threading.main_thread().ident
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda _: release.wait(60), np.empty((600, 600)))
    assert time.monotonic() - start < 30
    release.set()


def test_linear_algebra_in_another_thread_gives_the_same(monkeypatch):
    matrix = np.random.default_rng(0).standard_normal((600, 600))
    norm = interruptible(np.linalg.norm, matrix, ord="fro")
    assert norm == np.linalg.norm(matrix, ord="fro")
    with pytest.raises(np.linalg.LinAlgError):
        interruptible(np.linalg.cholesky, matrix)
