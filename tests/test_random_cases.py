"""Random cases of each kind, as `python tests/fuzz.py` runs them by the thousand."""

from __future__ import annotations

import pytest
import random_cases


def check_cases(kind, count, seed):
    for index in range(count):
        parameters = random_cases.parameters_of(kind, seed, index)
        try:
            random_cases.check(kind, parameters)
        except Exception as error:
            raise AssertionError(f"{kind} {index} of seed {seed}: {parameters}") from error


@pytest.mark.parametrize("kind", random_cases.KINDS)
def test_random_cases_agree_with_numpy(kind):
    check_cases(kind, 40, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", random_cases.KINDS)
def test_a_thousand_random_cases_agree_with_numpy(kind):
    check_cases(kind, 1000, seed=2)
