"""The cache of compiled kernels, across processes. These compile even if this process interprets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.once

FACTORY = """
from functools import cache
from ixy.jit import checked, compiled
import other

@cache
def make(inner):
    @compiled
    def product(x):
        return inner(x) + other.CONSTANT + other.TABLE[1]
    return product

@cache
def long(inner):
    @compiled
    def product(x):  # too long to be compiled into its caller
        steps = 0
        for start in range(x, x + 3):
            n = start
            while n > 1:
                n = n // 2 if n % 2 == 0 else 3 * n + 1
                steps += n ^ start
            while n < 1000:
                n = n * 3 + steps % 7 + 1
                steps -= n & 15
            while n > 10:
                n = n // 3 - steps % 5
                steps += n % 11
        return steps, inner(x)
    return product

@cache
def twice(inner):
    @compiled
    def call(x):
        return inner(inner(x)[1])[1]
    return call

def read(array, index):
    return array[index]
"""
OTHER = """
import numpy as np
from ixy.jit import compiled
CONSTANT = {constant}
TABLE = np.array([0, {entry}])

@compiled
def double(x):
    return {factor} * x

@compiled
def negative(x):
    return -x
"""
MAIN = """
import json, sys
import numpy as np
from factory import make, read
from ixy.jit import checked, compiled
import other

product = make(other.double)
result = int(product(10))
print(json.dumps([result, sum(product.stats.cache_hits.values()), sum(product.stats.cache_misses.values())]))
"""
CHECKED = """
import json, sys
import numpy as np
from factory import read
from ixy.jit import checked, compiled

array = np.arange(4)[:2]  # what lies behind it exists, so that an unchecked read does no harm
try:
    print(json.dumps([int((checked if sys.argv[1] == "checked" else compiled)(read)(array, 2))]))
except IndexError:
    print(json.dumps(["IndexError"]))
"""


class Project:
    """A program of two modules in a directory, run in a new process each time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "factory.py").write_text(FACTORY)
        self.write()

    def write(self, constant: int = 5, entry: int = 0, factor: int = 2) -> None:
        (self.directory / "other.py").write_text(OTHER.format(constant=constant, entry=entry, factor=factor))

    def run_file(self, source: str) -> list[Any]:
        """Run a program that stands in a file, so that its kernels are kept."""
        (self.directory / "program.py").write_text(source)
        return self.run("import program")

    def run(self, program: str = MAIN, *arguments: str, check: str = "0", **environment: str) -> list[Any]:
        paths = [str(self.directory), *sys.path]
        environment = os.environ | {
            "IXY_JIT": "1",
            "IXY_CHECK": check,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        command = [sys.executable, "-c", program, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=self.directory)
        return json.loads(run.stdout)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_second_process_compiles_nothing(project: Project) -> None:
    """A kernel that a factory made from another kernel: compiled by the first process, loaded by the second."""
    assert project.run() == [25, 0, 1]
    assert project.run() == [25, 1, 0]


@pytest.mark.parametrize(
    ("change", "result"), [({"factor": 3}, 35), ({"constant": 6}, 26), ({"entry": 4}, 29)], ids=lambda value: str(value)
)
def test_change_in_another_file_is_seen(project: Project, change: dict[str, int], result: int) -> None:
    """The callee, a constant and an array in another file change; the kernel's own file does not."""
    assert project.run()[0] == 25
    project.write(**change)
    assert project.run() == [result, 0, 1]


PRODUCTS = """
import json, sys
from factory import long, twice
import other

inners = {"double": other.double, "negative": other.negative}
print(json.dumps([int(twice(long(inners[name]))(10)) for name in sys.argv[1:]]))
"""


def test_kernels_of_several_processes_meet_in_one(project: Project) -> None:
    """Two processes compile one product each of the same factories; others load both, and each does its own work."""
    assert project.run(PRODUCTS, "double") == [40]
    assert project.run(PRODUCTS, "negative") == [10]
    assert project.run(PRODUCTS, "double", "negative") == [40, 10]
    assert project.run(PRODUCTS, "negative", "double") == [10, 40]


ENUMERATION = """
import enum, json
from ixy.jit import compiled

class Mark(enum.IntEnum):
    BYTE = {value}

@compiled
def mark():
    return Mark.BYTE + 0

print(json.dumps([mark(), sum(mark.stats.cache_hits.values())]))
"""


def test_change_of_an_enumeration_is_seen(project: Project) -> None:
    """A program with a constant in an enumeration is edited and run again."""
    for value, hits in ((7, 0), (9, 0), (9, 1), (7, 1)):
        assert project.run_file(ENUMERATION.format(value=value)) == [value, hits]


FIELDS = """
import json
from typing import NamedTuple
from ixy.jit import compiled

class State(NamedTuple):
    {fields}

@compiled
def first(state):
    return state.a

print(json.dumps([first(State(a=1, b=2)), sum(first.stats.cache_hits.values())]))
"""


def test_change_of_the_order_of_fields_is_seen(project: Project) -> None:
    """The types of a named tuple stay the same when its fields change places, and so does the byte code."""
    for fields in ("a: int; b: int", "b: int; a: int"):
        assert project.run_file(FIELDS.format(fields=fields)) == [1, 0]
        assert project.run_file(FIELDS.format(fields=fields)) == [1, 1]


RAISING = """
import json, traceback
from ixy.jit import checked

{lines}@checked
def refuse(x):
    if x > 1:
        raise ValueError("too large")
    return x

try:
    refuse(2)
except ValueError as error:
    *_, where = traceback.extract_tb(error.__traceback__)
    print(json.dumps([where.lineno, sum(refuse.stats.cache_hits.values())]))
"""


def test_change_of_lines_is_seen_where_they_are_told(project: Project) -> None:
    """The traceback of what a function raises names the line on which it is now."""
    for lines in (0, 3):
        expected = RAISING[: RAISING.index("raise")].replace("{lines}", "\n" * lines).count("\n") + 1
        assert project.run_file(RAISING.format(lines="\n" * lines)) == [expected, 0]
        assert project.run_file(RAISING.format(lines="\n" * lines)) == [expected, 1]


def test_change_of_lines_alone_compiles_nothing(project: Project) -> None:
    """A kernel that raises nothing is the same wherever it stands."""
    assert project.run_file(ENUMERATION.format(value=7)) == [7, 0]
    assert project.run_file("# a comment\n" + ENUMERATION.format(value=7)) == [7, 1]


def test_numba_checking_indices_shares_no_code(project: Project) -> None:
    """NUMBA_BOUNDSCHECK overrides what kernels ask for."""
    assert project.run(CHECKED, "compiled") == [2]
    assert project.run(CHECKED, "compiled", NUMBA_BOUNDSCHECK="1") == ["IndexError"]


def test_checked_and_compiled_share_no_code(project: Project) -> None:
    """One function marked both ways keeps its checks where it was marked checked, whichever was cached first."""
    assert project.run(CHECKED, "compiled") == [2]
    assert project.run(CHECKED, "checked") == ["IndexError"]
    assert project.run(CHECKED, "compiled") == [2]


def test_the_checking_mode_shares_no_code_with_the_other(project: Project) -> None:
    """A kernel whose indices are unchecked is checked in that mode, whichever was cached first."""
    assert project.run(CHECKED, "compiled") == [2]
    assert project.run(CHECKED, "compiled", check="1") == ["IndexError"]
    assert project.run(CHECKED, "compiled") == [2]
