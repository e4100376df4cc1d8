"""The sums over Dask arrays: those of each chunk of the targets, merged as a tree."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.dask_arrays import Tasks, borders, checked
from ..config import resolve_num_threads
from ..ops.data import paired_samples
from ..ops.shapes import Padding, Pair, window_of
from .kernels import centres_of, without_border
from .masks import Data, Flags, checked_mask, without, without_mask
from .sums import Sums, sums_of
from .unknowns import Unknowns

Centre = tuple[int, int] | None


def delayed_of_sums(
    name: str,
    make: Callable[[Unknowns, list[Centre], list[Sums]], Any],
    arrays: tuple[Any, Any, Any],
    options: tuple[Pair, bool, Pair, Padding, Pair],
    num_threads: int | None,
    centred: bool = False,
) -> Any:
    """Return what `make` makes of the sums over images, targets and mask, still to be computed.

    Where they are `centred`, targets may be as large as the images (see `centres_of`).
    """
    given = checked("input_data", arrays[0])
    inputs, targets, mask = given, checked("target_output", arrays[1]), arrays[2]
    paired_samples(inputs, targets)
    if given.ndim == 3:
        inputs, targets = inputs[np.newaxis], targets[np.newaxis]
    if mask is not None:
        mask = checked_mask(checked("mask", mask), targets.shape, given.ndim)
    data = Data(inputs, targets, mask)
    unknowns = Unknowns(inputs.shape[1], targets.shape[1], *options)
    size, dilation = unknowns.kernel_shape, unknowns.dilation
    centres: list[Centre] = centres_of(unknowns, data) if centred else [None]
    tasks = Tasks(name, [make, vars(unknowns), data], num_threads)
    parts = [
        _sums(tasks, unknowns, data, without_border(inputs.shape, size, centre, dilation))
        for centre in centres
    ]
    return tasks.delayed(name, (partial(make, unknowns, centres), parts))


def _sums(tasks: Tasks, unknowns: Unknowns, data: Data, inside: tuple[slice, ...]) -> object:
    """Return the key of the sums over what lies `inside` the targets of Dask arrays."""
    inputs, targets, mask, _ = data = data.inside(inside)
    size, options = unknowns.kernel_shape, unknowns.resolve(data)
    alone = Unknowns(**{**vars(unknowns), "padding": 0})
    sides = [pairwise(sorted(set(borders(targets, axis)))) for axis in (0, 2, 3)]
    keys = []
    for samples, *parts in product(*sides):
        seen = [window_of(size, options, axis, *part) for axis, part in enumerate(parts)]
        windows = [
            tasks.window(array, samples, (0, array.shape[1]), *spans)
            for array, spans in ((inputs, seen), (targets, parts), (mask, parts))
            if array is not None
        ]
        starts = 0, inside[2].start or 0, inside[3].start or 0
        corner = [begin + i for (begin, _), i in zip((samples, *parts), starts, strict=True)]
        compute = partial(_sums_of_block, alone, tasks.num_threads, corner)
        keys.append(tasks.add("block", (compute, *windows)))
    return tasks.merged(Sums.total, keys)


def _sums_of_block(
    unknowns: Unknowns,
    num_threads: int | None,
    corner: list[int],
    images: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    mask: Flags | None = None,
) -> Sums:
    """Return the sums over a block of the targets, with all pixels that these depend on."""
    pixels: Any
    values: Any
    pixels, hidden = without_mask(images)
    values, missing = without_mask(targets)
    if missing is not None:
        mask = without(mask, missing)
    try:
        data = Data(pixels, values, mask, hidden)
        return sums_of(unknowns, data, resolve_num_threads(num_threads))
    except ValueError as error:
        where = "sample {}, row {} and column {}".format(*corner)
        raise ValueError(f"{error}, in the block of target_output from {where} on") from None
