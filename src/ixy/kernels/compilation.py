"""What the compiler says of a kernel, in a sentence."""

# Numba's internals have no types.
# pyright: basic

from __future__ import annotations

import re
from pathlib import Path
from types import FunctionType
from typing import Any

from numba.core import ir, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.event import Listener, install_listener

from ixy.kernels.bytecode import NOTHING, STATE, VERDICT, Finding, definition, is_users

_MEMORY = f"memory is needed here, which a kernel cannot get: {STATE}"

# What Numba's text contains, and what it means.
_SENTENCES = (
    (r"((?:(?:a|this) packet|a batch|packet\.\w+|the record) (?:has no|cannot be) [^\n]+)", r"\1"),
    (r"('[^'\n]*' is no \w+ address such as [^\s]+)", r"\1"),
    (r"(a filter takes a packet in a kernel, and nothing else)", r"\1"),
    (r"(an address can be compared with a constant text only)", r"\1"),
    (r"(this is known where a packet or record is: [^\n]+)", r"\1"),
    (r"\A[^\n]*\nOnly accept returning of array", "an array cannot be returned: return a number"),
    (r"NRT required but not enabled", _MEMORY),
    (r"Only accept returning of array passed into the function", _MEMORY),
    (
        r"readonly array(?s:.)*setitem|setitem(?s:.)*readonly array",
        rf"a global array is a constant in a kernel: {STATE}",
    ),
    (r"NameError: name '(\w+)' is not defined", r"there is no '\1'"),
    (r"Cannot determine Numba type of <class '([\w.]+)'>", r"a value of type \1 cannot be compiled"),
    (r"Unknown attribute '(\w+)' of type Module\(<module '([\w.]+)'", r"'\2.\1' cannot be compiled"),
    (r"Unknown attribute '(\w+)' of type ([^\n]+)", r"\2 has no '\1'"),
    (r"Use of unsupported NumPy function '([\w.]+)'", r"'\1' cannot be compiled"),
    (r"Cannot bind [^\n]*TypeError: ([^\n]*?)\"?\.", r"cannot be called so: \1"),
    (r"Cannot unify (.+) and (.+) for '(\w+)[.\d]*'", r"'\3' is \1 on one way and \2 on another: use two names"),
    (r"Cannot unify (.+) and (.+) for ", r"this is \1 on one way and \2 on another"),
    (r"No implementation of function Function\(.*?\) found for signature:\s*>>> ([^\n]+)", r"\1 cannot be compiled"),
)

# Numba's names of types.
_WORDS = (
    (r"Function\(<[a-z-]+ (?:function )?'?([\w.]+)[^>]*>\)", r"'\1'"),
    (r"(Literal\[int\]\([^)]*\)|u?int\d+\b)", "a number"),
    (r"(Literal\[str\]\([^)]*\)|unicode_type\b)", "a text"),
    (r"(readonly )?array\([^)]*\)", "an array"),
    (r"float\d+\b", "a fraction"),
    (r"none\b", "nothing"),
    (r"bool\b", "true or false"),
    (r"ixy\.Packet\([^)]*\)\.(\w+)", r"packet.\1"),
    (r"ixy\.Packets\(ixy\.Packet\([^)]*\)[^)]*\)", "a batch"),
    (r"ixy\.Packet\([^)]*\)", "a packet"),
)


def obstacle(kernel: Any, arguments: tuple[Any, ...], at_once: bool) -> tuple[Finding, Exception | None] | None:
    """Why a kernel cannot be compiled for arguments of some types, and what Numba raised; None if it can.

    That it can is kept in the cache, and from then on known without compiling.
    """
    cache = kernel._cache if hasattr(kernel._cache, "prove") else None  # none where Numba compiles in its own way
    if cache and cache.is_proven(arguments):
        return None
    callee = getattr(kernel, "callee", kernel)
    failures = _Failures()
    with global_compiler_lock, install_listener("numba:compile", failures):
        try:
            _, types_ = callee._compiler.fold_argument_types(arguments, {})  # with defaults
            callee.compile(types_)
        except Exception as error:
            return _finding(failures, kernel.py_func, error), error
    result = callee.overloads[types_]
    found = (_with_result if at_once else _without_verdict)(kernel.py_func, result)
    if found:
        return found, None
    if cache:
        cache.prove(arguments)
    return None


class _Failures(Listener):
    """The functions that could not be compiled, innermost first, and what was raised."""

    def __init__(self) -> None:
        self.found: dict[FunctionType, BaseException] = {}

    def on_start(self, event: Any) -> None:
        pass

    def on_end(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        self.found.pop(function, None)  # of an attempt with other types
        if event._exc_details:
            self.found[function] = event._exc_details[1]


def _finding(failures: _Failures, function: FunctionType, error: Exception) -> Finding:
    """Where it failed, and why, in the innermost function that is the user's."""
    inner: BaseException = error
    for failed, reason in failures.found.items():
        if is_users(failed):
            function, inner = failed, reason
            break
    return Finding(function, _line(function, inner) or definition(function), _reason(inner))


def _line(function: FunctionType, error: BaseException) -> int | None:
    """The line of the function that Numba means."""
    file = function.__code__.co_filename
    place = getattr(error, "loc", None)
    if place is not None and place.filename == file:
        return place.line
    patterns = (rf"{re.escape(file)} \((\d+)\)", rf"{re.escape(Path(file).name)}:(\d+)")  # the second of variables
    found = next(filter(None, (re.search(pattern, str(error)) for pattern in patterns)), None)
    return int(found[1]) if found else None


def _reason(error: BaseException) -> str:
    text = str(error)
    lines = str(getattr(error, "msg", text)).split("\n")
    reason = f"cannot be compiled: {next(filter(None, lines), type(error).__name__)}"
    for pattern, sentence in _SENTENCES:
        found = re.search(pattern, text)
        if found:
            reason = found.expand(sentence)
            break
    for pattern, word in _WORDS:
        reason = re.sub(rf"(?<!['.\w]){pattern}", word, reason)
    return reason


def _with_result(function: FunctionType, result: Any) -> Finding | None:
    """That a compiled function of a batch returns something."""
    nothing = isinstance(result.signature.return_type, types.NoneType)
    return None if nothing else Finding(function, definition(function), NOTHING)


def _without_verdict(function: FunctionType, result: Any) -> Finding | None:
    """Where a compiled function returns what is no verdict."""
    kind = result.signature.return_type
    if _is_verdict(kind):
        return None
    line, typemap = definition(function), result.type_annotation.typemap
    for block in result.type_annotation.blocks.values():
        for each in block.find_insts(ir.Return):
            returned = typemap[_before_cast(block, each.value.name)]
            if not _is_verdict(returned):
                line, kind = each.loc.line, returned
    words = next((words for known, words in _KINDS if isinstance(kind, known)), str(kind))
    return Finding(function, line, f"returns {words}, which is no verdict: {VERDICT}")


def _is_verdict(kind: Any) -> bool:
    return isinstance(kind, (types.Integer, types.Boolean, types.IntEnumMember))


def _before_cast(block: Any, name: str) -> str:
    """The variable that another one was cast from, to be returned."""
    for each in block.find_insts(ir.Assign):
        if each.target.name == name and isinstance(each.value, ir.Expr) and each.value.op == "cast":
            return each.value.value.name
    return name


_KINDS = (
    (types.NoneType, "nothing"),
    (types.Optional, "nothing, or a number"),
    (types.Float, "a fraction"),
    ((types.UnicodeType, types.StringLiteral), "a text"),
    (types.BaseTuple, "a tuple"),
    (types.Array, "an array"),
)
