"""Calls every public function and method with arguments of which some are not what they should be.

Each must give a result, or an error of the types that are documented, in bounded time. The numbers
are not looked at.
"""

from __future__ import annotations

import atexit
import inspect
import io
import math
import os
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path

import numpy as np
import stopwatch

import convext
from convext import enhancement, image, kernels_file, plotting, schedules

# What a call may raise. An OverflowError, a KeyError and the like are nobody's message.
ERRORS = (TypeError, ValueError, OSError, MemoryError, FloatingPointError, RuntimeError)
ERRORS += (convext.DivergenceError,)
SECONDS = 60.0 if "asan" in os.environ.get("LD_PRELOAD", "") else 5.0

RNG = np.random.default_rng(7)
X, Y = RNG.random((3, 2, 7, 8)), RNG.random((3, 4, 5, 6))
KERNELS = RNG.random((4, 2, 3, 3))
PICTURE = RNG.integers(0, 256, (3, 12, 14)) / 255


class Unreadable:
    """What raises whatever is asked of it."""

    def __array__(self, *_, **__):
        raise ValueError("not an array")

    def __len__(self):
        raise TypeError("of no length")

    def __index__(self):
        raise TypeError("not a number")


SCALARS = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 8, 100, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.5),
    *(math.nan, math.inf, -math.inf, 1e300, 1e-320, 1j, np.int8(3), np.float32(0.5), np.bool_(1)),
    *("", "same", "valid", "auto", "direct", "x", "é\0", b"same", "a" * 5000, "3", "nan"),
    *((), (1,), (2, 2), (3, 3), (0, 0), (-1, 2), (2**40, 2**40), (1, 2, 3), ((1, 2), (3, 4))),
    *([], [1, 2], [[1, 2], [3, 4]], [[1], [2, 3]], {}, {"a": 1}, {1, 2}, range(4), slice(3)),
    *(object(), int, len, lambda *_: None, lambda *_: math.nan, Unreadable(), ..., np.float64),
]


def distorted(array, rng):
    """Return an array like another one, but for something."""
    with np.errstate(all="ignore"):
        changes = (
            lambda a: a.astype(rng.choice(["f2", "f4", ">f8", "i1", "u8", "?", "c16", "O", "U3"])),
            lambda a: a.astype("M8[s]"),
            lambda a: a[..., :0],
            lambda a: a[:0],
            lambda a: a[..., ::-1],
            lambda a: a.T,
            lambda a: a[0],
            lambda a: a[None],
            lambda a: a[..., 0],
            lambda a: a[:, :1],
            lambda a: a[..., :2, :2],
            np.asfortranarray,
            lambda a: np.ma.masked_greater(a, 0.5),
            lambda a: a.tolist(),
            lambda a: np.full_like(a, rng.choice([np.nan, np.inf, 1e308, 5e-324, 0, -1])),
            lambda a: np.where(RNG.random(a.shape) < 0.2, np.nan, a),
            lambda a: np.broadcast_to(a.ravel()[:1], a.shape),
            lambda a: np.broadcast_to(np.float64(1), (2**17, *a.shape[1:3], 4)[: a.ndim]),
            lambda a: np.lib.stride_tricks.as_strided(a, a.shape, (8,) * a.ndim),
            lambda a: np.frombuffer(b"\0" + a.tobytes(), "u1")[1:].view(a.dtype).reshape(a.shape),
            lambda a: a.view(np.recarray),
            lambda a: np.matrix(a.reshape(len(a), -1)),
            lambda a: a.reshape(-1),
            lambda a: np.zeros((1,) * a.ndim),
        )
        return changes[rng.integers(len(changes))](array)


def model():
    """Return a small network."""
    made = convext.Sequential([convext.Conv2D(4, 3, activation="relu", seed=1)])
    made.build(2)
    made.compile("sgd")
    return made


def statistics():
    """Return patch statistics of some images."""
    made = convext.PatchStatistics(2, 4, 3)
    made.update(X, Y)
    return made


@lru_cache(maxsize=1)
def arguments_folder():
    """Return the folder of all files, also of those that wrong names make."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder


@lru_cache(maxsize=1)
def legal():
    """Return functions that make what is called, and legal arguments: {name: (make, arguments)}."""
    folder = arguments_folder()
    x_file, y_file, picture = folder / "x.npy", folder / "y.npy", folder / "a.png"
    np.save(x_file, X)
    np.save(y_file, Y)
    image.save_image(picture, PICTURE)
    kernels_file.save_kernels(folder / "kernels.npz", KERNELS, {})
    model().save(folder / "model.npz")
    statistics().save(folder / "statistics.npz")
    for name in ("before", "after"):
        (folder / name).mkdir()
        image.save_image(folder / name / "a.png", PICTURE)
    pair = {"input_data": X, "kernels": KERNELS}
    losses = {"predicted": Y, "target": Y[::-1]}
    report = {"epoch": 2, "loss": 0.5, "learning_rate": 0.1, "seconds": 0.1, "kernels": KERNELS}
    enhancer = convext.Sequential([convext.Conv2D(1, 3, seed=1)], input_channels=1)
    functions = {
        "conv2d": pair,
        "conv2d_kernel_grad": {"input_data": X, "output_grad": Y, "kernel_shape": 3},
        "conv2d_input_grad": {"output_grad": Y, "kernels": KERNELS, "input_shape": X.shape},
        "conv2d_backprop": {**pair, "target_output": Y, "R": Y},
        "mse_loss": losses,
        "mse_loss_gradient": losses,
        "explain": {"operation": "conv2d", "input_data": X.shape, "kernels": KERNELS.shape},
        "prepare_kernels": {"kernels": KERNELS},
        "generate_kernels": {"num_kernels": 2, "kernel_shape": 3, "num_channels": 2},
        "generate_random_data": {
            "input_shape": X.shape, "target_shape": Y.shape,
            "input_file": folder / "gx.npy", "target_file": folder / "gy.npy",
        },
        "load_data": {"input_file": x_file, "target_file": y_file},
        "load_model": {"filepath": folder / "model.npz"},
        "train_model": {
            "input_file": X, "target_file": Y, "num_kernels": 4, "kernel_shape": 3,
            "learning_rate": 0.1, "num_epochs": 2, "seed": 1, "verbose": False,
        },
        "suggest_learning_rate": {"input_data": X, "kernel_shape": 3},
        "solve_kernels": {"input_data": X, "target_output": Y, "kernel_shape": 3},
        "set_num_threads": {"n": 2},
        "build_model": {"num_kernels": 2, "kernel_shape": 3},
        "Conv2D": {"filters": 2, "kernel_size": 3},
        "Sequential": {"layers": []},
        "PatchStatistics": {"num_channels": 2, "num_kernels": 4, "kernel_shape": 3},
        "SGD": {}, "Adam": {}, "EarlyStopping": {}, "EpochReport": report,
        "ModelCheckpoint": {"filepath": folder / "best.npz"},
    }  # fmt: skip
    entries = {
        name: (lambda name=name: getattr(convext, name), arguments)
        for name, arguments in functions.items()
    }
    modules = {
        image: {
            "extract_patches": {"images": PICTURE, "size": 5},
            "jpeg_steps": {"file": picture}, "jpeg_tables": {"file": picture},
            "load_image": {"file": picture}, "load_images": {"folder": folder / "before"},
            "luminance": {"image": PICTURE}, "psnr": {"image": PICTURE, "reference": PICTURE},
            "replace_luminance": {"image": PICTURE, "new": PICTURE[:1]},
            "save_image": {"file": folder / "b.png", "array": PICTURE},
        },
        kernels_file: {
            "load_kernels": {"file": folder / "kernels.npz"},
            "save_kernels": {"file": folder / "k.npz", "kernels": KERNELS, "record": {}},
        },
        schedules: {
            "step_decay": {"initial_rate": 0.1}, "reduce_on_plateau": {"initial_rate": 0.1},
            "exponential_decay": {"initial_rate": 0.1, "decay_rate": 0.9},
            "cosine_decay": {"initial_rate": 0.1, "num_epochs": 5},
        },
        enhancement: {
            "enhance": {"model": enhancer, "image": PICTURE},
            "enlarge": {"image": PICTURE, "scale": 2},
        },
        plotting: {
            "plot_kernels": {"kernels": KERNELS, "file": folder / "p.png"},
            "plot_training": {"losses": [1.0, 0.5], "kernels": KERNELS, "file": folder / "p.png"},
        },
    }  # fmt: skip
    for module, its in modules.items():
        for name, arguments in its.items():
            entries[f"{module.__name__.removeprefix('convext.')}.{name}"] = (
                lambda module=module, name=name: getattr(module, name),
                arguments,
            )
    methods = {
        model: {
            "fit": {"x": X, "y": Y, "verbose": 0}, "evaluate": {"x": X, "y": Y, "verbose": 0},
            "predict": {"x": X}, "compile": {}, "build": {"input_channels": 2},
            "set_weights": {"weights": model().get_weights()},
            "save": {"filepath": folder / "m.npz"},
        },
        statistics: {
            "update": {"input_data": X, "target_output": Y}, "solve": {},
            "merge": {"other": statistics()}, "save": {"file": folder / "s.npz"},
        },
    }  # fmt: skip
    for make, its in methods.items():
        for name, arguments in its.items():
            entries[f"{make.__name__}.{name}"] = (
                lambda make=make, name=name: getattr(make(), name),
                arguments,
            )
    return entries


def parameters_of(function, arguments):
    """Return the names of the arguments that a function takes."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = inspect.signature(function).parameters.values()
    return sorted({*arguments, *(p.name for p in taken if p.kind in kinds)})


def draw_call(rng):
    """Draw what is called, and what says the rest."""
    names = sorted(legal())
    return {"name": names[rng.integers(len(names))], "number": int(rng.integers(2**31))}


def check_call(name, number):
    """Make a call; what it must not raise, or take, is an AssertionError that says so."""
    make, arguments = legal()[name]
    rng = np.random.default_rng(number)
    function = make()
    names = parameters_of(function, arguments)
    spoiled = {}
    for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 3])):
        argument = names[rng.integers(len(names))]
        value = arguments.get(argument)
        if isinstance(value, np.ndarray) and rng.random() < 0.7:
            spoiled[argument] = distorted(value, rng)
        else:
            spoiled[argument] = SCALARS[rng.integers(len(SCALARS))]
    text = ", ".join(f"{key}={repr(value)[:200]}" for key, value in spoiled.items())
    expected = () if not spoiled else ERRORS
    before = os.getcwd()
    started = stopwatch.seconds()
    try:
        os.chdir(arguments_folder())
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            function(**{**arguments, **spoiled})
    except expected:
        pass
    except Exception as error:
        raise AssertionError(f"{name}({text}): {type(error).__name__}: {error}") from error
    finally:
        os.chdir(before)
        convext.set_num_threads(None)
    seconds = stopwatch.seconds() - started
    assert seconds < SECONDS, f"{name}({text}) took {seconds:.1f} s"
