"""Looking into a device: by who has it open, where that is a process that tells, else without it.

What needs no driver is done without loading one: a look into another process costs nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ixy.bus.pci import slot_of
from ixy.errors import AddressError, Error
from ixy.telemetry.client import Process, State, ask, processes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ixy.apps.signals import Stop

_MOMENT = 0.05  # seconds: so late may a signal come


class Owner(NamedTuple):
    """A process that has a device open, and by which number it calls it."""

    process: Process
    number: int

    def ask(self, command: str, *parameters: str) -> dict[str, Any]:
        """What the process says of the device.

        Args:
            command: "xstats" for `/ixy/xstats`.

        Raises:
            Error: it has closed the device, or does not do what is asked.
        """
        try:
            answer = ask(self.process.path, ",".join([f"/ixy/{command}", str(self.number), *parameters]))
        except OSError:
            answer = None
        if not isinstance(answer, dict):
            raise Error(f"{self.process}: has just closed the device, or ended")
        found = cast("dict[str, Any]", answer)
        if "error" in found:
            raise Error(str(found["error"]))
        return found

    def counters(self, command: str, *parameters: str) -> dict[str, int]:
        """The same where numbers are the answer."""
        return {name: int(count) for name, count in self.ask(command, *parameters).items() if isinstance(count, int)}


def owner(address: str, process: int | None = None) -> Owner | None:
    """Who has a device open; None if nobody has who would tell.

    Args:
        process: which process is meant, if several have one of that name.

    Raises:
        Error: several have; or that process has none of that name.
    """
    wanted = _name(address)
    found = [
        Owner(candidate, number)
        for candidate in processes()
        if candidate.state is State.RUNS and process in (None, candidate.number)
        for number, name in candidate.devices.items()
        if _name(name) == wanted
    ]
    if len(found) > 1:
        numbers = ", ".join(str(each.process.number) for each in found)
        raise Error(f"{wanted}: open in several processes, {numbers}: choose by --pid")
    if process is not None and not found:
        raise Error(f"{wanted}: process {process} has no such device open that it would tell of: see ixy ps")
    return found[0] if found else None


def _name(address: str) -> str:
    """What different ways to write the address of one device have in common."""
    try:
        return slot_of(address)
    except AddressError:
        return address.partition(",")[0]


def info(address: str, process: int | None = None) -> dict[str, Any]:
    """What `ixy.Info` has, and: `open_by`, the number of a process; `state`, who has it, in words; `notes`, sentences.

    Raises:
        Error: nothing can be told of it.
    """
    has = owner(address, process)
    if has is not None:
        return has.ask("info") | {"open_by": has.process.number, "state": str(has.process), "notes": []}
    from ixy.apps.unopened import look

    sight = look(address)
    return asdict(sight.info) | {"open_by": None, "state": sight.state, "notes": list(sight.notes)}


def xstats(address: str, process: int | None = None, *, clear: bool = False) -> dict[str, int]:
    """All counters of a device.

    Args:
        clear: let them begin anew, where somebody has the device open; else read them although that clears them.

    Raises:
        Error: they cannot be had.
    """
    has = owner(address, process)
    if has is not None:
        return has.counters("xstats", *_flags(clear))
    from ixy.apps import unopened

    return unopened.xstats(address, clear=clear)


def registers(address: str, process: int | None = None, *, clear: bool = False) -> dict[str, int]:
    """What the registers of a device hold, by name.

    Args:
        clear: also those that reading clears.

    Raises:
        Error: they cannot be read.
    """
    has = owner(address, process)
    if has is not None:
        return has.counters("registers", *_flags(clear))
    from ixy.apps import unopened

    return {reading.name: reading.value for reading in unopened.registers(address, clear=clear)}


def _flags(clear: bool) -> Sequence[str]:
    return ("clear",) if clear else ()


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What differs between two moments: what was, and what is."""
    return {name: (before[name], value) for name, value in after.items() if before.get(name, value) != value}


def slept(seconds: float, stop: Stop) -> bool:
    """Sleep so long; False if a signal has come meanwhile."""
    end = time.monotonic() + seconds
    while not stop and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _MOMENT))
    return not stop
