"""The activations of a layer."""

from __future__ import annotations

from typing import Literal, TypeAlias

Activation: TypeAlias = Literal["linear", "relu", "leaky_relu", "sigmoid", "tanh"]

# The numbers that the compiled code knows them by.
ACTIVATIONS = {"linear": 0, "relu": 1, "leaky_relu": 2, "sigmoid": 3, "tanh": 4}


def check_activation(activation: object) -> Activation:
    """Return the name of an activation; None is "linear".

    Examples
    --------
    >>> check_activation(None)
    'linear'
    """
    if activation is None:
        return "linear"
    for name in ACTIVATIONS:
        if name == activation:
            return name  # type: ignore[return-value]
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
