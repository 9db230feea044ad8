"""Lab 5: the receive ring. The page is lab5.md."""

import struct

from lab3 import open_card, wait_for
from lab4 import DESCRIPTOR, Pool, halves, new_ring

from ixy.course import Bar, Bus

# Registers of receive queue 0; those of queue n lie n * 0x40 further on
RDBAL = 0x01000  # 8.2.3.8.1
RDBAH = 0x01004  # 8.2.3.8.2
RDLEN = 0x01008  # 8.2.3.8.3
RDH = 0x01010  # 8.2.3.8.4
RDT = 0x01018  # 8.2.3.8.5
SRRCTL = 0x01014  # 8.2.3.8.7
SRRCTL_BSIZEPACKET = 2  # of KiB
SRRCTL_DESCTYPE_ADVANCED = 1 << 25  # one buffer
SRRCTL_DROP_EN = 1 << 28
RXDCTL = 0x01028  # 8.2.3.8.6
RXDCTL_ENABLE = 1 << 25
DCA_RXCTRL = 0x0100C  # 8.2.3.11.1
DCA_RXCTRL_MUST_BE_ZERO = 1 << 12

# Registers of the whole receive path
CTRL_EXT = 0x00018  # 8.2.3.1.3
CTRL_EXT_NS_DIS = 1 << 16
RDRXCTL = 0x02F00  # 8.2.3.8.8
RDRXCTL_CRC_STRIP = 1 << 1
RDRXCTL_RSCFRSTSIZE = 0x1F << 17
RDRXCTL_RSCACKC = 1 << 25
RDRXCTL_FCOE_WRFIX = 1 << 26
RXCTRL = 0x03000  # 8.2.3.8.10
RXCTRL_RXEN = 1 << 0
FCRTH = 0x03260  # 8.2.3.3.4
RXPBSIZE = 0x03C00  # 8.2.3.8.9
RX_BUFFER = 512 << 10  # bytes in the card
HLREG0 = 0x04240  # 8.2.3.22.8
HLREG0_RXCRCSTRP = 1 << 1
FCTRL = 0x05080  # 8.2.3.7.1
FCTRL_MPE = 1 << 8
FCTRL_UPE = 1 << 9
FCTRL_BAM = 1 << 10
MTA = 0x05200  # 8.2.3.7.7: 128 registers
SECRXCTRL = 0x08D00  # 8.2.3.12.5
SECRXCTRL_RX_DIS = 1 << 1
SECRXSTAT = 0x08D04  # 8.2.3.12.6
SECRXSTAT_RDY = 1 << 0

# 7.1.6.2: the second word of a descriptor that the card has written back
DD = 1 << 0
EOP = 1 << 1
LENGTH_SHIFT = 32  # 16 bits

YOURS = ("arm", "start", "receive")


class RxRing:
    """A receive ring.

    Attributes:
        size: how many descriptors it has.
        buffers: which buffer of the pool lies in each.
        next: the descriptor that the card writes back next.
    """

    def __init__(self, bus: Bus, bar: Bar, pool: Pool, size: int, queue: int = 0) -> None:
        self.bar = bar
        self.pool = pool
        self.size = size
        self.registers = 0x40 * queue  # so far behind those of queue 0
        self.memory = new_ring(bus, size)
        self.buffers: list[int] = []
        self.next = 0


def arm(ring: RxRing, slot: int, buffer: int) -> None:
    """Write descriptor `slot`, so that the card receives into `buffer`, and note the buffer."""
    ring.memory.write(slot * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer), 0))
    ring.buffers[slot] = buffer


def start(ring: RxRing) -> None:
    """Tell the card of the ring, put a buffer into each descriptor, enable the queue, and hand the descriptors over."""
    bar, at = ring.bar, ring.registers
    low, high = halves(ring.memory.address)
    bar.write32(RDBAL + at, low)
    bar.write32(RDBAH + at, high)
    bar.write32(RDLEN + at, ring.size * DESCRIPTOR)
    bar.write32(RDH + at, 0)
    bar.write32(RDT + at, 0)
    bar.write32(SRRCTL + at, SRRCTL_DESCTYPE_ADVANCED | SRRCTL_DROP_EN | SRRCTL_BSIZEPACKET)
    ring.buffers = [0] * ring.size
    for slot in range(ring.size):
        buffer = ring.pool.take()
        assert buffer is not None, "the pool has fewer buffers than the ring has descriptors"
        arm(ring, slot, buffer)
    bar.write32(RXDCTL + at, bar.read32(RXDCTL + at) | RXDCTL_ENABLE)
    wait_for(bar, RXDCTL + at, RXDCTL_ENABLE, RXDCTL_ENABLE)
    bar.write32(RDT + at, ring.size - 1)


def receive(ring: RxRing) -> bytes | None:
    """The next packet, or None if there is none. Its descriptor goes back to the card."""
    slot = ring.next
    _, status = struct.unpack("<QQ", ring.memory.read(slot * DESCRIPTOR, DESCRIPTOR))
    if not status & DD:
        return None
    buffer = ring.buffers[slot]
    packet = ring.pool.memory.read(buffer, status >> LENGTH_SHIFT & 0xFFFF)
    arm(ring, slot, buffer)
    ring.next = (slot + 1) % ring.size
    ring.bar.write32(RDT + ring.registers, slot)
    return packet


def prepare_receive(bar: Bar) -> None:
    """4.6.7: one packet buffer for all, all packets in, frame check sequences off, nothing that snoops no caches."""
    bar.write32(RXPBSIZE, RX_BUFFER)
    for number in range(1, 8):
        bar.write32(RXPBSIZE + 4 * number, 0)
    bar.write32(FCRTH, RX_BUFFER - (24 << 10))
    for number in range(128):
        bar.write32(MTA + 4 * number, 0)
    bar.write32(HLREG0, bar.read32(HLREG0) | HLREG0_RXCRCSTRP)
    kept = bar.read32(RDRXCTL) & ~RDRXCTL_RSCFRSTSIZE
    bar.write32(RDRXCTL, kept | RDRXCTL_CRC_STRIP | RDRXCTL_RSCACKC | RDRXCTL_FCOE_WRFIX)
    bar.write32(FCTRL, FCTRL_BAM | FCTRL_UPE | FCTRL_MPE)
    bar.write32(CTRL_EXT, bar.read32(CTRL_EXT) | CTRL_EXT_NS_DIS)


def allow_snooping(ring: RxRing) -> None:
    """The last sentence of 4.6.7: a bit of each queue that must be cleared."""
    offset = DCA_RXCTRL + ring.registers
    ring.bar.write32(offset, ring.bar.read32(offset) & ~DCA_RXCTRL_MUST_BE_ZERO)


def open_receive_path(bar: Bar) -> None:
    """4.6.7: RXEN may change only while the path through the security block is halted."""
    bar.write32(SECRXCTRL, bar.read32(SECRXCTRL) | SECRXCTRL_RX_DIS)
    wait_for(bar, SECRXSTAT, SECRXSTAT_RDY, SECRXSTAT_RDY)
    bar.write32(RXCTRL, bar.read32(RXCTRL) | RXCTRL_RXEN)
    bar.write32(SECRXCTRL, bar.read32(SECRXCTRL) & ~SECRXCTRL_RX_DIS)


def open_receiver(bus: Bus, where: str, pool: Pool, size: int) -> RxRing:
    """A card that receives."""
    bar = open_card(bus, where)
    prepare_receive(bar)
    ring = RxRing(bus, bar, pool, size)
    start(ring)
    allow_snooping(ring)
    open_receive_path(bar)
    return ring
