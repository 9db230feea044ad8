"""Compiled and interpreted, functions are refused alike, and those that are not do the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types
from users import Bytes, kernel

import ixy
from ixy.jit import INTERPRETED
from ixy.kernels.bytecode import findings
from ixy.kernels.check import check, verdict

PACKET = types.Array(types.uint8, 1, "C")
HEAD = """\
import ixy

LIMITS = (3, 60, 200)
SEEN = {1: 2}


def byte(packet, index):
    return packet[index] + 0


def mixed(a, b):
    if a > b:
        a = b - a
    return a & 0xFFFF


"""

VARIABLES = ["a", "b", "c"]
variables = st.sampled_from(VARIABLES)
numbers = st.integers(0, 300).map(str)


@st.composite
def binary(draw: st.DrawFn, operands: st.SearchStrategy[str]) -> str:
    left, right = draw(operands), draw(operands)
    operator = draw(st.sampled_from(["+", "-", "*", "&", "|", "^", "//", "%"]))
    return f"(({left}) {operator} ({right}) & 0xFFFF)"


def larger(operands: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        binary(operands),
        st.builds("byte(packet, {})".format, operands),
        st.builds("mixed({}, {})".format, operands, operands),
        st.builds("({} >> {})".format, operands, st.integers(0, 20)),
        st.builds("({} if {} > {} else {})".format, operands, operands, operands, operands),
        st.builds("int({} < {})".format, operands, operands),
        st.builds("min({}, {})".format, operands, operands),
        st.builds("abs({} - {})".format, operands, operands),
    )


expressions = st.recursive(st.one_of(numbers, variables, st.just("len(packet)")), larger, max_leaves=6)
simple = st.one_of(
    st.builds("{} = {}".format, variables, expressions),
    st.builds("{} += {}".format, variables, numbers),
    st.builds("packet[{}] = {}".format, expressions, expressions),
    st.builds("packet[{}] += {}".format, st.integers(0, 70), numbers),
    st.builds("return {} & 3".format, expressions),
    st.builds("if {} == {}: raise ValueError('equal')".format, variables, numbers),
)
refused = st.sampled_from(
    [
        "return",
        "return 'x'",
        "a = WRONG",
        "a = SEEN[1]",
        "SEEN[1] = a",
        "LIMITS[0] = a",
        "numbers = [a]",
        "seen = {}",
        "a = len(f'{b}')",
        "a = sum(x for x in packet)",
        "import os",
        "with packet: a = 1",
        "a = (lambda x: x)(b)",
        "a = len(str(b))",
        "a = ixy.WRONG",
    ]
)


def indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for block in lines for line in block.split("\n"))


def blocks(statements: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(statements, min_size=1, max_size=3).map(indented)
    return st.one_of(
        st.builds("if {} > {}:\n{}".format, expressions, expressions, body),
        st.builds("if {}:\n{}\nelse:\n{}".format, expressions, body, body),
        st.builds("for {} in range({}):\n{}".format, variables, st.integers(0, 3), body),
        st.builds("for {} in LIMITS:\n{}".format, variables, body),
        st.builds("while {} > 40:\n{}\n    break".format, variables, body),
    )


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """A function of allowed statements; one in three with something else in it, or without an end."""
    statements = st.recursive(simple, blocks, max_leaves=4)
    lines = draw(st.lists(statements, max_size=5))
    lines = [
        *(f"{name} = {draw(numbers)}" for name in draw(st.permutations(VARIABLES))[draw(st.integers(0, 1)) :]),
        *lines,
    ]
    if draw(st.integers(0, 3)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(refused))
    if draw(st.integers(0, 5)) > 0:
        lines.append(f"return {draw(expressions)} & 7")
    return "\n".join(lines) or "pass"


def outcome(function: Any, call: Any, packet: Any) -> tuple[object, bytes]:
    """The verdict, or the error, and what has become of the packet."""
    try:
        result: object = verdict(function, call(packet))
    except (ArithmeticError, LookupError, ValueError) as error:
        result = type(error)
    return result, bytes(packet)


@given(bodies(), st.lists(st.binary(min_size=40, max_size=100), min_size=1, max_size=5))
@settings(max_examples=60)
def test_both_modes_agree(tmp_path: Path, body: str, packets: list[bytes]) -> None:
    """What the byte code passes is compiled; verdict, bytes and error of each packet are those of the interpreter."""
    function = kernel(tmp_path, body, HEAD)
    if next(findings(function), None):
        try:
            check(function, [PACKET])
        except ixy.KernelError:
            return
        raise AssertionError(body)
    call = check(function, [PACKET])
    for data in packets:
        compiled = outcome(function, call, Bytes(data) if INTERPRETED else np.frombuffer(data, np.uint8).copy())
        assert compiled == outcome(function, function, Bytes(data)), body
