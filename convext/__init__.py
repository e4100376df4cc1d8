"""Convolutions, their gradients and the training of convolution kernels, on a CPU, with NumPy."""

from __future__ import annotations

from importlib.machinery import PathFinder as _PathFinder
from typing import TYPE_CHECKING, Any

if _PathFinder.find_spec("convext.base._dispatch", [f"{__path__[0]}/base"]) is None:
    from ._unbuilt import hand_over as _hand_over

    _hand_over(__path__)

from . import _compiled as _compiled  # isort: skip  (without it no compiled module is found)
from . import _threadpoolctl as _threadpoolctl
from . import schedules
from ._version import __version__
from .config import get_config, get_num_threads, set_num_threads, show_config
from .errors import DivergenceError, StopTraining
from .nn.checkpoint import ModelCheckpoint
from .nn.layers import Conv2D
from .nn.models import Sequential, build_model, load_model
from .nn.optimizers import SGD, Adam
from .ops.data import generate_kernels, generate_random_data, load_data
from .ops.explanations import Explanation, explain
from .ops.losses import mse_loss, mse_loss_gradient
from .ops.operations import conv2d, conv2d_backprop, conv2d_input_grad, conv2d_kernel_grad
from .ops.prepared import PreparedKernels, prepare_kernels
from .solve.kernels import solve_kernels
from .solve.least_squares import Solution
from .solve.statistics import PatchStatistics
from .train.callbacks import EarlyStopping, History
from .train.epoch_report import EpochReport
from .train.stability import suggest_learning_rate
from .train.training import train_model

if TYPE_CHECKING:
    from . import dask as dask
    from . import enhancement as enhancement
    from . import image as image
    from . import kernels_file as kernels_file
    from . import plotting as plotting

__all__ = [
    "SGD",
    "Adam",
    "Conv2D",
    "DivergenceError",
    "EarlyStopping",
    "EpochReport",
    "Explanation",
    "History",
    "ModelCheckpoint",
    "PatchStatistics",
    "PreparedKernels",
    "Sequential",
    "Solution",
    "StopTraining",
    "__version__",
    "build_model",
    "conv2d",
    "conv2d_backprop",
    "conv2d_input_grad",
    "conv2d_kernel_grad",
    "explain",
    "generate_kernels",
    "generate_random_data",
    "get_config",
    "get_num_threads",
    "load_data",
    "load_model",
    "mse_loss",
    "mse_loss_gradient",
    "prepare_kernels",
    "schedules",
    "set_num_threads",
    "show_config",
    "solve_kernels",
    "suggest_learning_rate",
    "train_model",
]

# Modules that are imported when they are asked for, so that `import convext` stays quick.
_MODULES = frozenset({"dask", "enhancement", "image", "kernels_file", "plotting"})


if not TYPE_CHECKING:  # to type checkers it would give every name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            from importlib import import_module

            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
