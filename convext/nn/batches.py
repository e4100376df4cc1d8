"""What a model is trained and validated on: the samples of arrays, or batches from anywhere."""

from __future__ import annotations

import array
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.checks import as_float64, check_finite, finite_number, integer
from .._support.fingerprints import fingerprint
from .._support.large_arrays import ahead, is_elsewhere, part_of
from .._support.ranks import ALONE, Ranks
from .._support.stored_arrays import as_large
from ..ops.data import as_samples
from ..train.reader import place

Batch: TypeAlias = (
    tuple[npt.ArrayLike, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
)
# Batches: an iterator, an object that gives them anew for each epoch, or a function that does.
Batches: TypeAlias = Iterable[Batch] | Callable[..., Iterable[Batch]]

_ARRAYS = (np.ndarray, np.generic, str, bytes, bytearray, memoryview, array.array, dict, set)
_NO_MORE = object()

# What the parts of a batch are called.
NAMES = ("x", "y", "sample_weight")

_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


class Samples(NamedTuple):
    """Samples of two arrays, and what the loss of each counts."""

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    weights: npt.NDArray[np.float64] | None


class Chosen(NamedTuple):
    """A batch: which samples to take, and how many a batch has at most."""

    samples: Samples
    order: npt.NDArray[np.intp]
    size: int
    number: int | None = None  # of batches that are given, from 0
    places: npt.NDArray[np.intp] | None = None  # of samples that were read: where they are in all


# Checks a pair of arrays, of those names, against the model.
Pairing: TypeAlias = Callable[[Any, Any, str, str], tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def are_batches(x: object, y: object = None) -> bool:
    """Whether `x` gives batches and is not an array or what can be made into one."""
    if isinstance(x, _ARRAYS) or any(hasattr(x, name) for name in _PROTOCOLS) or is_elsewhere(x):
        return False
    if isinstance(x, (list, tuple)):
        return y is None
    return callable(x) or hasattr(x, "__iter__") or _is_indexed(x)


def _is_indexed(x: object) -> bool:
    return hasattr(x, "__getitem__") and hasattr(x, "__len__")


def to_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return samples of real numbers, of an array or a tensor of another library."""
    value = as_large(name, value)
    if not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
        if hasattr(value, "__dlpack__"):
            value = np.from_dlpack(value)
        elif hasattr(value, "numpy"):
            value = value.numpy()
    if are_batches(value, y=value):
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    return as_samples(name, value)


def make_samples(
    pair: Pairing, names: Sequence[str], x: Any, y: Any, weights: Any = None
) -> Samples:
    """Return checked arrays and the weights of their samples, all of the given names."""
    inputs, targets = pair(x, y, names[0], names[1])
    if weights is None:
        return Samples(inputs, targets, None)
    values = to_array(names[2], weights)
    if values.size != len(inputs) or values.shape[:1] != (len(inputs),):
        raise ValueError(
            f"{names[2]} must have the shape ({len(inputs)},), one number for each sample, got "
            f"{values.shape}"
        )
    check_finite(names[2], values)
    return Samples(inputs, targets, np.ascontiguousarray(as_float64(values.ravel())))


class ArrayBatches:
    """Batches of the samples of two arrays; shuffled where there is a generator."""

    block = 0  # how many samples are read at a time, or 0

    def __init__(
        self, samples: Samples, batch_size: int, generator: np.random.Generator | None = None
    ) -> None:
        self.samples = samples
        self.batch_size = min(batch_size, len(samples.inputs))
        self.generator = generator

    def count(self) -> int | None:
        """Return how many batches an epoch has."""
        return -(-len(self.samples.inputs) // self.batch_size)

    def order(self) -> npt.NDArray[np.intp]:
        """Return the order of the samples in the next epoch."""
        if self.generator is not None:
            return self.generator.permutation(len(self.samples.inputs))
        return np.arange(len(self.samples.inputs))

    def place(self, itemsize: int, max_memory: int | str | None, share: int = 1) -> None:
        """Read the samples where they fit into a share of the memory; else they are read later."""
        inputs, targets, weights = self.samples
        inputs, targets, self.block = place(inputs, targets, itemsize, max_memory, share)
        self.samples = Samples(inputs, targets, weights)

    def epoch(self, order: npt.NDArray[np.intp], ranks: Ranks = ALONE) -> Iterator[Chosen]:
        """Yield the batches of an epoch, of which each of several ranks reads its part alone."""
        size = self.batch_size
        step = self.block // size * size if ranks.size == 1 else 0
        if not step:
            for first in range(0, len(order), size):
                yield Chosen(self.samples, order[first : first + size], size)
            return
        parts = (order[first : first + step] for first in range(0, len(order), step))
        read = ((places, self._read(places)) for places in parts)
        for places, samples in ahead(read, *self.samples):
            for batch in np.split(np.arange(len(places)), range(size, len(places), size)):
                yield Chosen(samples, batch, size, None, places)

    def _read(self, places: npt.NDArray[np.intp]) -> Samples:
        inputs, targets, weights = self.samples
        return Samples(
            inputs[places], targets[places], None if weights is None else weights[places]
        )

    def settings(self) -> dict[str, Any]:
        """Return what tells these batches from others; see `Checkpoint`."""
        shuffle = self.generator is not None
        settings: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": shuffle}
        for name, part in zip(NAMES, self.samples, strict=True):
            if part is not None:
                settings |= fingerprint(name, part)
        return settings

    def split(self, share: float) -> tuple[ArrayBatches, ArrayBatches]:
        """Set the last samples apart for validation."""
        share = finite_number("validation_split", share, above=0, below=1)
        count = len(self.samples.inputs)
        first = math.floor(count * (1 - share))
        if first in (0, count):
            raise ValueError(
                f"validation_split is {share:g}: of {count} samples that leaves {first} to train "
                f"on and {count - first} to validate"
            )
        inputs, targets, weights = self.samples
        training, validation = (
            Samples(
                part_of(inputs, (part,)),
                part_of(targets, (part,)),
                None if weights is None else weights[part],
            )
            for part in (slice(first), slice(first, None))
        )
        return ArrayBatches(training, self.batch_size, self.generator), ArrayBatches(validation, 32)


class GivenBatches:
    """Batches from an iterator, from what gives those of an epoch, or from a function that does."""

    def __init__(
        self,
        pair: Pairing,
        source: Any,
        steps: int | None,
        generator: np.random.Generator,
        names: tuple[str, str],
    ) -> None:
        self.pair, self.source, self.generator, self.name = pair, source, generator, names[0]
        self.steps = math.inf
        if steps is not None:
            self.steps = integer(names[1], steps, minimum=1)
        elif hasattr(source, "__next__"):
            raise ValueError(
                f"{names[1]} is missing: {names[0]} is an iterator, which may never end"
            )

    def count(self) -> int | None:
        """Return how many batches an epoch has, about, if that is known."""
        if self.steps < math.inf:
            return int(self.steps)
        try:
            return len(self.source)
        except (NotImplementedError, TypeError):  # a DataLoader whose data set has no length, too
            return None

    def order(self) -> npt.NDArray[np.intp]:
        """Return nothing: batches come in their own order."""
        return np.arange(0)

    def epoch(self, _: npt.NDArray[np.intp], ranks: Ranks = ALONE) -> Iterator[Chosen]:
        """Yield the batches of an epoch, which must be the same ones on all ranks."""
        given = self._begin()
        count = 0
        while count < self.steps:
            batch = next(given, _NO_MORE)
            samples = None if batch is _NO_MORE else self._samples(batch)
            ranks.check_same(partial(_seen, f"batch {count} of {self.name}", samples))
            if samples is None:
                break
            yield Chosen(samples, np.arange(len(samples.inputs)), len(samples.inputs), count)
            count += 1
        if count < (1 if self.steps == math.inf else self.steps):
            expected = "at least one" if self.steps == math.inf else self.steps
            raise ValueError(f"{self.name} gave {count} batches, expected {expected} for an epoch")
        if hasattr(self.source, "on_epoch_end"):  # where a Sequence of Keras shuffles
            self.source.on_epoch_end()

    def check_resumable(self) -> None:
        """Raise ValueError where a training could not go on with them from a checkpoint."""
        if hasattr(self.source, "__next__"):
            raise ValueError(
                f"{self.name} is an iterator, which cannot go back to where a checkpoint was "
                "written: give a function that returns one"
            )

    def settings(self) -> dict[str, Any]:
        """Return what tells these batches from others, as far as that is known."""
        settings = {"batches": self.count()}
        if hasattr(self.source, "fingerprint"):
            settings |= self.source.fingerprint()
        elif _is_indexed(self.source) and len(self.source):
            for name, part in zip(NAMES, self.source[0], strict=False):
                settings |= fingerprint(name, to_array(name, part))
        return settings

    def _begin(self) -> Iterator[Any]:
        source = self.source
        if callable(source) and not hasattr(type(source), "__iter__"):
            source = source(self.generator) if _takes_argument(source) else source()
        if not hasattr(source, "__iter__") and _is_indexed(source):
            return (source[i] for i in range(len(source)))
        return iter(source)

    def _samples(self, batch: Any) -> Samples:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise TypeError(
                f"a batch of {self.name} must be (x, y) or (x, y, sample_weight), got "
                f"{type(batch).__name__}"
            )
        prefix = "" if self.name == "x" else f"{self.name}: "
        return make_samples(self.pair, [prefix + name for name in NAMES], *batch)


# Where the batches of an epoch come from.
Source: TypeAlias = ArrayBatches | GivenBatches


def _seen(batch: str, samples: Samples | None) -> dict[str, Any]:
    """Return what tells a batch from others, as far as its shapes and its first sample do."""
    if samples is None:
        return {batch: "missing"}
    seen: dict[str, Any] = {"samples": len(samples.inputs)}
    for name, part in zip(NAMES, samples, strict=True):
        if part is not None:
            seen |= fingerprint(name, part[:1])
    return {batch: seen}


def _takes_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        pass
    return True


def where_not_finite(batch: Chosen, dtype: np.dtype[Any], prefix: str = "") -> str | None:
    """Return which sample of a batch has values that are not finite in a type, if any."""
    for name, values in zip(("x", "y"), batch.samples[:2], strict=True):
        for i in batch.order:
            with np.errstate(over="ignore"):
                bad = int(np.count_nonzero(~np.isfinite(values[i].astype(dtype))))
            if bad:
                what = "value that is" if bad == 1 else "values that are"
                of_batch = "" if batch.number is None else f" of batch {batch.number}"
                place = i if batch.places is None else batch.places[i]
                return f"{prefix}{name}[{place}]{of_batch} contains {bad} {what} NaN or infinite"
    return None


def source_of(
    pair: Pairing,
    generator: np.random.Generator,
    x: Any,
    y: Any,
    sample_weight: Any,
    batch_size: int | None,
    steps: tuple[int | None, str],
    shuffle: bool = False,
) -> Source:
    """Return the batches of arrays, or those that are given; `steps` with their argument's name."""
    if are_batches(x, y):
        of_arrays = {"y": y, "batch_size": batch_size, "sample_weight": sample_weight}
        for name, value in of_arrays.items():
            if value is not None:
                raise ValueError(f"{name} is for arrays: x is batches")
        return GivenBatches(pair, x, steps[0], generator, ("x", steps[1]))
    if y is None:
        raise ValueError("y is missing: x is an array")
    if steps[0] is not None:
        raise ValueError(f"{steps[1]} is for batches: x is an array")
    size = 32 if batch_size is None else integer("batch_size", batch_size, minimum=1)
    samples = make_samples(pair, NAMES, x, y, sample_weight)
    return ArrayBatches(samples, size, generator if shuffle else None)


def validation_of(
    pair: Pairing, generator: np.random.Generator, data: Any, steps: int | None, size: int
) -> Source:
    """Return the batches of what was given as `validation_data`."""
    expected = "validation_data must be (x, y), (x, y, sample_weight) or batches, got"
    if isinstance(data, (tuple, list)):
        if len(data) not in (2, 3):
            raise ValueError(f"{expected} {len(data)} elements")
        if steps is not None:
            raise ValueError("validation_steps is for batches: validation_data is arrays")
        names = [f"validation {name}" for name in NAMES]
        return ArrayBatches(make_samples(pair, names, *data), size)
    if not are_batches(data):
        raise TypeError(f"{expected} {type(data).__name__}")
    return GivenBatches(pair, data, steps, generator, ("validation_data", "validation_steps"))
