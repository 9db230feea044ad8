"""One switch between compiled and interpreted kernels, and a compile cache that knows what a kernel calls.

Kernels are ordinary functions over integers and NumPy arrays. By default Numba compiles them; with `IXY_JIT=0` in the
environment the same source runs in the plain interpreter, where a debugger can step through it and coverage sees it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

INTERPRETED = os.environ.get("IXY_JIT") == "0"

if TYPE_CHECKING or not INTERPRETED:
    import numba
    from numba.core.caching import FunctionCache
    from numba.core.dispatcher import Dispatcher

    class _ContentCache(FunctionCache):
        """Numba's disk cache, keyed by the content of a kernel and of everything that it calls.

        Numba's own key names only the function's file, so it serves stale code when a callee in another file changes,
        and it never hits for a function made by a factory from other kernels. Both are the rule here.
        """

        def _index_key(self, sig: Any, codegen: Any) -> Any:
            function: Any = self._py_func
            return sig, codegen.magic_tuple(), repr(_OPTIONS), fingerprint(function)


# Reference counting costs two atomic operations per array and call, so the runtime that does it stays off. Kernels are
# inlined into each other: a named tuple of arrays is some fifty machine words, and a real call would copy them all.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False, "error_model": "numpy"}

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Make `function` a kernel of the data path: compiled without the GIL, without reference counting, cached on disk.

    Such a kernel allocates nothing and raises nothing. Indexing is unchecked: every index is either made by the kernel
    itself or checked by it.
    """
    return _compile(function, boundscheck=False)


def outlined(function: F) -> F:
    """Like `compiled`, but called instead of inlined: for what is rare and would make the common path longer."""
    return _compile(function, boundscheck=False, forceinline=False)


def checked(function: F) -> F:
    """Like `compiled`, but every index is checked and a bad one raises `IndexError`: for a user's function."""
    return _compile(function, boundscheck=True)


def _compile(function: F, *, boundscheck: bool, forceinline: bool = True) -> F:
    if INTERPRETED:
        return function
    dispatcher: Any = numba.njit(boundscheck=boundscheck, forceinline=forceinline, **_OPTIONS)(function)
    # A function without a file, typed in an interactive session, has no place for a cache: it is compiled every time.
    with suppress(RuntimeError):
        dispatcher._cache = _ContentCache(function)
    return cast(F, dispatcher)


def fingerprint(function: Callable[..., Any]) -> str:
    """A digest of a function's byte code, constants, closure, and of the functions and constants that it refers to."""
    digest = hashlib.sha256()
    for part in _content(function, set()):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _content(value: object, seen: set[int]) -> Iterator[str]:
    """The parts of `value` that machine code made from it depends on."""
    value = _plain_function(value)
    if isinstance(value, FunctionType):
        if id(value) not in seen:
            seen.add(id(value))
            yield value.__qualname__
            yield repr(value.__defaults__)
            yield from _code_content(value.__code__)
            for referred in _referred(value):
                yield from _content(referred, seen)
    elif isinstance(value, (bool, int, float, str, bytes, tuple, frozenset, type(None))):
        yield repr(cast(object, value))
    else:
        yield f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}"


def _plain_function(value: object) -> object:
    """The Python function behind a Numba dispatcher or intrinsic; any other value as it is."""
    if not INTERPRETED and isinstance(value, Dispatcher):
        return cast(Any, value).py_func
    return getattr(value, "_defn", value)


def _code_content(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_content(constant)
        else:
            yield repr(constant)


def _referred(function: FunctionType) -> Iterator[object]:
    """The closure cells and globals that `function` names, attributes of modules included."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    names = function.__code__.co_names
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield from (vars(value)[attribute] for attribute in names if attribute in vars(value))
        else:
            yield value
