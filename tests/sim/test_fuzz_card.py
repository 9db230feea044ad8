"""A million writes of nonsense to cards: `make fuzz-card` does a hundred times as many."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuzz_card.py"


def test_nonsense_does_no_harm(scaled: Callable[..., int]) -> None:
    """No access leaves what is mapped, each turn ends, and after resets drivers exchange packets as ever.

    In a process of its own: it ends itself when a turn of the cards does not.
    """
    writes = scaled(1_000_000)
    run = subprocess.run([sys.executable, TOOL, str(writes), "1"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    handled = re.search(r"(\d+) frames and descriptors handled", run.stdout)
    assert handled is not None, run.stdout
    assert int(handled[1]) > writes // 1000
