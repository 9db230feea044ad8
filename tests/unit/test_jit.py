"""Kernels: what their compiled code depends on, and when it is compiled anew."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba import types

from ixy.headers import Ipv4Address, MacAddress
from ixy.jit import INTERPRETED, Direct, checked, compiled, outlined
from ixy.jitcontent import Unknown, fingerprint
from ixy.jittypes import AddressType, WideAddressType
from ixy.packets.packets import new_packets

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
        pytest.param({"source": KERNEL.replace("(x)", "(x, *, y=1)", 1)}, id="a keyword's default"),
        pytest.param({"constant": np.dtype("u2")}, id="a data type"),
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


def enumeration(base: type[enum.Enum], value: object) -> Any:
    return base("Kind", {"FIRST": value, "SECOND": 100})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(enumeration(enum.IntEnum, 1), enumeration(enum.IntEnum, 2), id="an enumeration of integers"),
        pytest.param(enumeration(enum.IntFlag, 1), enumeration(enum.IntFlag, 2), id="flags"),
        pytest.param(enumeration(enum.Enum, 1), enumeration(enum.Enum, 2), id="an enumeration"),
        pytest.param(enumeration(enum.Enum, 1.5).FIRST, enumeration(enum.Enum, 2.5).FIRST, id="a member"),
        pytest.param(type("Class", (), {"FIRST": 1}), type("Class", (), {"FIRST": 2}), id="a class"),
        pytest.param(
            type("Child", (type("Class", (), {"FIRST": 1}),), {}),
            type("Child", (type("Class", (), {"FIRST": 2}),), {}),
            id="what a class inherits",
        ),
        pytest.param(SimpleNamespace(FIRST=1), SimpleNamespace(FIRST=2), id="an object"),
        pytest.param(SimpleNamespace(FIRST=[1, 2]), SimpleNamespace(FIRST=[1, 3]), id="a list in an object"),
        pytest.param({"FIRST": 1}, {"FIRST": 2}, id="a dictionary"),
        pytest.param(namedtuple("Pair", "a b"), namedtuple("Pair", "b a"), id="the order of a named tuple's fields"),
    ],
)
def test_fingerprint_of_constants_reached_by_attribute(one: object, other: object) -> None:
    """`Kind.FIRST` in a kernel is the value that it has, whatever kind of thing `Kind` is."""

    def marked(kind: object) -> str:
        return fingerprint(function("def kernel():\n    return Kind.FIRST\n", Kind=kind))

    assert marked(one) != marked(other)
    assert marked(one) == marked(one)


def test_fingerprint_of_a_constant_in_a_module_that_a_module_imports() -> None:
    """`settings.limits.LEAST`, where settings imports limits from somewhere else."""
    marks = set()
    for least in (1, 2):
        settings, limits = ModuleType("settings"), ModuleType("limits")
        settings.limits, limits.LEAST = limits, least
        marks.add(fingerprint(function("def kernel():\n    return settings.limits.LEAST\n", settings=settings)))
    assert len(marks) == 2


def test_fingerprint_of_addresses() -> None:
    """They are integers by name, and what they are compared with is parsed differently."""
    kinds = [
        types.int64,
        AddressType(Ipv4Address),
        AddressType(MacAddress),
        WideAddressType(),
        types.UniTuple(types.int64, 2),
    ]
    assert len({fingerprint((kind,)) for kind in kinds}) == len(kinds)
    assert fingerprint(AddressType(Ipv4Address)) == fingerprint(AddressType(Ipv4Address))


def test_fingerprint_of_a_set_is_the_same_in_every_process() -> None:
    """The order of a set's elements is another one in each process; its content is not."""
    program = "from ixy.jitcontent import fingerprint; print(fingerprint(lambda x: x in {'a', 'b', 'c', 'd', 'e'}))"
    seeds = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert len(set(seeds)) == 1


def test_fingerprint_ignores_globals_with_the_name_of_an_attribute() -> None:
    """`state.pools` says nothing of a global `pools`, which may be anything, even an array that nobody may touch."""
    source = "def kernel(state):\n    return state.pools\n"
    assert fingerprint(function(source, pools=1)) == fingerprint(function(source, pools=2))


def test_fingerprint_of_a_large_array_is_refused() -> None:
    """Numba compiles in the address of a large array, which is another one in the next process."""
    with pytest.raises(Unknown):
        fingerprint(kernel(constant=np.zeros(1 << 20)))


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


def test_fingerprint_tells_how_callees_are_compiled() -> None:
    """A caller's machine code has bounds checks or not, and calls or inlines; the interpreter knows but one way."""

    def callee(x: int) -> int:
        return x

    def caller(inner: Callable[[int], int]) -> Callable[[int], int]:
        return lambda x: inner(x)

    marks = {fingerprint(caller(mark(callee))) for mark in (compiled, checked, outlined)}
    assert len(marks) == (1 if INTERPRETED else 3)


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


def test_function_without_a_file_is_compiled_all_the_same() -> None:
    """As in an interactive session: nothing to cache beside, and no error."""
    double = compiled(function("def double(x):\n    return 2 * x\n", "double"))
    assert double(21) == 42


@compiled
def first_of_both(one: Any, other: Any) -> int:
    return one.ids[0] + other


def test_a_kernel_for_each_kind_of_arguments() -> None:
    """What has other types has another key; interpreted and compiled, and with columns that are left out."""
    direct = Direct(first_of_both)
    few, more = new_packets(1), new_packets(1, ("flags",))
    few.ids[0], more.ids[0] = 3, 4
    for _ in range(2):
        assert direct((), few, 10) == 13
        assert direct(("flags",), more, 20) == 24
        assert direct("fraction", more, 0.5) == 4.5
