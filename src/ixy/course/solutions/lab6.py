"""Lab 6: the transmit ring. The page is lab6.md."""

import struct

from lab3 import open_card, wait_for
from lab4 import DESCRIPTOR, Pool, halves, new_ring

from ixy.course import Bar, Bus

# Registers of transmit queue 0; those of queue n lie n * 0x40 further on
TDBAL = 0x06000  # 8.2.3.9.5
TDBAH = 0x06004  # 8.2.3.9.6
TDLEN = 0x06008  # 8.2.3.9.7
TDH = 0x06010  # 8.2.3.9.8
TDT = 0x06018  # 8.2.3.9.9
TXDCTL = 0x06028  # 8.2.3.9.10
TXDCTL_ENABLE = 1 << 25
TXDCTL_PREFETCH = 36 | 8 << 8  # PTHRESH and HTHRESH, 7.2.3.4

# Registers of the whole transmit path
HLREG0 = 0x04240  # 8.2.3.22.8
HLREG0_TXCRCEN = 1 << 0
HLREG0_TXPADEN = 1 << 10
RTTDCS = 0x04900  # 8.2.3.10.2
RTTDCS_ARBDIS = 1 << 6
TXPBTHRESH = 0x04950  # 8.2.3.9.16
DMATXCTL = 0x04A80  # 8.2.3.9.2
DMATXCTL_TE = 1 << 0
DTXMXSZRQ = 0x08100  # 8.2.3.9.1
TXPBSIZE = 0x0CC00  # 8.2.3.9.13
TX_BUFFER = 160  # KiB in the card

# 7.2.3.2.4: the second word of an advanced data descriptor, whose lowest 16 bits are DTALEN
DTYP_DATA = 3 << 20
EOP = 1 << 24
IFCS = 1 << 25
RS = 1 << 27
DEXT = 1 << 29
DD = 1 << 32
PAYLEN_SHIFT = 46

YOURS = ("start", "send", "clean")


class TxRing:
    """A transmit ring.

    Attributes:
        size: how many descriptors it has.
        buffers: which buffer of the pool lies in each.
        next: the descriptor that is written next.
        clean: the oldest descriptor whose buffer has not come back; as `next`, if there is none.
    """

    def __init__(self, bus: Bus, bar: Bar, pool: Pool, size: int) -> None:
        self.bar = bar
        self.pool = pool
        self.size = size
        self.memory = new_ring(bus, size)
        self.buffers = [0] * size
        self.next = 0
        self.clean = 0


def start(ring: TxRing) -> None:
    """Tell the card of the ring, and enable first the transmit engine, then the queue."""
    bar = ring.bar
    low, high = halves(ring.memory.address)
    bar.write32(TDBAL, low)
    bar.write32(TDBAH, high)
    bar.write32(TDLEN, ring.size * DESCRIPTOR)
    bar.write32(TDH, 0)
    bar.write32(TDT, 0)
    bar.write32(DMATXCTL, bar.read32(DMATXCTL) | DMATXCTL_TE)
    bar.write32(TXDCTL, TXDCTL_PREFETCH | TXDCTL_ENABLE)
    wait_for(bar, TXDCTL, TXDCTL_ENABLE, TXDCTL_ENABLE)


def send(ring: TxRing, packet: bytes) -> bool:
    """Copy a packet into a buffer and hand it to the card; False if the ring is full, or no buffer is free."""
    slot = ring.next
    following = (slot + 1) % ring.size
    if following == ring.clean:
        return False
    buffer = ring.pool.take()
    if buffer is None:
        return False
    ring.pool.memory.write(buffer, packet)
    length = len(packet)
    command = length << PAYLEN_SHIFT | DEXT | RS | IFCS | EOP | DTYP_DATA | length
    ring.memory.write(slot * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer), command))
    ring.buffers[slot] = buffer
    ring.next = following
    ring.bar.write32(TDT, following)
    return True


def clean(ring: TxRing) -> int:
    """Give the buffers back of the packets that the card has sent; how many."""
    cleaned = 0
    while ring.clean != ring.next:
        _, status = struct.unpack("<QQ", ring.memory.read(ring.clean * DESCRIPTOR, DESCRIPTOR))
        if not status & DD:
            break
        ring.pool.give(ring.buffers[ring.clean])
        ring.clean = (ring.clean + 1) % ring.size
        cleaned += 1
    return cleaned


def prepare_transmit(bar: Bar) -> None:
    """4.6.8: check sequences and padding by the card; one packet buffer, set while the arbiter rests."""
    bar.write32(HLREG0, bar.read32(HLREG0) | HLREG0_TXCRCEN | HLREG0_TXPADEN)
    bar.write32(RTTDCS, bar.read32(RTTDCS) | RTTDCS_ARBDIS)
    for number in range(8):
        bar.write32(TXPBSIZE + 4 * number, TX_BUFFER << 10 if number == 0 else 0)
        bar.write32(TXPBTHRESH + 4 * number, TX_BUFFER - 10 if number == 0 else 0)
    bar.write32(DTXMXSZRQ, 0xFFF)
    bar.write32(RTTDCS, bar.read32(RTTDCS) & ~RTTDCS_ARBDIS)


def open_transmitter(bus: Bus, where: str, pool: Pool, size: int) -> TxRing:
    """A card that sends."""
    bar = open_card(bus, where)
    prepare_transmit(bar)
    ring = TxRing(bus, bar, pool, size)
    start(ring)
    return ring
