"""Control plane of a virtual function of the 82599: reset, what its physical function grants, queues, link, filters.

Sections in comments are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from ixy.bus import Irq, set_bus_master
from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE, DeviceCounters, Link
from ixy.drivers.info import Facts
from ixy.drivers.ixgbe.function import MAX_MTU, TOLD, CardFunction, QueueRegisters, check_unicast
from ixy.drivers.ixgbe.inside import FRAMING, tx_offloads
from ixy.drivers.ixgbe.interrupts import Vector
from ixy.drivers.ixgbe.offloads import DOES
from ixy.drivers.ixgbevf import inside
from ixy.drivers.ixgbevf.cards import CARDS
from ixy.drivers.ixgbevf.mailbox import Mailbox
from ixy.drivers.ixgbevf.physical import MODES, Mode, Physical
from ixy.drivers.ixgbevf.statistics import Statistics
from ixy.drivers.rings import counts
from ixy.drivers.rss import DEFAULT_KEY, Rss
from ixy.drivers.rules import no_such_rule
from ixy.errors import ConfigurationError, UnsupportedDevice
from ixy.registers import Reading, RegisterFile
from ixy.registers import i82599_vf as reg
from ixy.registers.i82599 import DESCTYPE_ADVANCED, IVAR_VALID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.bus import Function
    from ixy.drivers.rules import Rule

log = logging.getLogger("ixy.ixgbevf")

DONE = tuple(DOES)  # to packets, if asked for
SPREAD = (1, 2, 4)  # over how many receive queues packets can be spread
_ALL = (1 << reg.VECTORS) - 1  # vectors


class IxgbeVf(CardFunction):
    """A virtual function of an 82599 or X540, brought up and running.

    Which packets come to it, and how many queues it has, its physical function decides. It is asked for all packets,
    which it grants to functions that are trusted, if at all.

    Args:
        function: the PCI function; the driver closes it, also if the initialisation fails.
        rx_queues, tx_queues: how many of each, as many as the physical function grants; to receive 1, 2 or 4.
        ring_size: descriptors per ring: 64, 128, … 4096.
        pool_size: packet buffers per receive queue, at least `ring_size` + 32.
        metadata: what is to be told of each packet, see `ixy.open`. Whether there is a hash, the physical function
            decides.
        rss_key: all functions of a card share one, so none but the physical function's can be had.
        offloads, mtu: see `ixy.open`.

    Raises:
        ConfigurationError: a parameter is out of range, or the physical function does not allow it.
        DeviceTimeout: a register did not do what it should, or the physical function does not answer.
        Error: what the physical function answers makes no sense.
        MemoryUnavailable: no DMA memory.
    """

    name = "ixgbevf"
    _rx = QueueRegisters(reg.VFRDBAL, reg.VFRDBAH, reg.VFRDLEN, reg.VFRDH, reg.VFRDT, reg.VFRXDCTL)
    _tx = QueueRegisters(reg.VFTDBAL, reg.VFTDBAH, reg.VFTDLEN, reg.VFTDH, reg.VFTDT, reg.VFTXDCTL)
    _vectors = reg.VECTORS

    def __init__(
        self,
        function: Function,
        rx_queues: int = 1,
        tx_queues: int = 1,
        ring_size: int = DEFAULT_RING_SIZE,
        pool_size: int = DEFAULT_POOL_SIZE,
        metadata: Sequence[str] = (),
        rss_key: bytes = DEFAULT_KEY,
        offloads: Sequence[str] = (),
        mtu: int | None = None,
    ) -> None:
        super().__init__(function)
        self._mode = Mode.GROUPS
        self._lost = False  # and said so
        try:
            self._card = CARDS[function.config_read(2, 2)]
            self._check_packets(metadata, TOLD, offloads, DONE, mtu, MAX_MTU)
            self._check_queues(rx_queues, tx_queues, ring_size, pool_size, reg.QUEUES)
            self._map_registers()
            self._mailbox = Mailbox(self._registers)
            self._physical = Physical(self.address, self._mailbox)
            self._statistics = Statistics(self._registers)
            self._running = True
            self._reset()
            self._agree()
            self._check_granted(rx_queues, tx_queues)
            self._find_spreading(rx_queues, rss_key)
            self._allocate(rx_queues, tx_queues, ring_size, pool_size)
            self._bring_up()
        except BaseException:
            self.close()
            raise

    # -----------------------------------------------------------------------------------------------------------------
    # Reset, and what the physical function grants

    def _reset(self) -> None:
        """4.2.2.3: a reset of this function's queues and interrupts, of which the physical function is told."""
        self._disable_interrupts()
        self._registers.write(reg.VFCTRL, RST=1)
        time.sleep(0.01)
        self._mailbox.begin()
        self._disable_interrupts()

    def _disable_interrupts(self) -> None:
        """Reading VTEICR drops what is pending."""
        self._registers.write(reg.VTEIMC, MASK=_ALL)
        self._registers.read(reg.VTEICR)

    def _agree(self) -> None:
        """The station's address comes from the physical function; one that has none for it lets it have its own."""
        mac = self._physical.reset()
        self._physical.negotiate()
        self._queues = self._physical.queues()
        self._mac = mac if mac is not None else _own_address()
        if mac is None:
            self._physical.set_mac(self._mac)

    def _check_granted(self, rx_queues: int, tx_queues: int) -> None:
        """
        Raises:
            ConfigurationError: there are fewer, or packets cannot be spread over so many.
        """
        for kind, wanted, granted in (
            ("receive", rx_queues, self._queues.rx),
            ("transmit", tx_queues, self._queues.tx),
        ):
            if wanted > granted:
                raise ConfigurationError(
                    f"{self.address}: {wanted} {kind} queues: its physical function grants it {granted}"
                )
        if rx_queues not in SPREAD:
            raise ConfigurationError(
                f"{self.address}: {rx_queues} receive queues: a virtual function spreads packets over 1, 2 or 4"
            )

    def _find_spreading(self, rx_queues: int, rss_key: bytes) -> None:
        """Which table and key the physical function has set for all, if they are of interest, and it tells.

        Raises:
            ConfigurationError: another key is asked for.
        """
        if rx_queues > 1 or "hash" in self._metadata or rss_key != DEFAULT_KEY:
            told = self._physical.spreading()
            self.rss = None if told is None else Rss(told[0], tuple(queue % rx_queues for queue in told[1]))
        if rss_key != DEFAULT_KEY and (self.rss is None or self.rss.key != rss_key):
            raise ConfigurationError(f"{self.address}: the key is its physical function's: leave out rss_key")

    # -----------------------------------------------------------------------------------------------------------------
    # Queues

    def _bring_up(self) -> None:
        self._statistics.begin()
        set_bus_master(self._function, True)
        self._physical.set_frame(self._mtu + FRAMING)
        self._init_receive()
        self._init_transmit()
        self._start_rx_queues()
        self._enable(reg.VFTXDCTL, len(self.tx_rings))  # 4.6.8.1
        self._mode = self._physical.receive(Mode.PROMISCUOUS)
        self._link_allowed = self._physical.allows_link()
        log.info(
            "%s: %s ready, MAC %s; its physical function lets it receive %s",
            self.address,
            self._card.name,
            self._mac.hex(":"),
            MODES[self._mode],
        )

    def _init_receive(self) -> None:
        """4.6.7, as far as it is this function's own. The low bits of the hash choose among its queues (RQPL)."""
        regs = self._registers
        strip = int("vlan" in self._metadata or self._queues.port_vlan)
        for queue in range(len(self.rx_rings)):
            regs.update(reg.VFSRRCTL[queue], DESCTYPE=DESCTYPE_ADVANCED, BSIZEPACKET=2, DROP_EN=1)
            regs.update(reg.VFDCA_RXCTRL[queue], MUST_BE_ZERO=0)
            regs.update(reg.VFRXDCTL[queue], VME=strip)  # 7.4.3
            self._set_ring(queue, queue, self._rx)
        regs.write(reg.VFPSRTYPE, RQPL=len(self.rx_rings).bit_length() - 1)

    def _init_transmit(self) -> None:
        """4.6.8, likewise."""
        for queue in range(len(self.tx_rings)):
            self._set_ring(len(self.rx_rings) + queue, queue, self._tx)
            self._registers.update(reg.VFTXDCTL[queue], PTHRESH=36, HTHRESH=8, WTHRESH=0)  # as an 82599's

    # -----------------------------------------------------------------------------------------------------------------
    # Interrupts

    def _init_interrupts(self, regs: RegisterFile) -> None:
        """4.6.6: as an 82599's. The mailbox has no vector: who asks for the link looks into it."""
        for queue in range(min(len(self.rx_rings), reg.VECTORS)):
            entry = {f"RX_{'ODD' if queue % 2 else 'EVEN'}": IVAR_VALID | queue}
            regs.update(reg.VTIVAR[queue // 2], **entry)
        regs.write(reg.VTEIAC, AUTO_CLEAR=_ALL)
        regs.write(reg.VTEIAM, AUTO_MASK=_ALL)

    def _vector(self, queue: int) -> Vector:
        return Vector(reg.VTEIMS, reg.VTEIMC, reg.VTEITR[queue], 1 << queue)

    # -----------------------------------------------------------------------------------------------------------------
    # Link, filters, statistics

    def link(self) -> Link:
        """The link's state. It is down from when the physical function was reset, or wants this one to begin anew:
        then nothing is received or sent any more, which is said once.
        """
        with self._control() as regs:
            if not self._known():
                return Link(False, 0)
            link = inside.link(regs)
            return link if self._link_allowed else Link(False, 0)

    def _known(self) -> bool:
        """Whether the physical function still knows this one."""
        self._mailbox.listen()
        if self._mailbox.lost is not None and not self._lost:
            self._lost = True
            log.warning("%s: %s: it receives and sends nothing more: open it again", self.address, self._mailbox.lost)
        return not self._lost

    def mac(self) -> bytes:
        """The station's address."""
        with self._control():
            return self._mac

    def set_mac(self, mac: bytes) -> None:
        """
        Raises:
            ConfigurationError: no unicast address, or whoever runs the physical function has set one for good.
        """
        check_unicast(self.address, mac)
        with self._control():
            self._physical.set_mac(mac)
            self._mac = mac

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """Addresses of stations are compared whole; of groups' by 12 bits, so that others may come as well.

        Raises:
            ConfigurationError: too many, or not allowed.
        """
        with self._control():
            self._physical.set_groups([mac for mac in addresses if mac[0] & 1])
            self._physical.set_addresses([mac for mac in addresses if not mac[0] & 1])

    def set_promiscuous(self, enabled: bool) -> None:
        """
        Raises:
            UnsupportedDevice: the physical function does not let it; what it does, says the message.
        """
        with self._control():
            self._mode = self._physical.receive(Mode.PROMISCUOUS if enabled else Mode.GROUPS)
        if enabled and self._mode is not Mode.PROMISCUOUS:
            raise UnsupportedDevice(
                f"{self.address}: its physical function does not let it receive all packets, but {MODES[self._mode]}: "
                "an X540 may where it is trusted (ip link set … vf … trust on)"
            )

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """Receive packets of VLAN `vlan`, or no longer; without any, those that have no tag.

        Raises:
            ConfigurationError: the port has a VLAN of its own, or there is no room for one more.
        """
        with self._control():
            self._physical.set_vlan(vlan, enabled)

    def redirect(self, rss: Rss) -> None:
        """
        Raises:
            ConfigurationError: all functions of a card share the table, which is the physical function's.
        """
        del rss
        raise ConfigurationError(f"{self.address}: the redirection table is its physical function's")

    @property
    def rules(self) -> list[Rule]:
        return []

    def add_rule(self, rule: Rule) -> Rule:
        """
        Raises:
            ConfigurationError: the tables are the physical function's.
        """
        raise ConfigurationError(f"{self.address}: {rule} cannot be had: rules are its physical function's")

    def remove_rule(self, rule: Rule) -> None:
        """
        Raises:
            ConfigurationError: there is none.
        """
        raise no_such_rule(self.address, rule)

    def counters(self) -> DeviceCounters:
        """What the function counted. A reset of the physical function clears it, so then it stands still."""
        with self._control():
            self._count()
            return self._statistics.counters()

    def xstats(self) -> dict[str, int]:
        """The function's counters by the datasheet's names, and what the driver counted of each queue."""
        with self._control():
            self._count()
            return self._statistics.all() | counts(self.rx_rings, self.tx_rings)

    def _count(self) -> None:
        now = self._statistics.read()
        if self._known():
            self._statistics.count(now)

    def registers(self, *, clear: bool = False) -> list[Reading]:
        """What the function's registers hold."""
        with self._control() as regs:
            return inside.read_all(regs, self._card, {} if clear else None)

    def facts(self) -> Facts:
        """What the function is, and what it is allowed."""
        with self._control() as regs:
            vectors = self._function.interrupt_vectors(Irq.MSIX)
            return Facts(
                model=self._card.name,
                slot=self._function.slot(),
                mtu=self._mtu,
                max_rx_queues=self._queues.rx,
                max_tx_queues=self._queues.tx,
                features=[
                    f"receives {MODES[self._mode]}",
                    *(["a VLAN of its port"] if self._queues.port_vlan else []),
                    f"mailbox {self._physical.version}",
                    f"{vectors} interrupts by MSI-X",
                ],
                rx_offloads=inside.rx_offloads(regs),
                tx_offloads=tx_offloads(self.tx_rings[0].offloads, self.tx_rings[0].parts),
            )

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def _stop(self) -> None:
        """Queues off (4.6.7.1.2), what they have asked the bus for done, reset."""
        self._disable_interrupts()
        self._disable_queues()
        self._drain_bus()
        self._registers.write(reg.VFCTRL, RST=1)
        time.sleep(0.01)
        self._disable_interrupts()


def _own_address() -> bytes:
    """One that is locally administered, by chance (IEEE 802-2014, 8.4)."""
    first, *others = os.urandom(6)
    return bytes([first & 0xFC | 2, *others])
