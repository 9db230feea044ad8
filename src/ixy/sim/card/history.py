"""What a driver does to bring a card up, as far as its registers show it; `ixy.sim.checklist` makes a report of it.

Of each event only the first is noted, with its place among the others. Then nobody looks for it any more until the next
reset, so that a card in operation does nothing for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.registers import Register

READ, WRITE = "read", "write"
UP = ("receive on", "transmit on")  # a driver that got so far has brought the card up
BEFORE_RESET = ("interrupts off", "master off")  # what belongs to the reset that comes next


@dataclass(frozen=True)
class Event:
    """An access to a register by which some of its bits are `value`; `mask` 0 for any."""

    name: str
    verb: str
    row: Register
    mask: int = 0
    value: int = 0


def _sets(name: str, row: Register, field: str) -> Event:
    return Event(name, WRITE, row, row.mask(field), row.mask(field))


def _sees(name: str, row: Register, field: str) -> Event:
    return Event(name, READ, row, row.mask(field), row.mask(field))


EVENTS = (
    Event("interrupts off", WRITE, reg.EIMC),
    _sets("master off", reg.CTRL, "PCIE_MASTER_DISABLE"),
    Event("reset over", READ, reg.CTRL, reg.CTRL.mask("RST", "LRST")),
    Event("EEPROM looked at", READ, reg.EEC),
    _sees("EEPROM read", reg.EEC, "AUTO_RD"),
    Event("DMA looked at", READ, reg.RDRXCTL),
    _sees("DMA ready", reg.RDRXCTL, "DMAIDONE"),
    Event("address", READ, reg.RAL[0]),
    Event("address", WRITE, reg.RAL[0]),
    Event("link", WRITE, reg.AUTOC),
    Event("link", READ, reg.LINKS),
    Event("statistics of receive", READ, reg.GPRC),
    Event("statistics of transmit", READ, reg.GPTC),
    Event("multicast table", WRITE, reg.MTA[reg.MTA.count - 1]),
    Event("receive ring", WRITE, reg.RDBAL),
    Event("receive ring length", WRITE, reg.RDLEN),
    Event("receive buffers", WRITE, reg.SRRCTL),
    _sets("no snoop", reg.CTRL_EXT, "NS_DIS"),
    Event("no snoop", WRITE, reg.DCA_RXCTRL, reg.DCA_RXCTRL.mask("MUST_BE_ZERO")),
    _sets("receive queue on", reg.RXDCTL, "ENABLE"),
    _sees("receive queue is on", reg.RXDCTL, "ENABLE"),
    _sets("receive halts", reg.SECRXCTRL, "RX_DIS"),
    _sees("receive has halted", reg.SECRXSTAT, "SECRX_RDY"),
    _sets("receive on", reg.RXCTRL, "RXEN"),
    _sets("arbiter off", reg.RTTDCS, "ARBDIS"),
    Event("transmit ring", WRITE, reg.TDBAL),
    Event("transmit ring length", WRITE, reg.TDLEN),
    _sets("transmit on", reg.DMATXCTL, "TE"),
    _sets("transmit queue on", reg.TXDCTL, "ENABLE"),
    _sees("transmit queue is on", reg.TXDCTL, "ENABLE"),
    Event("interrupt causes", WRITE, reg.IVAR),
    Event("interrupts on", WRITE, reg.EIMS),
    Event("interrupts on", WRITE, reg.EIMS_EX),
)


def _by_offset(verb: str) -> dict[int, tuple[Event, ...]]:
    found: dict[int, tuple[Event, ...]] = {}
    for event in (event for event in EVENTS if event.verb == verb):
        for offset in event.row.offsets:
            found[offset] = (*found.get(offset, ()), event)
    return found


_READS, _WRITES = _by_offset(READ), _by_offset(WRITE)


class History:
    """The history of one card.

    Attributes:
        reads, writes: the events that are looked for, by offset.
        used: whether anything was written.
    """

    def __init__(self) -> None:
        self.used = False
        self._last: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self.reads, self.writes = dict(_READS), dict(_WRITES)

    def reset(self) -> None:
        """The card is reset. What was done for this is part of what now begins."""
        came_up = self._came_up()
        if came_up:
            self._last = self._events
        before = [name for name in BEFORE_RESET if name in self._events]
        earlier = [name for name in self._events if name.endswith(" before") and not came_up]
        self._events = {}
        for name in dict.fromkeys([*earlier, *(f"{name} before" for name in before), "reset"]):
            self.note(name)
        self.reads, self.writes = dict(_READS), dict(_WRITES)

    def read(self, offset: int, value: int) -> None:
        self._look(self.reads, offset, value)

    def write(self, offset: int, value: int) -> None:
        self.used = True
        self._look(self.writes, offset, value)

    def note(self, name: str) -> None:
        """An event, if it is the first of its name."""
        self._events.setdefault(name, len(self._events))

    def events(self) -> dict[str, int]:
        """The places of the events by which the card was brought up the last time, or which came since it was reset."""
        return self._events if self._came_up() or not self._last else self._last

    def _came_up(self) -> bool:
        return any(name in self._events for name in UP)

    def _look(self, wanted: dict[int, tuple[Event, ...]], offset: int, value: int) -> None:
        left: list[Event] = []
        for event in wanted[offset]:
            if value & event.mask == event.value:
                self.note(event.name)
            else:
                left.append(event)
        if left:
            wanted[offset] = tuple(left)
        else:
            del wanted[offset]
