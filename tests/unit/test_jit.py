"""Kernels: what their compiled code depends on, and when it is compiled anew."""

from __future__ import annotations

import enum
import itertools
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from numba import types

from ixy.headers import Ipv4Address, MacAddress
from ixy.jit import INTERPRETED, Direct, apart, checked, compiled, outlined
from ixy.jitcontent import Unknown, fingerprint, remembering
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


def dispatcher(python: Callable[..., Any]) -> Any:
    """What Numba makes of a function, without compiling it."""
    njit: Any = numba.njit
    return njit(python)


def test_fingerprint_of_equal_content_is_equal() -> None:
    """Two functions made from the same text are the same to the cache, and names that they do not use are nothing."""
    assert fingerprint(kernel()) == fingerprint(kernel())
    assert fingerprint(kernel()) == fingerprint(kernel(UNUSED=5))


def test_fingerprint_is_the_same_where_functions_are_remembered() -> None:
    """And afterwards nothing is: a constant that has changed meanwhile is seen."""
    one, other = dispatcher(kernel()), dispatcher(kernel(constant=7))
    expected = fingerprint(one), fingerprint(other)
    with remembering():
        for _ in range(2):
            assert (fingerprint(one), fingerprint(other)) == expected
    one.py_func.__globals__["CONSTANT"] = 7
    with remembering():
        assert fingerprint(one) == expected[1]


def test_fingerprint_tells_which_function_stands_where() -> None:
    """Three calls of two functions: one of them twice, or the other."""
    source = "def kernel(x):\n    return f(x) + g(x) + h(x)\n"
    one, other = (dispatcher(function(f"def called(x):\n    return x {sign} 1\n", "called")) for sign in "+-")
    fingerprints = {
        fingerprint(dispatcher(function(source, f=f, g=g, h=h)))
        for f, g, h in itertools.product((one, other), repeat=3)
    }
    assert len(fingerprints) == 8


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

    marks = {fingerprint(caller(mark(callee))) for mark in (compiled, apart, checked, outlined)}
    assert len(marks) == (1 if INTERPRETED else 4)


def test_checked_function_raises() -> None:
    """An index outside the array raises from a checked function, compiled or not."""

    @checked
    def read(array: np.ndarray[Any, Any], index: int) -> int:
        return array[index]

    array = np.arange(4)
    assert read(array, 3) == 3
    with pytest.raises(IndexError):
        read(array, 4)


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
