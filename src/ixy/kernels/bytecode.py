"""What a kernel cannot be, told from its byte code before anything is compiled.

Numba refuses most of it too, but in riddles, and some of it not at all; the interpreter would run it. What is not known
here passes. Nothing is compiled or imported for it, and it takes some microseconds.
"""

from __future__ import annotations

import builtins
import difflib
import dis
import enum
import inspect
import linecache
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, dropwhile, islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, TypeGuard, cast

from ixy.headers import is_address

STATE = "keep what changes in the state"
_DATA = f"{STATE}, and constants in tuples or arrays"
_OUTSIDE = "define it outside"
VERDICT = "return ixy.DROP, ixy.FORWARD or the number of an output"
NOTHING = "a function of a batch returns nothing: write packets.verdicts[i] = ixy.DROP or the number of an output"

_DICT = f"a dict cannot be made here: {_DATA}"
_LIST = f"a list cannot be made here: {_DATA}"
_SET = f"a set cannot be made here: {_DATA}"
_TEXT = "a text cannot be made here: write a constant one, without f"
_WITH = "'with' cannot be compiled: open and lock before the path runs"
_TRY = "'try' cannot be compiled: test with 'if' what would raise"
_PATTERN = "only numbers can be matched: test parts with 'if'"
_GENERATOR = f"a generator cannot be made here: write a loop, and {VERDICT}"

# By the instruction that does it, on Python 3.11 to 3.14.
_REFUSED = {
    "BUILD_MAP": _DICT,
    "BUILD_CONST_KEY_MAP": _DICT,
    "BUILD_LIST": _LIST,
    "BUILD_SET": _SET,
    "FORMAT_VALUE": _TEXT,
    "FORMAT_SIMPLE": _TEXT,
    "FORMAT_WITH_SPEC": _TEXT,
    "BUILD_STRING": _TEXT,
    "BUILD_INTERPOLATION": _TEXT,
    "BUILD_TEMPLATE": _TEXT,
    "BEFORE_WITH": _WITH,
    "BEFORE_ASYNC_WITH": _WITH,
    "LOAD_SPECIAL": _WITH,
    "YIELD_VALUE": f"'yield' cannot be compiled: {VERDICT}",
    "GET_AWAITABLE": f"'await' cannot be compiled: {VERDICT}",
    "IMPORT_NAME": "nothing can be imported here: do it at the head of the file",
    "LOAD_BUILD_CLASS": f"a class cannot be made here: {_OUTSIDE}",
    "MATCH_CLASS": _PATTERN,
    "MATCH_MAPPING": _PATTERN,
    "MATCH_SEQUENCE": _PATTERN,
    "UNPACK_EX": "'*' cannot be compiled here: name each part",
    "DELETE_SUBSCR": "'del' of an element cannot be compiled: set it to 0",
}

# Functions within a function, by the names that Python gives them.
_INNER = {
    "<listcomp>": _LIST,
    "<setcomp>": _SET,
    "<dictcomp>": _DICT,
    "<genexpr>": _GENERATOR,
    "<lambda>": f"a lambda cannot be made here: {_OUTSIDE}",
}

# What the interpreter knows by itself, and Numba too, without memory for it.
_BUILTINS: frozenset[object] = frozenset(
    {abs, bool, complex, divmod, enumerate, float, int, len, max, min, pow, print, range, round, sum, zip}
)

# Packages whose functions and objects Numba and ixy know.
_KNOWN = {
    *("_cffi_backend", "_ctypes", "_operator", "cmath", "ctypes", "ixy", "llvmlite", "math", "numba", "numpy"),
    *("operator", "random"),
}
_NOT_USERS = _KNOWN | (sys.stdlib_module_names - {"builtins"})  # no Python function is in builtins, but by exec

# NumPy's functions that make an array, whatever they are given.
_MAKES_ARRAY = (
    *("append", "arange", "array", "asarray", "ascontiguousarray", "concatenate", "copy", "cumsum", "diff", "empty"),
    *("empty_like", "eye", "full", "full_like", "identity", "linspace", "nonzero", "ones", "ones_like", "repeat"),
    *("sort", "stack", "tile", "unique", "zeros", "zeros_like"),
)

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), slice, range, enum.Enum)
_CHANGING = (dict, list, set, frozenset, bytearray)

_LONGEST = 40  # characters of a value

_MISSING = object()  # the value of a name that nothing has


class Finding(NamedTuple):
    """Why a function cannot be a kernel.

    Attributes:
        function: where it stands: the function, or a helper that it calls.
        line: in the file of that.
        reason: what is wrong, and what to write instead.
    """

    function: FunctionType
    line: int
    reason: str


def findings(function: FunctionType, observed: bool = False, at_once: bool = False) -> Iterator[Finding]:
    """What keeps a function from being a kernel, line by line; then the same of each helper of the user's.

    Args:
        observed: it is interpreted, and may note what it sees in a list of the function around it, to be looked at.
        at_once: it is given a batch, and returns nothing.
    """
    codes = _codes(function)
    for each, code in codes.items():
        reasons = chain(
            _constructs(code), _texts(code), _writes(code), _names(code, observed), _unset(code), _circles(code, codes)
        )
        if each is function:
            reasons = chain(reasons, _returned(code) if at_once else _ways_out(code))
        for line, reason in sorted(reasons, key=lambda found: found[0]):
            yield Finding(each, line, reason)


def definition(function: FunctionType) -> int:
    """The line with `def`, which decorators come before."""
    code = function.__code__
    for line in range(code.co_firstlineno, max(line or 0 for *_, line in code.co_lines()) + 1):
        if re.match(r"\s*(async\s+)?def\b", source_line(function, line)):
            return line
    return code.co_firstlineno


def source_line(function: FunctionType, line: int) -> str:
    """A line of the file in which a function stands; empty if that is not there."""
    file = function.__code__.co_filename
    linecache.checkcache(file)
    return linecache.getline(file, line)


def python_function(value: object) -> object:
    """The function that was marked as a kernel; any other value as it is."""
    marked = isinstance(value, FunctionType) or _home(type(value)) == "ixy"
    return getattr(value, "py_func", value) if marked else value


def is_users(value: object) -> TypeGuard[FunctionType]:
    """Whether a value is a Python function that neither Numba, NumPy, ixy nor the interpreter came with."""
    return isinstance(value, FunctionType) and _home(value) not in _NOT_USERS


def _home(value: object) -> str:
    """The outermost package that a function or class belongs to."""
    module = getattr(value, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


# ---------------------------------------------------------------------------------------------------------------------
# Byte code


class _Name(NamedTuple):
    """A global or outer variable where it is used, or what is reached from one through modules, such as `np.uint8`.

    Attributes:
        place: of the instruction that loads the variable.
    """

    place: int
    text: str
    value: object

    @property
    def callee(self) -> FunctionType | None:
        """The function of the user's that it means, if it means one."""
        function = python_function(self.value)
        return function if is_users(function) else None


class _Code:
    """The byte code of a function, and what its names mean.

    Attributes:
        instructions, lines: by place, from 0 on.
        names: that are not the function's own.
        protected: the places where what is within a `try` begins.
    """

    def __init__(self, function: FunctionType) -> None:
        self.function, self.code = function, function.__code__
        byte_code = dis.Bytecode(self.code)
        self.instructions = list(byte_code)
        self.lines = list(self._lines())
        self._places = {instruction.offset: place for place, instruction in enumerate(self.instructions)}
        self.protected = [self._places[entry.start] for entry in getattr(byte_code, "exception_entries", ())]
        self.names = list(self._names())

    def _lines(self) -> Iterator[int]:
        """An instruction without a line belongs to what came before."""
        line = self.code.co_firstlineno
        for instruction in self.instructions:
            line = (instruction.positions and instruction.positions.lineno) or line
            yield line

    def _names(self) -> Iterator[_Name]:
        variables = _variables(self.function)
        for place, instruction in enumerate(self.instructions):
            is_outer = instruction.opname == "LOAD_DEREF" and instruction.argval in self.code.co_freevars
            if is_outer or instruction.opname == "LOAD_GLOBAL":
                yield self._reached(place, variables.get(instruction.argval, _MISSING))

    def _reached(self, place: int, value: object) -> _Name:
        """What a variable leads to: attributes of modules and enumerations are looked up like names."""
        text: str = self.instructions[place].argval
        for instruction in islice(self.instructions, place + 1, None):
            if instruction.opname == "EXTENDED_ARG":
                continue
            is_attribute = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
            if not is_attribute or not isinstance(value, (ModuleType, enum.EnumMeta)):
                break
            text = f"{text}.{instruction.argval}"
            value = getattr(value, instruction.argval, _MISSING)
        return _Name(place, text, value)

    def callees(self) -> list[FunctionType]:
        """The functions of the user's that it calls."""
        return [name.callee for name in self.names if name.callee]

    def start(self, place: int) -> tuple[int, int] | None:
        """Line and column at which that begins which an instruction was made from, if Python has kept it."""
        positions = self.instructions[place].positions
        if positions is None or positions.lineno is None or positions.col_offset is None:
            return None
        return positions.lineno, positions.col_offset

    def after(self, place: int) -> Iterator[int]:
        """The places that may be reached next."""
        instruction = self.instructions[place]
        if instruction.opcode in dis.hasjrel:
            yield self._places[instruction.argval]
        if instruction.opname not in _ENDS:
            yield place + 1

    def uses(self, place: int) -> Iterable[tuple[str, str]]:
        """What an instruction does to the function's own variables, in turn: LOAD, STORE or DELETE, and the name."""
        instruction = self.instructions[place]
        value = instruction.argval
        names = cast(tuple[str, ...], value if isinstance(value, tuple) else (value,))
        return zip(_USE.findall(instruction.opname), names, strict=False)


def _codes(function: FunctionType) -> dict[FunctionType, _Code]:
    """The byte code of a function, and of those of the user's that it calls."""
    codes: dict[FunctionType, _Code] = {}
    left = [function]
    for each in left:
        if each not in codes:
            codes[each] = _Code(each)
            left += codes[each].callees()
    return codes


_ENDS = {
    *("JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_FORWARD"),
    *("RAISE_VARARGS", "RERAISE", "RETURN_CONST", "RETURN_VALUE"),
}

_USE = re.compile("(LOAD|STORE|DELETE)_FAST")  # from Python 3.13 on, two in one instruction


def _variables(function: FunctionType) -> dict[str, object]:
    """All variables that a function sees but its own."""
    variables = {**vars(builtins), **function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not set yet
            variables[name] = cell.cell_contents
    return variables


# ---------------------------------------------------------------------------------------------------------------------
# Rules: each tells lines and reasons

_Reasons = Iterator[tuple[int, str]]


def _constructs(code: _Code) -> _Reasons:
    """Statements and expressions that cannot be compiled."""
    found = False
    for instruction, line in zip(code.instructions, code.lines, strict=True):
        reason = _construct(instruction)
        if reason:
            found = True
            yield line, reason
    if code.code.co_flags & inspect.CO_COROUTINE:
        yield definition(code.function), f"'async' cannot be compiled: {VERDICT}"
    elif code.protected and not found:  # 'with', generators and some comprehensions are protected too
        yield code.lines[max(code.protected[0] - 1, 0)], _TRY  # 'try' itself is an instruction that does nothing


def _construct(instruction: dis.Instruction) -> str | None:
    name, value = instruction.opname, instruction.argval
    if name in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"):
        return f"{value!r} cannot be set here: {STATE}"
    if name == "RAISE_VARARGS" and value == 2:
        return "'from' cannot be compiled: raise without it"
    if name in ("LOAD_CONST", "RETURN_CONST"):
        return _constant(value)
    return _REFUSED.get(name)


def _constant(value: object) -> str | None:
    if isinstance(value, CodeType):
        return _INNER.get(value.co_name, f"a function cannot be made here: {_OUTSIDE}")
    if isinstance(value, frozenset):
        return "a set cannot be made here: write a tuple"
    return _too_large(value)


def _too_large(value: object) -> str | None:
    if isinstance(value, int) and not -1 << 63 <= value < 1 << 64:
        return f"{value:#x} does not fit into 64 bits"
    return None


_ADDRESS = "write a number, or an address such as 10.0.0.1"
_ONE_BY_ONE = "compare with each address by =="
_NO_ORDER = "compare with an address by == or !="
_USES_TEXT = ("COMPARE_OP", "STORE_ATTR", "CONTAINS_OP", "STORE_SUBSCR")


def _texts(code: _Code) -> _Reasons:
    """Texts that are compared or assigned, and are no addresses: compiled, a number never equals one."""
    for place, instruction in enumerate(code.instructions):
        value: object = instruction.argval
        parts = cast("tuple[object, ...]", value if isinstance(value, (tuple, frozenset)) else (value,))
        texts = [each for each in parts if isinstance(each, str)]
        if instruction.opname != "LOAD_CONST" or not texts:
            continue
        following = dropwhile(lambda each: each.opname.startswith(("LOAD_", "BINARY_")), code.instructions[place + 1 :])
        use = next(following, None)
        if use is not None and use.opname in _USES_TEXT and (advice := _advice(use, instruction.argval)):
            yield code.lines[place], f"{texts[0]!r} is a text, and no number: {advice}"


def _advice(use: dis.Instruction, value: object) -> str | None:
    """What to write instead of a text, or several, where it is used; None where it may stand."""
    if use.opname == "CONTAINS_OP":
        return _ONE_BY_ONE
    if use.opname == "STORE_SUBSCR" or not (isinstance(value, str) and is_address(value)):
        return _ADDRESS
    return _NO_ORDER if use.opname == "COMPARE_OP" and use.argval not in ("==", "!=") else None


def _writes(code: _Code) -> _Reasons:
    """What stands to the left of `=`, and does not come from a parameter."""
    beginning = {code.start(name.place): name for name in code.names}
    beginning.pop(None, None)
    for place, instruction in enumerate(code.instructions):
        if instruction.opname in ("STORE_SUBSCR", "STORE_SLICE", "STORE_ATTR", "DELETE_ATTR"):
            name = beginning.get(code.start(place))
            if name and not callable(name.value):  # what a function returns may be part of a parameter
                yield code.lines[place], f"{name.text!r} is a constant in a kernel: {STATE}"


def _names(code: _Code, observed: bool) -> _Reasons:
    """Names that nobody has, and values that cannot be compiled in, defaults among them."""
    variables = _variables(code.function)
    for name in code.names:
        if observed and name.text in code.code.co_freevars and isinstance(name.value, _CHANGING):
            continue
        reason = _missing(name.text, variables) if name.value is _MISSING else _unusable(name.text, name.value)
        if reason:
            yield code.lines[name.place], reason
    for default in (*(code.function.__defaults__ or ()), *(code.function.__kwdefaults__ or {}).values()):
        reason = _unusable(repr(default)[:_LONGEST], default)
        if reason:
            yield definition(code.function), f"the default {reason}"


def _missing(text: str, variables: dict[str, object]) -> str:
    """Say that there is no such name, and which one may be meant."""
    first, *attributes = text.split(".")
    owner, known = "", list(variables)
    if attributes:
        value = variables[first]
        for attribute in attributes[:-1]:
            value = getattr(value, attribute)
        owner, known = text.removesuffix(attributes[-1]), [*dir(value), *getattr(value, "__all__", ())]
    close = difflib.get_close_matches(text.removeprefix(owner), known, 1, 0.75)
    return f"there is no {text!r}: " + (
        f"{owner}{close[0]}?" if close else "define or import it before the path is made"
    )


def _unusable(text: str, value: object) -> str | None:
    """Why a value cannot be used in a kernel; None if it can, or if that is not known."""
    kind = type(value).__name__
    value = python_function(value)
    if isinstance(value, _CHANGING):
        return f"{text!r} is a {kind}, and not constant: {_DATA}"
    if isinstance(value, tuple):
        return next(filter(None, (_unusable(text, each) for each in cast(tuple[object, ...], value))), None)
    if isinstance(value, _CONSTANTS):
        return _too_large(cast(object, value))
    if isinstance(value, ModuleType):
        return f"{text!r} is a module: use what is in it by name"
    if isinstance(value, type) and (_home(value) != "builtins" or _is_usable_class(value)):
        return None if _is_usable_class(value) else f"{text!r} is a class, which cannot be compiled: {_DATA}"
    if _home(value) == "numpy" and getattr(value, "__name__", "") in _MAKES_ARRAY:
        return f"{text!r} makes an array: {STATE}"
    if getattr(value, "__name__", "") == "compile_filter" and _home(value) == "ixy":
        return f"{text!r} compiles a filter: {_OUTSIDE}"
    if value in _BUILTINS if isinstance(value, BuiltinFunctionType) else is_users(value):
        return None
    owner = value if isinstance(value, (FunctionType, BuiltinFunctionType)) else type(value)
    if isinstance(value, MethodType):
        owner = type(value.__self__)
    if _home(owner) in _KNOWN:
        return None
    if callable(value):
        return f"{text!r} cannot be compiled: call functions of your own, of math or NumPy's on numbers"
    return f"{text!r} is of type {kind}, which cannot be compiled: {_DATA}"


def _is_usable_class(value: type[Any]) -> bool:
    is_known = value in _BUILTINS or _home(value) in _KNOWN
    return is_known or issubclass(value, (BaseException, enum.Enum)) or hasattr(value, "_fields")


def _circles(code: _Code, codes: dict[FunctionType, _Code]) -> _Reasons:
    """Helpers that call the function again, which the compiler does not link. It may call itself."""
    for name in code.names:
        if name.callee and name.callee is not code.function and code.function in _reached(name.callee, codes):
            yield code.lines[name.place], f"{name.text!r} calls {code.function.__name__!r} again: write a loop"


def _reached(function: FunctionType, codes: dict[FunctionType, _Code]) -> set[FunctionType]:
    """The function, and all that it calls."""
    reached: set[FunctionType] = set()
    left = [function]
    while left:
        callee = left.pop()
        if callee not in reached:
            reached.add(callee)
            left += codes[callee].callees()
    return reached


def _unset(code: _Code) -> _Reasons:
    """The function's own variables where there is a way on which they were not set. Compiled, they would be 0."""
    known = _set_before(code)
    for place in sorted(known):
        bound = set(known[place])
        for use, name in code.uses(place):
            if use == "LOAD" and name not in bound:
                yield code.lines[place], f"{name!r} may not be set here: set it before the 'if' or loop that sets it"
            _follow(use, name, bound)


def _set_before(code: _Code) -> dict[int, frozenset[str]]:
    """Which of its variables are set, on every way, when an instruction is reached; by place."""
    parameters = code.code.co_argcount + code.code.co_kwonlyargcount
    parameters += sum(bool(code.code.co_flags & flag) for flag in (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS))
    known = {0: frozenset(code.code.co_varnames[:parameters])}
    changed = [0]
    while changed:
        place = changed.pop()
        bound = set(known[place])
        for use, name in code.uses(place):
            _follow(use, name, bound)
        for following in code.after(place):
            common = known.get(following, frozenset(bound)) & bound
            if known.get(following) != common:
                known[following] = common
                changed.append(following)
    return known


def _follow(use: str, name: str, bound: set[str]) -> None:
    if use == "STORE":
        bound.add(name)
    elif use == "DELETE":
        bound.discard(name)


def mentions(function: object, value: object) -> bool:
    """Whether a function, or a helper of the user's, has this value by a name."""
    python = cast(FunctionType, python_function(function))
    return any(name.value is value for code in _codes(python).values() for name in code.names)


def _ways_out(code: _Code) -> _Reasons:
    """Where a kernel returns what is no verdict, or that it never returns."""
    if not any(instruction.opname.startswith("RETURN_") for instruction in code.instructions):
        yield max(code.lines), f"never returns: {VERDICT}"
    for place, instruction in enumerate(code.instructions):
        if instruction.opname == "RETURN_CONST":
            sources = [instruction]
        elif instruction.opname == "RETURN_VALUE":
            sources = [code.instructions[source] for source in _sources(code, place)]
        else:
            continue
        for source in sources:
            reason = _no_verdict(source)
            if reason:
                yield code.lines[place], reason


def _returned(code: _Code) -> _Reasons:
    """Where a function of a batch returns a constant; what else it returns, its type tells."""
    for place, instruction in enumerate(code.instructions):
        sources = [code.instructions[source] for source in _sources(code, place)]
        sources = {"RETURN_CONST": [instruction], "RETURN_VALUE": sources}.get(instruction.opname, [])
        if any(each.opname in ("LOAD_CONST", "RETURN_CONST") and each.argval is not None for each in sources):
            yield code.lines[place], NOTHING


def _sources(code: _Code, place: int) -> Iterator[int]:
    """Where the value was made that is on top of the stack at a place, as far as that is simple to tell."""
    for before in range(len(code.instructions)):
        if place in code.after(before):
            is_jump = code.instructions[before].opname in ("JUMP_FORWARD", "NOP")
            yield from _sources(code, before) if is_jump else (before,)


def _no_verdict(source: dis.Instruction) -> str | None:
    if source.opname == "BUILD_TUPLE":
        return f"returns a tuple, which is no verdict: {VERDICT}"
    if source.opname not in ("LOAD_CONST", "RETURN_CONST") or isinstance(source.argval, int):
        return None
    if source.argval is None:
        return f"ends without a verdict: {VERDICT}"
    return f"returns {repr(source.argval)[:_LONGEST]}, which is no verdict: {VERDICT}"
