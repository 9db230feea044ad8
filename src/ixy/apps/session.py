"""What applications share: devices opened and closed, and the loop of a run."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy import clock
from ixy.addresses import check_address, meets_at, unconfined
from ixy.device import open_device
from ixy.drivers.offloads import OFFLOADS
from ixy.filters import Filter
from ixy.jit import await_compiler
from ixy.packets.buffers import BUFFER_SIZE
from ixy.path import POLLS
from ixy.sandboxing import active, privileged, sandbox
from ixy.sim.machine import machine
from ixy.sim.spec import check_files, parse_spec
from ixy.telemetry.server import try_to_serve
from ixy.waiting import PollOrWait

if TYPE_CHECKING:
    from ixy.apps.report import Report
    from ixy.apps.settings import Settings
    from ixy.apps.signals import Stop
    from ixy.device import Device, RxQueue
    from ixy.sandboxing import Sandbox

log = logging.getLogger("ixy.apps")

_SHORT, _LONG = 0.005, 0.02  # seconds: slices of compiled code within these let signals and reports come in time
_VIRTUAL = 1000  # polls in a slice by a virtual clock: a millisecond
_FRAMING = 22  # bytes of a frame besides its payload, at most: addresses, type, two VLAN tags
# What an offload left undone, by the driver's name for the count of a queue
_LEFT = {
    "unchanged": "packets that were sent as they are, as an offload could not do what they asked for",
    "refused": "packets that were not sent, as they were longer than a frame may be and nothing cut them",
}
_WAIT = 0.1  # seconds: so late may signals and reports come while no packets do
_DRAIN_TIMEOUT = 1.0  # seconds without a packet; a ring tells of 32 at once, which take 0.4 s at 1 Mbit/s


# ---------------------------------------------------------------------------------------------------------------------
# Devices


@contextmanager
def open_devices(
    addresses: Sequence[str],
    settings: Settings,
    *,
    queues: int = 1,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
    metadata: Sequence[str] = (),
) -> Generator[list[Device], None, None]:
    """Open devices with so many queues of each kind, wait for their links, and close them in the end.

    They are asked to tell `metadata` of each packet, as `ixy.open` takes it, and what offloads, and frames that are
    longer than a buffer, need besides. Meanwhile other processes may look at them, see `ixy.serve_telemetry`.

    A malformed address is refused before the first device is opened, which may take long. All are open before the first
    link is awaited: they may be each other's link partners.

    Args:
        reads, writes: files of the application's, which may not be what a simulated wire writes.

    Raises:
        Error: as `ixy.open`.
    """
    for address in addresses:
        check_address(address)
    simulated = [parse_spec(address) for address in addresses if address.startswith("sim:")]
    check_files((wire for spec in simulated for wire in spec.wires), reads, writes)
    needed = [name for offload in settings.offloads for name in OFFLOADS[offload]]
    several = ["parts"] if longest_frame(settings) > BUFFER_SIZE else []
    with ExitStack() as stack:
        devices: list[Device] = []
        for address in addresses:
            device = open_device(
                address,
                rx_queues=queues,
                tx_queues=queues,
                ring_size=settings.ring,
                pool_size=settings.pool,
                metadata=[*metadata, *needed, *several],
                mtu=settings.mtu,
                offloads=settings.offloads,
                force=settings.force,
                link_timeout=0,
            )
            devices.append(stack.enter_context(device))
        if telemetry := try_to_serve():
            stack.enter_context(telemetry)
        for device in devices:
            _await_link(device, settings.link_timeout)
        yield devices
        if settings.offloads:
            for device in devices:
                _tell_left(device)


def longest_frame(settings: Settings) -> int:
    """Bytes that a frame may have, without its check sequence; a buffer holds any number up to its size."""
    return max(BUFFER_SIZE, (settings.mtu or 0) + _FRAMING)


def _tell_left(device: Device) -> None:
    """Say to how many packets an offload did not do what they asked for."""
    counted = device.xstats()
    for name, what in _LEFT.items():
        if left := sum(counted.get(f"tx_q{i}_{name}", 0) for i in range(len(device.tx))):
            log.warning("%s: %s: %d", device.address, what, left)


def _await_link(device: Device, timeout: float) -> None:
    """Wait for the link. One that stays down is no error."""
    with announced(f"waiting for the link of {device.address}", after=1.0):
        up = device.wait_for_link(timeout).up
    if not up:
        log.warning("%s: link is down", device.address)


@contextmanager
def announced(what: str, *, after: float) -> Generator[None, None, None]:
    """Say what takes so long, if it takes longer than `after` seconds."""
    timer = threading.Timer(after, log.warning, [what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def chosen_by(expression: str | None) -> Filter | None:
    """The filter of an expression in tcpdump's language, None for none. One of some hundred terms takes seconds.

    Raises:
        FilterError: it is malformed, or libpcap is not installed.
    """
    if not expression:
        return None
    with announced("compiling the filter, which takes long if it has hundreds of terms", after=1.0):
        chosen = Filter(expression)
        assert chosen.address  # its machine code
    return chosen


def drain(device: Device, packets: int) -> None:
    """Let the device send the `packets` that it was handed since it was opened: closing it drops the rest.

    It gets as long as it goes on sending, and a simulated cable as long as it delays what was sent.
    """
    with announced(f"waiting for what {device.address} is to send", after=1.0):
        sent = _await_sent(device, packets)
        if device.address.startswith("sim:"):
            _await_arrival(device.address.removeprefix("sim:"))
    if sent < packets:
        log.warning("%s: %d packets were handed to it and not sent", device.address, packets - sent)


def _await_sent(device: Device, packets: int) -> int:
    """Wait until so many packets are sent, or no more are; how many were. A simulated card that lacks a kernel for what
    a packet asks of it sends the packet when that is compiled."""
    before, deadline = -1, 0.0
    while (sent := device.sent()) < packets:
        if sent > before:
            before, deadline = sent, clock.monotonic() + _DRAIN_TIMEOUT
        elif clock.monotonic() >= deadline:
            if not await_compiler():
                break
            deadline = clock.monotonic() + _DRAIN_TIMEOUT
        clock.sleep(0.001)
    return sent


def _await_arrival(card: str) -> None:
    """Wait until what a simulated card has sent is no longer under way."""
    while machine().under_way(card):
        clock.sleep(0.001)


# ---------------------------------------------------------------------------------------------------------------------
# Privileges


class Confined(NamedTuple):
    """What a command may still do.

    Attributes:
        sandbox: its process.
        cards: devices that reach all of the machine's memory, as the bus does not confine them.
    """

    sandbox: Sandbox
    cards: Sequence[str]

    def __str__(self) -> str:
        reach = f"; {' and '.join(self.cards)} can reach all memory: ixy bind prevents it" if self.cards else ""
        return f"sandboxed: {self.sandbox}{reach}"

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return self.sandbox._asdict() | {"reach_all_memory": list(self.cards)}


def wants_sandbox(settings: Settings) -> bool:
    """Whether privileges are to be given up: by whoever has some, if nothing else is said. A program that runs a
    command within itself keeps its own, as they would be gone for good."""
    return privileged() and _is_own_process() if settings.sandbox is None else settings.sandbox


def _is_own_process() -> bool:
    """Whether this process was started as the command that it runs."""
    arguments = sys.argv[1:]
    return sys.orig_argv[len(sys.orig_argv) - len(arguments) :] == arguments


def confine(settings: Settings, addresses: Sequence[str], files: Sequence[str] = ()) -> Confined | None:
    """Give privileges up, if that is wanted and was not done before. All that the run needs is open, and compiled.

    Args:
        addresses: of the devices.
        files: directories in which files are yet to be made.

    Raises:
        PermissionDenied: the kernel refuses.
    """
    if not wants_sandbox(settings) or active() is not None:
        return None
    clock.settle()  # by a virtual clock, which compiles what lets cards work
    cards = [address for address in addresses if unconfined(address)]
    sockets = [path for path in map(meets_at, addresses) if path]
    return Confined(sandbox(files=files, sockets=sockets), cards)


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def repeat(
    work: Callable[[int], object],
    done: Callable[[], bool],
    settings: Settings,
    stop: Stop,
    report: Report,
    files: Sequence[str] = (),
) -> float:
    """Call `work(polls)`, a slice of compiled code, until `done()`, the time limit or a signal; how long, in seconds.

    The number of polls is adapted to what they cost; by a virtual clock it is always the same, so that a run can be
    repeated. A slice of none comes first: it compiles what is to run, so that the clock starts after that. Privileges
    are given up then.

    Args:
        files: directories in which files are yet to be made.
    """
    work(0)
    done()
    report.confined(confine(settings, report.addresses, files))
    started = report.start()

    def ended(now: float) -> bool:
        return bool(stop) or done() or (settings.seconds is not None and now - started >= settings.seconds)

    with stop.looked_at():
        return slices(work, ended, report.tick, started) - started


def slices(
    work: Callable[[int], object], ended: Callable[[float], bool], tick: Callable[[float], object], now: float
) -> float:
    """Call `work(polls)` and `tick(now)` until `ended(now)`; the time then, by the devices' clock in seconds."""
    polls = _VIRTUAL if clock.is_virtual() else 1
    while not ended(now):
        work(polls)
        before, now = now, clock.monotonic()
        polls = _adapted(polls, now - before)
        tick(now)
    return now


def _adapted(polls: int, seconds: float) -> int:
    """How many polls the next slice has after one of so many, which took so long."""
    if clock.is_virtual():
        return polls
    if seconds < _SHORT:
        return min(2 * polls, POLLS)
    return max(polls // 2, 1) if seconds > _LONG else polls


def patiently(work: Callable[[int], int], queues: Sequence[RxQueue]) -> Callable[[int], int]:
    """The same work, which says how many packets came from these queues, but asleep while none come.

    Raises:
        UnsupportedDevice: a bus delivers no interrupts; the message says what to do.
    """
    turns = PollOrWait(queues)
    return lambda polls: turns.run(work, polls, _WAIT)
