"""The page about the model agrees with the model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def describe_model() -> ModuleType:
    """The program that makes the page, as a module."""
    spec = importlib.util.spec_from_file_location("describe_model", ROOT / "tools" / "describe_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    """The page made anew is the one in docs: else run `python tools/describe_model.py`."""
    module = describe_model()
    assert module.PAGE.read_text() == module.page()
