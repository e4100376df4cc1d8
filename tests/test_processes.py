"""Processes: what a forked child can do, and who may limit the threads of a process."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import joblib
import numpy as np
import pytest
import threadpoolctl

import convext
from convext._support.sharing import lock_of_process

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def run_in_children(count, function, *arguments):
    """Call a function in forked children at the same time, and return what each returned."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]

    def send(sender):
        sender.send(function(*arguments))

    children = [context.Process(target=send, args=(sender,)) for _, sender in pipes]
    try:
        for child in children:
            child.start()
        results = []
        for receiver, _ in pipes:
            assert receiver.poll(60), "the child hangs"
            results.append(receiver.recv())
        for child in children:
            child.join(60)
            assert child.exitcode == 0
    finally:
        for child in children:
            if child.pid is not None:
                child.kill()
                child.join()
    return results


def most_threads_during(function):
    """Return what a function returns, and how many threads there were at most meanwhile.

    Neither that of the caller counts, nor the one that looks.
    """
    most, ended = [0], Event()

    def look():
        while not ended.is_set():
            most.append(len(os.listdir("/proc/self/task")) - 2)

    looking = Thread(target=look)
    looking.start()
    try:
        result = function()
    finally:
        ended.set()
        looking.join()
    return result, max(most)


def computed():
    """Return what operations and trainings on three threads find."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 16, 40, 40)), rng.standard_normal((16, 16, 3, 3))
    value = convext.conv2d(x, w, num_threads=3)
    found = [
        value,
        convext.conv2d_kernel_grad(x, value, (3, 3), num_threads=3),
        convext.conv2d_input_grad(value, w, x.shape, num_threads=3),
    ]
    x, y = rng.standard_normal((6, 2, 24, 24)), rng.standard_normal((6, 4, 22, 22))
    options = {"batch_size": 6, "num_threads": 3, "verbose": False}
    found.append(convext.train_model(x, y, 4, 3, 1e-3, 3, seed=1, **options))
    model = convext.Sequential([convext.Conv2D(4, 3, activation="relu")], seed=1)
    model.compile()
    model.fit(x, y, epochs=2, **options)
    return [*found, *model.get_weights()]


def same_bits(arrays, others):
    """Tell whether the arrays of two lists are equal bit for bit."""
    return [a.tobytes() for a in arrays] == [b.tobytes() for b in others]


@can_fork
@pytest.mark.parametrize("generations", [1, 2])
def test_forked_children_compute_after_their_parent_used_threads(generations):
    expected = computed()

    def compute(generation):
        if generation < generations:
            return run_in_children(1, compute, generation + 1)[0]
        return computed()

    for results in run_in_children(8 // generations, compute, 1):
        assert same_bits(results, expected)
    assert same_bits(computed(), expected)


@can_fork
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux shows them")
@pytest.mark.openmp
def test_forked_children_use_their_threads():
    x, w = np.ones((8, 32, 64, 64)), np.ones((32, 32, 3, 3))
    convext.conv2d(x, w, num_threads=3)

    def count(num_threads):
        def compute():
            for _ in range(20):
                convext.conv2d(x, w, num_threads=num_threads)

        return most_threads_during(compute)[1]

    assert run_in_children(1, count, 1) == [0]
    assert run_in_children(1, count, 3) == [2]


@can_fork
def test_what_a_thread_did_to_an_object_does_not_hinder_a_forked_child():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((4, 1, 12, 12)), rng.standard_normal((4, 1, 10, 10))
    model = convext.Sequential([convext.Conv2D(1, 3)], seed=1)
    model.compile(convext.SGD(1e-3))
    model.fit(x, y, verbose=0)
    statistics = convext.PatchStatistics(1, 1, 3)
    statistics.update(x, y)
    begun, ended = Event(), Event()

    def wait(*_):
        begun.set()
        ended.wait(60)

    def use():
        model.fit(x, y, epochs=1, verbose=0)
        return statistics.solve().kernels

    def refuses_to_fit():
        with pytest.raises(RuntimeError, match="while predict is under way"):
            model.fit(x, y, verbose=0)
        return True

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(model.fit, x, y, verbose=0, callbacks=[wait])
        try:
            assert begun.wait(60)
            with pytest.raises(RuntimeError, match="in another thread"):
                model.fit(x, y, verbose=0)
            (kernels,) = run_in_children(1, use)
            # What is under way in the thread that forks stays.
        finally:
            ended.set()
        training.result(60)
    # What the thread that forks has under way stays.
    with model._guard.reading("predict"):
        assert run_in_children(1, refuses_to_fit) == [True]
    assert np.array_equal(kernels, statistics.solve().kernels)


@can_fork
def test_a_lock_of_the_process_is_free_in_a_forked_child():
    lock = lock_of_process()
    held = Event()

    def hold():
        with lock:
            held.set()
            time.sleep(0.2)

    def acquire():
        with lock:
            return True

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert held.wait(60)
        assert run_in_children(1, acquire) == [True]
    with lock:
        assert run_in_children(1, acquire) == [True]


# ---------------------------------------------------------------- limits from outside


@pytest.fixture
def three_threads():
    convext.set_num_threads(3)
    yield
    convext.set_num_threads(None)


@pytest.mark.openmp
@pytest.mark.usefixtures("three_threads")
def test_threadpoolctl_sees_and_limits_the_threads():
    (found,) = threadpoolctl.ThreadpoolController().select(user_api="convext").info()
    assert (found["num_threads"], found["version"]) == (3, convext.__version__)
    for limits in (1, {"convext": 1}):
        with threadpoolctl.threadpool_limits(limits):
            assert convext.get_num_threads() == 1
        assert convext.get_num_threads() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux shows them")
@pytest.mark.openmp
@pytest.mark.usefixtures("three_threads")
def test_under_joblib_nothing_uses_more_threads_than_its_share():
    assert (
        joblib.Parallel(2, "loky")(joblib.delayed(threads_of_a_worker)() for _ in range(2))
        == [max(1, joblib.cpu_count() // 2)] * 2
    )
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=3):
        assert joblib.Parallel()(joblib.delayed(threads_of_a_worker)() for _ in range(2)) == [3, 3]


def threads_of_a_worker():
    """Return how many threads convext uses, in a process of joblib's."""
    return convext.get_num_threads()
