"""Networks of convolutions: layers one after the other, trained from pairs of images.

Names, defaults and formulas are Keras's.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _training, forward, optimizers
from ._array_files import load_array, load_text
from ._checks import (
    RealArray,
    as_dtype,
    as_numeric_array,
    check_dimensions,
    finite_number,
    integer,
)
from ._layers import ACTIVATIONS
from ._optimizers import Update
from ._steps import LOSSES, Layer, Step
from .callbacks import Callback, EpochReport, History
from .config import resolve_num_threads
from .data import random_generator
from .files import FilePath, atomic_write
from .layers import Conv2D
from .messages import print_line, say, translate
from .shapes import IMAGES, Shape
from .sharing import Stateful, changing, changing_within, reading
from .training import checked_callbacks, run_epochs

DataFormat: TypeAlias = Literal["channels_first", "channels_last"]
Loss: TypeAlias = Literal["mse", "mae", "mean_squared_error", "mean_absolute_error"]
Batch: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]
# What `fit` takes as x: an array, or batches: an iterator, or a function that gives them anew.
Source: TypeAlias = (
    npt.ArrayLike | Iterator[Batch] | Callable[[np.random.Generator], Iterable[Batch]]
)

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}

FORMAT = "convext model 1"

# So many steps, for batches of different shapes, keep their memory.
NUM_STEPS = 4

# A layer must not become part of two models at once.
_building = RLock()


class Sequential(Stateful):
    """Convolutions one after the other, from image to image.

    Parameters
    ----------
    layers : iterable of Conv2D, optional
        The layers, in order; more can be added with `add`.
    residual : bool, default False
        Whether the layers compute what is to be added to the input, as in a denoiser. Where the
        output is smaller than the input, its middle is meant.
    input_channels : int, optional
        The channels of the images. Without it, the first images that the model sees tell.
    data_format : "channels_first" or "channels_last", default "channels_first"
        Whether images are (N, C, H, W) or, as in Keras, (N, H, W, C).
    dtype : "float32" or "float64", default "float32"
        In which the model computes; images are converted.
    seed : int, optional
        Makes the first weights and the shuffling repeatable. By default it is drawn from NumPy's
        global generator, which ``numpy.random.seed`` makes repeatable.

    Attributes
    ----------
    layers : list of Conv2D
    built : bool
        Whether the number of channels is known, and the weights are there.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value.

    Notes
    -----
    Threads may share it to read it (`predict`, `evaluate`, `save`, ...); while one changes it
    (`fit`, ...), what others begin is a RuntimeError. A copy, by `copy.copy`, `copy.deepcopy` or
    `pickle`, shares nothing with the model, and is trained on with the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> model = convext.Sequential(
    ...     [convext.Conv2D(8, 3, activation="relu"), convext.Conv2D(1, 3)], seed=0
    ... )
    >>> model.compile(convext.Adam(0.01), "mse")
    >>> x = np.random.default_rng(0).random((32, 1, 16, 16), np.float32)
    >>> history = model.fit(x, x[:, :, 2:-2, 2:-2], epochs=50, verbose=0)
    >>> history.history["loss"][-1] < 0.1 * history.history["loss"][0]
    True
    >>> model.predict(x).shape
    (32, 1, 12, 12)
    """

    def __init__(
        self,
        layers: Iterable[Conv2D] = (),
        *,
        residual: bool = False,
        input_channels: int | None = None,
        data_format: DataFormat = "channels_first",
        dtype: str = "float32",
        seed: int | None = None,
    ) -> None:
        if data_format not in ("channels_first", "channels_last"):
            raise ValueError(
                f"data_format must be 'channels_first' or 'channels_last', got {data_format!r}"
            )
        name = np.dtype(dtype).name
        if name not in DTYPES:
            raise ValueError(f"dtype must be float32 or float64, got {name}")
        self.layers: list[Conv2D] = []
        self.residual = bool(residual)
        self.data_format = data_format
        self.dtype = DTYPES[name]
        self._generator = random_generator(seed)
        self._channels: int | None = None
        self._weights: RealArray = np.empty(0, self.dtype)
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Loss = "mse"
        self._update: Update | None = None
        self._steps: OrderedDict[object, Step] = OrderedDict()
        for layer in layers:
            self.add(layer)
        if input_channels is not None:
            self.build(input_channels)

    @property
    def built(self) -> bool:
        """Whether the number of channels is known, and the weights are there."""
        return self._channels is not None

    @changing
    def add(self, layer: Conv2D) -> None:
        """Add a layer behind the others, before the model is built."""
        if not isinstance(layer, Conv2D):
            raise TypeError(f"a layer must be a Conv2D, got {layer!r}")
        if self.built:
            raise ValueError("layers can only be added before the model is built")
        _check_free(layer, self.layers)
        self.layers.append(layer)

    def build(self, input_channels: int) -> None:
        """Make the weights for images of so many channels; once."""
        channels = integer("input_channels", input_channels, minimum=1)
        with _building:
            if not self.built:
                self._build(channels)
        if self._channels != channels:
            raise ValueError(f"the model is built for {self._channels} channels, got {channels}")

    def _build(self, channels: int) -> None:
        if not self.layers:
            raise ValueError("the model has no layers")
        if self.residual and self.layers[-1].filters != channels:
            raise ValueError(
                f"with residual=True the last layer must have as many filters as the input has "
                f"channels, {channels}, got {self.layers[-1].filters}"
            )
        first: list[npt.NDArray[Any]] = []
        count = channels
        for number, layer in enumerate(self.layers):
            _check_free(layer, self.layers[:number])
            first.append(layer.initial_kernels(count, self._generator))
            if layer.use_bias:
                first.append(np.zeros(layer.filters) if layer.bias is None else layer.bias)
            count = layer.filters
        self._weights = np.concatenate([array.ravel() for array in first]).astype(self.dtype)
        self._show_weights(channels)
        self._channels = channels

    def _show_weights(self, channels: int) -> None:
        """Let each layer see its part of the weights."""
        begin = 0
        for layer in self.layers:
            shape = layer.kernel_shape(channels)
            end = begin + math.prod(shape)
            kernel = self._weights[begin:end].reshape(shape)
            begin, channels = end, layer.filters
            if layer.use_bias:
                end += layer.filters
            layer.show_weights(self, kernel, self._weights[begin:end] if layer.use_bias else None)
            begin = end

    def __getstate__(self) -> dict[str, Any]:
        with self._guard.reading("a copy"):
            state = vars(self).copy()
            del state["_steps"]
            # Their values now: the caller copies what is returned here later on.
            for name in ("_weights", "_generator", "_update", "optimizer"):
                state[name] = copy.deepcopy(state[name])
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What is trained must be writable, whatever memory it was read from.
        own = {"_weights": np.array(state["_weights"]), "_update": copy.deepcopy(state["_update"])}
        vars(self).update(state, **own, _steps=OrderedDict())
        if self._channels is not None:
            self._show_weights(self._channels)

    @changing
    def compile(self, optimizer: optimizers.Optimizer | str = "adam", loss: Loss = "mse") -> None:
        """Choose how the model is trained; what the optimizer had gathered is forgotten.

        Parameters
        ----------
        optimizer : SGD, Adam, "sgd" or "adam", default "adam"
            How the weights follow the gradient.
        loss : "mse" or "mae", default "mse"
            What is made small: the mean of the squares, or of the absolute values, of
            ``prediction - y``. "mean_squared_error" and "mean_absolute_error" are the same.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 3)])
        >>> model.compile(convext.SGD(0.1, momentum=0.9), "mae")
        >>> model.optimizer
        SGD(learning_rate=0.1, momentum=0.9, nesterov=False)
        """
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        self.optimizer = optimizers.get_optimizer(optimizer)
        self.loss = loss
        self._update = None
        self._steps.clear()

    @changing
    def fit(
        self,
        x: Source,
        y: npt.ArrayLike | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: bool | int | str = "auto",
        callbacks: Iterable[Callback] = (),
        validation_split: float = 0.0,
        validation_data: Batch | None = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        num_threads: int | None = None,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        x : array_like, (N, C, H, W), or batches
            The images, memory-mapped ones included, in any type of real numbers: converted a batch
            at a time. Or an iterator over batches (x, y); or a function that is called at the
            beginning of each epoch, with the model's random generator, and returns an iterable of
            batches.
        y : array_like, (N, K, OH, OW), optional
            What the model should make of them; not given with batches.
        batch_size : int, default 32
            Samples for a step. The last batch of an epoch may be smaller.
        epochs : int, default 1
            How often to go through the data; the number of the last epoch.
        verbose : bool or "auto", default "auto"
            Print a line for each epoch; on a terminal, a progress bar when there are many.
        callbacks : iterable of callables
            Each is called after each epoch with an `EpochReport`, and may raise `StopTraining`.
        validation_split : float, default 0
            Keep this share of the samples, the last ones, to validate the model after each epoch.
        validation_data : (x, y), optional
            Samples to validate the model with.
        shuffle : bool, default True
            Take the samples of arrays in a new random order in every epoch.
        initial_epoch : int, default 0
            How many epochs of a training that goes on have been run: it begins with the next.
        steps_per_epoch : int, optional
            So many batches make an epoch, of an iterator or a function.
        num_threads : int, optional
            Default: `get_num_threads`. The result has the same bits for any number.

        Returns
        -------
        History
            The losses: the attribute ``history`` is a dictionary as in Keras.

        Raises
        ------
        FloatingPointError
            The loss became infinite or NaN.
        TypeError, ValueError
            An argument does not fit.

        Notes
        -----
        The loss that is reported for an epoch is the mean over the predictions made on the way,
        with the weights as they were then.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.build_model(2, (2, 2))
        >>> x, y = np.ones((10, 3, 8, 8)), np.ones((10, 2, 7, 7))
        >>> history = model.fit(x, y, batch_size=1, epochs=2, validation_split=0.2, verbose=0)
        >>> sorted(history.history)
        ['learning_rate', 'loss', 'val_loss']
        """
        epochs = integer("epochs", epochs, minimum=1)
        initial_epoch = integer("initial_epoch", initial_epoch, minimum=0)
        called = checked_callbacks(callbacks)
        threads = resolve_num_threads(num_threads)
        optimizer = self._compiled()
        validation = None
        batches: _Batches
        if _is_array(x):
            if y is None:
                raise ValueError("y is missing: x is an array")
            size = 32 if batch_size is None else integer("batch_size", batch_size, minimum=1)
            inputs, targets = self._pair(x, y, "x", "y")
            inputs, targets, validation = _split(inputs, targets, validation_split)
            batches = _BatchesOfArrays(inputs, targets, size, bool(shuffle), self._generator)
        else:
            if y is not None or batch_size is not None or validation_split:
                raise ValueError("y, batch_size and validation_split are for arrays: x is batches")
            batches = _GivenBatches(self, x, steps_per_epoch)
        if validation_data is not None:
            validation = self._pair(*validation_data, "validation x", "validation y")
        history = History()
        run = _Fit(self, batches, validation, threads)
        run_epochs(
            run,
            optimizer.learning_rate,
            epochs,
            batches.order,
            (history, *called),
            bool(verbose),
            initial_epoch,
        )
        return history

    @reading
    def evaluate(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        batch_size: int = 32,
        num_threads: int | None = None,
    ) -> float:
        """Return the loss of the model's predictions.

        Parameters
        ----------
        x : array_like, (N, C, H, W)
            The images.
        y : array_like, (N, K, OH, OW)
            What the model should make of them.
        batch_size : int, default 32
            So many samples are taken at a time.
        num_threads : int, optional
            Default: `get_num_threads`.

        Returns
        -------
        float

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> layer = convext.Conv2D(1, 1, kernel_initializer="zeros")
        >>> model = convext.Sequential([layer])
        >>> model.evaluate(np.ones((2, 1, 4, 4)), np.full((2, 1, 4, 4), 3))
        9.0
        """
        size = integer("batch_size", batch_size, minimum=1)
        inputs, targets = self._pair(x, y, "x", "y")
        return self._loss(inputs, targets, size, resolve_num_threads(num_threads))

    @reading
    def predict(self, x: npt.ArrayLike, num_threads: int | None = None) -> RealArray:
        """Return what the model makes of images, which may have any size.

        Large images are taken in strips, so that the memory that this needs stays bounded.

        Parameters
        ----------
        x : array_like, (C, H, W) or (N, C, H, W)
            One image, or N of them; with the channels last where the model has them so.
        num_threads : int, optional
            Default: `get_num_threads`.

        Returns
        -------
        numpy.ndarray, (K, OH, OW) or (N, K, OH, OW)
            In the model's type.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(4, 3), convext.Conv2D(1, 5)])
        >>> model.predict(np.ones((1, 100, 80))).shape
        (1, 94, 74)
        """
        threads = resolve_num_threads(num_threads)
        given = as_numeric_array("x", x)
        single = given.ndim == 3
        images = self._channels_first("x", given)
        layers = self._layers_for(images.shape[1:])
        result = forward.run(layers, images, self.dtype, threads)
        crop = self._crop(layers)
        if crop is not None:
            result += images[:, :, crop[0], crop[1]].astype(self.dtype, copy=False)
        if self.data_format == "channels_last":
            result = np.ascontiguousarray(np.moveaxis(result, 1, -1), self.dtype)
        return result[0] if single else result

    def summary(self) -> None:
        """Print the layers, the shapes of their kernels, and how many weights there are.

        Examples
        --------
        >>> import convext
        >>> layers = [convext.Conv2D(64, 9, activation="relu"), convext.Conv2D(1, 5)]
        >>> convext.Sequential(layers, input_channels=1).summary()
        Sequential, float32
          1  64 of 1x9x9   relu     5,248
          2  1 of 64x5x5   linear   1,601
        6,849 weights
        """
        residual = translate(", added to the input") if self.residual else ""
        print_line(f"Sequential, {self.dtype}{residual}")
        rows = []
        for number, layer in enumerate(self.layers, 1):
            shape = ("?", *layer.kernel_size) if layer.kernel is None else layer.kernel.shape[1:]
            size = "x".join(map(str, shape))
            kernels = translate("{filters} of {size}", filters=layer.filters, size=size)
            weights = f"{_count(layer):,}" if self.built else "?"
            rows.append((f"{number}", kernels, layer.activation, weights))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
        for row in rows:
            cells = [text.ljust(width) for text, width in zip(row[:-1], widths, strict=False)]
            print_line(f"  {'  '.join(cells[:2])}   {cells[2]}   {row[-1].rjust(widths[-1])}")
        if self.built:
            say("{number} weights", number=f"{self.count_params():,}")
        else:
            say("not built yet")

    def count_params(self) -> int:
        """Return the number of weights.

        Examples
        --------
        >>> import convext
        >>> convext.Sequential([convext.Conv2D(2, 2)], input_channels=3).count_params()
        26
        """
        self._check_built()
        return self._weights.size

    @reading
    def get_weights(self) -> list[RealArray]:
        """Return copies of the kernels (K, C/groups, kh, kw) and the bias (K,) of each layer.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(2, 5)], input_channels=3)
        >>> [array.shape for array in model.get_weights()]
        [(2, 3, 5, 5), (2,)]
        """
        self._check_built()
        return [array.copy() for array in self._variables()]

    @changing_within
    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Copy the kernels and the bias of each layer from a list like that of `get_weights`.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 1)], input_channels=1)
        >>> model.set_weights([np.full((1, 1, 1, 1), 2.0), [1.0]])
        >>> model.predict(np.array([[[3.0]]]))
        array([[[7.]]], dtype=float32)
        """
        if not self.built and weights and self.layers:
            channels = np.shape(weights[0])[1:2] or (0,)
            self.build(channels[0] * self.layers[0].groups)
        self._check_built()
        variables = self._variables()
        if len(weights) != len(variables):
            raise ValueError(f"weights must have {len(variables)} arrays, got {len(weights)}")
        arrays = [as_numeric_array(f"weights[{i}]", array) for i, array in enumerate(weights)]
        for i, (array, variable) in enumerate(zip(arrays, variables, strict=True)):
            if array.shape != variable.shape:
                raise ValueError(
                    f"weights[{i}] must have the shape {variable.shape}, got {array.shape}"
                )
        for array, variable in zip(arrays, variables, strict=True):
            variable[...] = array

    @reading
    def save(self, filepath: FilePath) -> None:
        """Write the model to one .npz file: its layers, its weights, and where its training is.

        That includes the state of the optimizer and of the random generator: a model that was
        saved and loaded goes on bit for bit as if it had not been. A failure leaves an older file
        as it was.

        Parameters
        ----------
        filepath : path
            The file to write.

        Raises
        ------
        TypeError
            The learning rate is a function that is not in `convext.schedules`.
        OSError
            The folder does not exist or is not writable, or the disk is full.

        Examples
        --------
        >>> import tempfile
        >>> import convext
        >>> model = convext.build_model(2, (2, 2))
        >>> model.build(3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.npz")
        ...     convext.load_model(f"{folder}/model.npz").summary()
        Sequential, float32
          1  2 of 3x2x2   relu   26
        26 weights
        """
        self._check_built()
        config = {
            "format": FORMAT,
            "layers": [layer.config() for layer in self.layers],
            "residual": self.residual,
            "input_channels": self._channels,
            "data_format": self.data_format,
            "dtype": self.dtype.name,
            "generator": self._generator.bit_generator.state,
            "optimizer": None if self.optimizer is None else self.optimizer.config(),
            "loss": self.loss,
            "iterations": 0 if self._update is None else self._update.iterations,
        }
        arrays: dict[str, npt.NDArray[Any]] = {"weights": self._weights}
        if self._update is not None:
            states = {"first": self._update.first, "second": self._update.second}
            arrays |= {f"optimizer_{k}": v for k, v in states.items() if v is not None}
        text = np.array(json.dumps(config))
        with atomic_write(filepath) as stream:
            np.savez(stream, allow_pickle=False, config=text, **arrays)

    # What fit, evaluate and predict stand on

    def _compiled(self) -> optimizers.Optimizer:
        if self.optimizer is None:
            raise ValueError("the model must be compiled before it is trained: see compile")
        return self.optimizer

    def _check_built(self) -> None:
        if not self.built:
            raise ValueError(
                "the model has no weights yet: give input_channels, or call build or fit"
            )

    def _variables(self) -> list[RealArray]:
        pairs = [(layer.kernel, layer.bias) for layer in self.layers]
        return [array for pair in pairs for array in pair if array is not None]

    def _channels_first(self, name: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return images as a view (N, C, H, W), checked; build the model where it is not."""
        layouts = IMAGES
        if self.data_format == "channels_last":
            layouts = {3: "(H, W, C)", 4: "(N, H, W, C)"}
        check_dimensions(name, images.shape, layouts)
        if images.ndim == 3:
            images = images[np.newaxis]
        if self.data_format == "channels_last":
            images = np.moveaxis(images, -1, 1)
        if not self.built:
            self.build(images.shape[1])
        return images

    def _pair(
        self, x: Any, y: Any, x_name: str, y_name: str
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        inputs = self._channels_first(x_name, as_numeric_array(x_name, x))
        targets = self._channels_first(y_name, as_numeric_array(y_name, y))
        expected = (len(inputs), *self._layers_for(inputs.shape[1:])[-1].output_shape)
        if targets.shape != expected:
            raise ValueError(
                f"{y_name} must have the shape {expected} (N, K, OH, OW) for {x_name} of the shape "
                f"{inputs.shape} (N, C, H, W), got {targets.shape}"
            )
        return inputs, targets

    def _layers_for(self, input_shape: Shape) -> list[Layer]:
        """Return the layers as they are for images (C, H, W)."""
        if input_shape[0] != self._channels:
            raise ValueError(
                f"the model takes images of {self._channels} channels, got {input_shape[0]} "
                f"(shape {input_shape})"
            )
        result, offset, shape = [], 0, input_shape
        for layer in self.layers:
            assert layer.kernel is not None
            convolution = layer.resolve(shape)
            output = (layer.filters, *convolution.output_shape)
            activation = ACTIVATIONS[layer.activation]
            result.append(
                Layer(
                    layer.kernel,
                    layer.bias,
                    offset,
                    shape,
                    output,
                    convolution[:4],
                    activation,
                )
            )
            offset += _count(layer)
            shape = output
        return result

    def margins(self, input_shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return how much the layers lose of an image (C, H, W): above, below; left, right.

        Raises
        ------
        ValueError
            A layer has strides other than 1.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 9), convext.Conv2D(1, (1, 4))])
        >>> model.build(1)
        >>> model.margins((1, 40, 40))
        ((4, 4), (5, 6))
        """
        layers = self._layers_for(input_shape)
        margins = []
        for axis in range(2):
            before = 0
            for layer, options in zip(self.layers, layers, strict=True):
                if options.options[0] != (1, 1):
                    raise ValueError("the layers must have strides of 1")
                before += (layer.extents[axis] - 1) // 2 - options.options[1][axis]
            lost = input_shape[1 + axis] - layers[-1].output_shape[1 + axis]
            margins.append((before, lost - before))
        return margins[0], margins[1]

    def _crop(self, layers: Sequence[Layer]) -> tuple[slice, slice] | None:
        """Return which rows and columns of the input lie under the output, where it is added."""
        if not self.residual:
            return None
        shape = layers[0].input_shape
        (top, bottom), (left, right) = self.margins(shape)
        if min(top, bottom, left, right) < 0:
            raise ValueError("residual=True needs an output no larger than the input")
        return slice(top, shape[1] - bottom), slice(left, shape[2] - right)

    @contextmanager
    def _step(self, input_shape: Shape, batch_size: int, num_threads: int) -> Iterator[Step]:
        """Lend a step for batches of up to so many images (C, H, W), whose memory it holds."""
        key = (input_shape, batch_size, num_threads, self.loss)
        with self._guard.lock:
            step = self._steps.pop(key, None)
        if step is None:
            layers = self._layers_for(input_shape)
            step = Step(
                layers,
                self._weights.size,
                batch_size,
                LOSSES[self.loss],
                self._crop(layers),
                self.dtype,
                num_threads,
            )
        yield step
        with self._guard.lock:
            self._steps[key] = step
            while len(self._steps) > NUM_STEPS:
                self._steps.popitem(last=False)

    def _current_update(self) -> Update:
        if self._update is None:
            self._update = self._make_update()
        return self._update

    def _make_update(self, states: Sequence[npt.NDArray[Any]] | None = None) -> Update:
        sizes = [
            [array.size for array in (layer.kernel, layer.bias) if array is not None]
            for layer in self.layers
        ]
        return self._compiled().make_update(sizes, self.dtype, states)

    def _loss(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        batch_size: int,
        num_threads: int,
    ) -> float:
        batch_size = min(batch_size, len(inputs))
        order = np.arange(len(inputs))
        total = 0.0
        with self._step(inputs.shape[1:], batch_size, num_threads) as step:
            for first in range(0, len(inputs), batch_size):
                batch = order[first : first + batch_size]
                total += step.evaluate(inputs, targets, batch) * len(batch)
        return total / len(inputs)


class _BatchesOfArrays:
    """Batches of the samples of two arrays."""

    def __init__(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        batch_size: int,
        shuffle: bool,
        generator: np.random.Generator,
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.batch_size = min(batch_size, len(inputs))
        self.shuffle, self.generator = shuffle, generator

    def order(self) -> npt.NDArray[np.intp]:
        """Return the order of the samples in the next epoch."""
        if self.shuffle:
            return self.generator.permutation(len(self.inputs))
        return np.arange(len(self.inputs))

    def epoch(self, order: npt.NDArray[np.intp]) -> Iterator[_Samples]:
        """Yield the batches of an epoch: two arrays, and which of their samples to take."""
        for first in range(0, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            yield self.inputs, self.targets, chosen, self.batch_size


_Samples: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.intp], int]


class _GivenBatches:
    """Batches from an iterator, or from a function that gives those of an epoch."""

    def __init__(
        self,
        model: Sequential,
        source: Any,
        steps_per_epoch: int | None,
    ) -> None:
        self.model, self.source = model, source
        self.steps = math.inf
        if steps_per_epoch is not None:
            self.steps = integer("steps_per_epoch", steps_per_epoch, minimum=1)
        elif not callable(source):
            raise ValueError("steps_per_epoch is missing: x is an iterator")

    def order(self) -> npt.NDArray[np.intp]:
        """Return nothing: batches come in their own order."""
        return np.arange(0)

    def epoch(self, _: npt.NDArray[np.intp]) -> Iterator[_Samples]:
        """Yield the batches of an epoch."""
        source = self.source
        given = iter(source(self.model._generator) if callable(source) else source)
        count = 0
        while count < self.steps:
            batch = next(given, None)
            if batch is None:
                break
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(f"a batch must be a pair (x, y), got {type(batch).__name__}")
            inputs, targets = self.model._pair(batch[0], batch[1], "x", "y")
            yield inputs, targets, np.arange(len(inputs)), len(inputs)
            count += 1
        if count == 0 or (count < self.steps and not callable(source)):
            raise ValueError(f"x gave {count} batches, expected {self.steps} for an epoch")


_Batches: TypeAlias = _BatchesOfArrays | _GivenBatches


class _Fit:
    """A training under way."""

    def __init__(
        self,
        model: Sequential,
        batches: _Batches,
        validation: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None,
        num_threads: int,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.num_threads = num_threads
        self.trainer = _fused_trainer(model, batches, num_threads)
        self.done = 0
        # Of batches that are given it is known after the first epoch.
        self.samples = len(batches.inputs) if isinstance(batches, _BatchesOfArrays) else None

    def report(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> EpochReport:
        """Run an epoch; return what there is to say about it."""
        model = self.model
        started = time.perf_counter()
        if self.trainer is not None:
            loss, _ = self.trainer.run_epoch(order, rate)
            self._check(loss, number, rate)
        else:
            loss = self._run_epoch(number, rate, order)
        val_loss = None
        if self.validation is not None:
            val_loss = model._loss(*self.validation, 32, self.num_threads)
        seconds = time.perf_counter() - started
        kernels = model._variables()[0].copy()
        return EpochReport(number, loss, rate, seconds, kernels, val_loss=val_loss, model=model)

    def _run_epoch(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> float:
        """Take a step for every batch; return the mean loss."""
        model = self.model
        total, self.done = 0.0, 0
        for inputs, targets, chosen, size in self.batches.epoch(order):
            update = model._current_update()  # there are no weights before the first batch
            update.learning_rate = rate
            with model._step(inputs.shape[1:], size, self.num_threads) as step:
                loss = step.differentiate(inputs, targets, chosen)
                self._check(loss, number, rate)
                update.update(model._weights, step.gradient)
            total += loss * len(chosen)
            self.done += len(chosen)
        self.samples = self.done
        return total / self.done

    def progress(self) -> tuple[int, int | None]:
        """Return how many samples of the epoch are done, and how many there are, if known."""
        return self.done if self.trainer is None else self.trainer.done, self.samples

    def _check(self, loss: float, number: int, rate: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {number}, with learning_rate {rate:g}: lower it, or "
                "clip the gradients (clipnorm)"
            )


# Arrays up to this size are converted and kept for the fused steps of a single small layer.
MAX_FUSED_BYTES = 64 << 20


def _fused_trainer(
    model: Sequential, batches: _Batches, num_threads: int
) -> _training.Trainer | None:
    """Return what trains a single layer on small samples an epoch at a time, where that is meant.

    It is the loop of `train_model`, with bias, activation and optimizer in it.
    """
    if (
        not isinstance(batches, _BatchesOfArrays)
        or len(model.layers) > 1
        or model.layers[0].groups > 1
        or model.residual
        or LOSSES[model.loss] != LOSSES["mse"]
        or (batches.inputs.size + batches.targets.size) * model.dtype.itemsize > MAX_FUSED_BYTES
    ):
        return None
    layer = model._layers_for(batches.inputs.shape[1:])[0]
    stride, padding_before, dilation, _ = layer.options
    trainer = _training.Trainer(
        as_dtype(batches.inputs, model.dtype, contiguous=True),
        as_dtype(batches.targets, model.dtype, contiguous=True),
        layer.kernels,
        batches.batch_size,
        stride,
        padding_before,
        dilation,
        num_threads,
        model._current_update(),
        layer.bias is not None,
        layer.activation,
    )
    return trainer if trainer.fused else None


def build_model(
    num_kernels: int, kernel_shape: tuple[int, int], num_channels: int = 3, **options: Any
) -> Sequential:
    """Return the textbook program's Keras model, compiled: a convolution with bias and ReLU.

    The optimizer is Adam and the loss the mean squared error.

    Parameters
    ----------
    num_kernels : int
        The channels of the output.
    kernel_shape : (int, int)
        Height and width of the kernels.
    num_channels : int, default 3
        The channels of the input.
    **options
        Of `Sequential`: seed, dtype, data_format.

    Returns
    -------
    Sequential

    Examples
    --------
    >>> import convext
    >>> convext.build_model(2, (2, 2)).summary()
    Sequential, float32
      1  2 of 3x2x2   relu   26
    26 weights
    """
    layer = Conv2D(num_kernels, kernel_shape, activation="relu")
    model = Sequential([layer], input_channels=num_channels, **options)
    model.compile("adam", "mse")
    return model


def load_model(filepath: FilePath) -> Sequential:
    """Read a model that `Sequential.save` wrote. Nothing is ever unpickled.

    Parameters
    ----------
    filepath : path
        The file to read.

    Returns
    -------
    Sequential
        Compiled if it was, and ready to go on with its training.

    Raises
    ------
    OSError
        From the system, unchanged: FileNotFoundError, IsADirectoryError, PermissionError.
    ValueError
        The file is not a model, or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import convext
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     convext.build_model(2, (2, 2)).save(f"{folder}/model.npz")
    ...     model = convext.load_model(f"{folder}/model.npz")
    >>> model.optimizer
    Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07)
    """
    text = load_text(filepath, "model", "config")
    try:
        config = {} if text is None else json.loads(text)
        if config.get("format") != FORMAT:
            raise ValueError("it is not a model that Sequential.save wrote")
        return _from_config(config, filepath)
    except (AttributeError, KeyError, TypeError, RecursionError, ValueError) as error:
        raise ValueError(f"model ({filepath}) cannot be read: {error}") from error


def _from_config(config: dict[str, Any], filepath: FilePath) -> Sequential:
    layers = [Conv2D(**_tuples(layer)) for layer in config["layers"]]
    model = Sequential(
        layers,
        residual=config["residual"],
        input_channels=config["input_channels"],
        data_format=config["data_format"],
        dtype=config["dtype"],
        seed=0,
    )
    model._generator.bit_generator.state = config["generator"]

    def flat(name: str) -> npt.NDArray[Any]:
        array = load_array(filepath, "model", member=name)
        if array.shape != model._weights.shape or array.dtype != model.dtype:
            raise ValueError(
                f"{name} must be {model._weights.shape} {model.dtype}, "
                f"got {array.shape} {array.dtype}"
            )
        return array

    model._weights[...] = flat("weights")
    if config["optimizer"] is not None:
        model.compile(optimizers.from_config(config["optimizer"]), config["loss"])
        if config["iterations"]:
            count = model._compiled()._num_states
            states = [flat(f"optimizer_{name}") for name in ("first", "second")[:count]]
            model._update = model._make_update(states)
            model._update.iterations = integer("iterations", config["iterations"], minimum=0)
    return model


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists that JSON made of tuples into tuples again."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def _is_array(x: object) -> bool:
    return not (callable(x) or (hasattr(x, "__next__") and not isinstance(x, np.ndarray)))


def _split(
    inputs: npt.NDArray[Any], targets: npt.NDArray[Any], share: float
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[npt.NDArray[Any], npt.NDArray[Any]] | None]:
    """Set the last samples apart for validation."""
    share = finite_number("validation_split", share, minimum=0, below=1)
    if share == 0:
        return inputs, targets, None
    first = math.floor(len(inputs) * (1 - share))
    if first in (0, len(inputs)):
        raise ValueError(
            f"validation_split is {share:g}: of {len(inputs)} samples that leaves {first} to train "
            f"on and {len(inputs) - first} to validate"
        )
    return inputs[:first], targets[:first], (inputs[first:], targets[first:])


def _check_free(layer: Conv2D, others: Sequence[Conv2D]) -> None:
    if layer.model is not None or any(layer is other for other in others):
        raise ValueError(
            f"{layer!r} can be part of a model only once: add a copy of it, copy.copy(layer), "
            "which begins with the same weights"
        )


def _count(layer: Conv2D) -> int:
    """Return the number of a layer's weights."""
    return sum(array.size for array in (layer.kernel, layer.bias) if array is not None)
