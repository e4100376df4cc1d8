"""Convolutions, their gradients, prepared kernels, losses and data."""
