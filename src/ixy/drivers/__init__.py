"""Drivers, and what every driver offers to the device that an application sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.drivers.info import Facts
    from ixy.drivers.rss import Rss
    from ixy.drivers.rules import Rule
    from ixy.packets.batch import Lender
    from ixy.packets.mempool import Mempool
    from ixy.registers import Reading


DEFAULT_RING_SIZE = 512
DEFAULT_POOL_SIZE = 4096

MAX_ADDRESSES = 127
"""The most that can be filtered for: what an 82599 has room for besides the station's own (8.2.3.7.8)."""


class Link(NamedTuple):
    """State of the link: `speed` in Mbit/s, 0 while it is down, and where there is no wire that has one."""

    up: bool
    speed: int


class DeviceCounters(NamedTuple):
    """What a device counted since it was opened.

    Bytes are counted as on the wire, from the destination address to the frame check sequence.

    Attributes:
        rx_packets, rx_bytes, tx_packets, tx_bytes: good packets.
        rx_dropped: packets that arrived while no receive descriptor was free.
        rx_errors: packets that arrived damaged, too short or too long.
    """

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    rx_errors: int = 0


class RxSingle(NamedTuple):
    """Kernels of a receive ring for one packet at a time. For the ring's runner and the owner of its pool.

    Attributes:
        begin: `begin(state, limit) -> limit` says how many packets may be taken so, at most.
        look: `look(state, slot) -> length` of the good frame in a descriptor; 0 if there is none, or an odd one.
        describe: `describe(state, slot, packets, i)` notes of packet `i` what the descriptor says, as far as that was
            asked for.
        replace: `replace(state, slot, buffer)` puts a buffer into the descriptor of such a frame; the same, maybe.
        finish: `finish(state, pools, count, replaced)` gives `count` such descriptors back to the device, and notes
            that `replaced` buffers were `fresh` from the pool.
    """

    begin: Callable[..., int]
    look: Callable[..., int]
    describe: Callable[..., None]
    replace: Callable[..., None]
    finish: Callable[..., None]


class TxSingle(NamedTuple):
    """Kernels of a transmit ring for one packet at a time. For the ring's runner.

    Attributes:
        load: `load(state, slot, buffer, length)` writes a packet into a free descriptor.
        finish: `finish(state, count)` gives `count` such descriptors to the device.
    """

    load: Callable[..., None]
    finish: Callable[..., None]


class RxInterrupt(Protocol):
    """The interrupt of a receive queue. It is off until `arm`.

    Attributes:
        fd: a file that is readable after an interrupt, until `clear`. The driver closes it with the device.
        once: an interrupt switches it off.
    """

    fd: int
    once: bool

    def arm(self) -> None:
        """Switch the interrupt on for the next packet. One that came before need not cause any: look once more."""
        ...

    def disarm(self) -> None:
        """Switch it off. One that is under way may still come."""
        ...

    def pace(self, seconds: float) -> None:
        """Let at least so long pass between two interrupts, as far as the device can."""
        ...

    def clear(self) -> None:
        """Forget the interrupts so far."""
        ...

    def wake(self) -> None:
        """Make `fd` readable, whatever the device does."""
        ...


class RxRing(Protocol):
    """A receive ring behind its kernel.

    Attributes:
        kernel: `kernel(state, pools, packets, limit) -> received` fills `packets`, which have room for `limit`, from
            the front, with all columns that are there, and never raises. For the ring's runner (`rings.enter`).
        ready: the kernel `ready(state) -> bool` says whether the device has put something on the ring.
        single: what takes packets one at a time; None if the driver has no such kernels.
        state: the named tuple that the kernel works on.
        size: descriptors.
        metadata: what the device was set up to tell of each packet, names from `packets.METADATA`.
        parts: the most buffers that a packet may lie in; 1 where none goes on in another.
    """

    kernel: Callable[..., int]
    ready: Callable[..., bool]
    single: RxSingle | None
    state: Any
    size: int
    metadata: Sequence[str]
    parts: int

    @property
    def pool(self) -> Lender:
        """Where the ring takes its buffers from: a mempool; between threads, what keeps the pools of its packets."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that the driver refused: longer than a buffer, or damaged."""
        ...

    @property
    def starved(self) -> int:
        """How often the ring found its pool empty."""
        ...

    def retire(self, timeout: float) -> bool:
        """Let nobody run the ring any more; False if a thread still does after `timeout` seconds."""
        ...

    def compile_end(self) -> None:
        """Have compiled what the ring's end takes, without anything being done."""
        ...


class TxRing(Protocol):
    """A transmit ring behind its kernel.

    Attributes:
        kernel: `kernel(state, pools, packets, first, last) -> sent` takes packets from the front of the range until
            the ring is full, frees what the device has sent before, and never raises. For the ring's runner
            (`rings.seize`).
        room: the kernel `room(state, pools, wanted) -> packets` says how many packets the ring has room for, and frees
            what the device has sent if they are fewer than `wanted`.
        single: as of a receive ring.
        state: the named tuple that the kernel works on.
        size: descriptors.
        offloads: what the device was set up to do to packets, names from `offloads.OFFLOADS`.
        parts: as of a receive ring.
        holds_chains: a packet takes one descriptor, and not one for each of its buffers; so `room` is as `parts` is.
    """

    kernel: Callable[..., int]
    room: Callable[..., int]
    single: TxSingle | None
    state: Any
    size: int
    offloads: Sequence[str]
    parts: int
    holds_chains: bool

    @property
    def in_flight(self) -> int:
        """Packets that were handed to the device and whose buffers have not come back."""
        ...

    def retire(self, timeout: float) -> bool:
        """Let nobody run the ring any more; False if a thread still does after `timeout` seconds."""
        ...

    def compile_end(self) -> None:
        """Have compiled what the ring's end takes, without anything being done."""
        ...


class Driver(Protocol):
    """One device under control, as every driver offers it."""

    name: str
    address: str

    @property
    def rx_rings(self) -> Sequence[RxRing]: ...

    @property
    def tx_rings(self) -> Sequence[TxRing]: ...

    @property
    def rss(self) -> Rss | None:
        """How the device spreads packets over its receive queues; None if it does so by itself, or has but one."""
        ...

    def redirect(self, rss: Rss) -> None:
        """Spread them by the table of `rss`, which is else as before. Only for a driver with `rss`."""
        ...

    @property
    def rules(self) -> Sequence[Rule]:
        """What packets are put into queues, or dropped, by rules; in the order in which they were added."""
        ...

    def add_rule(self, rule: Rule) -> Rule:
        """Put packets into queues by this rule; the rule with its `table`.

        Raises:
            ConfigurationError: the device has no such rules, or no room for it, or one for the same packets.
        """
        ...

    def remove_rule(self, rule: Rule) -> None:
        """Forget one of `rules`.

        Raises:
            ConfigurationError: it is none of them.
        """
        ...

    def mac(self) -> bytes:
        """The station's address, 6 bytes."""
        ...

    def set_mac(self, mac: bytes) -> None:
        """Change the station's address until the next reset."""
        ...

    def set_promiscuous(self, enabled: bool) -> None:
        """Receive all packets, whatever their destination."""
        ...

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """Receive packets for these, at most `MAX_ADDRESSES`, besides the station's own and broadcasts."""
        ...

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """Receive packets of VLAN `vlan`, 0 to 4095, or no longer, while not promiscuous."""
        ...

    def link(self) -> Link:
        """The link's state now."""
        ...

    def wait_for_link(self, timeout: float) -> Link:
        """Wait up to `timeout` seconds for the link; the state it then has."""
        ...

    def counters(self) -> DeviceCounters:
        """What the device counted since it was opened."""
        ...

    def sent(self) -> int:
        """How many packets the device has sent since it was opened; `close` drops what it was handed besides."""
        ...

    def facts(self) -> Facts:
        """What the device is."""
        ...

    def xstats(self) -> dict[str, int]:
        """All that is counted, by name, since the device was opened. Asked in any thread, while rings run."""
        ...

    def registers(self, *, clear: bool) -> Sequence[Reading]:
        """What the device's registers hold whose reading changes nothing; with `clear` also those that it clears. In
        any thread.

        Raises:
            UnsupportedDevice: it has none.
        """
        ...

    def attach(self, pool: Mempool) -> None:
        """Let the device reach the buffers of `pool`, so that packets from it can be sent."""
        ...

    def rx_interrupt(self, queue: int) -> RxInterrupt:
        """The interrupt of a receive queue.

        Raises:
            UnsupportedDevice: the bus has none, or too few; the message says what to do.
        """
        ...

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """Call `tell`, in any thread, each time that a device of another process has gone; it answers whether somebody
        ends because of that, and else the device is waited for."""
        ...

    def rouse(self) -> None:
        """Python has rung a doorbell: a device that sleeps, as only a simulated one does, is to look."""
        ...

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """The loop of the path with these words (`ixy.counts`) rings doorbells: where a device sleeps, which only a
        simulated one does, that loop is to rouse it."""
        ...

    def close(self) -> None:
        """Stop the device, take back its buffers, give it up. A second call does nothing."""
        ...


def check_pool(address: str, pool_size: int, ring_size: int, group: int) -> None:
    """Refuse a pool with which packets would stop for good.

    A receive ring always holds as many buffers as it has descriptors, and takes a packet only against a fresh one. A
    transmit ring that is cleaned in groups keeps up to one packet less than `group`, sent, until others follow.

    Raises:
        ConfigurationError: says how many buffers are needed.
    """
    needed = ring_size + group
    if pool_size < needed:
        raise ConfigurationError(
            f"{address}: a pool of {pool_size} buffers: a ring of {ring_size} needs at least {needed}, "
            f"{group} of them for packets on their way"
        )
