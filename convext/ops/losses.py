"""The mean squared error and its gradient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray, as_dtype, as_numeric_array, common_dtype


def mse_loss(predicted: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Return the mean squared error, the mean of (predicted - target)² over all elements.

    Parameters
    ----------
    predicted, target : array_like
        Real numbers, of one shape. The sum is taken in float64 whatever their type.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold real numbers, the shapes differ, or the arrays are empty.

    Examples
    --------
    >>> import convext
    >>> convext.mse_loss([1.0, 2.0], [0.0, 4.0])
    2.5
    """
    predictions, targets = _same_shape(predicted, target)
    if predictions.size == 0:
        raise ValueError(
            f"predicted and target are empty (shape {predictions.shape}): there is no mean"
        )
    # In C order, whatever the arrays' own: numpy sums up in the order of the memory.
    difference = np.asarray(np.subtract(predictions, targets, dtype=np.float64, order="C"))
    return float(np.mean(np.square(difference, out=difference)))


def mse_loss_gradient(predicted: npt.ArrayLike, target: npt.ArrayLike) -> RealArray:
    """Return the gradient of `mse_loss` with respect to `predicted`: 2 (predicted - target) / size.

    Parameters
    ----------
    predicted, target : array_like
        Real numbers, of one shape.

    Returns
    -------
    numpy.ndarray
        Of the same shape, empty ones included; float32 when both are, else float64.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold real numbers, or the shapes differ.

    Examples
    --------
    >>> import convext
    >>> convext.mse_loss_gradient([1.0, 2.0], [0.0, 4.0])
    array([ 1., -2.])
    """
    predictions, targets = _same_shape(predicted, target)
    dtype = common_dtype(predicted=predictions.dtype, target=targets.dtype)
    gradient = np.asarray(np.subtract(as_dtype(predictions, dtype), as_dtype(targets, dtype)))
    gradient *= 2 / max(1, gradient.size)
    return gradient


def _same_shape(
    predicted: npt.ArrayLike, target: npt.ArrayLike
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    predictions = as_numeric_array("predicted", predicted)
    targets = as_numeric_array("target", target)
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predicted and target must have the same shape, got {predictions.shape} "
            f"and {targets.shape}"
        )
    return predictions, targets
