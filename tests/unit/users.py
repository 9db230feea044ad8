"""Programs of users', as the tests of kernels write them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

HEAD = """\
import enum
import math
import random
import struct
from collections import namedtuple

import ixy

SEEN = {1: 2}
NAMES = ["a", "b"]
GROUP = {1, 2}
LIMITS = (1, 2, 3)
NESTED = (1, [2])
HUGE = 1 << 64
NAME = "a"
Pair = namedtuple("Pair", "first second")


class Kind(enum.IntEnum):
    FIRST = 1


class Settings:
    limit = 5


SETTINGS = Settings()


def byte(packet, index):
    return packet[index] + 0


"""


def program(directory: Path, text: str, head: str = HEAD, name: str = "program") -> ModuleType:
    """The module that a program is, imported from a file of its own."""
    path = directory / f"{name}.py"
    path.write_text(head + text)
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    return module


def kernel(directory: Path, body: str, head: str = HEAD, parameters: str = "packet") -> FunctionType:
    """The function `count` whose lines are given."""
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return program(directory, f"def count({parameters}):\n{lines}", head).count


def marked_line(function: Any) -> int:
    """The line of the function's file that ends with `# here`."""
    lines = Path(function.__code__.co_filename).read_text().splitlines()
    (line,) = (number for number, text in enumerate(lines, 1) if text.endswith("# here"))
    return line


class Bytes(bytearray):
    """A packet for an interpreted function: what is written is taken modulo 256."""

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value & 0xFF if isinstance(value, int) else value)
