"""Whether a function can be a kernel: found out before a path is made of it, and said in a sentence.

First what its byte code tells, then, unless kernels are interpreted, what the compiler does, of the function alone: in
the midst of a path it would name a line of the path's.

Compiled and interpreted a function does the same, but for these:

- Compiled integers have 64 bits. What goes beyond, as a product or sum of large numbers, is cut off there, and goes on
  in the interpreter. A hash masks each product: `x * FACTOR & 0x7FFF_FFFF_FFFF_FFFF` is the same in both.
- A shift by a negative number raises ValueError in the interpreter; compiled, its result is anything, and so is that of
  a shift by more than 63.
- A global is a constant from when the path is made, and compiled only once; the interpreter looks it up at each packet.
- `random` begins elsewhere.
- In a slice of a packet, and in a loop over one, bytes are NumPy's: compiled, a difference of two is never below 0.
  `packet[i]` is an integer like others.
- Interpreted, a function may use a list, set or dictionary of the function around it, to note what it has seen.
- What only types tell is refused at once by the compiler, and by the interpreter when it comes to it, or not at all:
  a method that arrays do not have, a variable that is a number or a text, a global array written by another name, an
  address that is compared with one of another kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import FunctionType
from typing import Any, cast

import numpy as np

from ixy.errors import KernelError
from ixy.jit import INTERPRETED
from ixy.kernels.bytecode import NOTHING, VERDICT, definition, findings, source_line

_LONGEST = 300  # characters of a reason
_PARAMETERS = ("packet", "record")  # as far as a path has them


def mark_at_once(function: Any) -> None:
    """Note that a function is given all packets of a batch at once."""
    function.ixy_at_once = True


def is_at_once(function: Any) -> bool:
    """Whether that was noted."""
    return getattr(_python(function), "ixy_at_once", False)


def check(function: Any, arguments: Sequence[Any]) -> Any:
    """What a path calls for `function`: itself if kernels are interpreted, else a kernel of it and of its helpers.

    Args:
        function: marked `ixy.kernel` or not.
        arguments: Numba's types of what the path hands it; interpreted, only how many there are counts.

    Raises:
        KernelError: it cannot be compiled, or has a way out without a verdict.
        TypeError: it is no Python function.
    """
    python, at_once = _python(function), is_at_once(function)
    if not isinstance(python, FunctionType):
        raise TypeError(f"a path calls a Python function for each packet, not {python!r}: write it with def")
    _check_parameters(python, len(arguments))
    for found in findings(python, observed=INTERPRETED, at_once=at_once):
        raise _error(*found)
    return function if INTERPRETED else _kernel(python, tuple(arguments), at_once)


def _python(function: Any) -> Any:
    return getattr(function, "py_func", function)


def verdict(function: Any, value: Any) -> int:
    """What an interpreted function has returned for a packet, if it is a verdict, as an integer.

    Raises:
        KernelError: it is none.
    """
    if isinstance(value, (int, np.integer, np.bool_)):
        return int(cast(int, value))
    python = _python(function)
    what = "nothing" if value is None else f"{value!r:.60}"
    raise _error(python, definition(python), f"returned {what}, which is no verdict: {VERDICT}")


def check_nothing(function: Any, value: Any) -> None:
    """
    Raises:
        KernelError: an interpreted function of a batch has returned something.
    """
    if value is not None:
        python = _python(function)
        raise _error(python, definition(python), f"returned {value!r:.60}: {NOTHING}")


def _kernel(function: FunctionType, arguments: tuple[Any, ...], at_once: bool) -> Any:
    from ixy.kernels.compilation import obstacle
    from ixy.kernels.helpers import with_helpers

    kernel = with_helpers(function)
    found = obstacle(kernel, arguments, at_once)
    if found:
        finding, raised = found
        raise _error(*finding) from raised and raised.with_traceback(None)
    return kernel


def _check_parameters(function: FunctionType, given: int) -> None:
    code = function.__code__
    most = code.co_argcount if not code.co_flags & inspect.CO_VARARGS else given
    least = code.co_argcount - len(function.__defaults__ or ())
    least += code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    if not least <= given <= most:
        pattern = f"def {function.__name__}({', '.join(_PARAMETERS[:given])})"
        count = least if given < least else most
        advice = f"write {pattern}" if given == len(_PARAMETERS) else f"write {pattern}, or give the path a record"
        raise _error(function, definition(function), f"has {count} parameters, and is given {given}: {advice}")


def _error(function: FunctionType, line: int, reason: str) -> KernelError:
    """The error that names the user's file and line, with the line itself below where there is the source."""
    file = function.__code__.co_filename
    source = source_line(function, line).strip()
    text = f"{file}:{line}: {function.__name__}: {' '.join(reason.split())[:_LONGEST]}"
    return KernelError(f"{text}\n    {source[:_LONGEST]}" if source else text)
