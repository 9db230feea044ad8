"""Device registers, declared once as rows of the datasheet's tables, and a view that reads, writes and explains them.

A register is a row: name, offset, mode, section of the datasheet, and the fields that are used. A register that exists
once per queue is indexed: `RXDCTL[3]`.

Every access is logged, decoded, on the logger `ixy.registers` at level DEBUG: name, fields old → new, section.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from functools import cached_property
from typing import NamedTuple, Protocol

from ixy.errors import DeviceTimeout

log = logging.getLogger("ixy.registers")

LOWER = 64
"""How many registers of receive queues lie in their first place, see `Register.upper`."""


class Mode(Enum):
    """What software may do with a register, in the datasheet's abbreviations."""

    RO = "read-only"
    RW = "read-write"
    WO = "write-only"
    RC = "read-clear"
    RW1C = "write 1 to clear"


class Reset(IntEnum):
    """What resets a device, the mildest first; each does what those before it do."""

    SOFTWARE = 1
    """A bit of a register, such as CTRL.RST."""
    LINK = 2
    """… that takes the MAC and the link along, such as CTRL.LRST."""
    FUNCTION = 3
    """Through the configuration space: function-level reset, return from D3hot, reset of the bus."""
    POWER = 4


@dataclass(frozen=True)
class Field:
    """Bits `low` to `high`, both included."""

    low: int
    high: int

    @property
    def mask(self) -> int:
        return ((1 << (self.high - self.low + 1)) - 1) << self.low

    def of(self, value: int) -> int:
        """The field's value within a register's value."""
        return (value & self.mask) >> self.low

    def put(self, value: int) -> int:
        """The field's value at its place in the register; `ValueError` if it does not fit."""
        placed = value << self.low
        if value < 0 or placed & ~self.mask:
            raise ValueError(f"{value:#x} does not fit into bits {self.low} to {self.high}")
        return placed


@dataclass(frozen=True)
class Register:
    """One row: where a 32-bit register lies, how often, and what its fields mean.

    Attributes:
        offset: in bytes from the start of BAR 0; of the first one, if there are several.
        section: of the device's datasheet.
        stride, count: distance in bytes and number, for a register that exists several times.
        upper: how far beyond the first number 64 lies, if those from there on lie elsewhere.
        reset: value after a reset of the device.
        first: … of the first one, where only that differs from 0.
        writable: the bits that keep what software writes; the others keep their own value.
        survives: the strongest reset that leaves the bits of `kept` as they are; None: each sets them to `reset`.
        undefined: the bits that may hold anything after power-on.
        source: what `reset` is taken from, where that is not the section, or where sources differ.
        on_read: what reading it does to the device, where that is not to clear it, as its mode says.
    """

    name: str
    offset: int
    mode: Mode
    section: str
    fields: dict[str, Field]
    stride: int = 4
    count: int = 1
    upper: int = 0
    reset: int = 0
    first: int | None = None
    writable: int = 0xFFFFFFFF
    survives: Reset | None = None
    kept: int = 0xFFFFFFFF
    undefined: int = 0
    source: str = ""
    on_read: str = ""

    def __getitem__(self, index: int) -> Register:
        if not 0 <= index < self.count:
            raise IndexError(f"{self.name} exists {self.count} times, there is no number {index}")
        return self._each[index]

    def __iter__(self) -> Iterator[Register]:
        return iter(self._each)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each of them lies."""
        jump = self.upper - LOWER * self.stride if self.upper else 0
        return tuple(self.offset + index * self.stride + jump * (index >= LOWER) for index in range(self.count))

    @cached_property
    def _each(self) -> tuple[Register, ...]:
        return tuple(self._one(index, offset) for index, offset in enumerate(self.offsets))

    def _one(self, index: int, offset: int) -> Register:
        reset = self.reset if self.first is None or index > 0 else self.first
        return replace(self, name=f"{self.name}[{index}]", offset=offset, count=1, upper=0, reset=reset, first=None)

    def value(self, **fields: int) -> int:
        """The register's value with these fields set and all else zero."""
        return sum(self.fields[name].put(value) for name, value in fields.items())

    def mask(self, *fields: str) -> int:
        """The bits of these fields."""
        return sum(self.fields[name].mask for name in fields)

    def decode(self, value: int) -> dict[str, int]:
        """Field names and values."""
        return {name: field.of(value) for name, field in self.fields.items()}


def register(
    name: str,
    offset: int,
    mode: Mode,
    section: str,
    *,
    stride: int = 4,
    count: int = 1,
    upper: int = 0,
    reset: int = 0,
    first: int | None = None,
    writable: int | None = None,
    survives: Reset | None = None,
    kept: int = 0xFFFFFFFF,
    undefined: int = 0,
    source: str = "",
    on_read: str = "",
    **fields: int | tuple[int, int],
) -> Register:
    """Declare a row; a field is the number of its bit or the pair (lowest bit, highest bit).

    Nothing can be written to what is read-only or clears when it is read, unless `writable` says so.
    """
    spans = {key: Field(bits, bits) if isinstance(bits, int) else Field(*bits) for key, bits in fields.items()}
    if writable is None:
        writable = 0 if mode in (Mode.RO, Mode.RC) else 0xFFFFFFFF
    return Register(
        name,
        offset,
        mode,
        section,
        spans,
        stride,
        count,
        upper,
        reset,
        first,
        writable,
        survives,
        kept,
        undefined,
        source,
        on_read,
    )


class Reading(NamedTuple):
    """A register, and what it held at a moment."""

    register: Register
    value: int

    @property
    def name(self) -> str:
        return self.register.name

    @property
    def fields(self) -> dict[str, int]:
        """Its fields' names and values."""
        return self.register.decode(self.value)


def readable(rows: Iterable[Register], *, clear: bool = False) -> list[Register]:
    """The registers of some rows, one by one, that can be read without a change in the device.

    Args:
        clear: also those that are cleared by that.
    """
    return [
        register
        for row in rows
        if row.mode is not Mode.WO and not row.on_read and (clear or row.mode is not Mode.RC)
        for register in (row if row.count > 1 else (row,))
    ]


class Bar(Protocol):
    """What a register view needs of a base address register: one 32-bit access at a time."""

    def read32(self, offset: int) -> int: ...
    def write32(self, offset: int, value: int) -> None: ...


class RegisterFile:
    """The registers of one device behind a BAR.

    Args:
        bar: access to the device.
        owner: the device's address, for messages.
        lock: of the device's control plane, which may be taken twice: `update` holds it for its two accesses.
    """

    def __init__(self, bar: Bar, owner: str, lock: AbstractContextManager[object]) -> None:
        self.owner = owner
        self._bar = bar
        self._lock = lock
        self._last: dict[int, int] = {}

    def read(self, register: Register) -> int:
        """The register's value."""
        value = self._bar.read32(register.offset)
        self._trace("read", register, value)
        return value

    def get(self, register: Register, field: str) -> int:
        """One field's value."""
        return register.fields[field].of(self.read(register))

    def write(self, register: Register, value: int = 0, **fields: int) -> None:
        """Write `value` with `fields` laid over it."""
        value = value & ~register.mask(*fields) | register.value(**fields)
        self._trace("write", register, value)
        self._bar.write32(register.offset, value)

    def update(self, register: Register, **fields: int) -> None:
        """Change some fields and keep the rest."""
        with self._lock:
            self.write(register, self.read(register), **fields)

    def wait(self, register: Register, timeout: float, **fields: int) -> None:
        """Poll until all of `fields` have these values.

        Args:
            timeout: seconds.

        Raises:
            DeviceTimeout: names the register, the fields that were awaited, and what was read last.
        """
        mask, wanted = register.mask(*fields), register.value(**fields)
        deadline = time.monotonic() + timeout
        pause = 1e-5  # most bits are there within microseconds
        while True:
            late = time.monotonic() > deadline  # asked before the read: a process that was held up looks once more
            value = self.read(register)
            if value & mask == wanted:
                return
            if late:
                awaited = ", ".join(f"{name}={field}" for name, field in fields.items())
                raise DeviceTimeout(
                    f"{self.owner}: {register.name} did not reach {awaited} within {timeout:g} s: it reads"
                    f" {value:#010x} (datasheet section {register.section})"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.001, timeout / 10)

    def _trace(self, verb: str, register: Register, value: int) -> None:
        if not log.isEnabledFor(logging.DEBUG):
            return
        old = self._last.get(register.offset)
        self._last[register.offset] = value
        log.debug("%s %s", self.owner, explain(verb, register, old, value))


def explain(verb: str, register: Register, old: int | None, new: int) -> str:
    """One line that says what an access did: name, value, the fields that changed or are set, section."""
    before = register.decode(old) if old is not None else {}
    parts: list[str] = []
    for name, value in register.decode(new).items():
        if name in before and before[name] != value:
            parts.append(f"{name} {before[name]:#x} → {value:#x}")
        elif value:
            parts.append(f"{name} {value:#x}")
    shown = f"{new:#010x}" if old is None or old == new else f"{old:#010x} → {new:#010x}"
    return f"{verb:5} {register.name:12} {shown}  {', '.join(parts)}  [§{register.section}]"
