"""Plain Python functions that a kernel calls, compiled along with it.

Numba compiles a call only of what is marked. So a kernel is made from a copy of the user's function whose names mean
kernels where they meant plain functions, and those are made likewise. A copy has the byte code of its original, so
tracebacks show the user's lines, and the cache knows it again in the next process.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from types import CellType, FunctionType, ModuleType
from typing import Any

from ixy.filters import Filter
from ixy.headers import Ipv4Address, Ipv6Address, MacAddress
from ixy.jit import checked
from ixy.kernels.bytecode import is_users, python_function

_Kernels = MutableMapping[FunctionType, Any]

_kernels: dict[FunctionType, Any] = {}


def with_helpers(function: FunctionType) -> Any:
    """The kernel of a function, and of those of the user's that it calls by name, from outside, or as `module.name`.

    What its names mean is settled now: that a global is set to something else later does not count.
    """
    if function not in _kernels:
        made: dict[FunctionType, Any] = {}
        _kernel(function, ChainMap(made, _kernels))
        _kernels.update(made)  # once each is whole, as another thread may compile at any time
    return _kernels[function]


def _kernel(function: FunctionType, kernels: _Kernels) -> Any:
    if function in kernels:  # perhaps it calls itself
        return kernels[function]
    code, variables = function.__code__, dict(function.__globals__)
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(code, variables, function.__name__, function.__defaults__, cells)
    copy.__kwdefaults__, copy.__module__ = function.__kwdefaults__, function.__module__
    copy.__qualname__ = function.__qualname__
    kernels[function] = checked(copy)
    names = frozenset(code.co_names)
    for name in names.intersection(variables):
        variables[name] = _compilable(variables[name], names, kernels)
    for cell, original in zip(cells, function.__closure__ or (), strict=True):
        cell.cell_contents = _compilable(original.cell_contents, names, kernels)
    return kernels[function]


def _compilable(value: object, names: frozenset[str], kernels: _Kernels, within: tuple[object, ...] = ()) -> object:
    """What stands for a value in a function that uses `names`; `within` are the modules that lead to it."""
    if isinstance(value, (MacAddress, Ipv4Address)):  # Numba writes constants down as they print
        return int(value)
    if isinstance(value, Ipv6Address):
        return tuple(value)
    if isinstance(value, Filter):
        return value.compilable
    function = python_function(value)
    if is_users(function):
        return _kernel(function, kernels)
    if not isinstance(value, ModuleType) or value in within:
        return value
    used = {name: each for name, each in vars(value).items() if name in names}
    compilable = {name: _compilable(each, names, kernels, (*within, value)) for name, each in used.items()}
    if all(compilable[name] is used[name] for name in used):
        return value
    module = ModuleType(value.__name__)
    vars(module).update({**vars(value), **compilable})
    return module
