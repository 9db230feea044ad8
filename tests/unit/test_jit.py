"""Kernels: what their compiled code depends on, and when it is compiled anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ixy.jit import INTERPRETED, checked, compiled
from ixy.jitcache import fingerprint

KERNEL = "def kernel(x):\n    return helper(x) + CONSTANT + package.CONSTANT + package.part.CONSTANT\n"


def function(source: str, name: str = "kernel", **names: Any) -> Callable[..., Any]:
    """The function that `source` defines where `names` are global."""
    exec(source, names)
    return names[name]


def package(constant: int, nested: int) -> ModuleType:
    """A package with a constant, and a module with another."""
    outer, inner = ModuleType("package"), ModuleType("package.part")
    outer.CONSTANT, inner.CONSTANT, outer.part = constant, nested, inner
    return outer


def kernel(
    helper: str = "def helper(x):\n    return x\n",
    constant: object = 1,
    outer: int = 2,
    nested: int = 3,
    source: str = KERNEL,
    **more: object,
) -> Callable[..., Any]:
    """A kernel that calls a helper, and reads constants of its own module, of a package and of a module within."""
    called = function(helper, "helper", **more)
    return function(source, helper=called, CONSTANT=constant, package=package(outer, nested))


def test_fingerprint_of_equal_content_is_equal() -> None:
    """Two functions made from the same text are the same to the cache, and names that they do not use are nothing."""
    assert fingerprint(kernel()) == fingerprint(kernel())
    assert fingerprint(kernel()) == fingerprint(kernel(UNUSED=5))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"source": KERNEL.replace("+", "-", 1)}, id="the function"),
        pytest.param({"helper": "def helper(x):\n    return -x\n"}, id="a callee"),
        pytest.param({"helper": "def helper(x):\n    return x + 1\n"}, id="a callee's constant"),
        pytest.param({"helper": "def helper(x, y=1):\n    return x\n"}, id="a callee's default"),
        pytest.param({"constant": 7}, id="a global constant"),
        pytest.param({"constant": 1.0}, id="the type of a constant"),
        pytest.param({"constant": np.int64(1)}, id="a NumPy scalar for an integer"),
        pytest.param({"outer": 7}, id="a constant in a module"),
        pytest.param({"nested": 7}, id="a constant in a module of a package"),
    ],
)
def test_fingerprint_changes_with_what_it_depends_on(changed: dict[str, Any]) -> None:
    """One change at a time, anywhere in what the machine code is made from."""
    assert fingerprint(kernel(**changed)) != fingerprint(kernel())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.int64(1), np.int64(2)),
        (np.int64(1), np.int32(1)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([[1, 2]])),
        (np.zeros(4, np.uint8), np.zeros(1, np.uint32)),
        ((1, np.array([1])), (1, np.array([2]))),
        (np.arange(5000), np.where(np.arange(5000) == 2500, 0, np.arange(5000))),
    ],
)
def test_fingerprint_of_constants_that_numba_compiles_in(one: object, other: object) -> None:
    """NumPy scalars and arrays count by value, type and shape, also where NumPy's text would leave the middle out."""
    assert fingerprint(kernel(constant=one)) != fingerprint(kernel(constant=other))
    assert fingerprint(kernel(constant=one)) == fingerprint(kernel(constant=one))


def test_fingerprint_follows_a_callees_callee_and_ends_at_recursion() -> None:
    """helper calls deeper, and deeper calls itself: a change in deeper shows, and the search ends."""
    helper = "def helper(x):\n    return deeper(x)\n"
    marks = set()
    for step in (1, 2):
        deeper = function(f"def deeper(x):\n    return deeper(x - {step}) if x > 0 else 0\n", "deeper")
        marks.add(fingerprint(kernel(helper=helper, deeper=deeper)))
    assert len(marks) == 2


def test_fingerprint_of_a_closure() -> None:
    """A factory's products differ by the functions and values that were handed to the factory."""

    def make(inner: Callable[[int], int], factor: object) -> Callable[[int], Any]:
        def product(x: int) -> Any:
            return inner(x) * factor

        return product

    same, other = (lambda x: x), (lambda x: x + 1)
    assert fingerprint(make(same, 2)) == fingerprint(make(same, 2))
    assert len({fingerprint(made) for made in (make(same, 2), make(same, 3), make(other, 2))}) == 3


def test_fingerprint_of_a_function_within_a_function() -> None:
    """What only a nested function names counts too."""
    source = "def kernel(x):\n    def inner(y):\n        return y + CONSTANT\n    return inner(x)\n"
    assert fingerprint(kernel(source=source, constant=1)) != fingerprint(kernel(source=source, constant=2))


def test_fingerprint_tells_checked_callees_from_unchecked() -> None:
    """Machine code of a caller holds that of the callee, with bounds checks or without; the interpreter has but one."""

    def callee(x: int) -> int:
        return x

    def caller(inner: Callable[[int], int]) -> Callable[[int], int]:
        return lambda x: inner(x)

    marks = {fingerprint(caller(mark(callee))) for mark in (compiled, checked)}
    assert len(marks) == (1 if INTERPRETED else 2)


def test_checked_function_raises() -> None:
    """An index outside the array raises from a checked function, compiled or not."""

    @checked
    def read(array: np.ndarray[Any, Any], index: int) -> int:
        return array[index]

    array = np.arange(4)
    assert read(array, 3) == 3
    with pytest.raises(IndexError):
        read(array, 4)


# ---------------------------------------------------------------------------------------------------------------------
# The cache, across processes. These compile even if this process interprets.

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

    def run(self, program: str = MAIN, *arguments: str, check: str = "0") -> list[Any]:
        paths = [str(self.directory), *sys.path]
        environment = os.environ | {
            "IXY_JIT": "1",
            "IXY_CHECK": check,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
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


RACE = """
import json
from ixy.jitcache import _CacheFile

one, two, reader = (_CacheFile(".", "kernel", 0) for _ in range(3))
one._load_index = two._load_index = dict  # both found an empty index
save_index = two._save_index

def save_index_and_be_overtaken(overloads):
    save_index(overloads)
    one.save("first", "code of the first")

two._save_index = save_index_and_be_overtaken
two.save("second", "code of the second")
print(json.dumps([reader.load("first"), reader.load("second")]))
"""


def test_processes_that_compile_at_once(project: Project) -> None:
    """Two processes save while neither knows of the other: what the index then lists is the right code, or nothing."""
    assert project.run(RACE) == ["code of the first", None]


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


def test_function_without_a_file_is_compiled_all_the_same() -> None:
    """As in an interactive session: nothing to cache beside, and no error."""
    double = compiled(function("def double(x):\n    return 2 * x\n", "double"))
    assert double(21) == 42
