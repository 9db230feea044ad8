"""The rings of an AF_XDP socket against a kernel that this test plays: in order, in any order, and with lies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from xdp_kernel import SIZE, Kernel, number, receiving, sending

from ixy.drivers.xdp.datapath import HEADROOM, rx_batch, tx_batch, tx_room
from ixy.drivers.xdp.rings import XdpRxRing
from ixy.packets.buffers import POOL_BUFFERS, STRIDE
from ixy.packets.mempool import Mempool
from ixy.packets.packets import new_packets
from ixy.packets.pool import available, give, pools, release, take, wait_for


@pytest.fixture
def pool() -> Iterator[Mempool]:
    with Mempool(4 * SIZE) as pool:
        yield pool


def received(ring: XdpRxRing, limit: int = 32) -> list[tuple[int, int]]:
    """Number within the pool, and length, of packets, until there are none; their buffers go back."""
    found: list[tuple[int, int]] = []
    packets = new_packets(limit)
    while count := rx_batch(ring.state, pools(), packets, limit):
        numbers = packets.ids[:count] & (POOL_BUFFERS - 1)
        found += zip(numbers.tolist(), packets.lengths[:count].tolist(), strict=True)
        give(pools(), packets, 0, count)
    return found


@pytest.mark.parametrize("order", ["as given", "backwards", "odd ones last"])
@pytest.mark.parametrize("limit", [1, 5, 32])
def test_packets_come_in_the_buffers_that_the_kernel_names(pool: Mempool, order: str, limit: int) -> None:
    """Many times round the rings, 24 frames at a time, in the order of the fill ring or in another one: each is taken
    from the buffer that it is in, and that may be given to the kernel anew.
    """
    kernel = Kernel()
    with receiving(kernel, pool) as ring:
        for turn in range(20):
            addresses = kernel.buffers(24)
            if order == "backwards":
                addresses.reverse()
            if order == "odd ones last":
                addresses = addresses[::2] + addresses[1::2]
            frames = [(address, 60 + turn + i) for i, address in enumerate(addresses)]
            for address, length in frames:
                kernel.deliver(address, length)
            assert received(ring, limit) == [(number(address), length) for address, length in frames]
        assert (ring.packets, ring.dropped) == (480, 0)
        assert ring.bytes == sum(64 + turn + i for turn in range(20) for i in range(24))


@pytest.mark.parametrize("looks", [1, 2, 3, 7])
def test_a_frame_in_parts_is_one_that_is_refused(pool: Mempool, looks: int) -> None:
    """Whole frames, and between them one of three parts and one of two, of which the last is as long as a frame may be:
    whenever the driver looks, after so many descriptors, the whole ones come, and each of the others is refused once.
    """
    goes_on = 1 << 32  # XDP_PKT_CONTD
    lengths = [60, 2048 | goes_on, 2048 | goes_on, 904, 2048, 2048 | goes_on, 60, 61]
    kernel = Kernel()
    with receiving(kernel, pool) as ring:
        found: list[int] = []
        for place, length in enumerate(lengths * 21, 1):  # several times round the ring
            kernel.deliver(*kernel.buffers(1), length)
            if place % looks == 0:
                found += [length for _, length in received(ring)]
        found += [length for _, length in received(ring)]
        assert found == [60, 2048, 61] * 21
        assert (ring.packets, ring.dropped) == (63, 42)


def test_what_the_kernel_cannot_mean_is_dropped(pool: Mempool) -> None:
    """A length of 0 and one beyond a buffer: the buffers are the kernel's again. A buffer that it does not have, and
    one named twice: nothing is handed out for those. What is between comes.
    """
    kernel = Kernel()
    with receiving(kernel, pool) as ring:
        first, empty, long, last, *_ = kernel.buffers(4)
        kernel.deliver(first, 2048)
        kernel.deliver(empty, 0)
        kernel.deliver(long, 2049)
        kernel.deliver((POOL_BUFFERS - 1) * STRIDE - HEADROOM, 60)
        kernel.deliver(first, 61)
        kernel.deliver(last, 62)
        assert received(ring) == [(number(first), 2048), (number(last), 62)]
        assert (ring.packets, ring.dropped) == (2, 4)
        again = kernel.buffers(SIZE)
        assert {empty, long} <= set(again)
        assert len(set(again)) == SIZE
        for i, address in enumerate(again[: SIZE // 2]):
            kernel.deliver(address, 100 + i)
        assert received(ring) == [(number(address), 100 + i) for i, address in enumerate(again[: SIZE // 2])]


def test_without_free_buffers_packets_stay(pool: Mempool) -> None:
    """All others are taken: packets stay on the ring, and come once there is one for each."""
    kernel, held = Kernel(), new_packets(4 * SIZE)
    with receiving(kernel, pool) as ring:
        count = take(pools(), pool.number, held, 4 * SIZE)
        addresses = kernel.buffers(3)
        for address in addresses:
            kernel.deliver(address, 60)
        assert received(ring) == []
        assert ring.starved == 1
        give(pools(), held, 0, 2)
        assert received(ring, 2) == [(number(address), 60) for address in addresses]
        give(pools(), held, 2, count)


@pytest.mark.parametrize("order", ["as sent", "backwards", "odd ones last"])
@pytest.mark.parametrize("foreign", [False, True])
def test_buffers_come_back_once_they_are_sent(pool: Mempool, order: str, foreign: bool) -> None:
    """Many times round the ring, 24 packets at a time, of the own pool, or of another one, whose buffers are free as
    soon as they are copied: there is room for the next ones, and no buffer is anywhere twice.
    """
    kernel, packets = Kernel(), new_packets(24)
    with Mempool(SIZE) as other, sending(kernel, pool) as ring:
        source = other if foreign else pool
        assert wait_for(pools().words, other.number)
        free = available(pools(), pool.number)
        for turn in range(20):
            room = tx_room(ring.state, pools(), 24)
            assert room >= 24
            assert take(pools(), source.number, packets, 24) == 24
            for i in range(24):
                packets.lengths[i] = 60 + i
                pools().bytes[packets.ids[i], :2] = turn, i
            taken = tx_batch(ring.state, pools(), packets, 0, 24)
            assert taken == 24
            assert available(pools(), other.number) == SIZE
            sent = kernel.to_send()
            assert [length for _, length in sent] == list(range(60, 84))
            flat = pool.memory.bytes
            assert [flat[address : address + 2].tolist() for address, _ in sent] == [[turn, i] for i in range(24)]
            addresses = [address for address, _ in sent]
            if order == "backwards":
                addresses.reverse()
            if order == "odd ones last":
                addresses = addresses[::2] + addresses[1::2]
            for address in addresses:
                kernel.complete(address)
        room = tx_room(ring.state, pools(), SIZE)
        assert room == SIZE
        assert available(pools(), pool.number) == free
        assert ring.packets == 480
        release(pools().words, other.number)


def test_what_is_no_frame_for_the_interface_is_not_sent(pool: Mempool) -> None:
    """Of batches, those that are too short or too long go back at once; the others are sent, in their order. A VLAN tag
    does not count, but for what only begins like one.
    """
    lengths = [60, 1515, 1514, 13, 14, 1518, 1519, 1518, 0, 61]
    tagged = [5, 6]
    kernel, packets = Kernel(), new_packets(10)
    with sending(kernel, pool) as ring:
        ring.allow(1514)
        free = available(pools(), pool.number)
        for turn in range(1, 21):
            assert take(pools(), pool.number, packets, 10) == 10
            packets.lengths[:] = lengths
            pools().bytes[packets.ids, 12:14] = (0x81, 0x01)
            pools().bytes[packets.ids[tagged], 12:14] = (0x81, 0x00)
            numbers = packets.ids & (POOL_BUFFERS - 1)
            taken = tx_batch(ring.state, pools(), packets, 0, 10)
            assert taken == 10
            sent = kernel.to_send()
            assert sent == [(int(numbers[i]) * STRIDE, lengths[i]) for i in (0, 2, 4, 5, 9)]
            assert available(pools(), pool.number) == free - 5
            for address, _ in sent:
                kernel.complete(address)
            room = tx_room(ring.state, pools(), SIZE)
            assert (room, available(pools(), pool.number)) == (SIZE, free)
            assert (ring.packets, ring.refused) == (5 * turn, 5 * turn)


def test_what_the_kernel_did_not_send_it_is_told_of_once_more(pool: Mempool) -> None:
    """Whenever somebody asks for room, whatever there is; and not once all is sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    kernel, packets = Kernel(), new_packets(4)

    def told() -> int:
        """How often it was, by sendto(2) of nothing."""
        count = 0
        with suppress(BlockingIOError):
            while theirs.recv(1, socket.MSG_DONTWAIT) == b"":
                count += 1
        return count

    with ours, theirs, sending(kernel, pool, ours.fileno()) as ring:
        kernel.rings.tx.flags[0] = 1  # XDP_RING_NEED_WAKEUP
        packets.lengths[:] = 60
        assert take(pools(), pool.number, packets, 4) == 4
        taken = tx_batch(ring.state, pools(), packets, 0, 4)
        assert (taken, told()) == (4, 1)
        for _ in range(3):
            room = tx_room(ring.state, pools(), 1)
            assert (room, told()) == (SIZE - 4, 1)
        assert len(kernel.to_send()) == 4
        room = tx_room(ring.state, pools(), 1)
        assert (room, told()) == (SIZE - 4, 0)


def test_what_was_not_sent_comes_back_to_nobody(pool: Mempool) -> None:
    """Of four packets, the kernel says that one is sent that it never had, and one twice: those two places stay taken,
    as it may be sending still; in the end all buffers are free.
    """
    kernel, packets = Kernel(), new_packets(4)
    with sending(kernel, pool) as ring:
        packets.lengths[:] = 60
        assert take(pools(), pool.number, packets, 4) == 4
        free = available(pools(), pool.number)
        taken = tx_batch(ring.state, pools(), packets, 0, 4)
        assert taken == 4
        addresses = [address for address, _ in kernel.to_send()]
        for address in (addresses[1], (POOL_BUFFERS - 1) * STRIDE, addresses[1], addresses[2]):
            kernel.complete(address)
        room = tx_room(ring.state, pools(), SIZE)
        assert room == SIZE - 2
        assert available(pools(), pool.number) == free + 2
