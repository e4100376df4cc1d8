"""Measurements: speed is looked at here, not in the tests."""
