"""How the fuzzers run: the same examples each time; with HOSTILE=long many more, from a seed that is printed.

HOSTILE=long HOSTILE_SEED=7 python -m pytest -n 0 -s tests/hostile
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

IS_LONG = os.environ.get("HOSTILE") == "long"
SEED = int(os.environ.get("HOSTILE_SEED") or (random.getrandbits(32) if IS_LONG else 8))
LONGER = 30

if IS_LONG:
    print(f"HOSTILE_SEED={SEED}")


def fuzz(examples: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test of `@given` with so many examples; nothing is kept between runs."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        configured = settings(
            max_examples=examples * (LONGER if IS_LONG else 1),
            database=None,
            deadline=None,
            print_blob=True,
            # The served application is the same for all examples; so are fixtures that hold constants.
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )(test)
        seeded: Callable[..., Any] = hypothesis.seed(SEED)(configured)
        return pytest.mark.timeout(3600)(seeded) if IS_LONG else seeded

    return decorate
