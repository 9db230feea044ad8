"""What byte code tells of a function that is to be a kernel: the line, and a reason that names the thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from users import kernel, marked_line, program

from ixy.kernels.bytecode import findings

REFUSED = [
    # Names
    ("return FORWRD  # here", "'FORWRD'"),
    ("return ixy.FORWRD  # here", "ixy.FORWARD?"),
    ("return math.sine(1)  # here", "'math.sine'"),
    ("return Kind.FRIST  # here", "'Kind.FRIST'"),
    ("return bytte(packet, 1)  # here", "byte?"),
    # What cannot be made
    ("seen = {}  # here\nreturn 1", "dict"),
    ("seen = {1: packet[0]}  # here\nreturn 1", "dict"),
    ("seen = {'a': packet[0], 'b': 1}  # here\nreturn 1", "dict"),
    ("seen = {x: 1 for x in packet}  # here\nreturn 1", "dict"),
    ("numbers = [1, 2]  # here\nreturn numbers[packet[0] & 1]", "list"),
    ("numbers = [x for x in packet]  # here\nreturn 1", "list"),
    ("numbers = [packet[0]]  # here\nreturn 1", "list"),
    ("numbers = {packet[0], 2}  # here\nreturn 1", "set"),
    ("numbers = {x for x in packet}  # here\nreturn 1", "set"),
    ("if packet[0] in {1, 2}:  # here\n    return 1\nreturn 0", "set"),
    ("return sum(x for x in packet)  # here", "generator"),
    ("f = lambda x: x  # here\nreturn f(1)", "lambda"),
    ("def inner(x):  # here\n    return x\nreturn inner(1)", "function"),
    ("class Inner:  # here\n    pass\nreturn 1", "class"),
    ("raise ValueError(f'byte {packet[0]}')  # here", "text"),
    ("raise ValueError(f'{packet[0]:x} {packet[1]!r}')  # here", "text"),
    ("return 1 << 70  # here", "64 bits"),
    # Statements
    ("try:  # here\n    return packet[0]\nexcept IndexError:\n    return 0", "'try'"),
    ("packet[0] = 1\ntry:  # here\n    packet[1] = 2\nfinally:\n    packet[2] = 3\nreturn 1", "'try'"),
    ("with SETTINGS:  # here\n    return 1", "'with'"),
    ("with open('rules') as file:  # here\n    return 1", "'with'"),
    ("yield 1  # here", "'yield'"),
    ("if packet[0]:\n    yield 1  # here\nreturn 1", "'yield'"),
    ("import os  # here\nreturn 1", "import"),
    ("from os import path  # here\nreturn 1", "import"),
    ("raise ValueError('a') from KeyError('b')  # here", "'from'"),
    ("match packet:\n    case [1, 2]:  # here\n        return 1\nreturn 0", "match"),
    ("first, *others = LIMITS  # here\nreturn first", "'*'"),
    ("del packet[0]  # here\nreturn 1", "'del'"),
    ("global NAME\nNAME = 'b'  # here\nreturn 1", "'NAME'"),
    ("global NAME\nNAME += 'b'  # here\nreturn 1", "'NAME'"),
    # Values
    ("return SEEN[1]  # here", "'SEEN' is a dict"),
    ("SEEN[1] = 1  # here\nreturn 1", "'SEEN'"),
    ("return len(NAMES)  # here", "'NAMES' is a list"),
    ("return 1 in GROUP  # here", "'GROUP' is a set"),
    ("return NESTED[0]  # here", "'NESTED' is a list"),
    ("return HUGE  # here", "64 bits"),
    ("return SETTINGS.limit  # here", "'SETTINGS' is of type Settings"),
    ("SETTINGS.limit += 1  # here\nreturn 1", "'SETTINGS'"),
    ("return Settings.limit  # here", "'Settings' is a class"),
    ("ixy.LIMIT = 1  # here\nreturn 1", "'ixy'"),
    ("x = math  # here\nreturn 1", "'math' is a module"),
    ("return struct.unpack('!H', packet[12:14])[0]  # here", "'struct.unpack'"),
    ("return len(open('rules').read())  # here", "'open'"),
    ("return len(str(packet[0]))  # here", "'str'"),
    ("return len(list(packet))  # here", "'list'"),
    ("NAMES.append(1)  # here\nreturn 1", "'NAMES'"),
    ("return len(bytes(packet))  # here", "'bytes' cannot be compiled"),
    ("return packet[0] == 'a'  # here", "'a' is a text"),
    ("return 'a' == packet[0]  # here", "'a' is a text"),
    ("packet[0] = 'a'  # here\nreturn 1", "'a' is a text"),
    ("return packet.ipv4.src < '10.0.0.2'  # here", "compare with an address by == or !="),
    ("return '10.0.0.2' >= packet.ipv4.src  # here", "compare with an address by == or !="),
    ("return packet.ipv4.src in ('10.0.0.1', '10.0.0.2')  # here", "compare with each address by =="),
    # Ways out
    ("packet[0] = 1  # here", "without a verdict"),
    ("pass  # here", "without a verdict"),
    ("if packet[0] == 1:  # here\n    return 1", "without a verdict"),
    ("if packet[0] == 1:\n    return 1\npacket[1] = 1  # here", "without a verdict"),
    ("for x in packet:  # here\n    if x == 1:\n        return 1", "without a verdict"),
    ("if packet[0]:\n    return  # here\nreturn 1", "without a verdict"),
    ("for x in packet:\n    if x == 1:\n        return None  # here\nreturn 1", "without a verdict"),
    ("return 1 if packet[0] else None  # here", "without a verdict"),
    ("return None if packet[0] else 1  # here", "without a verdict"),
    ("return packet[0] or None  # here", "without a verdict"),
    ("return 'x'  # here", "'x'"),
    ("return 1.5  # here", "1.5"),
    ("return 1, 2  # here", "(1, 2)"),
    ("return packet[0], 2  # here", "tuple"),
    # Variables that may not be set
    ("if packet[0]:\n    y = 1\nreturn y  # here", "'y'"),
    ("for x in packet:\n    last = x\nreturn last  # here", "'last'"),
    ("for x in packet:\n    pass\nreturn x  # here", "'x'"),
    ("while packet[0]:\n    y = 1\n    packet[0] = 0\nreturn y  # here", "'y'"),
    ("y += 1  # here\nreturn y", "'y'"),
    ("y = 1\nif packet[0]:\n    del y\nreturn y  # here", "'y'"),
    (
        "if packet[0]:\n    x = y = 1\nelif packet[1]:\n    y = 2\nelse:\n    x = 1\nreturn x + y  # here",
        "may not be set",
    ),
]


@pytest.mark.parametrize(("body", "words"), REFUSED, ids=[body.split("\n")[0] for body, _ in REFUSED])
def test_refused(tmp_path: Path, body: str, words: str) -> None:
    """The first thing that is found is the one that is wrong, and it is on its line."""
    function = kernel(tmp_path, body)
    found = next(findings(function))
    assert (found.line, found.function) == (marked_line(function), function)
    assert words in found.reason
    assert "\n" not in found.reason


ACCEPTED = [
    "return ixy.FORWARD",
    "return packet[0] == 1",
    "return not packet[0]",
    "return packet[0] if packet[1] else 0",
    "if packet[0] in (1, 2, 3):\n    return 1\nreturn 0",
    "return 1 if packet[0] in LIMITS else 0",
    "for limit in LIMITS:\n    if packet[0] > limit:\n        return ixy.DROP\nreturn ixy.FORWARD",
    "return Kind.FIRST",
    "return Kind.FIRST.value",
    "return Pair(packet[0], 1).second",
    "return int(math.sqrt(byte(packet, 0)))",
    "return random.randrange(2)",
    "first, second = packet[0], packet[1]\nfirst, second = second, first\nreturn first > second",
    "if len(packet) < 60:\n    raise ValueError('too short')\nreturn 1",
    "assert len(packet) >= 60, 'too short'\nreturn 1",
    "while True:\n    packet[0] += 1\n    if packet[0] > 7:\n        return 1",
    "while True:\n    packet[0] += 1\n    if packet[0] > 7:\n        found = packet[0]\n        break\nreturn found",
    "if packet[0]:\n    y = 1\nelse:\n    y = 2\nreturn y",
    "if packet[0]:\n    y = 1\nelse:\n    raise ValueError\nreturn y",
    "for x in packet:\n    y = x\n    packet[0] += y\nreturn 1",
    "y = 0\nfor x in packet:\n    y += x\nreturn y & 1",
    "for x in packet:\n    if x == 1:\n        break\nelse:\n    x = 0\nreturn x",
    "match packet[0]:\n    case 1 | 2:\n        return 1\n    case 3:\n        return 0\n    case _:\n        return 1",
    "def_ = 1\nreturn def_",
    "x: int = 1\nreturn x",
    "print(packet[0])\nreturn 1",
]


ON_PACKETS = ["return packet.ipv4.src == '10.0.0.1' or '10.0.0.2' != packet.ipv4.dst"]  # and not on their bytes


@pytest.mark.parametrize("body", ACCEPTED + ON_PACKETS, ids=[body.split("\n")[0] for body in ACCEPTED + ON_PACKETS])
def test_nothing_to_say(tmp_path: Path, body: str) -> None:
    """What can be compiled passes. That it can is shown where it is."""
    assert list(findings(kernel(tmp_path, body))) == []


def test_defaults(tmp_path: Path) -> None:
    """A list that a parameter is given where it is left out would be the same list each time."""
    function = program(tmp_path, "def count(packet, limit=3, seen=[]):  # here\n    return len(seen)\n").count
    (found,) = findings(function)
    assert (found.line, found.reason[:29]) == (marked_line(function), "the default '[]' is a list, a")


@pytest.mark.parametrize("body", ["raise ValueError('x')", "while True:\n    packet[0] += 1"])
def test_never_returns(tmp_path: Path, body: str) -> None:
    (found,) = findings(kernel(tmp_path, body))
    assert found.reason.startswith("never returns")


def test_async(tmp_path: Path) -> None:
    module = program(tmp_path, "async def count(packet):  # here\n    return 1\n")
    (found,) = findings(module.count)
    assert (found.line, found.reason.split()[0]) == (marked_line(module.count), "'async'")


def test_helpers_are_looked_into(tmp_path: Path) -> None:
    """A function that the kernel calls, and one that this calls: the line is theirs."""
    text = """
def first(packet):
    return second(packet) + 1

def second(packet):
    return second(packet) if packet[0] else {}  # here

def count(packet):
    return first(packet)
"""
    module = program(tmp_path, text)
    (found,) = findings(module.count)
    assert (found.function, found.line) == (module.second, marked_line(module.count))
    assert "dict" in found.reason


def test_helpers_that_call_each_other(tmp_path: Path) -> None:
    """Which the compiler does not link; a function that calls itself it does."""
    text = """
def is_even(value):
    return value == 0 or is_odd(value - 1)  # here

def is_odd(value):
    return value != 0 and is_even(value - 1)

def count(packet):
    return is_even(packet[0] + 0)
"""
    module = program(tmp_path, text)
    found = next(findings(module.count))
    assert (found.function, found.line) == (module.is_even, marked_line(module.count))
    assert found.reason.startswith("'is_odd' calls 'is_even' again")


def test_a_helper_need_not_return_a_verdict(tmp_path: Path) -> None:
    """It may return anything, or nothing."""
    text = "def helper(packet):\n    packet[0] = 1\n\ndef count(packet):\n    helper(packet)\n    return 1\n"
    assert list(findings(program(tmp_path, text).count)) == []


def test_helpers_of_modules_and_factories_are_looked_into(tmp_path: Path) -> None:
    """`module.function`, and a function that the kernel closes over."""
    helpers = program(tmp_path, "def parse(packet):\n    return {}\n", name="helpers")
    module = program(
        tmp_path, "def make(parse):\n    def count(packet):\n        return parse(packet)\n    return count\n"
    )
    vars(module)["helpers"] = helpers
    exec("def count(packet):\n    return helpers.parse(packet)\n", vars(module))
    for function in (module.count, module.make(helpers.parse)):
        (found,) = findings(function)
        assert found.function is helpers.parse


def test_a_function_of_the_outer_function_that_is_not_there_yet(tmp_path: Path) -> None:
    text = "def make():\n    def count(packet):\n        return later(packet)  # here\n    yield count\n    later = 1\n"
    function = next(program(tmp_path, text).make())
    (found,) = findings(function)
    assert (found.line, "'later'" in found.reason) == (marked_line(function), True)


def test_variables_of_an_outer_function_are_not_set(tmp_path: Path) -> None:
    lines = [
        "def make():",
        " n = 0",
        " def count(packet):",
        "  nonlocal n",
        "  n = 1  # here",
        "  return n",
        " return count",
    ]
    text = "\n".join(lines)
    function = program(tmp_path, text).make()
    (found,) = findings(function)
    assert (found.line, "'n'" in found.reason) == (marked_line(function), True)


def test_long_code(tmp_path: Path) -> None:
    """Jumps over more instructions than one byte counts, and more variables, change nothing."""
    lines = "\n".join(f"    x{number} = packet[{number}]" for number in range(400))
    body = f"if packet[0]:\n{lines}\nelse:\n    x399 = 1\nreturn x399"
    assert list(findings(kernel(tmp_path, body))) == []
    (found,) = findings(kernel(tmp_path, body.replace("return x399", "return x398")))
    assert "'x398'" in found.reason
