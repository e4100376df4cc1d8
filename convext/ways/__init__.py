"""Compiled: the ways of convolving. Sources: src/convext/ways."""
