"""Everything here passes compiled and, in the plain interpreter, with `IXY_JIT=0`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from ixy.jit import INTERPRETED

# The first example of a compiled kernel compiles it, so an example has no deadline.
settings.register_profile(
    "ixy",
    deadline=None,
    max_examples=25 if INTERPRETED else 100,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ixy")


@pytest.fixture(scope="session")
def scaled() -> Callable[..., int]:
    """A number of packets for compiled kernels, brought down for interpreted ones: by default to a hundredth."""

    def scale(count: int, divisor: int = 100) -> int:
        return max(count // divisor, 1) if INTERPRETED else count

    return scale
