"""convext as it was: a checkout of an earlier commit, built in place, in a folder of its own."""

import os
import sys

from . import BEFORE

sys.path.insert(0, os.environ[BEFORE])

from .convext import VERSION, operations, start

__all__ = ["VERSION", "operations", "start"]
