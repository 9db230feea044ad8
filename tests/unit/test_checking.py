"""The checking mode, in a process of its own: it is chosen when ixy is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_each_violation_is_reported() -> None:
    """What `violations.py` does is found out."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=native", Path(__file__).with_name("violations.py")]
    run = subprocess.run(command, env={**os.environ, "IXY_CHECK": "1"}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


@pytest.mark.parametrize("value", ["0", ""])
def test_without_the_mode_nothing_is_written_down(value: str) -> None:
    """There are no arrays for it, and all packets have one holder."""
    program = "from ixy.packets.pool import pools; from ixy.packets.packets import slots; p = pools(); "
    program += "print(p.holders, p.violations, slots(1).holder == slots(1).holder)"
    environment = {**os.environ, "IXY_CHECK": value}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "None None True\n"
