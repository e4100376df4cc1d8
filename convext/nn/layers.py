"""The layers of a network: convolutions with bias and activation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from weakref import ReferenceType

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray, as_numeric_array, boolean, integer, integer_pair
from .._support.sealed import Sealed
from .._support.sharing import Stateful
from ..ops.shapes import Convolution, Padding, Pair, Shape, check_groups, resolve
from ..train._layers import ACTIVATIONS

Activation: TypeAlias = Literal["linear", "relu", "leaky_relu", "sigmoid", "tanh"]
Order: TypeAlias = Literal["KCHW", "HWCK"]

# The axes of kernels in each order, as they lie here; and back.
_ORDERS = {"KCHW": (0, 1, 2, 3), "HWCK": (3, 2, 0, 1)}
_BACK = {"KCHW": (0, 1, 2, 3), "HWCK": (2, 3, 1, 0)}

INITIALIZERS = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "zeros")


class Conv2D(Sealed, Stateful):
    """A convolution, a bias and an activation; names and defaults are Keras's.

    Parameters
    ----------
    filters : int
        How many kernels, K.
    kernel_size : int or (int, int)
        Their height and width.
    strides : int or (int, int), default 1
        Pixels from one window to the next, down and across.
    padding : "valid", "same", int, ..., default "valid"
        Zeros around the input; as for `conv2d`.
    dilation_rate : int or (int, int), default 1
        Pixels from one tap of a kernel to the next, down and across.
    groups : int, default 1
        How many groups channels and kernels are shared out to.
    activation : {None, "linear", "relu", "leaky_relu", "sigmoid", "tanh"}
        Applied to the result. Leaky ReLU multiplies negative values by 0.2.
    use_bias : bool, default True
        Whether to add a number to the results of each kernel.
    kernel_initializer : str, default "glorot_uniform"
        How the kernels are made: "glorot_uniform", "glorot_normal", "he_uniform", "he_normal" or
        "zeros". The bias begins with zeros.
    seed : int, optional
        Of the kernels; by default they come from the model's random generator.
    name : str, optional
        What to call the layer.
    trainable : bool, default True
        Whether training changes the weights; an attribute that can be set at any time.
    input_shape : tuple of int, optional
        (C, H, W), or (H, W, C) in a model with the channels last. Only the channels matter: with
        those of the first layer, weights can be had before any data was seen.

    Attributes
    ----------
    kernel : numpy.ndarray or None
        The kernels, (K, C/groups, kh, kw), once the model is built.
    bias : numpy.ndarray or None
        The bias, (K,).

    Notes
    -----
    Threads may share it. Once its model is built, a layer's weights are that model's: setting
    `kernel` or `bias` copies the values, and no other model takes the layer while that one is in
    use. A copy of the layer takes the weights along, and the model that it is added to begins with
    them.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value.

    References
    ----------
    X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural
    networks, AISTATS 2010. K. He et al.: Delving Deep into Rectifiers, ICCV 2015.

    Examples
    --------
    >>> import convext
    >>> convext.Conv2D(64, 9, activation="relu")
    Conv2D(64, (9, 9), activation='relu')
    """

    kernel: RealArray | None
    bias: RealArray | None
    _model: ReferenceType[Any] | None = None

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: Padding = "valid",
        dilation_rate: Pair = 1,
        groups: int = 1,
        activation: Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        seed: int | None = None,
        *,
        name: str | None = None,
        trainable: bool = True,
        input_shape: Sequence[int | None] | None = None,
    ) -> None:
        self.filters = integer("filters", filters, minimum=1)
        self.kernel_size = integer_pair("kernel_size", kernel_size, minimum=1)
        self.strides = integer_pair("strides", strides, minimum=1)
        self.padding: Padding = padding.lower() if isinstance(padding, str) else padding  # type: ignore[assignment]
        self.dilation_rate = integer_pair("dilation_rate", dilation_rate, minimum=1)
        self.groups = integer("groups", groups, minimum=1)
        self.activation = "linear" if activation is None else activation
        if self.activation not in tuple(ACTIVATIONS):
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, got {activation!r}")
        self.use_bias = boolean("use_bias", use_bias)
        if kernel_initializer not in INITIALIZERS:
            known = ", ".join(INITIALIZERS)
            raise ValueError(
                f"kernel_initializer must be one of {known}, got {kernel_initializer!r}"
            )
        self.kernel_initializer = kernel_initializer
        self.seed = None if seed is None else integer("seed", seed, minimum=0)
        # What is wrong with the padding shows on any image that the kernels fit.
        self.resolve((self.groups, *self.extents))
        self.padding = _own(self.padding)
        self.kernel = self.bias = None
        self.name, self.trainable = name, trainable
        self.input_shape = None
        if input_shape is not None:
            self.input_shape = tuple(
                None if size is None else integer(f"input_shape[{axis}]", size, minimum=1)
                for axis, size in enumerate(input_shape)
            )
            if len(self.input_shape) != 3:
                raise ValueError(
                    f"input_shape must be (C, H, W) or (H, W, C), without the samples, got "
                    f"{self.input_shape}"
                )
        self._seal()

    _settable = ("kernel", "bias", "name", "trainable")
    _instead = "make a new layer"

    @property
    def model(self) -> Any:
        """The model whose weights the layer's are, if any."""
        return None if self._model is None else self._model()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("kernel", "bias") and self.model is not None:
            weights = getattr(self, name)
            if weights is None or np.shape(value) != weights.shape:
                expected = "None" if weights is None else f"of the shape {weights.shape}"
                raise ValueError(f"{name} must be {expected}, got the shape {np.shape(value)}")
            weights[...] = value
            return
        if name in ("kernel", "bias") and value is not None:
            value = as_numeric_array(name, value)
            shape: Shape = (self.filters,)
            if name == "kernel":
                shape = (*shape, *value.shape[1:2], *self.kernel_size)
            if value.shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {value.shape}")
        if name == "trainable":
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"trainable must be a bool, got {value!r}")
            value = bool(value)
        if name == "name" and not (value is None or isinstance(value, str)):
            raise TypeError(f"name must be text, got {value!r}")
        super().__setattr__(name, value)

    def show_weights(self, model: object, kernel: RealArray, bias: RealArray | None) -> None:
        """Let the layer see its part of a model's weights."""
        vars(self).update(_model=ReferenceType(model), kernel=kernel, bias=bias)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}

    def get_weights(self, order: Order = "KCHW") -> list[RealArray]:
        """Return copies of the kernels, (K, C/groups, kh, kw), and of the bias, (K,).

        With the order "HWCK" kernels are (kh, kw, C/groups, K), as in Keras.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(2, (5, 4))], input_channels=3)
        >>> [array.shape for array in model.layers[0].get_weights("HWCK")]
        [(5, 4, 3, 2), (2,)]
        """
        check_order(order)
        kernel, *bias = self._variables
        return [kernel.transpose(_BACK[order]).copy(), *(array.copy() for array in bias)]

    def set_weights(self, weights: Sequence[npt.ArrayLike], order: Order = "KCHW") -> None:
        """Copy the kernels and the bias from a list like that of `get_weights`.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 1)], input_channels=1)
        >>> model.layers[0].set_weights([np.full((1, 1, 1, 1), 2.0), [1.0]])
        >>> model.layers[0].bias
        array([1.], dtype=float32)
        """
        assign(self._variables, weights, order)

    @property
    def _variables(self) -> list[RealArray]:
        if self.kernel is None:
            raise ValueError(f"{self!r} has no weights yet: build its model")
        return [self.kernel] if self.bias is None else [self.kernel, self.bias]

    @property
    def extents(self) -> tuple[int, int]:
        """Height and width of what a window covers."""
        (kh, kw), (down, across) = self.kernel_size, self.dilation_rate
        return (kh - 1) * down + 1, (kw - 1) * across + 1

    def kernel_shape(self, channels: int) -> tuple[int, int, int, int]:
        """Return the shape of the kernels for an input with that number of channels."""
        check_groups(channels, self.filters, self.groups)
        return (self.filters, channels // self.groups, *self.kernel_size)

    def resolve(self, input_shape: Shape) -> Convolution:
        """Return the options of the convolution for an input (C, H, W)."""
        return resolve(
            input_shape,
            self.kernel_size,
            stride=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self.groups,
        )

    def initial_kernels(self, channels: int, generator: np.random.Generator) -> npt.NDArray[Any]:
        """Return random kernels for an input with those channels, or the ones it brings along."""
        shape = self.kernel_shape(channels)
        if self.kernel is not None:
            if self.kernel.shape != shape:
                raise ValueError(
                    f"{self!r} brings kernels of the shape {self.kernel.shape}, but an input of "
                    f"{channels} channels takes {shape}"
                )
            return self.kernel
        if self.seed is not None:
            generator = np.random.default_rng(self.seed)
        if self.kernel_initializer == "zeros":
            return np.zeros(shape)
        # The products that a result of the layer sums, and that an input takes part in.
        fan_in, fan_out = (count * math.prod(shape[2:]) for count in shape[1::-1])
        scheme, distribution = self.kernel_initializer.split("_")
        variance = 2 / fan_in if scheme == "he" else 2 / (fan_in + fan_out)
        return (_uniform if distribution == "uniform" else _normal)(generator, shape, variance)

    def config(self) -> dict[str, Any]:
        """Return the arguments of which this layer can be made again."""
        return {name: getattr(self, name) for name in _ARGUMENTS}

    def __repr__(self) -> str:
        usual = Conv2D(self.filters, self.kernel_size).config()
        given = [f"{k}={value!r}" for k, value in self.config().items() if value != usual[k]]
        return f"Conv2D({', '.join([f'{self.filters}, {self.kernel_size}', *given])})"


_ARGUMENTS = tuple(inspect.signature(Conv2D).parameters)


def check_order(order: object) -> tuple[int, ...]:
    """Return the axes that turn kernels of that order into ours."""
    if not isinstance(order, str) or order not in _ORDERS:
        raise ValueError(f"order must be 'KCHW', or 'HWCK' as in Keras, got {order!r}")
    return _ORDERS[order]


def assign(variables: Sequence[RealArray], weights: Sequence[npt.ArrayLike], order: Order) -> None:
    """Copy weights into variables, (K, C/groups, kh, kw) and (K,), where all of them fit."""
    axes = check_order(order)
    if len(weights) != len(variables):
        raise ValueError(f"weights must have {len(variables)} arrays, got {len(weights)}")
    arrays = []
    for i, (given, variable) in enumerate(zip(weights, variables, strict=True)):
        array = as_numeric_array(f"weights[{i}]", given)
        expected, hint = variable.shape, ""
        if variable.ndim == len(axes):
            expected = tuple(np.transpose(variable, _BACK[order]).shape)
            for other, back in _BACK.items():
                if array.shape == np.transpose(variable, back).shape:
                    hint = f": that fits as {other}, see the argument order"
        if array.shape != expected:
            raise ValueError(
                f"weights[{i}] must have the shape {expected}, got {array.shape}{hint}"
            )
        arrays.append(np.transpose(array, axes) if variable.ndim == len(axes) else array)
    for variable, array in zip(variables, arrays, strict=True):
        variable[...] = array


def _own(padding: Any) -> Any:
    """Return a padding that was checked, of Python's integers in tuples: nobody can change it."""
    if isinstance(padding, (tuple, list, np.ndarray)):
        return tuple(_own(part) for part in padding)
    return padding if isinstance(padding, str) else int(padding)


def _uniform(generator: np.random.Generator, shape: Shape, variance: float) -> npt.NDArray[Any]:
    limit = math.sqrt(3 * variance)
    return generator.uniform(-limit, limit, shape)


# The standard deviation of a normal distribution that is cut off at 2.
_CUT_OFF = 0.87962566103423978


def _normal(generator: np.random.Generator, shape: Shape, variance: float) -> npt.NDArray[Any]:
    """Draw from a normal distribution; values beyond two standard deviations are drawn again."""
    values = generator.standard_normal(shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = generator.standard_normal(int(beyond.sum()))
    return values * (math.sqrt(variance) / _CUT_OFF)
