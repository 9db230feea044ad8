"""A million writes of nonsense to cards: `make fuzz-card` does a hundred times as many."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuzz_card.py"


@pytest.fixture
def fuzz_card() -> Iterator[ModuleType]:
    """The program, as a module; what cards say of it all nobody wants to hear."""
    spec = importlib.util.spec_from_file_location("fuzz_card", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logging.disable(logging.CRITICAL)
    yield module
    logging.disable(logging.NOTSET)


def test_nonsense_does_no_harm(fuzz_card: ModuleType, scaled: Callable[..., int]) -> None:
    """No access leaves what is mapped, each turn ends, and after resets drivers exchange packets as ever."""
    writes = scaled(1_000_000)
    assert fuzz_card.fuzz(writes, seed=1) > writes // 1000
