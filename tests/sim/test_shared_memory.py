"""Barriers: that kernels use the primitives where they must, and that these are compiled to what orders accesses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("checking", ["0", "1"])
def test_what_is_shared_is_accessed_in_order(checking: str) -> None:
    """What `shared_memory.py` watches, with kernels that are interpreted; in the checking mode too, in which each
    buffer's holder is told.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        Path(__file__).with_name("shared_memory.py"),
    ]
    environment = {**os.environ, "IXY_JIT": "0", "IXY_CHECK": checking}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


PROGRAM = """
import numba
import numpy as np
from ixy.unsafe import fetch_add, load_acquire, load_ordered, store_ordered, store_release, swap_if

@numba.njit
def kernel(words):
    {}
    return words[1]

kernel(np.zeros(4, np.int64))
print(kernel.inspect_llvm(kernel.signatures[0]))
"""


@pytest.mark.parametrize(
    ("statement", "instruction"),
    [
        ("load_acquire(words, 0)", r"load atomic i64, .* acquire"),
        ("load_ordered(words, 0)", r"load atomic i64, .* seq_cst"),
        ("store_release(words, 0, 1)", r"store atomic i64 .* release"),
        ("store_ordered(words, 0, 1)", r"store atomic i64 .* seq_cst"),
        ("fetch_add(words, 0, 1)", r"atomicrmw add .* acq_rel"),
        ("swap_if(words, 0, 0, 1)", r"cmpxchg .* acq_rel acquire"),
    ],
)
def test_primitives_are_compiled_to_atomic_instructions(statement: str, instruction: str) -> None:
    """Instructions that the compiler neither repeats, drops nor moves."""
    environment = {**os.environ, "IXY_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    program = PROGRAM.format(statement)
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert re.search(instruction, run.stdout)
