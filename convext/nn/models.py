"""Networks of convolutions: layers one after the other, trained from pairs of images.

Names, defaults and formulas are Keras's.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.array_files import load_array, load_record
from .._support.checks import (
    RealArray,
    as_dtype,
    check_dimensions,
    integer,
)
from .._support.files import FilePath, atomic_write
from .._support.messages import format_loss, print_line, say, translate
from .._support.sealed import Sealed
from .._support.sharing import Stateful, changing, changing_within, reading
from ..config import resolve_num_threads
from ..ops.data import random_generator
from ..ops.shapes import IMAGES, Pair, Shape
from ..train import _training
from ..train._layers import ACTIVATIONS
from ..train._optimizers import Update
from ..train._steps import LOSSES, Layer, Step
from ..train.callbacks import Callback, History
from ..train.hooks import checked_callbacks
from ..train.loop import run_epochs
from . import optimizers, prediction
from .batches import (
    ArrayBatches,
    Batch,
    Batches,
    Chosen,
    GivenBatches,
    Source,
    are_batches,
    make_samples,
    to_array,
    where_not_finite,
)
from .fitting import Fit, Means
from .layers import Conv2D, Order, check_order, fitting

DataFormat: TypeAlias = Literal["channels_first", "channels_last"]
Loss: TypeAlias = Literal["mse", "mae", "mean_squared_error", "mean_absolute_error"]
# What `fit` takes as x.
Images: TypeAlias = npt.ArrayLike | Batches

_NAMES = ("x", "y", "sample_weight")

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}

FORMAT = "convext model 1"

# So many steps, for batches of different shapes, keep their memory.
NUM_STEPS = 4

# A layer must not become part of two models at once.
_building = RLock()


class Sequential(Sealed, Stateful):
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
    name : str, optional
        What to call the model.

    Attributes
    ----------
    layers : list of Conv2D
    stop_training : bool
        What a callback sets to end the training after the epoch.
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
        name: str | None = None,
    ) -> None:
        if data_format not in ("channels_first", "channels_last"):
            raise ValueError(
                f"data_format must be 'channels_first' or 'channels_last', got {data_format!r}"
            )
        computed = np.dtype(dtype).name
        if computed not in DTYPES:
            raise ValueError(f"dtype must be float32 or float64, got {computed}")
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"name must be text, got {name!r}")
        self.layers: list[Conv2D] = []
        self.name, self.stop_training = name, False
        self.residual = bool(residual)
        self.data_format = data_format
        self.dtype = DTYPES[computed]
        self._generator = random_generator(seed)
        self._channels: int | None = None
        self._built_layers: list[Conv2D] = []  # the layers whose weights these are, in this order
        self._weights: RealArray = np.empty(0, self.dtype)
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Loss = "mse"
        self._metrics: tuple[Loss, ...] = ()
        self._update: Update | None = None
        self._steps: OrderedDict[object, Step] = OrderedDict()
        for layer in layers:
            self.add(layer)
        self._seal()
        if input_channels is not None:
            self.build(input_channels)

    # Keras's own History callback sets a history.
    _settable = ("name", "trainable", "stop_training", "history", "layers")
    _instead = "see compile, or make a new model"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "layers" and vars(self).get("_channels") is not None:
            raise AttributeError("layers can only be set before the model is built")
        super().__setattr__(name, value)

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
            if layer.input_shape is not None and self._channels_of(layer) != count:
                raise ValueError(
                    f"{layer!r} has the input_shape {layer.input_shape}, but its input has {count} "
                    "channels"
                )
            first.append(layer.initial_kernels(count, self._generator))
            if layer.use_bias:
                first.append(np.zeros(layer.filters) if layer.bias is None else layer.bias)
            count = layer.filters
        self._weights = np.concatenate([array.ravel() for array in first]).astype(self.dtype)
        self._show_weights(channels)
        self._built_layers, self._channels = self.layers.copy(), channels

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
    def compile(
        self,
        optimizer: optimizers.Optimizer | str = "adam",
        loss: Loss = "mse",
        metrics: Iterable[Loss] | None = None,
    ) -> None:
        """Choose how the model is trained; what the optimizer had gathered is forgotten.

        Parameters
        ----------
        optimizer : SGD, Adam, "sgd" or "adam", default "adam"
            How the weights follow the gradient.
        loss : "mse" or "mae", default "mse"
            What is made small: the mean of the squares, or of the absolute values, of
            ``prediction - y``. "mean_squared_error" and "mean_absolute_error" are the same.
        metrics : list of str, optional
            Which of these to measure as well, in `fit` and `evaluate`; as in Keras, the weights of
            samples do not count in them.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 3)])
        >>> model.compile(convext.SGD(0.1, momentum=0.9), "mae", metrics=["mse"])
        >>> model.optimizer
        SGD(learning_rate=0.1, momentum=0.9, nesterov=False)
        """
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        if isinstance(metrics, str):
            raise TypeError(f"metrics must be a list of names, got {metrics!r}: put it in a list")
        measured = tuple(metrics or ())
        for metric in measured:
            if not isinstance(metric, str) or metric not in LOSSES:
                raise ValueError(
                    f"metrics can be {', '.join(LOSSES)}, got {metric!r}: for others, give `fit` a "
                    "callback that calls predict"
                )
        vars(self).update(optimizer=optimizers.get_optimizer(optimizer), loss=loss)
        self._metrics = measured
        self._update = None
        self._steps.clear()

    @property
    def metrics_names(self) -> list[str]:
        """The names of the loss and the metrics, as `evaluate` returns them."""
        return ["loss", *self._metrics]

    @property
    def trainable(self) -> bool:
        """Whether all layers are trained; setting it sets that of each layer."""
        return all(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

    @changing
    def fit(
        self,
        x: Images,
        y: npt.ArrayLike | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: bool | int | str = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Batch | Batches | None = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        num_threads: int | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        x : array_like, (N, C, H, W), or batches
            The images, memory-mapped ones included, in any type of real numbers: converted a batch
            at a time. Or batches, (x, y) or (x, y, sample_weight), of arrays or tensors: an object
            that gives them anew in each epoch, such as a list, PyTorch's DataLoader or Keras's
            Sequence; a function that is called at the beginning of each epoch, with the model's
            random generator if it takes an argument, and returns an iterable; or an iterator, which
            goes on from epoch to epoch.
        y : array_like, (N, K, OH, OW), optional
            What the model should make of them; not given with batches.
        batch_size : int, default 32
            Samples for a step. The last batch of an epoch may be smaller.
        epochs : int, default 1
            How often to go through the data; the number of the last epoch.
        verbose : bool or "auto", default "auto"
            Print a line for each epoch; on a terminal, a progress bar when there are many.
        callbacks : iterable of callables, optional
            Each is called after each epoch with an `EpochReport`, and may raise `StopTraining`.
            Objects may instead have methods as in Keras: set_model(model), on_train_begin(logs),
            on_epoch_begin(epoch, logs), on_epoch_end(epoch, logs), on_train_end(logs), with epochs
            counted from 0; they may set ``model.stop_training`` or the optimizer's learning rate.
        validation_split : float, default 0
            Keep this share of the samples, the last ones, to validate the model after each epoch;
            none with `validation_data`.
        validation_data : (x, y), (x, y, sample_weight) or batches, optional
            Samples to validate the model with; batches as for `x`, but in a list only as part of
            an object or a function.
        shuffle : bool, default True
            Take the samples of arrays in a new random order in every epoch.
        initial_epoch : int, default 0
            How many epochs of a training that goes on have been run: it begins with the next.
        steps_per_epoch : int, optional
            So many batches make an epoch, at most those that there are; needed for an iterator.
        num_threads : int, optional
            Default: `get_num_threads`. The result has the same bits for any number.
        sample_weight : array_like, (N,) or (N, 1, 1), optional
            What the loss of each sample is multiplied by: the loss is ``mean(sample_weight *
            loss_of_sample)``, as in Keras.
        validation_steps : int, optional
            So many batches of `validation_data` are taken; needed for an iterator.
        validation_batch_size : int, default 32
            So many samples of `validation_data` are taken at a time, of arrays.

        Returns
        -------
        History
            The losses and metrics: the attribute ``history`` is a dictionary as in Keras.

        Raises
        ------
        FloatingPointError
            The loss, or that of the validation data, became infinite or NaN. Where values of the
            data are, it says which; the weights stay as they were before.
        TypeError, ValueError
            An argument does not fit.

        Notes
        -----
        The loss that is reported for an epoch is the mean over the predictions made on the way,
        with the weights as they were then. A layer whose ``trainable`` is False keeps its weights.

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
        self._compiled()
        batches = self._source(
            x, y, sample_weight, batch_size, steps_per_epoch, "steps_per_epoch", bool(shuffle)
        )
        validation: Source | None = None
        if validation_split and validation_data is None:
            if not isinstance(batches, ArrayBatches):
                raise ValueError("validation_split is for arrays: x is batches")
            batches, validation = batches.split(validation_split)
        size = 32 if validation_batch_size is None else validation_batch_size
        size = integer("validation_batch_size", size, minimum=1)
        if validation_data is not None:
            validation = self._validation(validation_data, validation_steps, size)
        elif validation_steps is not None:
            raise ValueError("validation_steps is for batches: there is no validation_data")
        history = History()
        run = Fit(self, batches, validation, _fused_trainer(self, batches, threads), threads)
        run_epochs(
            run, epochs, batches.order, (history, *called), bool(verbose), initial_epoch, self
        )
        return history

    @reading
    def evaluate(
        self,
        x: Images,
        y: npt.ArrayLike | None = None,
        batch_size: int | None = None,
        verbose: bool | int | str = False,
        sample_weight: npt.ArrayLike | None = None,
        steps: int | None = None,
        return_dict: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Return the loss of the model's predictions, and its metrics.

        Parameters
        ----------
        x, y, batch_size, sample_weight
            As for `fit`: arrays or batches.
        verbose : bool, default False
            Whether to print the result, too.
        steps : int, optional
            How many batches to take, of batches.
        return_dict : bool, default False
            Whether to return a dictionary by the names of the loss and the metrics.
        num_threads : int, optional
            Default: `get_num_threads`.

        Returns
        -------
        float, or list of float, or dict of str to float
            The loss; a list of it and the metrics where `compile` was given some. NaN where the
            data have NaN or infinite values.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> layer = convext.Conv2D(1, 1, kernel_initializer="zeros")
        >>> model = convext.Sequential([layer])
        >>> model.evaluate(np.ones((2, 1, 4, 4)), np.full((2, 1, 4, 4), 3))
        9.0
        """
        threads = resolve_num_threads(num_threads)
        batches = self._source(x, y, sample_weight, batch_size, steps, "steps")
        values = self._test(batches, threads)
        if verbose and verbose != "auto":
            print_line(", ".join(f"{name}: {format_loss(v)}" for name, v in values.items()))
        return _as_asked(values, return_dict)

    @reading
    def predict(
        self,
        x: npt.ArrayLike,
        batch_size: int | None = None,
        verbose: bool | int | str = False,
        num_threads: int | None = None,
    ) -> RealArray:
        """Return what the model makes of images, which may have any size.

        Large images are taken in strips, so that the memory that this needs stays bounded.

        Parameters
        ----------
        x : array_like, (C, H, W) or (N, C, H, W)
            One image, or N of them; with the channels last where the model has them so.
        batch_size, verbose
            Taken for the sake of programs written for Keras. They change nothing: so many images
            are computed at a time as suits the memory, and nothing is printed.
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
        if batch_size is not None:
            integer("batch_size", batch_size, minimum=1)
        threads = resolve_num_threads(num_threads)
        given = to_array("x", x)
        single = given.ndim == 3
        images = self._channels_first("x", given, empty_batch=True)
        layers = self._layers_for(images.shape[1:])
        result = prediction.run(layers, images, self.dtype, threads)
        crop = self._crop(layers)
        if crop is not None:
            result += images[:, :, crop[0], crop[1]].astype(self.dtype, copy=False)
        if self.data_format == "channels_last":
            result = np.ascontiguousarray(np.moveaxis(result, 1, -1), self.dtype)
        return result[0] if single else result

    @changing
    def train_on_batch(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        return_dict: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Take one step on a batch; return the loss, and the metrics, before it.

        The learning rate must be a number: a function needs to know the epoch, which `fit` counts.
        Parameters and what is returned are as for `evaluate`; unlike in Keras the metrics are
        those of this batch alone.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 1, kernel_initializer="zeros")])
        >>> model.compile("sgd")
        >>> x, y = np.ones((2, 1, 4, 4)), np.full((2, 1, 4, 4), 3)
        >>> model.train_on_batch(x, y), round(model.test_on_batch(x, y), 4)
        (9.0, 8.2944)
        """
        threads = resolve_num_threads(num_threads)
        rate = self._compiled().learning_rate
        if callable(rate):
            raise ValueError(
                "learning_rate is a function of the epoch, which train_on_batch does not know: set "
                "optimizer.learning_rate to a number"
            )
        samples = make_samples(self._pair, x, y, sample_weight, _NAMES)
        self._freeze()
        batch = Chosen(samples, np.arange(len(samples.inputs)), len(samples.inputs))
        return _as_asked(self._learn(batch, rate, threads, "in train_on_batch"), return_dict)

    def test_on_batch(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        return_dict: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Return what `evaluate` does for one batch."""
        size = sys.maxsize
        return self.evaluate(x, y, size, False, sample_weight, None, return_dict, num_threads)

    def predict_on_batch(self, x: npt.ArrayLike) -> RealArray:
        """Return what `predict` does."""
        return self.predict(x)

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
    def get_weights(self, order: Order = "KCHW") -> list[RealArray]:
        """Return copies of the kernels (K, C/groups, kh, kw) and the bias (K,) of each layer.

        Parameters
        ----------
        order : "KCHW" or "HWCK", default "KCHW"
            The order of the kernels' axes: with "HWCK" (kh, kw, C/groups, K), as in Keras.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(2, 5)], input_channels=3)
        >>> [array.shape for array in model.get_weights()]
        [(2, 3, 5, 5), (2,)]
        """
        self._check_built()
        return [array for layer in self.layers for array in layer.get_weights(order)]

    @changing_within
    def set_weights(self, weights: Sequence[npt.ArrayLike], order: Order = "KCHW") -> None:
        """Copy the kernels and the bias of each layer from a list like that of `get_weights`.

        Kernels of Keras, whose axes are (kh, kw, C/groups, K), need ``order="HWCK"``: where as many
        kernels as rows and as many channels as columns make both orders the same shape, nothing
        else tells them apart.

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
            self._build_for(weights[0], order)
        self._check_built()
        variables = self._variables()
        for variable, array in zip(variables, fitting(weights, variables, order), strict=True):
            variable[...] = array

    def _build_for(self, kernel: npt.ArrayLike, order: Order) -> None:
        """Make the weights for the channels that the first layer's kernels have."""
        first, axes = self.layers[0], check_order(order)
        given = np.shape(kernel)
        shape = tuple(given[axis] for axis in axes) if len(given) == len(axes) else given
        if shape[:1] + shape[2:] != (first.filters, *first.kernel_size):
            raise ValueError(
                f"weights[0] must be kernels of {first!r} with the axes {order}, got the shape "
                f"{given}"
            )
        self.build(shape[1] * first.groups)

    @reading
    def save(self, filepath: FilePath, checkpoint: dict[str, object] | None = None) -> None:
        """Write the model to one .npz file: its layers, its weights, and where its training is.

        That includes the state of the optimizer and of the random generator: a model that was
        saved and loaded goes on bit for bit as if it had not been. A failure leaves an older file
        as it was.

        Parameters
        ----------
        filepath : path
            The file to write.
        checkpoint : dict, optional
            What a `ModelCheckpoint` notes: how good the model is.

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
            "name": self.name,
            "checkpoint": checkpoint,
            "residual": self.residual,
            "input_channels": self._channels,
            "data_format": self.data_format,
            "dtype": self.dtype.name,
            "generator": self._generator.bit_generator.state,
            "optimizer": None if self.optimizer is None else self.optimizer.config(),
            "loss": self.loss,
            "metrics": self._metrics,
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

    def _channels_of(self, layer: Conv2D) -> int | None:
        """Return the channels of the input_shape that a layer was given."""
        if layer.input_shape is None:
            return None
        return layer.input_shape[-1 if self.data_format == "channels_last" else 0]

    def _check_layers(self) -> None:
        if self.layers != self._built_layers:
            raise ValueError(
                "layers were added to, taken from or moved in the model after it was built: make a "
                "new one"
            )

    def _check_built(self) -> None:
        if not self.built and self.layers:
            channels = self._channels_of(self.layers[0])
            if channels is not None:
                self.build(channels)
        if not self.built:
            raise ValueError(
                "the model has no weights yet: give input_channels, or call build or fit"
            )
        self._check_layers()

    def _variables(self) -> list[RealArray]:
        pairs = [(layer.kernel, layer.bias) for layer in self.layers]
        return [array for pair in pairs for array in pair if array is not None]

    def _channels_first(
        self, name: str, images: npt.NDArray[Any], *, empty_batch: bool = False
    ) -> npt.NDArray[Any]:
        """Return images as a view (N, C, H, W), checked; build the model where it is not."""
        layouts = IMAGES
        if self.data_format == "channels_last":
            layouts = {3: "(H, W, C)", 4: "(N, H, W, C)"}
        check_dimensions(name, images.shape, layouts, empty_batch=empty_batch)
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
        inputs = self._channels_first(x_name, to_array(x_name, x))
        targets = self._channels_first(y_name, to_array(y_name, y))
        expected = (len(inputs), *self._layers_for(inputs.shape[1:])[-1].output_shape)
        if targets.shape != expected:
            last = self.data_format == "channels_last"
            of_y, of_x = ("N, OH, OW, K", "N, H, W, C") if last else ("N, K, OH, OW", "N, C, H, W")
            raise ValueError(
                f"{y_name} must have the shape {self._as_given(expected)} ({of_y}) for {x_name} of "
                f"the shape {self._as_given(inputs.shape)} ({of_x}), got "
                f"{self._as_given(targets.shape)}"
            )
        return inputs, targets

    def _as_given(self, shape: Shape) -> Shape:
        """Return a shape (..., C, H, W) as the caller has it."""
        if self.data_format == "channels_last":
            return (*shape[:-3], *shape[-2:], shape[-3])
        return shape

    def _source(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        batch_size: int | None,
        steps: int | None,
        steps_name: str,
        shuffle: bool = False,
    ) -> Source:
        """Return the batches of arrays, or those that are given."""
        if are_batches(x, y):
            for name, value in zip(
                ("y", "batch_size", "sample_weight"), (y, batch_size, sample_weight), strict=True
            ):
                if value is not None:
                    raise ValueError(f"{name} is for arrays: x is batches")
            return GivenBatches(self._pair, x, steps, self._generator, ("x", steps_name))
        if y is None:
            raise ValueError("y is missing: x is an array")
        if steps is not None:
            raise ValueError(f"{steps_name} is for batches: x is an array")
        size = 32 if batch_size is None else integer("batch_size", batch_size, minimum=1)
        samples = make_samples(self._pair, x, y, sample_weight, _NAMES)
        return ArrayBatches(samples, size, self._generator if shuffle else None)

    def _validation(self, data: Any, steps: int | None, size: int) -> Source:
        if isinstance(data, (tuple, list)):
            if len(data) not in (2, 3):
                raise ValueError(
                    "validation_data must be (x, y), (x, y, sample_weight) or batches, got "
                    f"{len(data)} elements"
                )
            if steps is not None:
                raise ValueError("validation_steps is for batches: validation_data is arrays")
            x, y, *weights = data
            names = [f"validation {name}" for name in _NAMES]
            samples = make_samples(self._pair, x, y, weights[0] if weights else None, names)
            return ArrayBatches(samples, size)
        if not are_batches(data):
            raise TypeError(
                "validation_data must be (x, y), (x, y, sample_weight) or batches, got "
                f"{type(data).__name__}"
            )
        of_batches = "validation_data", "validation_steps"
        return GivenBatches(self._pair, data, steps, self._generator, of_batches)

    def _layers_for(self, input_shape: Shape) -> list[Layer]:
        """Return the layers as they are for images (C, H, W)."""
        if input_shape[0] != self._channels:
            raise ValueError(
                f"the model takes images of {self._channels} channels, got {input_shape[0]} "
                f"(shape {self._as_given(input_shape)})"
            )
        self._check_layers()
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
        key = (input_shape, batch_size, num_threads, self.loss, bool(self._metrics))
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
                bool(self._metrics),
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

    def _freeze(self) -> None:
        """Leave the weights of layers alone that are not trainable."""
        frozen = None
        if not self.trainable:
            frozen = np.array(
                [not layer.trainable for layer in self.layers for _ in range(1 + layer.use_bias)],
                np.uint8,
            )
        self._current_update().freeze(frozen)

    def _make_update(self, states: Sequence[npt.NDArray[Any]] | None = None) -> Update:
        sizes = [
            [array.size for array in (layer.kernel, layer.bias) if array is not None]
            for layer in self.layers
        ]
        return self._compiled().make_update(sizes, self.dtype, states)

    def _learn(self, batch: Chosen, rate: float, num_threads: int, when: str) -> dict[str, float]:
        """Take a step for a batch; return its loss and metrics before."""
        update = self._current_update()
        update.learning_rate = rate
        inputs, targets, weights = batch.samples
        with self._step(inputs.shape[1:], batch.size, num_threads) as step:
            loss = step.differentiate(inputs, targets, batch.order, weights)
            if not math.isfinite(loss):
                raise self._not_finite(loss, batch, when, rate)
            update.update(self._weights, step.gradient)
            return self._values(loss, step)

    def _test(self, batches: Source, num_threads: int, when: str | None = None) -> dict[str, float]:
        """Return the loss and the metrics for batches; in a training these must be finite."""
        means = Means()
        for batch in batches.epoch(batches.order()):
            inputs, targets, weights = batch.samples
            with self._step(inputs.shape[1:], batch.size, num_threads) as step:
                loss = step.evaluate(inputs, targets, batch.order, weights)
                if when is not None and not math.isfinite(loss):
                    raise self._not_finite(loss, batch, when)
                means.add(self._values(loss, step), len(batch.order))
        return means.values()

    def _values(self, loss: float, step: Step) -> dict[str, float]:
        if step.measures is None:
            return {"loss": loss}
        return {"loss": loss, **{m: float(step.measures[LOSSES[m]]) for m in self._metrics}}

    def _not_finite(
        self, loss: float, batch: Chosen, when: str, rate: float | None = None
    ) -> FloatingPointError:
        """Return what to raise where a loss is not finite: whether the data are to blame."""
        kind = "validation " if rate is None else ""
        where = where_not_finite(batch, self.dtype, kind)
        if where is not None:
            cause = f": {where}"
        elif rate is None:
            cause = ": the predictions are too large"
        else:
            cause = (
                f", with learning_rate {rate:g}: lower it, or clip the gradients (clipnorm), or "
                "scale the data"
            )
        return FloatingPointError(f"the {kind}loss is {loss} {when}{cause}")


# Arrays up to this size are converted and kept for the fused steps of a single small layer.
MAX_FUSED_BYTES = 64 << 20


def _fused_trainer(
    model: Sequential, batches: Source, num_threads: int
) -> _training.Trainer | None:
    """Return what trains a single layer on small samples an epoch at a time, where that is meant.

    It is the loop of `train_model`, with bias, activation and optimizer in it.
    """
    if (
        not isinstance(batches, ArrayBatches)
        or batches.samples.weights is not None
        or model._metrics
        or len(model.layers) > 1
        or model.layers[0].groups > 1
        or model.residual
        or LOSSES[model.loss] != LOSSES["mse"]
    ):
        return None
    inputs, targets, _ = batches.samples
    if (inputs.size + targets.size) * model.dtype.itemsize > MAX_FUSED_BYTES:
        return None
    layer = model._layers_for(inputs.shape[1:])[0]
    stride, padding_before, dilation, _ = layer.options
    trainer = _training.Trainer(
        as_dtype(inputs, model.dtype, contiguous=True),
        as_dtype(targets, model.dtype, contiguous=True),
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
    num_kernels: int, kernel_shape: Pair, num_channels: int = 3, **options: Any
) -> Sequential:
    """Return the textbook program's Keras model, compiled: a convolution with bias and ReLU.

    The optimizer is Adam and the loss the mean squared error.

    Parameters
    ----------
    num_kernels : int
        The channels of the output.
    kernel_shape : int or (int, int)
        Height and width of the kernels; one number is both.
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
    try:
        config = load_record(filepath, "model", "config") or {}
        if config.get("format") != FORMAT:
            raise ValueError("it is not a model that Sequential.save wrote")
        return _from_config(config, filepath)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # nobody can foresee what a damaged description leads to
        raise ValueError(f"model ({filepath}) cannot be read: {error}") from error


def _from_config(config: dict[str, Any], filepath: FilePath) -> Sequential:
    model = Sequential(
        [Conv2D(**_tuples(layer)) for layer in config["layers"]],
        residual=config["residual"],
        data_format=config["data_format"],
        dtype=config["dtype"],
        seed=0,
        name=config.get("name"),
    )
    channels = integer("input_channels", config["input_channels"], minimum=1)
    shape = (sum(_sizes(model.layers, channels)),)

    def flat(name: str) -> npt.NDArray[Any]:
        array = load_array(filepath, "model", member=name)
        if array.shape != shape or array.dtype != model.dtype:
            raise ValueError(
                f"{name} must be {shape} {model.dtype}, got {array.shape} {array.dtype}"
            )
        return array

    weights = flat("weights")  # before as many are made
    model.build(channels)
    model._weights[...] = weights
    model._generator.bit_generator.state = config["generator"]
    if config["optimizer"] is not None:
        metrics = config.get("metrics")
        model.compile(optimizers.from_config(config["optimizer"]), config["loss"], metrics)
        if config["iterations"]:
            count = model._compiled()._num_states
            states = [flat(f"optimizer_{name}") for name in ("first", "second")[:count]]
            model._update = model._make_update(states)
            model._update.iterations = integer("iterations", config["iterations"], minimum=0)
    return model


def _sizes(layers: Sequence[Conv2D], channels: int) -> Iterator[int]:
    """Yield how many weights each layer has behind images of so many channels."""
    for layer in layers:
        yield math.prod(layer.kernel_shape(channels)) + layer.use_bias * layer.filters
        channels = layer.filters


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists that JSON made of tuples into tuples again."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def _as_asked(values: dict[str, float], return_dict: bool) -> Any:
    """Return losses and metrics as Keras does: a number if it is one alone, a list, a dict."""
    if return_dict:
        return values
    numbers = list(values.values())
    return numbers[0] if len(numbers) == 1 else numbers


def _check_free(layer: Conv2D, others: Sequence[Conv2D]) -> None:
    if layer.model is not None or any(layer is other for other in others):
        raise ValueError(
            f"{layer!r} can be part of a model only once: add a copy of it, copy.copy(layer), "
            "which begins with the same weights"
        )


def _count(layer: Conv2D) -> int:
    """Return the number of a layer's weights."""
    return sum(array.size for array in (layer.kernel, layer.bias) if array is not None)
