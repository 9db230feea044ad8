"""One switch between compiled and interpreted kernels.

Kernels are ordinary functions over integers and NumPy arrays. By default Numba compiles them; with `IXY_JIT=0` in the
environment the same source runs in the plain interpreter, where a debugger can step through it and coverage sees it.
Numba's own NUMBA_DISABLE_JIT does the same.

With `IXY_CHECK=1`, every index in a kernel is checked, and so is who has each packet buffer (`packets/checking.py`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

log = logging.getLogger("ixy.jit")

INTERPRETED = os.environ.get("IXY_JIT") == "0" or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")

CHECKING = os.environ.get("IXY_CHECK") == "1"

if TYPE_CHECKING or not INTERPRETED:
    from numba.core.compiler_lock import global_compiler_lock

    # A fork while another thread compiles would leave the child a compiler that is locked for good.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def _compiler() -> tuple[Callable[..., Any], str]:
    """What makes kernels; and if it can only do so as Numba does by itself, why."""
    try:
        from ixy import jitnumba
    except (AttributeError, ImportError) as error:  # something is not where it was in Numba
        return _ordinary, str(error)
    return jitnumba.kernel, jitnumba.UNTRIED


def _ordinary(function: Any, options: dict[str, Any], *, full: bool, apart: bool) -> Any:  # noqa: ARG001
    import numba

    njit: Any = numba.njit
    return njit(**options)(function)


_kernel, ORDINARY = (None, "") if INTERPRETED else _compiler()
if ORDINARY:
    log.warning("kernels are compiled as Numba does by itself, which takes several times as long: %s", ORDINARY)

# Reference counting costs two atomic operations per array and call, so the runtime that does it stays off. Kernels are
# inlined into each other: a named tuple of arrays is some fifty machine words, and a real call would copy them all.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False, "error_model": "numpy", "forceinline": True}

_A_MOMENT = 0.001  # seconds: a lock that nobody has is had sooner

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Make `function` a kernel of the data path: compiled without the GIL, without reference counting, cached on disk.

    Such a kernel allocates nothing and raises nothing. Indexing is unchecked: every index is either made by the kernel
    itself or checked by it. In the checking mode it is checked once more, and a bad one raises `IndexError`.
    """
    return _compile(function, boundscheck=CHECKING)


def outlined(function: F) -> F:
    """Like `compiled`, but called instead of inlined: for what is rare and would make the common path longer."""
    return _compile(function, boundscheck=CHECKING, forceinline=False)


def apart(function: F) -> F:
    """Like `compiled`, for a loop over arrays no two of which have memory in common, at least none that is written: the
    compiler makes vector moves of it without looking whether they have."""
    return _compile(function, apart=True, boundscheck=CHECKING)


def shared(how: Callable[[F], F]) -> Callable[[F], F]:
    """Make kernels, `how` being `compiled`, `outlined` or `checked`, of what Python calls too, on objects that Numba
    does not know: there they are interpreted."""

    def make(function: F) -> F:
        kernel: Any = how(function)
        if not INTERPRETED:
            kernel.__class__ = _called_interpreted(type(cast(object, kernel)))
        return kernel

    return make


@cache
def _called_interpreted(kind: type) -> type:
    """A class of kernels like this one, which Python runs by their source."""

    def call(kernel: Any, *arguments: Any, **named: Any) -> Any:
        return kernel.py_func(*arguments, **named)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def checked(function: F) -> F:
    """Like `compiled`, for a user's function: an index outside raises `IndexError`, and to divide by zero
    `ZeroDivisionError`."""
    return _compile(function, boundscheck=True, error_model="python", full=True)


def await_compiler() -> bool:
    """Wait while another thread compiles; whether one did."""
    if INTERPRETED:
        return False
    before = time.monotonic()
    with global_compiler_lock:
        return time.monotonic() - before > _A_MOMENT


class Direct:
    """A kernel for callers who know the types of what they hand it.

    To find out the types of named tuples takes Numba several times as long as a short kernel runs. So it does that once
    for each key, and from then on arguments with that key must be of the same types: it is not looked at.
    """

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self._kernel = kernel
        self._entries: dict[object, Callable[..., Any]] = {}

    def __call__(self, key: object, *arguments: object) -> Any:
        try:
            entry = self._entries[key]
        except KeyError:
            entry = self._entries[key] = self._entry(arguments)
        return entry(*arguments)

    def _entry(self, arguments: tuple[object, ...]) -> Callable[..., Any]:
        if INTERPRETED:
            return self._kernel
        import numba

        dispatcher, library = cast(Any, self._kernel), cast(Any, numba)
        return dispatcher.compile(tuple(library.typeof(argument) for argument in arguments))


def _compile(function: F, *, full: bool = False, apart: bool = False, **options: Any) -> F:
    if _kernel is None:
        return function
    options = {**_OPTIONS, **options}
    return cast(F, _kernel(function, options, full=full, apart=apart))
