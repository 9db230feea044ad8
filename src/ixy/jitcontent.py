"""What machine code is made from: the content of a kernel and of everything that it refers to.

Numba compiles in whatever a function names: the functions that it calls, constants of its module, of other modules, of
classes and enumerations, and what a factory closed over. It also depends on how each function is to be compiled, on the
types of the arguments, and, where a function may raise, on the lines that its traceback names.
"""

# Numba's internals have no types.
# pyright: basic

from __future__ import annotations

import enum
import hashlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dis import EXTENDED_ARG, opmap
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import types
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

# Packages whose content is known by their version.
_VERSIONED = {"builtins", "llvmlite", "numba", "numpy"}


_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]

_LARGE = 1 << 20  # bytes of an array; Numba does not compile in larger ones either, but their addresses


class Unknown(Exception):
    """Something is compiled in whose content cannot be told from one process to the next."""


def fingerprint(*values: object) -> str:
    """A digest of the content of functions, types and constants.

    Raises:
        Unknown: two processes would not mean the same by it.
    """
    seen: Seen = {}
    return _digest(part for value in values for part in _content(value, frozenset(), seen))


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


Seen = dict[object, int]  # what was gone through, by number


class _Own(Seen):
    """What was gone through for one function alone.

    Attributes:
        others: the functions that it refers to, which are set aside, by number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.others: dict[Any, int] = {}


_known: dict[Any, tuple[str, list[Any]]] | None = None  # of functions alone, digests, and the others


@contextmanager
def remembering() -> Generator[None]:
    """Within the block a function's content is gone through once. Nothing that it refers to may change meanwhile."""
    global _known
    outermost = _known is None
    if outermost:
        _known = {}
    try:
        yield
    finally:
        if outermost:
            _known = None


def reachable(dispatcher: Any) -> list[Any]:
    """All Numba functions that may be compiled with one, itself included."""
    seen: Seen = {}
    with suppress(Unknown):
        for _ in _content(dispatcher, frozenset(), seen):
            pass
    return [each for each in seen if isinstance(each, Dispatcher)]


def _content(value: Any, names: frozenset[str], seen: Seen) -> Iterator[str]:
    """The parts of `value` that machine code depends on.

    Args:
        names: that the function uses which refers to the value; its attributes of these names count.
        seen: what was gone through before.
    """
    kind = type(value)
    if isinstance(value, Dispatcher):
        yield from _dispatcher(value, seen)
    elif isinstance(value, _Intrinsic):
        yield from _content(value._defn, names, seen)  # what generates its code
    elif isinstance(value, FunctionType):
        yield from _function(value, seen)
    elif isinstance(value, CodeType):
        yield from _code(value, seen)
    elif isinstance(value, (ModuleType, type)):
        yield from _namespace(value, names, seen)
    elif isinstance(value, types.Type):
        yield from _type(value, seen)
    elif isinstance(value, enum.Enum):
        yield f"{kind.__module__}.{kind.__qualname__}.{value.name}"
        yield from _content(value.value, names, seen)
    elif isinstance(value, dict):
        yield from _elements(kind, (each for pair in value.items() for each in pair), names, seen)
    elif isinstance(value, (set, frozenset)):
        # In an order of its own in each process.
        yield from _elements(kind, sorted(value, key=lambda each: (str(type(each)), repr(each))), names, seen)
    elif isinstance(value, (tuple, list)):
        yield from _elements(kind, value, names, seen)
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.nbytes > _LARGE:
            raise Unknown(f"an array of {array.nbytes} bytes")
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        yield f"{kind.__qualname__} {array.dtype} {array.shape} {order} {array.tobytes().hex()}"
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.dtype, range, slice)):
        yield f"{kind.__qualname__} {value!r}"
    elif isinstance(value, BuiltinFunctionType):
        yield f"{value.__module__}.{value.__qualname__}"
    elif value is Ellipsis or _versioned(value):
        yield f"{kind.__qualname__} {'' if ' at 0x' in repr(value) else repr(value)}"
    else:
        yield from _object(value, names, seen)


def _dispatcher(value: Any, seen: Seen) -> Iterator[str]:
    """A function, all that it refers to, and where these are functions again, theirs."""
    if isinstance(seen, _Own):
        yield f"function {seen.others.setdefault(value, len(seen.others))}"
        return
    if value in seen:
        yield f"again {seen[value]}"
        return
    seen[value] = len(seen)
    known = _known if _known is not None else {}
    if value not in known:
        own = _Own()
        known[value] = _digest(_alone(value, own)), list(own.others)
    digest, others = known[value]
    yield digest
    for other in others:
        yield from _dispatcher(other, seen)


def _alone(value: Any, seen: Seen) -> Iterator[str]:
    """A function without others, how it is compiled, and where its lines are if it may raise."""
    options = value.targetoptions
    yield repr(sorted(options.items(), key=lambda option: option[0])) + " apart" * getattr(value, "apart", False)
    if options.get("boundscheck"):
        code = value.py_func.__code__
        yield f"{code.co_filename} {code.co_firstlineno} {code.co_linetable.hex()}"
    yield from _content(value.py_func, frozenset(), seen)


def _function(function: FunctionType, seen: Seen) -> Iterator[str]:
    if function in seen:
        return
    seen[function] = len(seen)
    yield f"{function.__module__}.{function.__qualname__}"
    if _versioned(function):
        return
    names = frozenset(name for code in _codes(function.__code__) for name in code.co_names)
    for defaults in (function.__defaults__, function.__kwdefaults__):
        yield from _content(defaults, names, seen)
    yield from _code(function.__code__, seen)
    for cell in function.__closure__ or ():
        yield from _content(_in_cell(cell), names, seen)
    for name in sorted({name for code in _codes(function.__code__) for name in _global_names(code)}):
        yield from _content(function.__globals__.get(name), names, seen)


def _in_cell(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty still
        return None


def _code(code: CodeType, seen: Seen) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_exceptiontable.hex()} {code.co_flags} {code.co_argcount}"
    yield f"{code.co_kwonlyargcount} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_cellvars}"
    yield from _content(code.co_consts, frozenset(), seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _global_names(code: CodeType) -> Iterator[str]:
    """The names of `code` that are global variables, and not attributes."""
    extended = 0
    for operation, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        argument |= extended
        extended = argument << 8 if operation == EXTENDED_ARG else 0
        if operation == _LOAD_GLOBAL:
            yield code.co_names[argument >> 1]


def _namespace(value: Any, names: frozenset[str], seen: Seen) -> Iterator[str]:
    """A module or class: the attributes that a function which uses `names` may mean."""
    yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    if _versioned(value):
        return
    used = names.intersection(dir(value))
    key = (id(value), used)
    if key in seen:
        return
    seen[key] = len(seen)
    if isinstance(value, enum.EnumMeta):
        members: Any = value.__members__
        yield from _content({name: member.value for name, member in members.items()}, names, seen)
    elif isinstance(value, type) and hasattr(value, "_fields"):  # a named tuple's fields are known by place
        yield from _content((value._fields, getattr(value, "_field_defaults", None)), names, seen)
    for name in sorted(used):
        yield name
        yield from _content(getattr(value, name, None), names, seen)


def _type(value: Any, seen: Seen) -> Iterator[str]:
    """A type of Numba's. Its name says it all, but for what Python objects stand behind it."""
    if isinstance(value, types.Dispatcher):
        yield from _content(value.dispatcher, frozenset(), seen)
    elif isinstance(value, types.BaseTuple):
        known = _known if _known is not None else {}
        if value not in known:
            known[value] = _digest(_tuple(value, {})), []
        yield known[value][0]
    elif isinstance(value, types.Optional):
        yield from _content(("optional", value.type), frozenset(), seen)
    elif hasattr(value, "instance_class"):  # of an enumeration
        yield str(value)
        yield from _content(value.instance_class, frozenset(), seen)
    elif isinstance(value.key, type):  # an address: it is named like the integer that it is
        yield str(value)
        yield from _content(value.key, frozenset(), seen)
    elif " at 0x" in str(value):
        raise Unknown(str(value))
    else:
        yield f"{value} {getattr(value, 'symbol', '')} {getattr(value, 'sig', '')}"  # these, of a C function


def _tuple(value: Any, seen: Seen) -> Iterator[str]:
    yield from _content(getattr(value, "instance_class", None), frozenset(), seen)
    yield from _elements(type(value), value, frozenset(), seen)


def _elements(kind: type, elements: Iterable[object], names: frozenset[str], seen: Seen) -> Iterator[str]:
    yield from _namespace(kind, frozenset(), seen)
    for element in elements:
        yield from _content(element, names, seen)
    yield "end"


def _object(value: Any, names: frozenset[str], seen: Seen) -> Iterator[str]:
    """An object of a class that nothing is known of: its attributes that the function may mean."""
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}"
    attributes: dict[str, object] = getattr(value, "__dict__", {})
    used = names.intersection(attributes)
    key = (id(value), used)
    if key not in seen:
        seen[key] = len(seen)
        for name in sorted(used):
            yield name
            yield from _content(attributes[name], names, seen)


def _versioned(value: object) -> bool:
    """Whether something belongs to a package whose version is part of the key."""
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in _VERSIONED
