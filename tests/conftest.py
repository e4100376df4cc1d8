"""Options, processes, the instruction sets to test on, and how Hypothesis runs."""

from __future__ import annotations

import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# For the shapes of the benchmarks; last, so that convext is found where it would be.
sys.path.append(str(Path(__file__).parents[1]))

# Programs that tests run with arguments; and this, since docs/ has a file of the same name.
collect_ignore = ["conftest.py", "failing_calls.py", "mpi_program.py", "repeated_calls.py"]

settings.register_profile(
    "convext",
    deadline=None,
    print_blob=True,
    # The `isa` fixture holds for every example of a test, which is what is wanted; and a busy
    # machine is no reason to fail.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("convext")

# Each process takes some 0.6 GB.
MOST_PROCESSES = 8


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run whole folders in several processes, which share the CPUs; single files in this one.

    What -n says goes first, and without pytest-xdist all runs in this process.
    """
    if hasattr(config, "workerinput"):  # one of the processes
        return
    options = config.option
    folders = config.args_source is config.ArgsSource.TESTPATHS or all(
        map(os.path.isdir, config.args)
    )
    here = options.usepdb or options.capture == "no" or not folders
    if here or getattr(options, "numprocesses", 0) is not None:
        return
    try:
        import convext
    except ImportError as error:
        raise SystemExit(f"ERROR: {error}") from None
    cpus = convext.get_num_threads()
    if cpus > 1:
        options.numprocesses = min(cpus, MOST_PROCESSES)
        options.dist = "worksteal" if options.dist == "no" else options.dist
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus // options.numprocesses))


def pytest_report_header(config):
    """Say how long the whole suite takes."""
    slow = ", the slow ones far longer" if config.getoption("--runslow") else ""
    return f"convext: all tests take about 2 minutes on two CPUs{slow}"


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
    for item in items:
        if re.search(r" at 0x[0-9a-f]{6}", item.nodeid):
            raise pytest.UsageError(
                f"{item.nodeid} is named after an address, which is another one in each process: "
                "give the parameter an id"
            )
    if find_spec("dask") is None:
        missing = pytest.mark.skip(reason="Dask is not installed: see the dask extra")
        for item in items:
            if isinstance(item, pytest.DoctestItem) and "dask" in item.name:
                item.add_marker(missing)
    if config.getoption("--runslow") or "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    """Run a test that uses `isa` once on each instruction set that is built and supported.

    One after the other, so that what the results are compared with is computed once.
    """
    if "isa" in metafunc.fixturenames:
        import convext

        metafunc.parametrize("isa", convext.get_config()["isas_supported"], indirect=True)


@pytest.fixture(autouse=True)
def _only_with_threads(request):
    if request.node.get_closest_marker("openmp"):
        import convext

        if not convext.get_config()["openmp"]:
            pytest.skip("built without OpenMP")


@pytest.fixture
def isa(request):
    """Switch the process to one instruction set for the length of a test."""
    from convext.base import _dispatch

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
