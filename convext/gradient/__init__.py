"""Compiled: gradients with respect to kernels. Sources: src/convext/gradient."""
