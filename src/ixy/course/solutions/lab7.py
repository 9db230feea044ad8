"""Lab 7: batches, and cleaning. The page is lab7.md."""

import struct

from lab3 import open_card
from lab4 import DESCRIPTOR, Pool
from lab5 import DD as RX_DD
from lab5 import LENGTH_SHIFT, RDT, RxRing, allow_snooping, arm, open_receive_path, prepare_receive
from lab5 import start as start_receive
from lab6 import DD as TX_DD
from lab6 import DEXT, DTYP_DATA, EOP, IFCS, PAYLEN_SHIFT, RS, TDT, TxRing, prepare_transmit
from lab6 import start as start_transmit

from ixy.course import Bar, Bus

GROUP = 8  # descriptors: the card reports the status of each last one

Packet = tuple[int, int]  # a buffer of the pool, which is its owner's, and the packet's length

YOURS = ("receive_batch", "send_batch", "clean_batch")


class Nic:
    """A card that receives and sends."""

    def __init__(self, bus: Bus, bar: Bar, pool: Pool, size: int) -> None:
        self.bar = bar
        self.rx = RxRing(bus, bar, pool, size)
        self.tx = TxRing(bus, bar, pool, size)


def receive_batch(ring: RxRing, limit: int) -> list[Packet]:
    """Up to `limit` packets, without copying them: each descriptor gets another buffer. As many as there are buffers
    for; the tail is written once."""
    packets: list[Packet] = []
    while len(packets) < limit:
        slot = ring.next
        _, status = struct.unpack("<QQ", ring.memory.read(slot * DESCRIPTOR, DESCRIPTOR))
        if not status & RX_DD:
            break
        fresh = ring.pool.take()
        if fresh is None:
            break
        packets.append((ring.buffers[slot], status >> LENGTH_SHIFT & 0xFFFF))
        arm(ring, slot, fresh)
        ring.next = (slot + 1) % ring.size
    if packets:
        ring.bar.write32(RDT + ring.registers, (ring.next - 1) % ring.size)
    return packets


def send_batch(ring: TxRing, packets: list[Packet]) -> int:
    """Hand packets to the card, the first if there is no room for all; how many. Their buffers are the ring's then.

    Each last descriptor of a group asks for a report; the tail is written once.
    """
    clean_batch(ring)
    sent = 0
    for buffer, length in packets:
        slot = ring.next
        if (slot + 1) % ring.size == ring.clean:
            break
        command = length << PAYLEN_SHIFT | DEXT | IFCS | EOP | DTYP_DATA | length
        if slot % GROUP == GROUP - 1:
            command |= RS
        ring.memory.write(slot * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer), command))
        ring.buffers[slot] = buffer
        ring.next = (slot + 1) % ring.size
        sent += 1
    if sent:
        ring.bar.write32(TDT, ring.next)
    return sent


def clean_batch(ring: TxRing) -> None:
    """Give the buffers of whole groups back that the card has sent: it reports the last descriptor of each."""
    while (ring.next - ring.clean) % ring.size >= GROUP:
        last = ring.clean + GROUP - 1
        _, status = struct.unpack("<QQ", ring.memory.read(last * DESCRIPTOR, DESCRIPTOR))
        if not status & TX_DD:
            break
        for slot in range(ring.clean, ring.clean + GROUP):
            ring.pool.give(ring.buffers[slot])
        ring.clean = (ring.clean + GROUP) % ring.size


def open_nic(bus: Bus, where: str, pool: Pool, size: int) -> Nic:
    """A card that receives and sends. `size` is a multiple of GROUP."""
    bar = open_card(bus, where)
    prepare_receive(bar)
    prepare_transmit(bar)
    nic = Nic(bus, bar, pool, size)
    start_receive(nic.rx)
    allow_snooping(nic.rx)
    open_receive_path(bar)
    start_transmit(nic.tx)
    return nic
