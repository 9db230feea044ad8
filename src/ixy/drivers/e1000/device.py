"""Control plane of the gigabit cards: reset, initialisation, link, filters, statistics.

Sections in comments are those of the Intel 82574 datasheet, revision 3.4; of the Software Developer's Manual of the
PCI/PCI-X family, which has the older cards, where they begin with SDM.
"""

from __future__ import annotations

import logging
import struct
import time
from typing import TYPE_CHECKING

from ixy.arguments import integer
from ixy.bus import Irq, set_bus_master
from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE, DeviceCounters, Link
from ixy.drivers.e1000 import inside
from ixy.drivers.e1000.cards import CARDS, Card
from ixy.drivers.e1000.interrupts import LineInterrupt, MessageInterrupt
from ixy.drivers.e1000.phy import negotiate
from ixy.drivers.e1000.rings import E1000OffloadTxRing, E1000PartsRxRing, E1000RxRing, E1000TxRing
from ixy.drivers.e1000.statistics import Statistics
from ixy.drivers.info import Facts
from ixy.drivers.ixgbe.function import (
    DEFAULT_MTU,
    CardFunction,
    QueueRegisters,
    check_unicast,
)
from ixy.drivers.ixgbe.inside import tx_offloads
from ixy.drivers.ixgbe.offloads import DOES
from ixy.drivers.rings import counts
from ixy.drivers.rss import DEFAULT_KEY, Rss, table_of
from ixy.drivers.rules import no_such_rule
from ixy.errors import ConfigurationError, DeviceTimeout
from ixy.packets.buffers import MAX_PARTS
from ixy.registers import Reading, RegisterFile
from ixy.registers import e1000 as reg

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.bus import Function
    from ixy.drivers.rules import Rule
    from ixy.packets.mempool import Mempool

log = logging.getLogger("ixy.e1000")

HASHED = ("IPv4", "IPv6", "TCP")  # UDP is hashed by its addresses alone (7.1.11)


class E1000(CardFunction):
    """An 82574, 82540 or 82545, brought up and running.

    Args:
        function: the PCI function; the driver closes it, also if the initialisation fails.
        rx_queues, tx_queues: how many of each: 1, on an 82574 also 2.
        ring_size: descriptors per ring: 64, 128, … 4096.
        pool_size: packet buffers per receive queue, at least `ring_size` + 32.
        metadata: what is to be told of each packet, see `ixy.open`; an older card hashes none.
        rss_key: of the hash by which packets are spread, 40 bytes.
        offloads, mtu: see `ixy.open`.

    Raises:
        ConfigurationError: a parameter is out of range.
        DeviceTimeout: a register did not do what it should.
        MemoryUnavailable: no DMA memory.
    """

    name = "e1000"
    _rx = QueueRegisters(reg.RDBAL, reg.RDBAH, reg.RDLEN, reg.RDH, reg.RDT, reg.RXDCTL)
    _tx = QueueRegisters(reg.TDBAL, reg.TDBAH, reg.TDLEN, reg.TDH, reg.TDT, reg.TXDCTL)

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
        self._firmware: str | None = None
        self._promiscuous = True
        self._filters_vlans = False
        self.rules: Sequence[Rule] = ()
        try:
            self._card = CARDS[function.config_read(2, 2)]
            self._check_packets(metadata, told(self._card), offloads, tuple(DOES), mtu, inside.LONGEST_MTU)
            self._check_queues(rx_queues, tx_queues, ring_size, pool_size, self._card.queues)
            if rx_queues > 1 or "hash" in self._metadata:
                self.rss = Rss(rss_key, table_of(range(rx_queues), reg.RETA_ENTRIES), HASHED)
            self._map_registers()
            self._statistics = Statistics(self._registers, self._card)
            self._allocate(rx_queues, tx_queues, ring_size, pool_size)
            self._running = True
            self._bring_up()
        except BaseException:
            self.close()
            raise

    def _rx_ring(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32], pool: Mempool) -> E1000RxRing:
        """A ring of the plain kind, unless packets may lie in several buffers."""
        addresses, extended = self._attached.addresses, self._card.newer
        if "parts" in self._metadata or "segments" in self._metadata:
            return E1000PartsRxRing(memory, tail, addresses, pool, self._metadata, self._parts, extended=extended)
        return E1000RxRing(memory, tail, addresses, pool, self._metadata, extended=extended)

    def _tx_ring(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32]) -> E1000TxRing | E1000OffloadTxRing:
        """Likewise, or something is asked of it that takes other kernels."""
        addresses, newer = self._attached.addresses, self._card.newer
        parts = MAX_PARTS if "parts" in self._metadata else 1
        if parts > 1 or self._offloads:
            return E1000OffloadTxRing(memory, tail, addresses, self._offloads, parts, self._longest, cuts_ipv6=newer)
        return E1000TxRing(memory, tail, addresses)

    # -----------------------------------------------------------------------------------------------------------------
    # Initialisation, 4.6; SDM 14

    def _bring_up(self) -> None:
        self._reset()
        if self._card.newer:
            self._work_around()
        self._init_link()
        self._init_address()
        self._statistics.begin()
        set_bus_master(self._function, True)
        self._init_receive()
        self._init_transmit()
        log.info("%s: %s ready, MAC %s", self.address, self._card.name, self.mac().hex(":"))

    def _reset(self) -> None:
        """4.6.1, 4.6.2: interrupts off, nothing received or sent, reset, interrupts off again.

        All that a reset would set is also written where it is used: QEMU's cards keep most of it.
        """
        regs = self._registers
        self._disable_interrupts()
        regs.write(reg.RCTL)
        regs.update(reg.TCTL, EN=0)
        time.sleep(0.01)  # for what is pending
        if self._card.newer:
            self._disable_master()
        regs.update(reg.CTRL, RST=1)
        time.sleep(0.005)  # the older cards read their EEPROM meanwhile, and do not tell when they have
        regs.wait(reg.CTRL, 0.2, RST=0)
        if self._card.newer:
            regs.wait(reg.EEC, 0.5, AUTO_RD=1)
        self._disable_interrupts()
        regs.write(reg.RCTL)
        regs.update(reg.TCTL, EN=0)
        regs.update(reg.CTRL, GIO_MASTER_DISABLE=0)

    def _disable_interrupts(self) -> None:
        """Reading ICR drops what is pending."""
        self._registers.write(reg.IMC, MASK=0xFFFFFFFF)
        self._registers.read(reg.ICR)

    def _disable_master(self) -> None:
        """No new requests to the bus, and wait until the pending ones are done (10.2.2, CTRL)."""
        self._registers.update(reg.CTRL, GIO_MASTER_DISABLE=1)
        try:
            self._registers.wait(reg.STATUS, 0.1, GIO_MASTER_ENABLE=0)
        except DeviceTimeout as error:
            log.warning("%s; resetting all the same", error)

    def _work_around(self) -> None:
        """What Linux (e1000e, 82571.c) sets in an 82574 against its errata."""
        regs = self._registers
        regs.update(reg.CTRL_EXT, MUST_BE_ONE=1, MUST_BE_ZERO=0)
        regs.update(reg.GCR, MUST_BE_ONE=1)
        regs.update(reg.GCR2, MUST_BE_ONE=1)
        regs.update(reg.TARC[0], MUST_BE_ONE=1)

    def _init_link(self) -> None:
        """4.6.3: the MAC takes speed and duplex from the PHY, which negotiates."""
        strips = int("vlan" in self._metadata)  # VME also lets descriptors ask for tags (7.5)
        self._registers.update(reg.CTRL, SLU=1, ASDE=0, FRCSPD=0, FRCDPLX=0, RFCE=0, TFCE=0, VME=strips)
        negotiate(self._registers, self._card)

    def _init_address(self) -> None:
        """The station's address is that in the EEPROM (6.1; SDM 5.6.1); nothing else is let in by filters."""
        words = inside.eeprom(self._registers, self._card, *range(reg.EEPROM_MAC, reg.EEPROM_MAC + 3))
        self._set_address(0, struct.pack("<3H", *words))
        for index in range(1, reg.RAH.count):
            self._registers.write(reg.RAH[index])
        for table in (reg.MTA, reg.VFTA):
            for register in table:
                self._registers.write(register)

    def _init_receive(self) -> None:
        """4.6.5; SDM 14.4: frame check sequences off, all packets in, buffers of 2048 bytes."""
        regs = self._registers
        regs.write(reg.RDTR)
        regs.write(reg.RADV)
        for queue in range(len(self.rx_rings)):
            self._set_ring(queue, queue, self._rx)
            regs.write(reg.RXDCTL[queue], PTHRESH=32, HTHRESH=4, WTHRESH=1, GRAN=1)
        for queue in range(len(self.rx_rings), self._card.queues):
            regs.write(reg.RDLEN[queue])
        self._init_metadata()
        for ring in self.rx_rings:
            ring.fill()
        jumbo = int(self._mtu > DEFAULT_MTU)  # LPE: frames of up to 16 KiB, of which too long ones are refused here
        regs.write(reg.RCTL, EN=1, UPE=1, MPE=1, BAM=1, SECRC=1, LPE=jumbo)
        for queue, ring in enumerate(self.rx_rings):
            regs.write(reg.RDT[queue], TAIL=ring.size - 1)

    def _init_metadata(self) -> None:
        """What the card is to find out about packets, as far as it is asked for."""
        regs, checks = self._registers, int("flags" in self._metadata)
        if not self._card.newer:
            regs.write(reg.RXCSUM, IPOFLD=checks, TUOFLD=checks)
            return
        # 7.1.10: with PCSD, the hash stands where the sum of a fragment would.
        regs.write(reg.RXCSUM, IPOFLD=checks, TUOFLD=checks, PCSD=1)
        regs.write(reg.RFCTL, NFSW_DIS=1, NFSR_DIS=1, EXSTEN=1)
        regs.write(reg.MRQC)
        if self.rss is not None:  # 7.1.11: key and table come before they are switched on
            for register, word in zip(reg.RSSRK, struct.unpack("<10I", self.rss.key), strict=True):
                regs.write(register, word)
            self._write_table(self.rss.table)
            regs.write(reg.MRQC, MRQE=reg.MRQE_RSS, TCP_IPV4=1, IPV4=1, TCP_IPV6=1, IPV6=1)

    def _write_table(self, table: Sequence[int]) -> None:
        """10.2.5, RETA: four entries a register."""
        entries = bytes(queue * reg.RETA_QUEUE for queue in table)
        for register, word in zip(reg.RETA, struct.unpack(f"<{reg.RETA.count}I", entries), strict=True):
            self._registers.write(register, word)

    def _init_transmit(self) -> None:
        """4.6.6; SDM 14.5: frame check sequences and padding by the card, gaps as Linux has them for copper."""
        regs = self._registers
        for queue in range(len(self.tx_rings)):
            self._set_ring(len(self.rx_rings) + queue, queue, self._tx)
            # Status is reported once for a group of descriptors, and then at once.
            ahead = {"PTHRESH": 31, "HTHRESH": 1, "COUNT_DESC": 1} if self._card.newer else {}
            regs.write(reg.TXDCTL[queue], WTHRESH=1, GRAN=1, **ahead)
        regs.write(reg.TIDV)
        regs.write(reg.TADV)
        regs.write(reg.TIPG, IPGT=8, IPGR1=8, IPGR2=6)
        regs.update(reg.TCTL, EN=1, PSP=1, CT=0xF, COLD=0x3F, RTLC=1)

    # -----------------------------------------------------------------------------------------------------------------
    # Interrupts

    def rx_interrupt(self, queue: int) -> MessageInterrupt | LineInterrupt:
        """The interrupt of a receive queue. Asking for the first switches MSI-X on, or the line of an older card.

        Raises:
            UnsupportedDevice: the bus delivers no interrupts.
        """
        with self._control() as regs:
            if self._interrupts is None:
                kind, vectors = (Irq.MSIX, len(self.rx_rings)) if self._card.newer else (Irq.INTX, 1)
                interrupts = self._function.interrupts(kind, vectors)
                self._undo.callback(interrupts.close)
                if self._card.newer:
                    self._init_messages(regs)
                self._interrupts = interrupts
            if self._card.newer:
                cause = reg.CAUSE_RXQ0 << queue
                return MessageInterrupt(self._interrupts.events[queue], cause, reg.EITR[queue], self._control)
            return LineInterrupt(self._interrupts, self._control)

    def _init_messages(self, regs: RegisterFile) -> None:
        """7.4: vector n is that of receive queue n, and nothing else causes an interrupt."""
        both = reg.CAUSE_RXQ0 | reg.CAUSE_RXQ0 << 1
        regs.write(reg.IVAR, RXQ0=reg.IVAR_VALID, RXQ1=reg.IVAR_VALID | 1)
        regs.write(reg.EIAC, both)
        regs.write(reg.IAM, both)
        regs.update(reg.CTRL_EXT, PBA_SUPPORT=1, EIAME=1, IAME=0)

    # -----------------------------------------------------------------------------------------------------------------
    # Link, filters, statistics

    def mac(self) -> bytes:
        """The station's address."""
        with self._control() as regs:
            return inside.mac(regs)

    def set_mac(self, mac: bytes) -> None:
        """Change receive address register 0.

        Raises:
            ConfigurationError: not 6 bytes, or a multicast address.
        """
        check_unicast(self.address, mac)
        with self._control():
            self._set_address(0, mac)

    def _set_address(self, index: int, mac: bytes) -> None:
        """Let packets for `mac` in (10.2.5, RAL and RAH)."""
        self._registers.write(reg.RAL[index], ADDRESS=int.from_bytes(mac[:4], "little"))
        self._registers.write(reg.RAH[index], ADDRESS=int.from_bytes(mac[4:], "little"), AV=1)

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """15 registers compare whole addresses (7.1.1). Groups that find no room there are let in by a hash of 12 bits,
        and with them those that have the same.

        Raises:
            ConfigurationError: more than 15 addresses of stations.
        """
        stations, groups = ([mac for mac in addresses if mac[0] & 1 == kind] for kind in (0, 1))
        room = reg.RAL.count - 1
        if len(stations) > room:
            raise ConfigurationError(
                f"{self.address}: {len(stations)} addresses of stations: the card has room for {room}"
            )
        exact = [*stations, *groups][:room]
        table = [0] * reg.MTA.count
        for group in groups[room - len(stations) :]:
            place = int.from_bytes(group[4:], "little") >> 4  # RCTL.MO = 0: the upper 12 of the last 16 bits
            table[place >> 5] |= 1 << (place & 31)
        with self._control() as regs:
            for index, mac in enumerate(exact, 1):
                self._set_address(index, mac)
            for index in range(len(exact) + 1, reg.RAH.count):
                regs.write(reg.RAH[index])
            for register, bits in zip(reg.MTA, table, strict=True):
                regs.write(register, bits)

    def set_promiscuous(self, enabled: bool) -> None:
        """Accept all unicast and multicast packets, of all VLANs (10.2.5, RCTL)."""
        with self._control():
            self._promiscuous = enabled
            self._set_filters()

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """Receive packets of VLAN `vlan`, or no longer: a bit in a table of 4096 (10.2.5, VFTA)."""
        with self._control() as regs:
            self._filters_vlans = True
            register, bit = reg.VFTA[vlan // 32], 1 << vlan % 32
            others = regs.read(register) & ~bit
            regs.write(register, others | bit if enabled else others)
            self._set_filters()

    def _set_filters(self) -> None:
        """The filter of VLANs takes no notice of promiscuous mode, so it is off there."""
        everything = int(self._promiscuous)
        vlans = int(self._filters_vlans and not self._promiscuous)
        self._registers.update(reg.RCTL, UPE=everything, MPE=everything, VFE=vlans)

    def redirect(self, rss: Rss) -> None:
        """Change the redirection table; packets that arrive meanwhile go by its old entries or by the new ones."""
        for queue in rss.table:
            integer(f"{self.address}: receive queue", queue, 0, reg.QUEUES - 1)
        with self._control():
            self._write_table(rss.table)
            self.rss = rss

    def add_rule(self, rule: Rule) -> Rule:  # noqa: ARG002
        """
        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"{self.address}: the card has no rules for packets")

    def remove_rule(self, rule: Rule) -> None:
        """
        Raises:
            ConfigurationError: always.
        """
        raise no_such_rule(self.address, rule)

    def link(self) -> Link:
        """The link's state."""
        with self._control() as regs:
            return inside.link(regs)

    def counters(self) -> DeviceCounters:
        """What the card counted."""
        with self._control():
            return self._statistics.counters()

    def xstats(self) -> dict[str, int]:
        """The card's counters by the datasheet's names, and what the driver counted of each queue."""
        with self._control():
            return self._statistics.all() | counts(self.rx_rings, self.tx_rings)

    def registers(self, *, clear: bool = False) -> list[Reading]:
        """What the card's registers hold. Counters that are read, and so cleared, are counted."""
        with self._control() as regs:
            return inside.read_all(regs, self._card, self._statistics.take() if clear else None)

    def facts(self) -> Facts:
        """What the card is. Its EEPROM is read once."""
        with self._control() as regs:
            self._firmware = self._firmware or inside.firmware(regs, self._card)
            kind = Irq.MSIX if self._card.newer else Irq.INTX
            vectors = self._function.interrupt_vectors(kind)
            return Facts(
                model=self._card.name,
                slot=self._function.slot(),
                mtu=self._mtu,
                max_rx_queues=self._card.queues,
                max_tx_queues=self._card.queues,
                features=[*inside.abilities(self._card), f"{vectors} interrupts by {kind.value}"],
                rx_offloads=inside.rx_offloads(regs, self._card),
                tx_offloads=tx_offloads(self._offloads, self.tx_rings[0].parts),
                firmware=self._firmware,
            )

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def _stop(self) -> None:
        """Nothing received or sent, no more requests to the bus, reset."""
        self._reset()


def told(card: Card) -> tuple[str, ...]:
    """What a card tells of each packet, if it is asked to."""
    everywhere = ("flags", "vlan", "time", "segments", "parts")
    return ("hash", *everywhere) if card.newer else everywhere
