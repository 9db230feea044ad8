"""Plain functions of the user's that a kernel calls are compiled along with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from users import kernel, program

from ixy.kernels.check import check

PACKET = types.Array(types.uint8, 1, "C")


def verdict_of(function: Any, *values: int) -> int:
    return check(function, [PACKET])(np.array(values, np.uint8))


def test_helper_of_a_helper(tmp_path: Path) -> None:
    text = """
def count(packet):
    return outer(packet, 1) & 1

def outer(packet, index, shift=2):
    return inner(packet[index]) >> shift

def inner(value):
    return value + 4
"""
    assert [verdict_of(program(tmp_path, text).count, 9, value) for value in (0, 3, 4)] == [1, 1, 0]


def test_recursion(tmp_path: Path) -> None:
    """A helper that calls itself."""
    text = """
def depth(value):
    return 0 if value == 0 else depth(value >> 1) + 1

def count(packet):
    return depth(packet[0] + 0)
"""
    function = program(tmp_path, text).count
    assert [verdict_of(function, value) for value in (0, 4, 255)] == [0, 3, 8]


def test_helper_from_outside(tmp_path: Path) -> None:
    """A function that a factory was given, and another product of the factory with another function."""
    text = """
def make(helper, factor):
    def count(packet):
        return helper(packet) * factor
    return count

def first(packet):
    return packet[0] + 0

def second(packet):
    return packet[1] + 0
"""
    module = program(tmp_path, text)
    products = [module.make(helper, factor) for helper in (module.first, module.second) for factor in (1, 10)]
    assert [verdict_of(product, 3, 5) for product in products] == [3, 30, 5, 50]


def test_helpers_of_modules(tmp_path: Path) -> None:
    """`module.function` and `package.module.function`, which may name the modules too; constants stay what they are."""
    parts = program(tmp_path, "FACTOR = 3\ndef scaled(x):\n    return helpers.parts.FACTOR * x\n", name="parts")
    helpers = program(
        tmp_path, "OFFSET = 100\ndef first(packet):\n    return parts.scaled(packet[0])\n", name="helpers"
    )
    helpers.parts = parts
    parts.helpers = helpers
    function = kernel(tmp_path, "return helpers.first(packet) + helpers.parts.scaled(packet[1]) + helpers.OFFSET")
    function.__globals__["helpers"] = helpers
    assert verdict_of(function, 2, 5) == 6 + 15 + 100


def test_marked_helpers_and_plain_ones(tmp_path: Path) -> None:
    """A kernel that calls a marked function, which calls a plain one."""
    text = """
def plain(value):
    return value + 1

@checked
def marked(packet):
    return plain(packet[0])

def count(packet):
    return marked(packet) + plain(packet[1])
"""
    module = program(tmp_path, text, head="from ixy.jit import checked\n")
    assert verdict_of(module.count, 2, 5) == 3 + 6


def test_what_is_not_the_users_stays(tmp_path: Path) -> None:
    """Functions that Numba knows by itself are left to it, and those of ixy are kernels already."""
    body = "return min(packet[0], np.uint8(7)) + abs(-3) + int(math.floor(2.5)) + int(np.sqrt(16)) + ixy.FORWARD"
    function = kernel(tmp_path, body, head="import math\nimport ixy\nimport numpy as np\n")
    assert verdict_of(function, 9) == 7 + 3 + 2 + 4 + 1


def test_names_mean_what_they_meant_when_the_path_was_made(tmp_path: Path) -> None:
    """The user's own module is left as it is, and what is set in it later does not count."""
    module = program(tmp_path, "def helper(x):\n    return x + 1\n\ndef count(packet):\n    return helper(packet[0])\n")
    helper = module.helper
    assert verdict_of(module.count, 5) == 6
    assert module.helper is helper
    assert helper(1) == 2


# ---------------------------------------------------------------------------------------------------------------------
# The cache, across processes. These compile even if this process interprets.

HELPERS = """
def parse(packet):
    return low(packet[0])

def low(value):
    return value & {mask}
"""
MAIN = """
import json
import sys
import numpy as np
from numba import types
from numba.core import event
import helpers
from helpers import parse
from ixy.kernels.check import check

compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass

def count(packet):
    return parse(packet) + helpers.parse(packet)

event.register("numba:compile", Listener())
kernel = check(count, [types.Array(types.uint8, 1, "C")])
checking = sorted(compiled)
result = int(kernel(np.full(60, 255, np.uint8))) if sys.argv[1:] else None
print(json.dumps([checking, result, sum(kernel.stats.cache_hits.values()) if sys.argv[1:] else 0]))
"""


def run(directory: Path, mask: int, *arguments: str) -> list[Any]:
    (directory / "helpers.py").write_text(HELPERS.format(mask=mask))
    (directory / "main.py").write_text(MAIN)
    environment = os.environ | {
        "IXY_JIT": "1",
        "NUMBA_CACHE_DIR": str(directory / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, str(directory / "main.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    """Neither to see whether it can be compiled, nor to run it; until a helper's helper is another one."""
    everything = ["count", "low", "parse"]
    assert run(tmp_path, 15) == [everything, None, 0]
    assert run(tmp_path, 15) == [[], None, 0]
    assert run(tmp_path, 15, "call") == [[], 30, 0]
    assert run(tmp_path, 15, "call") == [[], 30, 1]
    assert run(tmp_path, 7, "call") == [everything, 14, 0]
    assert run(tmp_path, 15, "call") == [[], 30, 1]
