"""How much memory `apply` and `enhance` need for each byte of a photograph."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

import convext

Image = pytest.importorskip("PIL.Image")

# Pillow has 4 bytes for a pixel of 3, and the pixels are in memory before and after.
MOST = 6.0

CODE = """
import sys
from convext.cli.main import main
status = main(sys.argv[1:])
# ru_maxrss would be at least that of the process that started this one.
with open("/proc/self/status") as lines:
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""

# Larger than a few strips, so that these do not count.
SMALL, LARGE = (1500, 2000), (2400, 3200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for name, (height, width) in (("small", SMALL), ("large", LARGE)):
        coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), np.uint8))
        coarse.resize((width, height), Image.BILINEAR).save(path / f"{name}.jpg")
    np.save(path / "kernels.npy", np.full((1, 1, 3, 3), 1 / 9))
    for channels in (1, 3):
        layers = [convext.Conv2D(2, 3, activation="relu"), convext.Conv2D(channels, 3)]
        model = convext.Sequential(layers, input_channels=channels, residual=True)
        model.save(path / f"model{channels}.npz")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    "command",
    [("apply", "kernels.npy"), ("enhance", "model1.npz")],
    ids=" ".join,
)
def test_the_memory_of_a_photograph_is_a_few_times_its_bytes(command, folder):
    peaks = []
    for name in ("small", "large"):
        output = subprocess.run(
            [sys.executable, "-c", CODE, *command, f"{name}.jpg", "result.jpg"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        peaks.append(1024 * int(output.split()[-1]))
    more_bytes = 3 * (np.prod(LARGE) - np.prod(SMALL))
    assert resource.getpagesize() < peaks[1] - peaks[0] < MOST * more_bytes
