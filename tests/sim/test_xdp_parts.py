"""Frames in several parts through the rings of an AF_XDP socket, whose other side this test plays, also with lies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from xdp_kernel import SIZE, Kernel, number, receiving, sending

from ixy.drivers.xdp.datapath import tx_room
from ixy.drivers.xdp.parts import MOST, rx_batch, tx_batch
from ixy.drivers.xdp.rings import XdpPartsRxRing, XdpPartsTxRing
from ixy.packets.buffers import POOL_BUFFERS, STRIDE
from ixy.packets.mempool import Mempool
from ixy.packets.packets import NO_NEXT, Packets, new_packets
from ixy.packets.parts import all_buffers, link
from ixy.packets.pool import available, give, pools, release, take, wait_for

GOES_ON = 1 << 32  # XDP_PKT_CONTD
PARTS = 5
BUFFERS = 16 * SIZE


@pytest.fixture
def pool() -> Iterator[Mempool]:
    with Mempool(BUFFERS) as pool:
        yield pool


# ---------------------------------------------------------------------------------------------------------------------
# Receive


@contextmanager
def taking(kernel: Kernel, pool: Mempool) -> Iterator[XdpPartsRxRing]:
    made = XdpPartsRxRing(kernel.rings, -1, SIZE, pool, ("parts",), PARTS)
    with receiving(kernel, pool, made):
        yield made


def received(ring: XdpPartsRxRing, limit: int = 32) -> list[list[tuple[int, int]]]:
    """Number within the pool, and length, of each part of packets, until there are none; their buffers go back."""
    found: list[list[tuple[int, int]]] = []
    packets = new_packets(limit, ("parts",))
    while count := rx_batch(ring.state, pools(), packets, limit):
        for i in range(count):
            buffers = all_buffers(pools(), packets, i, i + 1).tolist()
            sizes = [int(packets.lengths[i]), *pools().sizes[buffers[1:]].tolist()]
            found.append([(buffer & (POOL_BUFFERS - 1), size) for buffer, size in zip(buffers, sizes, strict=True)])
        give(pools(), packets, 0, count)
    return found


def deliver(kernel: Kernel, addresses: list[int], lengths: list[int]) -> None:
    """A frame whose parts have these lengths."""
    for i, (address, length) in enumerate(zip(addresses, lengths, strict=True), 1):
        kernel.deliver(address, length | (GOES_ON if i < len(lengths) else 0))


@pytest.mark.parametrize("order", ["as given", "backwards"])
@pytest.mark.parametrize("limit", [1, 32])
def test_chains_are_what_the_kernel_has_put_there(pool: Mempool, order: str, limit: int) -> None:
    """Many times round the ring, frames of one part to more than there may be, and some that make no sense: each good
    one is a chain of its buffers, each other one is dropped once, and its buffers are the kernel's again."""
    chance = random.Random(5)
    kernel, dropped = Kernel(), 0
    with taking(kernel, pool) as ring:
        for _ in range(200):
            expected: list[list[tuple[int, int]]] = []
            left = SIZE // 2
            while left >= PARTS + 3:
                lengths = [2048] * chance.randrange(PARTS + 3) + [chance.randint(1, 2048)]
                if chance.random() < 0.1:
                    lengths[chance.randrange(len(lengths))] = chance.choice([0, 2049, 0xFFFF_FFFF])
                left -= len(lengths)
                addresses = kernel.buffers(len(lengths))
                if order == "backwards":
                    addresses.reverse()
                deliver(kernel, addresses, lengths)
                if len(lengths) <= PARTS and all(0 < length <= 2048 for length in lengths):
                    expected.append([(number(address), size) for address, size in zip(addresses, lengths, strict=True)])
                else:
                    dropped += 1
            assert received(ring, limit) == expected
            assert ring.dropped == dropped
        assert dropped > 100


def test_a_frame_is_taken_once_all_of_it_is_there(pool: Mempool) -> None:
    """Whatever comes before it is taken meanwhile."""
    kernel = Kernel()
    with taking(kernel, pool) as ring:
        addresses = kernel.buffers(4)
        lengths = [60, 2048 | GOES_ON, 2048 | GOES_ON, 7]
        found: list[list[list[tuple[int, int]]]] = []
        for address, length in zip(addresses, lengths, strict=True):
            kernel.deliver(address, length)
            found.append(received(ring))
        first, *rest = map(number, addresses)
        assert found == [[[(first, 60)]], [], [], [list(zip(rest, [2048, 2048, 7], strict=True))]]
        assert (ring.packets, ring.bytes) == (2, 60 + 4103 + 2 * 4)


def test_a_frame_without_an_end(pool: Mempool) -> None:
    """Three times as many parts as the ring has: all buffers go back as they come, and it counts once, when it ends."""
    kernel = Kernel()
    with taking(kernel, pool) as ring:
        for _ in range(3 * SIZE):
            kernel.deliver(*kernel.buffers(1), 2048 | GOES_ON)
            assert received(ring) == []
        assert ring.dropped == 0
        kernel.deliver(*kernel.buffers(1), 60)
        (last,) = kernel.buffers(1)
        kernel.deliver(last, 61)
        assert received(ring) == [[(number(last), 61)]]
        assert (ring.packets, ring.dropped) == (1, 1)


def test_a_part_in_a_buffer_that_the_kernel_has_not(pool: Mempool) -> None:
    """Or in one that it has named before, in the same frame: that one is dropped, and the others come."""
    kernel = Kernel()
    with taking(kernel, pool) as ring:
        first, second, third, fourth = kernel.buffers(4)
        deliver(kernel, [first, (POOL_BUFFERS - 1) * STRIDE - 256, second], [2048, 2048, 60])
        deliver(kernel, [third, third], [2048, 61])
        deliver(kernel, [fourth], [62])
        assert received(ring) == [[(number(fourth), 62)]]
        assert (ring.packets, ring.dropped) == (1, 2)
        assert {first, second, third} <= set(kernel.buffers(SIZE))


def test_buffers_run_out_in_the_middle_of_a_frame(pool: Mempool) -> None:
    """It stays on the ring, whole, until there are as many as it has parts."""
    kernel, held = Kernel(), new_packets(BUFFERS)
    with taking(kernel, pool) as ring:
        count = take(pools(), pool.number, held, BUFFERS)
        give(pools(), held, 0, 3)
        addresses = kernel.buffers(5)
        deliver(kernel, addresses[:1], [60])
        deliver(kernel, addresses[1:], [2048, 2048, 2048, 1])
        packets = new_packets(2, ("parts",))
        assert rx_batch(ring.state, pools(), packets, 2) == 1
        assert rx_batch(ring.state, pools(), packets, 2) == 0
        assert (ring.starved, ring.packets) == (1, 1)
        assert available(pools(), pool.number) == 2
        give(pools(), held, 3, 5)
        assert received(ring) == [list(zip(map(number, addresses[1:]), [2048, 2048, 2048, 1], strict=True))]
        give(pools(), packets, 0, 1)
        give(pools(), held, 5, count)


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


@contextmanager
def giving(kernel: Kernel, pool: Mempool) -> Iterator[XdpPartsTxRing]:
    made = XdpPartsTxRing(kernel.rings, -1, SIZE, pool)
    with sending(kernel, pool, made=made):
        made.allow(9014)
        yield made


def packet_of(packets: Packets, i: int, source: Mempool, sizes: list[int], byte: int) -> None:
    """Let packet `i` be a chain of such sizes, each part of it the next byte."""
    taken = new_packets(len(sizes))._replace(holder=packets.holder)
    assert take(pools(), source.number, taken, len(sizes)) == len(sizes)
    buffers = taken.ids.tolist()
    for part, buffer in enumerate(buffers):
        pools().bytes[buffer, :2048] = byte + part & 0xFF
    assert packets.nexts is not None
    packets.ids[i], packets.lengths[i] = buffers[0], sizes[0]
    packets.nexts[i], *followings = [*buffers[1:], NO_NEXT]
    for buffer, size, following in zip(buffers[1:], sizes[1:], followings, strict=True):
        link(pools(), buffer, size, following)


@pytest.mark.parametrize("order", ["as sent", "backwards"])
@pytest.mark.parametrize("foreign", [False, True])
def test_chains_are_sent_part_by_part(pool: Mempool, order: str, foreign: bool) -> None:
    """Many times round the ring, as many as there is room for: what is sent are their bytes, part by part, of which all
    but the last go on. Buffers of another pool are free at once, those of the own one when they were sent."""
    chance = random.Random(6)
    kernel, packets, sent = Kernel(), new_packets(16, ("parts",)), 0
    with Mempool(BUFFERS) as other, giving(kernel, pool) as ring:
        source = other if foreign else pool
        assert wait_for(pools().words, other.number)
        free = available(pools(), pool.number)
        for turn in range(100):
            chains = [[chance.randint(20, 1800) for _ in range(chance.randint(1, PARTS))] for _ in range(16)]
            for i, sizes in enumerate(chains):
                packet_of(packets, i, source, sizes, turn + i)
            done = 0
            while done < len(chains):
                taken = tx_batch(ring.state, pools(), packets, done, len(chains))
                places = kernel.to_send()
                expected = [
                    (size | (GOES_ON if part < len(sizes) - 1 else 0), turn + i + part & 0xFF)
                    for i, sizes in enumerate(chains[done : done + taken], done)
                    for part, size in enumerate(sizes)
                ]
                assert [(length, pool.memory.bytes[address]) for address, length in places] == expected
                done += taken
                for address, _ in places if order == "as sent" else places[::-1]:
                    kernel.complete(address)
                assert tx_room(ring.state, pools(), SIZE) == SIZE
                assert taken > 0
            sent += len(chains)
            assert (ring.packets, ring.refused) == (sent, 0)
            assert available(pools(), other.number) == BUFFERS
            assert available(pools(), pool.number) == free
        release(pools().words, other.number)


def test_what_does_not_fit_the_ring_waits_whole(pool: Mempool) -> None:
    """Of five parts, one packet after the other, until there are fewer places than that."""
    kernel, packets = Kernel(), new_packets(16, ("parts",))
    with giving(kernel, pool) as ring:
        for i in range(16):
            packet_of(packets, i, pool, [1000] * 5, i)
        taken = tx_batch(ring.state, pools(), packets, 0, 16)
        assert (taken, ring.in_flight) == (12, 60)
        assert len(kernel.to_send()) == 60
        give(pools(), packets, 12, 16)


def test_only_whole_packets_count_as_sent(pool: Mempool) -> None:
    """The kernel has taken one of three parts, and one more packet's first, and so on."""
    kernel, packets = Kernel(), new_packets(3, ("parts",))
    with giving(kernel, pool) as ring:
        for i, parts in enumerate((3, 1, 2)):
            packet_of(packets, i, pool, [100] * parts, i)
        assert tx_batch(ring.state, pools(), packets, 0, 3) == 3
        found = []
        for taken in range(7):
            kernel.rings.tx.consumer[0] = taken
            found.append(ring.sent())
        assert found == [0, 0, 0, 1, 2, 2, 3]


def test_what_the_kernel_would_not_send_in_parts(pool: Mempool) -> None:
    """Too long in all, too short, of too many parts, of an empty one, of one beyond a buffer: each goes back whole, and
    what is between is sent."""
    good = [[2048, 2048, 2048, 2048, 822], [1] * 14, [100] * MOST, [9, 5]]
    bad = [[2048, 2048, 2048, 2048, 823], [1] * 13, [100] * (MOST + 1), [100, 0, 5], [2049, 60], [60, 4096], [0, 60]]
    kernel = Kernel()
    with giving(kernel, pool) as ring:
        free = available(pools(), pool.number)
        for turn, wrong in enumerate(bad, 1):
            packets = new_packets(3, ("parts",))
            right = good[turn % len(good)], good[(turn + 1) % len(good)]
            for i, sizes in enumerate((right[0], wrong, right[1])):
                packet_of(packets, i, pool, sizes, i)
            assert tx_batch(ring.state, pools(), packets, 0, 3) == 3
            places = kernel.to_send()
            assert [length & 0xFFFF_FFFF for _, length in places] == [*right[0], *right[1]]
            assert available(pools(), pool.number) == free - len(places)
            for address, _ in places:
                kernel.complete(address)
            assert tx_room(ring.state, pools(), SIZE) == SIZE
            assert (ring.packets, ring.refused) == (2 * turn, turn)
        assert available(pools(), pool.number) == free
        assert ring.bytes == sum(
            sum(good[(turn + k) % len(good)]) + 4 for turn in range(1, len(bad) + 1) for k in range(2)
        )
