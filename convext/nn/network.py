"""Layers one after the other, and their weights: a network, however it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray, boolean, check_dimensions, integer, one_of
from .._support.memory import bytes_of
from .._support.messages import print_line, say, translate
from .._support.sealed import Sealed
from .._support.sharing import (
    Stateful,
    changing,
    changing_within,
    lock_of_process,
    reading,
)
from ..config import resolve_num_threads
from ..ops.data import DataFormat, random_generator
from ..ops.shapes import IMAGES, Shape
from ..train._layers import ACTIVATIONS
from ..train._steps import Layer
from . import prediction
from .batches import to_array
from .layers import Conv2D, Order, assign, check_order

# A layer must not become part of two models at once.
_building = lock_of_process()


class Network(Sealed, Stateful):
    """Convolutions one after the other, from image to image; see `Sequential`."""

    def __init__(
        self,
        *,
        residual: bool,
        data_format: DataFormat,
        dtype: str,
        seed: int | None,
        name: str | None,
    ) -> None:
        one_of("data_format", data_format, get_args(DataFormat))
        computed = np.dtype(dtype).name  # without a byte order
        if computed not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {computed}")
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"name must be text, got {name!r}")
        self.layers: list[Conv2D] = []
        self.name, self.residual = name, boolean("residual", residual)
        self.data_format = data_format
        self.dtype: np.dtype[Any] = np.dtype(computed)
        self._seed, self._generator = seed, random_generator(seed)
        self._channels: int | None = None
        self._built_layers: list[Conv2D] = []  # the layers whose weights these are, in this order
        self._weights: RealArray = np.empty(0, self.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "layers" and vars(self).get("_channels") is not None:
            raise AttributeError("layers can only be set before the model is built")
        super().__setattr__(name, value)

    @property
    def built(self) -> bool:
        """Whether the number of channels is known, and the weights are there."""
        return self._channels is not None

    @property
    def trainable(self) -> bool:
        """Whether all layers are trained; setting it sets that of each layer."""
        return all(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

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
        """Make the weights for images of `input_channels` channels; once."""
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

    @reading
    def predict(
        self,
        x: npt.ArrayLike,
        batch_size: int | None = None,
        verbose: bool | int | str = False,
        num_threads: int | None = None,
        *,
        out: npt.NDArray[Any] | None = None,
        max_memory: int | str | None = None,
    ) -> RealArray:
        """Return what the model makes of images, which may have any size.

        Large images are taken in strips, so that the memory that this needs stays bounded.

        Parameters
        ----------
        x : array_like, (C, H, W) or (N, C, H, W)
            One image, or N of them; with the channels last where the model has them so. They may
            be larger than the memory, as for `Sequential.fit`.
        batch_size, verbose
            Taken for the sake of programs written for Keras. They change nothing: how many
            images are computed at a time is what suits the memory, and nothing is printed.
        num_threads : int, optional
            Default: `get_num_threads`.
        out : numpy.ndarray, optional
            Where to put the result, of its shape and type; such as a map of a file
            (`numpy.lib.format.open_memmap`) where it is larger than the memory.
        max_memory : int or str, optional
            How many bytes a strip, what the layers make of it and the next one may take, such as
            "500MB"; but at least 16 rows, or all of them, of one image. Without it, some 100 MB,
            beyond which more brings no speed; less, where images that are not in memory find less.

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
        limit = None if max_memory is None else bytes_of("max_memory", max_memory)
        given = to_array("x", x)
        single = given.ndim == 3
        images = self._channels_first("x", given, empty_batch=True)
        layers = self._layers_for(images.shape[1:])
        shape = self._as_given((len(images), *layers[-1].output_shape))
        expected = shape[1:] if single else shape
        if out is None:
            out = np.empty(expected, self.dtype)
        elif not isinstance(out, np.ndarray) or (out.shape, out.dtype) != (expected, self.dtype):
            raise ValueError(f"out must be an array of {self.dtype} of shape {expected}")
        elif isinstance(given, np.ndarray) and np.may_share_memory(out, given):
            raise ValueError("out overlaps x, which would be overwritten while it is read")
        result = self._channels_first("out", out, empty_batch=True)
        prediction.predict(
            layers, images, self.dtype, threads, result, self._crop(layers), limit=limit
        )
        return out

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
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
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
        assign(self._variables(), weights, order)

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
            for layer, resolved in zip(self.layers, layers, strict=True):
                if resolved.geometry.stride != (1, 1):
                    raise ValueError("the layers must have strides of 1")
                before += (layer.extents[axis] - 1) // 2 - resolved.geometry.padding_before[axis]
            lost = input_shape[1 + axis] - layers[-1].output_shape[1 + axis]
            margins.append((before, lost - before))
        return margins[0], margins[1]

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
            geometry, activation = convolution.geometry, ACTIVATIONS[layer.activation]
            result.append(
                Layer(layer.kernel, layer.bias, offset, shape, output, geometry, activation)
            )
            offset += _count(layer)
            shape = output
        return result

    def _crop(self, layers: Sequence[Layer]) -> tuple[slice, slice] | None:
        """Return which rows and columns of the input lie under the output, where it is added."""
        if not self.residual:
            return None
        shape = layers[0].input_shape
        (top, bottom), (left, right) = self.margins(shape)
        if min(top, bottom, left, right) < 0:
            raise ValueError("residual=True needs an output no larger than the input")
        return slice(top, shape[1] - bottom), slice(left, shape[2] - right)

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
        return [variable for layer in self.layers for variable in layer._variables]

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


def _check_free(layer: Conv2D, others: Sequence[Conv2D]) -> None:
    if layer.model is not None or any(layer is other for other in others):
        raise ValueError(
            f"{layer!r} can be part of a model only once: add a copy of it, copy.copy(layer), "
            "which begins with the same weights"
        )


def _count(layer: Conv2D) -> int:
    """Return the number of a layer's weights."""
    return sum(variable.size for variable in layer._variables)
