"""Control plane of the 82599: reset, initialisation, link, filters, statistics.

Sections in comments are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import logging
import struct
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from ixy.arguments import integer
from ixy.bus import Irq, set_bus_master
from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE, DeviceCounters, Link
from ixy.drivers.info import Facts
from ixy.drivers.ixgbe import inside
from ixy.drivers.ixgbe.cards import CARDS, TX_BUFFER, Connection
from ixy.drivers.ixgbe.function import DEFAULT_MTU, MAX_MTU, TOLD, CardFunction, QueueRegisters, check_unicast
from ixy.drivers.ixgbe.interrupts import Vector, units
from ixy.drivers.ixgbe.offloads import DOES
from ixy.drivers.ixgbe.phy import Phy
from ixy.drivers.ixgbe.rules import TABLE_KIB, Tables
from ixy.drivers.ixgbe.semaphore import owned
from ixy.drivers.ixgbe.statistics import Statistics
from ixy.drivers.rings import counts
from ixy.drivers.rss import DEFAULT_KEY, Rss, table_of
from ixy.errors import DeviceTimeout
from ixy.registers import Reading, RegisterFile
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ixy.bus import Function
    from ixy.drivers.rules import Rule

log = logging.getLogger("ixy.ixgbe")

MAX_FRAME = 10  # KiB, rounded up
FLOW_CONTROL_ROOM = 24  # KiB: 4.6.3.2, below the end of the receive buffer
POSSIBLE = (*DOES, "coalescing")  # to packets, if asked for
COALESCING_TIME = 50e-6  # seconds that a segment waits at most for those that follow it


class Ixgbe(CardFunction):
    """An 82599, X520, X540 or X550, brought up and running.

    Args:
        function: the PCI function; the driver closes it, also if the initialisation fails.
        rx_queues, tx_queues: how many of each, 1 to 128. Packets are spread over as many as RSS can name; to the others
            come those that rules put there.
        ring_size: descriptors per ring: 64, 128, … 4096.
        pool_size: packet buffers per receive queue, at least `ring_size` + 32.
        metadata: what is to be told of each packet, see `ixy.open`.
        rss_key: of the hash by which packets are spread, 40 bytes.
        offloads, mtu: see `ixy.open`.

    Raises:
        ConfigurationError: a parameter is out of range.
        DeviceTimeout: a register did not do what it should.
        MemoryUnavailable: no DMA memory.
    """

    name = "ixgbe"
    _rx = QueueRegisters(reg.RDBAL, reg.RDBAH, reg.RDLEN, reg.RDH, reg.RDT, reg.RXDCTL)
    _tx = QueueRegisters(reg.TDBAL, reg.TDBAH, reg.TDLEN, reg.TDH, reg.TDT, reg.TXDCTL)
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
        self._firmware: str | None = None
        self._promiscuous = True
        self._addresses_used = 1
        self._filters_vlans = False
        self._phy: Phy | None = None
        try:
            self._card = CARDS[function.config_read(2, 2)]
            self._check_packets(metadata, TOLD, offloads, POSSIBLE, mtu, MAX_MTU)
            self._check_queues(rx_queues, tx_queues, ring_size, pool_size, reg.QUEUES)
            if rx_queues > 1 or "hash" in self._metadata:
                named = min(rx_queues, self._card.rss_queues)
                self.rss = Rss(rss_key, table_of(range(named), self._card.rss_entries))
            self._map_registers()
            self._statistics = Statistics(self._registers, rx_queues, tx_queues)
            self._tables = Tables(self.address, self._registers, self._making_room, five_fields=self._card.five_fields)
            self._allocate(rx_queues, tx_queues, ring_size, pool_size)
            self._running = True
            self._bring_up()
        except BaseException:
            self.close()
            raise

    # -----------------------------------------------------------------------------------------------------------------
    # Initialisation, 4.6.3

    def _bring_up(self) -> None:
        self._reset()
        self._wait_until_ready()
        self._init_link()
        self._statistics.begin()
        set_bus_master(self._function, True)
        self._init_receive()
        self._init_transmit()
        self._start_rx_queues()
        self._open_receive_path()
        self._enable(reg.TXDCTL, len(self.tx_rings))  # 4.6.8.1
        log.info("%s: %s ready, MAC %s", self.address, self._card.name, self.mac().hex(":"))

    def _reset(self) -> None:
        """4.6.3.1: interrupts off, reset, interrupts off again; 4.2.1.6: no DMA while the reset goes on."""
        self._disable_interrupts()
        if not self._disable_master():
            # 5.2.5.3.2: what comes back from the bus after the first reset needs a second one.
            self._flush()
            self._reset_device()
        self._reset_device()
        time.sleep(0.01)  # 4.6.3.2: the MAC is to be left alone for 10 ms
        self._disable_interrupts()

    def _reset_device(self) -> None:
        """8.2.3.1.1: reset device and link. A reset of the link would take a PHY within the chip along (X550 datasheet,
        8.2.2.1.1), so there it is left out.
        """
        inside = self._card.connection is Connection.INTERNAL_PHY
        with owned(self._registers, self._phy_resource(), by_regsmp=True) if inside else nullcontext():
            self._registers.write(reg.CTRL, RST=1, LRST=int(not inside))
            time.sleep(0.001)  # for so long, no register may be accessed
        self._registers.wait(reg.CTRL, 1.0, RST=0, LRST=0)

    def _disable_interrupts(self) -> None:
        """4.6.3.1. Reading EICR drops what is pending."""
        self._registers.write(reg.EIMC, MASK=0x7FFFFFFF)
        for register in reg.EIMC_EX:
            self._registers.write(register, MASK=0xFFFFFFFF)
        self._registers.read(reg.EICR)

    def _disable_master(self) -> bool:
        """5.2.5.3.2: no new requests to the bus, and wait until the pending ones are done; False if they never are."""
        self._registers.update(reg.CTRL, PCIE_MASTER_DISABLE=1)
        try:
            self._registers.wait(reg.CTRL, 1.0, PCIE_MASTER_DISABLE=1)
            self._registers.wait(reg.STATUS, 1.0, PCIE_MASTER_ENABLE=0)
        except DeviceTimeout as error:
            # A card left behind by a killed process, or one whose link is down, can hold requests for ever.
            log.warning("%s; resetting twice", error)
            return False
        return True

    def _flush(self) -> None:
        """5.2.5.3.2: drop the packets that are on their way out, with nothing sent meanwhile."""
        regs = self._registers
        regs.update(reg.HLREG0, LPBK=1)
        regs.update(reg.RXCTRL, RXEN=0)
        self._drain_bus()
        regs.update(reg.GCR_EXT, BUFFERS_CLEAR=1)
        time.sleep(0.001)  # 20 µs at least
        regs.update(reg.GCR_EXT, BUFFERS_CLEAR=0)
        regs.update(reg.HLREG0, LPBK=0)

    def _wait_until_ready(self) -> None:
        """4.6.3: the EEPROM has been read and the DMA engine is initialised."""
        self._registers.wait(reg.EEC, 1.0, AUTO_RD=1)
        self._registers.wait(reg.RDRXCTL, 1.0, DMAIDONE=1)

    def _init_link(self) -> None:
        """4.6.4: how the MAC is connected, and start. What the EEPROM has set for a backplane stays."""
        connection = self._card.connection
        if connection is Connection.INTERNAL_PHY:
            return
        if connection is Connection.EXTERNAL_PHY:
            self._phy = Phy(self._registers, self._phy_resource())
            self._phy.negotiate()
        with owned(self._registers, reg.SYNC_MAC):
            if connection is Connection.SFI:
                self._registers.update(reg.AUTOC2, SERIAL_10G=reg.SERIAL_10G_SFI)
                self._registers.update(reg.AUTOC, LMS=reg.LMS_10G_SERIAL, RESTART_AN=1)
            else:
                self._registers.update(reg.AUTOC, RESTART_AN=1)

    def _phy_resource(self) -> int:
        """What must be owned to touch this port's PHY: each of the card's two has one."""
        return (reg.SYNC_PHY0, reg.SYNC_PHY1)[self._registers.get(reg.STATUS, "LAN_ID") & 1]

    def _init_receive(self) -> None:
        """4.6.7: one packet buffer for all, frame check sequences off, all packets in."""
        regs = self._registers
        regs.update(reg.RXCTRL, RXEN=0)
        self._set_rx_buffer(self._card.rx_buffer)
        for register in list(reg.RXPBSIZE)[1:]:
            regs.write(register, SIZE=0)
        self._clear_tables()
        regs.update(reg.HLREG0, RXCRCSTRP=1)
        if self._mtu != DEFAULT_MTU:  # 8.2.3.22.13: tags come on top of what MAXFRS says, which counts with JUMBOEN
            regs.write(reg.MAXFRS, MFS=self._mtu + inside.FRAMING)
            regs.update(reg.HLREG0, JUMBOEN=1)
        regs.update(reg.RDRXCTL, CRC_STRIP=1, RSCFRSTSIZE=0, RSCACKC=1, FCOE_WRFIX=1)  # 8.2.3.8.8 asks for the latter
        regs.update(reg.FCTRL, BAM=1, UPE=1, MPE=1)  # promiscuous, until `set_promiscuous` says otherwise
        for queue in range(len(self.rx_rings)):
            # Frames are dropped when a queue has no descriptor; else one full queue would block all the others.
            regs.update(reg.SRRCTL[queue], DESCTYPE=reg.DESCTYPE_ADVANCED, BSIZEPACKET=2, DROP_EN=1)
            self._set_ring(queue, queue, self._rx)
        self._init_rss()
        self._init_metadata()
        if "coalescing" in self._offloads:
            self._init_coalescing()
        # The last sentences of 4.6.7: no snoop off, and a reserved bit that must be cleared.
        regs.update(reg.CTRL_EXT, NS_DIS=1)
        for queue in range(len(self.rx_rings)):
            regs.update(reg.DCA_RXCTRL[queue], MUST_BE_ZERO=0)

    def _set_rx_buffer(self, size: int) -> None:
        """The size of the only receive buffer, in KiB, and where it is nearly full (4.6.3.2)."""
        self._registers.write(reg.RXPBSIZE[0], SIZE=size)
        self._registers.write(reg.FCRTH[0], RTH=(size - FLOW_CONTROL_ROOM) * 1024 >> 5)

    def _clear_tables(self) -> None:
        """4.6.7: they have no defined contents after power-on, and no reset clears them (4.2.1)."""
        for table in (reg.MTA, reg.VFTA, reg.PFUTA, reg.PFVLVF, reg.PFVLVFB, reg.FTQF):
            for register in table:
                self._registers.write(register)
        for index, register in enumerate(reg.MPSAR):  # all addresses are those of pool 0, two registers each
            self._registers.write(register, POOLS=1 - index % 2)

    def _init_rss(self) -> None:
        """4.6.10.1.1: key and table come before they are switched on."""
        if self.rss is None:
            return
        for register, word in zip(reg.RSSRK, struct.unpack("<10I", self.rss.key), strict=True):
            self._registers.write(register, KEY=word)
        self._write_table(self.rss.table)
        self._registers.write(reg.MRQC, MRQE=reg.MRQE_RSS, FIELDS=reg.RSS_FIELDS)

    def _write_table(self, table: Sequence[int]) -> None:
        """8.2.3.7.14: four entries a register, those that only an X550 has in a second place."""
        words = struct.unpack(f"<{len(table) // 4}I", bytes(table))
        for register, word in zip((*reg.RETA, *reg.ERETA), words, strict=False):
            self._registers.write(register, ENTRIES=word)

    def _init_metadata(self) -> None:
        """What the card is to find out about packets, as far as it is asked for."""
        regs = self._registers
        if "flags" in self._metadata or self.rss is not None:
            regs.update(reg.RXCSUM, PCSD=1)  # 7.1.2.8: kind and hash instead of the checksum of fragments
        if "vlan" in self._metadata:
            for queue in range(len(self.rx_rings)):
                regs.update(reg.RXDCTL[queue], VME=1)  # 7.4.3

    def _init_coalescing(self) -> None:
        """4.6.7.2: of all queues, and without pure acknowledgements. A packet grows until its queue's interrupt is due,
        so each queue has one, which nobody need wait for (7.11.5.1)."""
        regs = self._registers
        regs.update(reg.RFCTL, RSC_DIS=0, NFSW_DIS=1, NFSR_DIS=1)
        regs.update(reg.RSCDBU, RSCACKDIS=1)
        regs.update(reg.PSRTYPE[0], TCPHDR=1)
        for queue in range(len(self.rx_rings)):
            # 16 buffers of 2 KiB are less than the 64 KiB that a packet may have (8.2.3.8.13).
            regs.update(reg.RSCCTL[queue], RSCEN=1, MAXDESC=reg.MAXDESC_16)
            vector = queue % reg.VECTORS
            self._assign(queue, vector)
            regs.write(self._vector(vector).interval, INTERVAL=units(COALESCING_TIME), CNT_WDIS=1)

    def _assign(self, queue: int, vector: int) -> None:
        """Let a receive queue have an interrupt vector (8.2.3.5.16)."""
        entry = {f"RX_{'ODD' if queue % 2 else 'EVEN'}": reg.IVAR_VALID | vector}
        self._registers.update(reg.IVAR[queue // 2], **entry)

    def _init_transmit(self) -> None:
        """4.6.8: frame check sequences and padding by the card, one packet buffer for all."""
        regs = self._registers
        regs.update(reg.HLREG0, TXCRCEN=1, TXPADEN=1)
        regs.update(reg.RTTDCS, ARBDIS=1)  # 4.6.11.3: the arbiter rests while the packet buffers are set
        for number, (size, threshold) in enumerate(zip(reg.TXPBSIZE, reg.TXPBTHRESH, strict=True)):
            regs.write(size, SIZE=TX_BUFFER if number == 0 else 0)
            # Above it, no more is fetched: what is fetched already must still fit.
            regs.write(threshold, THRESH=TX_BUFFER - MAX_FRAME if number == 0 else 0)
        regs.write(reg.DTXMXSZRQ, MAX_BYTES_NUM_REQ=0xFFF)
        regs.update(reg.RTTDCS, ARBDIS=0)
        for queue in range(len(self.tx_rings)):
            self._set_ring(len(self.rx_rings) + queue, queue, self._tx)
            # 7.2.3.4: fetch descriptors ahead, which line rate with small frames needs. WTHRESH is 0 because status is
            # reported once for a group of descriptors (7.2.3.5.1).
            regs.update(reg.TXDCTL[queue], PTHRESH=36, HTHRESH=8, WTHRESH=0)
        regs.update(reg.DMATXCTL, TE=1)

    def _open_receive_path(self) -> None:
        with self._halted():
            self._registers.update(reg.RXCTRL, RXEN=1)

    @contextmanager
    def _halted(self) -> Generator[None]:
        """4.6.7: RXEN may change only while the path through the security block is halted."""
        self._registers.update(reg.SECRXCTRL, RX_DIS=1)
        try:
            self._registers.wait(reg.SECRXSTAT, 1.0, SECRX_RDY=1)
            yield
        finally:
            self._registers.update(reg.SECRXCTRL, RX_DIS=0)

    @contextmanager
    def _making_room(self) -> Generator[None]:
        """Nothing is received, and the receive buffer leaves room for the flow director's table (7.1.2.7.5)."""
        try:
            with self._halted():
                self._registers.update(reg.RXCTRL, RXEN=0)
                self._set_rx_buffer(self._card.rx_buffer - TABLE_KIB)
                yield
                self._registers.update(reg.RXCTRL, RXEN=1)
        except BaseException:  # also one that came while the path was opened
            self._open_receive_path()
            raise

    # -----------------------------------------------------------------------------------------------------------------
    # Interrupts

    def _init_interrupts(self, regs: RegisterFile) -> None:
        """4.6.6, of MSI-X: vector n is that of receive queue n, and nothing else causes an interrupt."""
        for queue in range(min(len(self.rx_rings), reg.VECTORS)):
            self._assign(queue, queue)
        # 7.3.1: a message clears its cause, and masks its vector until it is armed again. That a cause is kept while
        # the vector is masked loses none.
        regs.write(reg.EIAC, AUTO_CLEAR=0xFFFF)
        for register in reg.EIAM_EX:
            regs.write(register, AUTO_MASK=0xFFFFFFFF)
        regs.write(reg.GPIE, MULTIPLE_MSIX=1, OCD=1, EIAME=1, PBA_SUPPORT=1)

    def _vector(self, queue: int) -> Vector:
        half = queue // 32
        interval = reg.EITR[queue] if queue < reg.EITR.count else reg.EITR_HIGH[queue - reg.EITR.count]
        return Vector(reg.EIMS_EX[half], reg.EIMC_EX[half], interval, 1 << queue % 32)

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
        """Let packets for `mac` in (8.2.3.7.8, 8.2.3.7.9)."""
        self._registers.write(reg.RAL[index], ADDRESS=int.from_bytes(mac[:4], "little"))
        self._registers.write(reg.RAH[index], ADDRESS=int.from_bytes(mac[4:], "little"), AV=1)

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """The receive address registers after the station's own compare whole addresses, of groups too (7.1.1.1)."""
        with self._control() as regs:
            for index, mac in enumerate(addresses, 1):
                self._set_address(index, mac)
            for index in range(len(addresses) + 1, self._addresses_used):
                regs.write(reg.RAH[index], AV=0)
            self._addresses_used = len(addresses) + 1

    def set_promiscuous(self, enabled: bool) -> None:
        """Accept all unicast and multicast packets, of all VLANs (8.2.3.7.1)."""
        with self._control() as regs:
            self._promiscuous = enabled
            regs.update(reg.FCTRL, UPE=int(enabled), MPE=int(enabled))
            self._switch_vlan_filter()

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """Receive packets of VLAN `vlan`, or no longer: a bit in a table of 4096 (8.2.3.7.11)."""
        with self._control() as regs:
            self._filters_vlans = True
            register, bit = reg.VFTA[vlan // 32], 1 << vlan % 32
            others = regs.read(register) & ~bit
            regs.write(register, others | bit if enabled else others)
            self._switch_vlan_filter()

    def _switch_vlan_filter(self) -> None:
        """The filter of VLANs takes no notice of promiscuous mode (7.1.1.2), so it is off there."""
        self._registers.update(reg.VLNCTRL, VFE=int(self._filters_vlans and not self._promiscuous))

    def redirect(self, rss: Rss) -> None:
        """Change the redirection table; packets that arrive meanwhile go by its old entries or by the new ones.

        Raises:
            ConfigurationError: it names a queue that an entry has no room for.
        """
        for queue in rss.table:
            integer(f"{self.address}: receive queue", queue, 0, self._card.rss_queues - 1)
        with self._control():
            self._write_table(rss.table)
            self.rss = rss

    @property
    def rules(self) -> list[Rule]:
        """Those in the card's tables, in the order in which they were added."""
        return self._tables.rules

    def add_rule(self, rule: Rule) -> Rule:
        """Put a rule into one of the card's tables.

        Raises:
            ConfigurationError: none can hold it, or the one that can is full, or there is one for the same packets.
        """
        with self._control():
            return self._tables.add(rule)

    def remove_rule(self, rule: Rule) -> None:
        """Take a rule out of its table.

        Raises:
            ConfigurationError: it is none of `rules`.
        """
        with self._control():
            self._tables.remove(rule)

    def link(self) -> Link:
        """The link's state: the MAC's, and the PHY's where there is one."""
        with self._control() as regs:
            link = inside.link(regs)
            return self._phy.link() if link.up and self._phy else link

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
            vectors = self._function.interrupt_vectors(Irq.MSIX)
            return Facts(
                model=self._card.name,
                slot=self._function.slot(),
                mtu=inside.mtu(regs),
                max_rx_queues=reg.QUEUES,
                max_tx_queues=reg.QUEUES,
                features=[*inside.abilities(self._card), f"{vectors} interrupts by MSI-X"],
                rx_offloads=inside.rx_offloads(regs),
                tx_offloads=inside.tx_offloads(self.tx_rings[0].offloads, self.tx_rings[0].parts),
                firmware=self._firmware,
            )

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def _stop(self) -> None:
        """Queues off (4.6.7.1.2), no more requests to the bus, reset.

        Bus mastering goes last: requests that are pending need it to be done, which 5.2.5.3.2 has the driver wait for.
        """
        self._registers.update(reg.RXCTRL, RXEN=0)
        self._disable_queues()
        self._reset()
