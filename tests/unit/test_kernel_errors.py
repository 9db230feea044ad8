"""Functions that cannot be kernels are refused in a sentence, with file, line, name and source, by a path's check."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import types
from test_kernel_bytecode import ACCEPTED
from users import HEAD, Bytes, kernel, marked_line, program

import ixy
from ixy.jit import INTERPRETED, checked
from ixy.kernels.check import check, verdict

PACKET = types.Array(types.uint8, 1, "C")
TYPED_HEAD = HEAD + "import numpy as np\n\nTABLE = np.zeros(4, np.int64)\n\n\n"


def refusal(function: Any, parameters: int = 1) -> str:
    """The message with which a function is refused."""
    with pytest.raises(ixy.KernelError) as caught:
        check(function, [PACKET] * parameters)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


def test_message(tmp_path: Path) -> None:
    """File, line, function, reason, and the line itself below."""
    function = kernel(tmp_path, "packet[0] = 1\nreturn FORWRD  # here")
    file, line = function.__code__.co_filename, marked_line(function)
    first, second = refusal(function).split("\n")
    assert first.startswith(f"{file}:{line}: count: there is no 'FORWRD': ")
    assert second == "    return FORWRD  # here"


def test_message_without_source() -> None:
    """A function without a file, as from an interactive session."""
    names: dict[str, Any] = {}
    exec("def count(packet):\n    return FORWRD\n", names)
    assert refusal(names["count"]).startswith("<string>:2: count: there is no 'FORWRD': ")


def test_long_line(tmp_path: Path) -> None:
    """Of a line that is thousands of characters long the message has the beginning."""
    function = kernel(tmp_path, f"return FORWRD  # {'x' * 4000} # here")
    assert len(refusal(function)) < 1000


def test_helper_is_named(tmp_path: Path) -> None:
    module = program(
        tmp_path, "def helper(packet):\n    return {}  # here\n\ndef count(packet):\n    return helper(packet)\n"
    )
    assert f"program.py:{marked_line(module.count)}: helper: " in refusal(module.count)


@pytest.mark.parametrize(
    ("parameters", "given", "words"),
    [
        ("", 1, "has 0 parameters, and is given 1: write def count(packet)"),
        ("packet, state", 1, "has 2 parameters, and is given 1: write def count(packet)"),
        ("packet", 2, "has 1 parameters, and is given 2: write def count(packet, record)"),
        ("packet, state, more=1", 1, "has 2 parameters"),
        ("packet, *, more", 1, "has 2 parameters"),
    ],
)
def test_number_of_parameters(tmp_path: Path, parameters: str, given: int, words: str) -> None:
    """The line is that of `def`."""
    function = kernel(tmp_path, "return 1", parameters=parameters)
    message = refusal(function, given)
    assert words in message
    assert message.endswith(f"\n    def count({parameters}):")


@pytest.mark.parametrize(("parameters", "given"), [("packet, more=1", 1), ("packet, state, more=1", 2), ("*args", 2)])
def test_parameters_that_may_be_left_out(tmp_path: Path, parameters: str, given: int) -> None:
    check(kernel(tmp_path, "return 1", parameters=parameters), [PACKET] * given)


@pytest.mark.parametrize("value", [len, 3, None, "count", Path, np.zeros])
def test_no_function(value: object) -> None:
    with pytest.raises(TypeError, match="def"):
        check(value, [PACKET])


def test_decorated_function_is_shown_by_its_definition(tmp_path: Path) -> None:
    """What is wrong with the whole is told of the line with `def`."""
    text = "def mark(function):\n    return function\n\n@mark\n@mark\ndef count(packet, state):\n    return 1\n"
    message = refusal(program(tmp_path, text).count)
    assert message.endswith("\n    def count(packet, state):")


def test_marked_and_plain_functions_are_one(tmp_path: Path) -> None:
    """A function that was not marked is treated as if it were, and compiled once, however often it is given."""
    function = kernel(tmp_path, "return packet[0] & 1")
    assert check(function, [PACKET]) is check(function, [PACKET])
    if not INTERPRETED:
        assert check(function, [PACKET]) is check(checked(function), [PACKET])


# ---------------------------------------------------------------------------------------------------------------------
# What types tell. The interpreter knows none before it runs, and passes it.


def refusal_by_types(function: Any) -> str:
    """The message with which a function is refused; empty if interpreted."""
    if not INTERPRETED:
        return refusal(function)
    assert check(function, [PACKET]) is function
    return ""


BY_TYPES = [
    ("return packet.copy()[0]  # here", "memory"),
    ("return packet.tolist()[0]  # here", "an array has no 'tolist'"),
    ("return (packet + 1)[0]  # here", "memory"),
    ("return packet.sourc  # here", "'sourc'"),
    ("return packet.ipv4.src  # here", "'ipv4'"),
    ("return packet[0] / 2  # here", "a fraction"),
    ("pair = packet[0], packet[1]\nreturn pair  # here", "a tuple"),
    ("if packet[0]:\n    return packet[0]\nreturn math.pi  # here", "a fraction"),
    ("return helper(packet)  # here", "nothing"),
    ("return NAME  # here", "a text"),
    ("return byte(packet)  # here", "missing a required argument: 'index'"),
    ("return packet[0](1)  # here", ""),
    ("return len(packet[0])  # here", "len"),
    ("return packet['a']  # here", ""),
    ("return math.sqrt('a')  # here", "sqrt"),
    ("return math.comb(3, 1)  # here", "'math.comb'"),
    ("table = TABLE\ntable[0] = 1  # here\nreturn 1", "global array"),
    ("return np.roll(packet, 1)[0]  # here", ""),
    ("return np.fft.fft(packet)[0]  # here", ""),
    ("return abs(1 if packet[0] else 'a')  # here", "a text"),
    ("x = 1\nif packet[0]:\n    x = packet\ny = x  # here\nreturn 1", "'x' is"),
    ("if packet[0]:\n    raise ValueError('byte', packet[0])  # here\nreturn 1", "memory"),
]


@pytest.mark.parametrize(("body", "words"), BY_TYPES, ids=[body.split("\n")[0] for body, _ in BY_TYPES])
def test_refused_by_types(tmp_path: Path, body: str, words: str) -> None:
    """What the compiler says in up to a hundred lines is a sentence here, with the line; its words are the cause."""
    head = TYPED_HEAD + "def helper(packet):\n    packet[0] = 1\n\n\n"
    function = kernel(tmp_path, body, head)
    message = refusal_by_types(function)
    place = f"{function.__code__.co_filename}:{marked_line(function)}: count: "
    assert INTERPRETED or (message.startswith(place) and message.endswith("# here"))
    assert INTERPRETED or words in message.split("\n")[0]


def test_part_of_a_packet_is_no_verdict(tmp_path: Path) -> None:
    """The compiler does not say where."""
    message = refusal_by_types(kernel(tmp_path, "return packet[2:4]"))
    assert INTERPRETED or "count: an array cannot be returned" in message


def test_line_within_a_helper(tmp_path: Path) -> None:
    """What cannot be compiled is in a helper of a helper: its line and name are told."""
    text = """
def inner(packet):
    return packet.sourc  # here

def outer(packet):
    return inner(packet) + 1

def count(packet):
    return outer(packet)
"""
    function = program(tmp_path, text).count
    message = refusal_by_types(function)
    assert INTERPRETED or f":{marked_line(function)}: inner: " in message


def test_cause(tmp_path: Path) -> None:
    """What was raised by the compiler is kept, without its frames, which would be printed too; else there is none."""
    with pytest.raises(ixy.KernelError) as caught:
        check(kernel(tmp_path, "return FORWRD" if INTERPRETED else "return packet.sourc"), [PACKET])
    cause = caught.value.__cause__
    assert (cause is None) == INTERPRETED
    assert INTERPRETED or "sourc" in str(cause)
    assert "site-packages/numba" not in "".join(traceback.format_exception(caught.value))


# ---------------------------------------------------------------------------------------------------------------------
# While it runs


def called(function: Any) -> Callable[[Any], int]:
    """A checked function as a path calls it, compiled or not, for one packet."""
    kernel = check(function, [PACKET])
    return lambda packet: verdict(kernel, kernel(packet))


def packet(*values: int) -> Any:
    return Bytes(values) if INTERPRETED else np.array(values, np.uint8)


@pytest.mark.parametrize(
    "expression", ["7 // packet[0]", "7 % packet[0]", "divmod(7, packet[0])[0]", "int(7 / packet[0])"]
)
def test_division_by_zero(tmp_path: Path, expression: str) -> None:
    """It raises, as in Python, and the traceback ends at the user's line, in both modes."""
    function = kernel(tmp_path, f"packet[1] = 1\nreturn {expression}  # here")
    call = called(function)
    assert call(packet(2, 0)) == eval(expression, {"packet": [2]})
    with pytest.raises(ZeroDivisionError) as caught:
        call(packet(0, 0))
    *_, last = traceback.extract_tb(caught.value.__traceback__)
    assert (last.filename, last.lineno) == (function.__code__.co_filename, marked_line(function))


@pytest.mark.parametrize("body", ACCEPTED, ids=[body.split("\n")[0] for body in ACCEPTED])
def test_accepted(tmp_path: Path, body: str) -> None:
    """All that the byte code passes in its tests can be compiled, and the verdict is the interpreter's."""
    function = kernel(tmp_path, body)
    data = bytes(range(1, 101))
    interpreted = called(function)(packet(*data)), verdict(function, function(Bytes(data)))
    assert "random" in body or interpreted[0] == interpreted[1]


BUILTINS = [
    *("abs(packet[0] - 3)", "bool(packet[0])", "divmod(packet[0], 3)[1]", "int(float(packet[0]))", "len(packet)"),
    *("max(packet[0], 7)", "min(packet[0], 7)", "int(pow(2, packet[0]))", "round(2.6)", "int(complex(2, 1).real)"),
]
LOOPS = [*("range(3)", "enumerate(packet)", "zip(packet, packet[1:])")]


@pytest.mark.parametrize("expression", BUILTINS)
def test_builtins(tmp_path: Path, expression: str) -> None:
    """What the byte code knows to be usable is."""
    assert called(kernel(tmp_path, f"return {expression}"))(packet(1, 2, 3)) == eval(expression, {"packet": [1, 2, 3]})


@pytest.mark.parametrize("loop", LOOPS)
def test_loops(tmp_path: Path, loop: str) -> None:
    function = kernel(tmp_path, f"n = 0\nfor _ in {loop}:\n    n += 1\nreturn n")
    assert called(function)(packet(1, 2, 3)) == len(list(eval(loop, {"packet": [1, 2, 3]})))


@pytest.mark.parametrize("value", [0, 1, 7, True, False, np.uint8(3), np.int64(3), np.bool_(True)])
def test_verdict(value: Any) -> None:
    assert verdict(len, value) == int(value)
    assert type(verdict(len, value)) is int


@pytest.mark.parametrize(("value", "words"), [(None, "nothing"), ("x", "'x'"), (1.5, "1.5"), ((1, 2), "(1, 2)")])
def test_no_verdict(tmp_path: Path, value: object, words: str) -> None:
    """What an interpreted function returns is looked at then, where the compiler knows it before."""
    function = kernel(tmp_path, "return packet")
    with pytest.raises(ixy.KernelError, match="no verdict") as caught:
        verdict(function, value)
    message = str(caught.value)
    assert f"count: returned {words}, which" in message
    assert message.endswith("def count(packet):")
    assert message.count("\n") == 1
