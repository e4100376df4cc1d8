"""The activations of a layer."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..train._layers import ACTIVATIONS

Activation: TypeAlias = Literal["linear", "relu", "leaky_relu", "sigmoid", "tanh"]


def check_activation(activation: object) -> Activation:
    """Return the name of an activation; None is "linear"."""
    if activation is None:
        return "linear"
    for name in ACTIVATIONS:
        if name == activation:
            return name  # type: ignore[return-value]
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
