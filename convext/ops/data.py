"""Making and loading what is trained on: kernels to start from, and pairs of arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from .._support.array_files import NumericArray, load_array
from .._support.atomic_files import FilePath, atomic_write, flush_to_disk, path_of
from .._support.checks import (
    as_kernel_shape,
    as_numeric_array,
    check_dimensions,
    check_size,
    integer,
    one_of,
    real_dtype,
    shape_of_length,
)
from .._support.large_arrays import LargeArray, loaded
from .._support.messages import say, warn
from .._support.stored_arrays import as_large, is_pattern
from .shapes import IMAGES, Pair, Shape, seems_channels_last

__all__ = ["generate_kernels", "generate_random_data", "load_array", "load_data", "paired_samples"]

DataFormat: TypeAlias = Literal["channels_first", "channels_last"]

# Random values are made and written in blocks of 8 MiB.
_BLOCK = 1 << 20


def generate_kernels(
    num_kernels: int,
    kernel_shape: Pair,
    num_channels: int,
    *,
    seed: int | None = None,
) -> npt.NDArray[np.float64]:
    """Make random kernels, uniform on [0, 1).

    Parameters
    ----------
    num_kernels : int
        How many kernels.
    kernel_shape : int or (int, int)
        Height and width of each, (kh, kw); one number is both.
    num_channels : int
        Channels of each: those of the input data.
    seed : int, optional
        The same seed gives the same kernels. They are independent of what
        `generate_random_data` makes with that seed. Without one, a seed is drawn from NumPy's
        global generator, so that ``numpy.random.seed`` makes them repeatable, too.

    Returns
    -------
    numpy.ndarray
        float64, (num_kernels, num_channels, kh, kw).

    Raises
    ------
    TypeError
        A size or the seed is not an integer.
    ValueError
        A size is below 1, or the seed is negative.

    Examples
    --------
    >>> kernels = generate_kernels(2, (3, 3), 1, seed=0)
    >>> kernels.shape
    (2, 1, 3, 3)
    >>> bool(kernels.min() >= 0 and kernels.max() < 1)
    True
    """
    shape = (
        integer("num_kernels", num_kernels, minimum=1),
        integer("num_channels", num_channels, minimum=1),
        *as_kernel_shape(kernel_shape),
    )
    check_size("the array of kernels", shape)
    # A stream of its own: with the seed of the data, kernels must not repeat its first values.
    (stream,) = random_generator(seed).spawn(1)
    return stream.random(shape)


def load_data(
    input_file: FilePath,
    target_file: FilePath,
    *,
    mmap: bool = False,
    data_format: DataFormat = "channels_first",
) -> tuple[NumericArray, NumericArray]:
    """Load input data and the target output that belongs to it.

    Each file is a .npy file, or a .npz file that holds one array; neither is ever unpickled.

    Parameters
    ----------
    input_file : path
        Holds the input data, (N, C, H, W). A pattern such as ``"x-*.npy"`` stands for all
        .npy files that it matches, the shards of one array, in the order of their names.
    target_file : path
        Holds the target output, (N, K, OH, OW), likewise.
    mmap : bool
        Map the files read-only instead of reading them (.npy only), for data that does not fit
        into memory. Of shards, samples are read when they are indexed. A mapped file that is cut
        short, or whose disk fails, ends the process (SIGBUS): the system has no other way to say
        so. What the functions read themselves, given paths, they do not map.
    data_format : "channels_first" or "channels_last", default "channels_first"
        Which axes the files hold. With "channels_last" these are (N, H, W, C) and (N, OH, OW, K).

    Returns
    -------
    input_data : numpy.ndarray
        (N, C, H, W), in the type of the file.
    target_output : numpy.ndarray
        (N, K, OH, OW), in the type of the file.

    Raises
    ------
    OSError
        From the system, unchanged: FileNotFoundError, IsADirectoryError, PermissionError.
    ValueError
        A file is empty, truncated, damaged, pickled, of another kind, or holds several arrays;
        an array is not four-dimensional or empty; the numbers of samples differ.
    TypeError
        An array does not hold real numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/before.npy", np.zeros((5, 1, 8, 8)))
    ...     np.save(f"{folder}/after.npy", np.ones((5, 1, 6, 6)))
    ...     before, after = load_data(f"{folder}/before.npy", f"{folder}/after.npy")
    >>> before.shape, after.shape
    ((5, 1, 8, 8), (5, 1, 6, 6))
    """

    def load(file: FilePath, name: str) -> NumericArray:
        if not is_pattern(file):
            return load_array(file, name, mmap=mmap)
        shards = as_samples(name, file)
        return shards if mmap else loaded(shards)

    return open_data(input_file, target_file, load, data_format)


def open_data(
    input_file: FilePath,
    target_file: FilePath,
    read: Callable[[FilePath, str], NumericArray],
    data_format: DataFormat = "channels_first",
) -> tuple[NumericArray, NumericArray]:
    """Return what `load_data` does, of files that `read` reads, or opens; it is told their name."""
    last = one_of("data_format", data_format, get_args(DataFormat)) == "channels_last"
    layouts = ["(N, H, W, C)", "(N, OH, OW, K)"] if last else ["(N, C, H, W)", "(N, K, OH, OW)"]
    arrays, names = [], []
    for file, name, layout in zip(
        (input_file, target_file), ("input_data", "target_output"), layouts, strict=True
    ):
        array, label = read(file, name), f"{name} ({path_of(file)})"
        check_dimensions(label, array.shape, {4: layout})
        arrays.append(np.moveaxis(array, -1, 1) if last else array)
        names.append(label)
    input_data, target_output = arrays
    _check_samples(names, input_data.shape, target_output.shape)
    return input_data, target_output


def paired_samples(
    input_data: npt.ArrayLike, target_output: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return input and target as four-dimensional arrays with the same number of samples.

    Each may be a single sample, (C, H, W) and (K, OH, OW), or N of them. Arrays are not copied.
    What does not hold real numbers is a TypeError; other shapes, empty arrays and numbers of
    samples that differ are a ValueError.
    """
    inputs, targets = (
        as_samples(name, array)
        for name, array in (("input_data", input_data), ("target_output", target_output))
    )
    check_dimensions("input_data", inputs.shape, IMAGES)
    layout = IMAGES[inputs.ndim].replace("C, H, W", "K, OH, OW")
    check_dimensions("target_output", targets.shape, {inputs.ndim: layout})
    if seems_channels_last(inputs.shape) and seems_channels_last(targets.shape):
        warn(
            f"input_data of shape {inputs.shape} is taken for {inputs.shape[-3]} channels: if they "
            "come last, give np.moveaxis(input_data, -1, -3), and target_output likewise",
        )
    if inputs.ndim == 3:
        inputs, targets = inputs[np.newaxis], targets[np.newaxis]
    _check_samples(("input_data", "target_output"), inputs.shape, targets.shape)
    return inputs, targets


def as_samples(name: str, value: Any) -> npt.NDArray[Any]:
    """Return an array of real numbers; of one that is not in memory, nothing is read yet.

    That is a path, a memory map, or what slices like an array: see `LargeArray`, which behaves like
    an array as far as samples are concerned.
    """
    array = as_large(name, value)
    if not isinstance(array, LargeArray):
        return as_numeric_array(name, array)
    real_dtype(name, array.dtype)
    return cast("npt.NDArray[Any]", array)


def _check_samples(names: Sequence[str], first: Shape, second: Shape) -> None:
    """Raise ValueError unless two shapes have the same number of samples."""
    if first[0] != second[0]:
        raise ValueError(
            f"{names[0]} has {first[0]} samples but {names[1]} has {second[0]} "
            f"(shapes {first} and {second})"
        )


def generate_random_data(
    input_shape: tuple[int, int, int, int],
    target_shape: tuple[int, int, int, int],
    input_file: FilePath = "input_data.npy",
    target_file: FilePath = "target_output.npy",
    *,
    seed: int | None = None,
) -> None:
    """Write a random data set, uniform on [0, 1), as two float64 .npy files, and say where.

    The values are made and written in blocks, so that the data may be larger than the memory.
    Both files appear complete or not at all: a failure leaves older ones as they were.

    Parameters
    ----------
    input_shape : (int, int, int, int)
        Shape of the input data, (N, C, H, W).
    target_shape : (int, int, int, int)
        Shape of the target output, (N, K, OH, OW), with the same N.
    input_file, target_file : path
        The files to write; existing ones are replaced.
    seed : int, optional
        The same seed gives the same data. By default it is drawn from NumPy's global generator,
        which ``numpy.random.seed`` makes repeatable.

    Raises
    ------
    TypeError
        A shape is not made of integers, or the seed is not one.
    ValueError
        A shape does not have four sizes of at least 1, the numbers of samples differ, both files
        are the same one, or the seed is negative.
    OSError
        A folder does not exist or is not writable, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = f"{folder}/input_data.npy", f"{folder}/target_output.npy"
    ...     generate_random_data((10, 3, 8, 8), (10, 2, 7, 7), *files, seed=0)
    ...     input_data, target_output = load_data(*files)
    Wrote .../input_data.npy: (10, 3, 8, 8) float64
    Wrote .../target_output.npy: (10, 2, 7, 7) float64
    """
    inputs = shape_of_length("input_shape", input_shape, {4: "(N, C, H, W)"})
    targets = shape_of_length("target_shape", target_shape, {4: "(N, K, OH, OW)"})
    _check_samples(("input_shape", "target_shape"), inputs, targets)
    if os.path.realpath(path_of(input_file)) == os.path.realpath(path_of(target_file)):
        raise ValueError(
            f"input_file and target_file must be two files, got {path_of(input_file)} twice"
        )
    generator = random_generator(seed)
    # Both streams stay open until both are written, so that no old file meets a new one.
    with atomic_write(input_file) as input_stream, atomic_write(target_file) as target_stream:
        _write_random(input_stream, inputs, generator)
        _write_random(target_stream, targets, generator)
        flush_to_disk(input_stream)
    for file, shape in (input_file, inputs), (target_file, targets):
        say("Wrote {file}: {shape}", file=path_of(file), shape=f"{shape} float64")


def random_generator(seed: int | None) -> np.random.Generator:
    """Return a generator; without a seed, one that `numpy.random.seed` makes repeatable."""
    if seed is not None:
        return np.random.default_rng(integer("seed", seed, minimum=0))
    return np.random.default_rng(np.random.randint(0, 1 << 32, 4, np.uint32))


def _write_random(stream: IO[bytes], shape: Shape, generator: np.random.Generator) -> None:
    """Write uniform random values in the .npy format, a block at a time."""
    descr = npy.dtype_to_descr(np.dtype(np.float64))
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    left = math.prod(shape)
    while left:
        block = generator.random(min(left, _BLOCK))
        stream.write(block.data)
        left -= block.size
