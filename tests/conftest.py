"""Options, the instruction sets to test on, and how Hypothesis runs."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "convext",
    deadline=None,
    print_blob=True,
    # The `isa` fixture holds for every example of a test, which is what is wanted; and a busy
    # machine is no reason to fail.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("convext")


def pytest_configure():
    """Let Ctrl-C through to the processes under test, also where a script runs in the background.

    A shell starts background jobs with SIGINT ignored, and ignored signals are inherited.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config, items):
    """Leave the slow tests out unless they are asked for, by --runslow or by -m."""
    if config.getoption("--runslow") or "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_generate_tests(metafunc):
    """Run a test that uses `isa` once on each instruction set that is built and supported."""
    if "isa" in metafunc.fixturenames:
        import convext

        metafunc.parametrize("isa", convext.get_config()["isas_supported"], indirect=True)


@pytest.fixture
def isa(request):
    """Switch the process to one instruction set for the length of a test."""
    from convext import _dispatch

    before = _dispatch.current_isa()
    _dispatch.use_isa(request.param)
    # Without this a switch that does nothing would test one instruction set three times.
    assert _dispatch.current_isa() == request.param
    yield request.param
    _dispatch.use_isa(before)


@pytest.fixture
def restored_num_threads():
    """Put the default number of threads back after a test that changes it."""
    import convext

    before = convext.get_num_threads()
    yield before
    convext.set_num_threads(before)
