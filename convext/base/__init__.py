"""Compiled: instruction sets, memory, tasks and Ctrl-C. Sources: src/convext/base."""
