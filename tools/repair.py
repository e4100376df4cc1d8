"""Put OpenMP's library into a wheel, so that it runs where there is none: for cibuildwheel.

    python -m tools.repair WHEEL FOLDER

The new wheel lies in FOLDER. This takes auditwheel on Linux, delocate on macOS and delvewheel on
Windows; then what its modules ask for, beyond what it holds itself, must be what every machine has.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tools.linked import check_wheel


def repair_command(wheel: str, folder: str) -> list[str]:
    """Return what repairs a wheel of this system."""
    if sys.platform == "win32":
        openmp = os.path.join(sys.prefix, "Library", "bin")
        return ["delvewheel", "repair", "--add-path", openmp, "-w", folder, wheel]
    if sys.platform == "darwin":
        return ["delocate-wheel", "-v", "-w", folder, wheel]
    return ["auditwheel", "repair", "-w", folder, wheel]


def main() -> None:
    """Repair the wheel of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel")
    parser.add_argument("folder")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    before = set(folder.glob("*.whl"))
    if status := subprocess.run(
        repair_command(arguments.wheel, arguments.folder), check=False
    ).returncode:
        sys.exit(status)
    for wheel in sorted({*folder.glob("*.whl")} - before):
        check_wheel(wheel)
        print(wheel)


if __name__ == "__main__":
    main()
