"""The kernels file: an .npz with the kernels and a JSON record of how they were trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from ._support.array_files import MOST_CHARACTERS, load_array, load_record
from ._support.atomic_files import FilePath, atomic_write, path_of
from ._support.checks import RealArray, as_dtype, as_numeric_array, check_dimensions, real_dtype

# What JSON can hold, by name.
Record: TypeAlias = dict[str, object]

_LAYOUT = {4: "(num_kernels, C, kh, kw)"}


def save_kernels(file: FilePath, kernels: RealArray, record: Mapping[str, object]) -> None:
    """Write a kernels file.

    A failure leaves an older file as it was. The file is written under exactly the name that is
    given, whatever its suffix.

    Parameters
    ----------
    file : path
        The file to write.
    kernels : array_like
        (num_kernels, C, kh, kw).
    record : mapping
        What there is to know about the kernels: names and values that JSON can hold.

    Raises
    ------
    TypeError
        `kernels` does not hold real numbers, or `record` something that JSON cannot hold.
    ValueError
        `kernels` is not four-dimensional or is empty, or `record` holds NaN or infinity, or takes
        more than 16 million characters as JSON.
    OSError
        The folder does not exist or is not writable, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_kernels(f"{folder}/kernels.npz", np.ones((2, 3, 2, 2)), {"num_epochs": 10})
    ...     kernels, record = load_kernels(f"{folder}/kernels.npz")
    >>> kernels.shape, record
    ((2, 3, 2, 2), {'num_epochs': 10})
    """
    array = as_numeric_array("kernels", kernels)
    check_dimensions("kernels", array.shape, _LAYOUT)
    array = as_dtype(array, real_dtype("kernels", array.dtype))
    text = json.dumps(dict(record), ensure_ascii=False, allow_nan=False)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"record takes {len(text)} characters, of at most {MOST_CHARACTERS}")
    with atomic_write(file) as stream:
        np.savez_compressed(stream, kernels=array, record=np.array(text))


def load_kernels(file: FilePath) -> tuple[RealArray, Record]:
    """Read a kernels file, or a plain .npy or .npz file with one four-dimensional array.

    Nothing is ever unpickled.

    Parameters
    ----------
    file : path
        The file to read.

    Returns
    -------
    kernels : numpy.ndarray
        float32 or float64, (num_kernels, C, kh, kw).
    record : dict
        What was saved with them; empty for a plain file.

    Raises
    ------
    OSError, ValueError, TypeError
        As `convext.load_data` does.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/plain.npy", np.ones((1, 1, 3, 3)))
    ...     kernels, record = load_kernels(f"{folder}/plain.npy")
    >>> kernels.shape, record
    ((1, 1, 3, 3), {})
    """
    array = load_array(file, "kernels", member="kernels")
    check_dimensions(f"kernels ({path_of(file)})", array.shape, _LAYOUT)
    kernels = as_dtype(array, real_dtype("kernels", array.dtype))
    return kernels, load_record(file, "kernels", "record") or {}


def are_numbers(values: list[object]) -> bool:
    """Return whether all values of a record, which may hold anything, are numbers of float64."""
    return all(type(v) is float or (type(v) is int and abs(v) < 1 << 53) for v in values)
