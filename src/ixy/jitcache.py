"""A compile cache that knows what a kernel calls, built on Numba's.

Numba's own cache is keyed by the file of the outermost function: it serves stale code when a callee in another file
changes, and it never hits for a function that a factory made from other kernels. Here the key is the content of a
kernel and of everything that it refers to. Several processes may use the cache at once.
"""

# Numba's internals have no types.
# pyright: basic

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

import numpy as np
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

# Numba tells functions of one name apart by a number in the names of their symbols, and counts from 1 in each process.
# Products of a factory that were cached by several processes would meet in another one under one symbol, and all but
# the first would run the first one's code: so each process begins elsewhere.
FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6)))


class _CacheFile(IndexDataCacheFile):
    """Data files named by what is in them: two processes that compile at once do not overwrite each other's."""

    def save(self, key: Any, data: Any) -> None:
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        self._data_name_pattern = self._index_name.removesuffix("nbi") + f"{{number:d}}.{digest}.nbc"
        super().save(key, data)


class ContentCache(FunctionCache):
    """Numba's disk cache of one function, keyed by content.

    Args:
        function: the Python function.
        options: how it is compiled.

    Raises:
        RuntimeError: the function has no file, so there is no place for a cache.
    """

    def __init__(self, function: Callable[..., Any], options: str) -> None:
        super().__init__(function)
        self._options = options
        file: Any = self._cache_file
        self._cache_file = _CacheFile(file._cache_path, self._impl.filename_base, file._source_stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), self._options, fingerprint(self._py_func)


def fingerprint(function: Callable[..., Any]) -> str:
    """A digest of a function's byte code, constants, closure, and of the functions and constants that it refers to."""
    digest = hashlib.sha256()
    for part in _content(function, set()):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _content(value: object, seen: set[int]) -> Iterator[str]:
    """The parts of `value` that machine code made from it depends on."""
    options: dict[str, object] = getattr(value, "targetoptions", {})  # of a Numba dispatcher
    yield repr(options.get("boundscheck"))
    value = _plain_function(value)
    if isinstance(value, FunctionType):
        if id(value) not in seen:
            seen.add(id(value))
            yield value.__qualname__
            yield from _content(value.__defaults__, seen)
            yield from _code_content(value.__code__)
            for referred in _referred(value):
                yield from _content(referred, seen)
    elif isinstance(value, tuple):
        elements = cast("tuple[object, ...]", value)
        yield type(elements).__qualname__
        for element in elements:
            yield from _content(element, seen)
    elif isinstance(value, (np.ndarray, np.generic)):  # Numba takes them as constants too
        constant = np.asarray(cast(Any, value))
        yield f"{constant.dtype} {constant.shape} {constant.tobytes().hex()}"
    elif isinstance(value, (bool, int, float, complex, str, bytes, frozenset, type(None))):
        yield repr(cast(object, value))
    else:
        yield f"{type(value).__qualname__} {getattr(value, '__qualname__', '')} {getattr(value, 'symbol', '')}"


def _plain_function(value: object) -> object:
    """The Python function behind a Numba dispatcher or intrinsic; any other value as it is."""
    if isinstance(value, Dispatcher):
        return value.py_func
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
    names = set(_names(function.__code__))
    for name in sorted(names):
        yield from _attributes(function.__globals__.get(name), names)


def _names(code: CodeType) -> Iterator[str]:
    """All names in a function's code, and in that of functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _attributes(value: object, names: set[str]) -> Iterator[object]:
    """A value; of a module, the attributes that a function that uses `names` may mean, also those of its submodules."""
    if not isinstance(value, ModuleType):
        yield value
        return
    for name in sorted(names & vars(value).keys()):
        attribute = vars(value)[name]
        if not isinstance(attribute, ModuleType) or attribute.__name__.startswith(f"{value.__name__}."):
            yield from _attributes(attribute, names)
