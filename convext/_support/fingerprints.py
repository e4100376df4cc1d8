"""What tells the data of two runs apart."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

# Of larger arrays, evenly spaced samples of about that many elements are looked at.
_MOST_ELEMENTS = 1 << 22


def fingerprint(name: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return what tells an array from others: shape, type, and a checksum of a part of it."""
    part = array[:: -(-array.size // _MOST_ELEMENTS)]
    if part.size > _MOST_ELEMENTS:  # of few large samples, some rows
        part = part[..., :: -(-part.size // _MOST_ELEMENTS), :]
    part = np.ascontiguousarray(part, part.dtype.newbyteorder("="))
    return {
        f"shape of {name}": array.shape,
        f"type of {name}": array.dtype.name,
        f"checksum of {name}": zlib.crc32(part.data),
    }
