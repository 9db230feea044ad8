"""Packets in several buffers: through pools, rings, batches and paths, each buffer comes home once."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lab import batch_of, frame, open_card

import ixy
from ixy.errors import ConfigurationError, OwnershipError
from ixy.packets.packets import NO_NEXT
from ixy.packets.pool import pools
from ixy.sim.machine import Machine

BUFFER = 2048
PARTS = ("parts",)
LENGTHS = [1, 60, 2047, 2048, 2049, 4096, 4097, 9000, 33 * BUFFER]


def content(number: int, size: int) -> bytes:
    """Bytes that follow from a number, which stands in the first four."""
    return (number.to_bytes(4, "big") + random.Random(number).randbytes(size))[:size]


def filled(pool: ixy.Mempool, *packets: bytes, metadata: Sequence[str] = PARTS) -> list[ixy.Batch]:
    """A batch of each, as one is of one length."""
    batches: list[ixy.Batch] = []
    for data in packets:
        batch = pool.allocate(1, len(data), metadata=metadata)
        batch[0][:] = data
        batches.append(batch)
    return batches


def send(queue: ixy.TxQueue, pool: ixy.Mempool, *packets: bytes) -> int:
    """Send packets one by one; how many the ring took."""
    sent = 0
    for batch in filled(pool, *packets):
        with batch:
            sent += queue.send(batch)
    return sent


# ---------------------------------------------------------------------------------------------------------------------
# One packet


@pytest.mark.parametrize("length", LENGTHS)
def test_a_packet_is_one_whatever_it_lies_in(length: int) -> None:
    """Its length, bytes and parts; all buffers are free afterwards."""
    parts = -(-length // BUFFER)
    with ixy.Mempool(70) as pool:
        with pool.allocate(2, length, metadata=PARTS) as batch:
            assert (len(batch), batch.lengths.tolist(), pool.available) == (2, [length] * 2, 70 - 2 * parts)
            for packet, number in zip(batch, (1, 2), strict=True):
                packet[:] = content(number, length)
            for packet, number in zip(batch, (1, 2), strict=True):
                assert (len(packet), packet.length, packet.total) == (length, length, length)
                assert bytes(packet) == bytes(batch[number - 1]) == content(number, length)
                assert bytes(list(packet)) == content(number, length)
            size = f"{length} bytes" if parts == 1 else f"{length} bytes in {parts} parts"
            assert repr(packet) == f"<Packet of {size}>"
        assert pool.available == 70


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.integers(BUFFER + 1, 3 * BUFFER),
    st.lists(st.tuples(st.integers(-7000, 7000), st.integers(-7000, 7000), st.integers(0, 255)), max_size=8),
)
def test_indices_and_slices_are_those_of_bytes(length: int, places: list[tuple[int, int, int]]) -> None:
    """Across parts, from either end, read and written."""
    model = bytearray(content(3, length))
    with ixy.Mempool(8) as pool, pool.allocate(1, length, metadata=PARTS) as batch:
        packet = batch[0]
        packet[:] = bytes(model)
        for start, stop, value in places:
            assert packet[start:stop] == model[start:stop]
            size = len(model[start:stop])
            model[max(start, stop) if size == 0 else start : stop] = bytes([value]) * size
            packet[start:stop] = bytes([value]) * size
            if -length <= start < length:
                packet[start] = model[start] = value ^ 1
                assert packet[start] == value ^ 1
            else:
                with pytest.raises(IndexError, match=f"^byte {start} of a packet of {length} bytes$"):
                    packet[start]
        assert bytes(packet) == model


def test_what_would_change_its_length_is_refused() -> None:
    """By name, and the packet is as before."""
    with ixy.Mempool(8) as pool, pool.allocate(1, 5000, metadata=PARTS) as batch:
        packet = batch[0]
        packet[:] = content(1, 5000)
        for change in (lambda: packet.resize(60), lambda: packet.insert(12, 4), lambda: packet.remove(12, 4)):
            with pytest.raises(ConfigurationError, match="a packet in 3 buffers keeps its length, which is 5000 bytes"):
                change()
        with pytest.raises(ValueError, match=r"^3 bytes are assigned to a slice of another length$"):
            packet[2047:2049] = b"abc"
        assert bytes(packet) == content(1, 5000)
        with pytest.raises(ConfigurationError, match=r"length 9000: 1 to 2048 are possible"):
            pool.allocate(1, 9000)
        batch.free()
        with pytest.raises(OwnershipError):
            packet[3000]


def test_a_pool_that_runs_empty_gives_whole_packets() -> None:
    """Of 10 buffers three packets of three parts can be made, and what is left makes a short one."""
    with ixy.Mempool(10) as pool:
        with pool.allocate(5, 3 * BUFFER, metadata=PARTS) as batch:
            assert (len(batch), pool.available) == (3, 1)
            assert len(pool.allocate(1, BUFFER + 1, metadata=PARTS)) == 0
            with pool.allocate(2, 60, metadata=PARTS) as short:
                assert len(short) == 1
        assert pool.available == 10


def test_headers_in_the_first_part() -> None:
    """By name, of one packet and of all; what a filter sees is the first part, and the length of all."""
    header = bytes.fromhex("0200000000010200000000020800450023281234000040110000") + bytes([10, 0, 0, 1, 10, 0, 0, 2])
    with ixy.Mempool(8) as pool, pool.allocate(1, 9014, metadata=PARTS) as batch:
        batch[0][:] = header + bytes(9014 - len(header))
        packet = batch[0]
        assert (packet.ipv4.src, batch.ipv4.ttl.tolist()) == ("10.0.0.1", [64])
        packet.ipv4.ttl = 9
        assert batch.ipv4.ttl.tolist() == [9]
        packet[5000] = 7
        for text, there in (("udp and greater 9014", True), ("greater 9015", False), ("ether[5000] = 7", False)):
            assert ixy.filter(text)(packet) is there
            assert ixy.filter(text)(batch).tolist() == [there]


def test_columns_are_assigned() -> None:
    """Of all packets of a batch, and of one; without a column it is refused by name."""
    with ixy.Mempool(8) as pool:
        with pool.allocate(3, 60, metadata=("flags", "vlan", "segments")) as batch:
            assert batch.flags.tolist() == batch.vlans.tolist() == batch.segments.tolist() == [0, 0, 0]
            batch.flags, batch.vlans, batch.segments = ixy.Flags.L4_PARTIAL, [1, 2, 3], 1448
            packet = batch[1]
            packet.flags |= ixy.Flags.VLAN
            packet.vlan, packet.segments = 7, 536
            assert batch.flags.tolist() == [16, 48, 16]
            assert (batch.vlans.tolist(), batch.segments.tolist()) == ([1, 7, 3], [1448, 536, 1448])
        with pool.allocate(1) as plain, pytest.raises(ConfigurationError, match=r"metadata=\('segments',\)"):
            plain.segments = 5
        with pytest.raises(ConfigurationError, match="metadata 'colour': possible are"):
            pool.allocate(1, metadata=("colour",))


# ---------------------------------------------------------------------------------------------------------------------
# Rings and paths


Step = tuple[str, int]
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(LENGTHS[:-1])),
    st.tuples(st.just("receive"), st.integers(1, 32)),
    st.tuples(st.just("run"), st.integers(1, 3)),
    st.tuples(st.just("keep"), st.integers(1, 32)),
    st.tuples(st.just("drop"), st.just(0)),
)


@ixy.kernel
def unless_odd(packet: ixy.Packet) -> int:
    """Drop what has an odd number, mark the others; the length of all parts goes into bytes 4 and 5, if there are."""
    if packet.length > 5:
        packet[4], packet[5] = packet.total >> 8, packet.total & 0xFF
    return ixy.DROP if packet.length > 3 and packet[3] & 1 else ixy.FORWARD


def as_marked(data: bytes) -> bytes:
    return data if len(data) < 6 else data[:4] + len(data).to_bytes(2, "big") + data[6:]


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(STEPS, max_size=30), st.sampled_from([1, 5, 32]))
def test_chains_through_rings_batches_and_paths(steps: list[Step], batch: int) -> None:
    """What goes in comes out, in order and whole, less what the function drops; every buffer comes home."""
    number, waiting, arrived = 0, [], []
    kept: list[ixy.Batch] = []
    pool, one, other = ixy.Mempool(100), ixy.Ring(32, metadata=PARTS), ixy.Ring(32, metadata=PARTS)
    path = ixy.Path(one.rx, other.tx, unless_odd, batch=batch)
    expected: list[bytes] = []
    for step, value in steps:
        if step == "send":
            made = [batch for batch in filled_if(pool, content(number, value)) if len(batch)]
            if made and one.tx.send(made[0]):
                waiting.append(content(number, value))
            number += 1
        elif step == "run":
            before = len(one)
            path.run(value)
            gone = waiting[: before - len(one)]
            expected += [as_marked(data) for data in gone if len(data) < 4 or not data[3] & 1]
            del waiting[: before - len(one)]
        elif step in ("receive", "keep"):
            received = other.rx.receive(value)
            arrived += [bytes(packet) for packet in received]
            assert received.lengths.tolist() == [len(packet) for packet in received]
            if step == "keep":
                kept.append(received)
            else:
                received.free()
        else:
            kept.clear()
    assert arrived == expected[: len(arrived)]
    assert len(expected) - len(arrived) == len(other)
    for each in (one, other):
        each.close()
    kept.clear()
    assert pool.available == 100
    pool.release()


def filled_if(pool: ixy.Mempool, data: bytes) -> list[ixy.Batch]:
    """A batch of one packet with these bytes, or of none if the pool has not so many buffers."""
    batch = pool.allocate(1, len(data), metadata=PARTS)
    for packet in batch:
        packet[:] = data
    return [batch]


def test_a_function_sees_the_first_part_and_tells_of_packets() -> None:
    """Compiled and interpreted: lengths, columns read and assigned."""
    seen: Any = ("flags", "vlan", "segments", "parts")

    @ixy.kernel
    def tell(packet: ixy.Packet) -> int:
        packet.flags = packet.flags | 0x1_0000_0010
        packet.vlan = packet.length
        packet.segments = packet.total + packet.segments
        return ixy.FORWARD

    with ixy.Mempool(32) as pool, ixy.Ring(32, metadata=seen) as one, ixy.Ring(32, metadata=seen) as other:
        path = ixy.Path(one.rx, other.tx, tell)
        for length in (60, 2048, 9000):
            with pool.allocate(1, length, metadata=seen) as batch:
                batch.flags, batch.segments = 1, 2
                assert one.tx.send(batch) == 1
        path.run(1)
        with other.rx.receive() as batch:
            assert batch.flags.tolist() == [0x11] * 3
            assert batch.vlans.tolist() == [60, 2048, 2048]
            assert batch.segments.tolist() == [62, 2050, 9002]
            assert batch.lengths.tolist() == [60, 2048, 9000]


@pytest.mark.parametrize("flag", [ixy.Flags.VLAN, ixy.Flags.L4_BAD])
def test_flags_are_numbers_to_a_function(flag: ixy.Flags) -> None:
    """By the name of the class, or as a constant: compared, combined, taken out, assigned."""

    @ixy.kernel
    def mark(packet: ixy.Packet) -> int:
        if packet.flags & ixy.Flags.L4_GOOD == ixy.Flags.L4_GOOD:
            packet.flags = ixy.Flags.HASH
        elif packet.flags & flag:
            packet.flags &= ~flag
        else:
            packet.flags |= ixy.Flags.L4_PARTIAL | ixy.Flags.IP_PARTIAL
        return ixy.FORWARD

    with (
        ixy.Mempool(32) as pool,
        ixy.Ring(32, metadata=("flags",)) as one,
        ixy.Ring(32, metadata=("flags",)) as other,
    ):
        path = ixy.Path(one.rx, other.tx, mark)
        with pool.allocate(3, metadata=("flags",)) as batch:
            batch.flags = [1 << 2, flag | 1 << 8, 1 << 8]
            assert one.tx.send(batch) == 3
        path.run(1)
        with other.rx.receive() as batch:
            assert batch.flags.tolist() == [1 << 6, 1 << 8, 1 << 4 | 1 << 7 | 1 << 8]


def test_a_batch_kernel_sees_the_same() -> None:
    @ixy.batch_kernel
    def by_length(packets: ixy.Batch) -> None:
        for i in range(len(packets)):
            packets.verdicts[i] = 1 if packets[i].total == packets[i].length else 2

    with ixy.Mempool(32) as pool, ExitStack() as stack:
        ring, short, long = (stack.enter_context(ixy.Ring(32, metadata=PARTS)) for _ in range(3))
        path = ixy.Path(ring.rx, [short.tx, long.tx], by_length)
        assert send(ring.tx, pool, content(1, 2048), content(2, 2049), content(3, 60)) == 3
        path.run(1)
        with short.rx.receive() as batch:
            assert [bytes(packet) for packet in batch] == [content(1, 2048), content(3, 60)]
        with long.rx.receive() as batch:
            assert [bytes(packet) for packet in batch] == [content(2, 2049)]
        assert pool.available == 32


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 4, 12])
def test_copies_have_all_parts_or_are_counted(spare: int) -> None:
    """A packet of 9,000 bytes goes to three outputs as far as buffers last, and none is lost."""

    @ixy.kernel
    def everywhere(_packet: ixy.Packet) -> int:
        return ixy.copy_to(1, 2, 3)

    with ixy.Mempool(5 + spare) as pool, ExitStack() as stack:
        ring, *outputs = (stack.enter_context(ixy.Ring(32, metadata=PARTS)) for _ in range(4))
        path = ixy.Path(ring.rx, [output.tx for output in outputs], everywhere)
        assert send(ring.tx, pool, content(1, 9000)) == 1
        path.run(1)
        copies = spare // 5
        arrived: list[bytes] = []
        for output in outputs:
            with output.rx.receive() as batch:
                arrived += [bytes(packet) for packet in batch]
        assert arrived == [content(1, 9000)] * (1 + copies)
        assert (path.lost, pool.available) == (2 - copies, 5 + spare)


def test_python_gets_whole_packets_and_a_full_ring_loses_none() -> None:
    """What goes up, and what a ring has no room for, which stays in the one before."""

    @ixy.kernel
    def up(packet: ixy.Packet) -> int:
        return ixy.UP if packet[3] == 7 else 1

    with ixy.Mempool(200) as pool, ixy.Ring(64, metadata=PARTS) as ring, ixy.Ring(32, metadata=PARTS) as other:
        path = ixy.Path(ring.rx, [other.tx], up)
        packets = [content(number, 5000) for number in range(40)]
        assert send(ring.tx, pool, *packets) == 40
        path.run(3)
        with path.up.receive() as batch:
            assert [bytes(packet) for packet in batch] == [packets[7]]
        assert (len(other), len(ring)) == (32, 7) or (len(other), len(ring)) == (31, 8)
        left = packets[:7] + packets[8:]
        arrived: list[bytes] = []
        for _ in range(3):
            with other.rx.receive() as batch:
                arrived += [bytes(packet) for packet in batch]
            path.run(1)
        assert arrived == left
        assert pool.available == 200


def test_another_thread_gives_chains_back() -> None:
    """While a path owns the pool, as it does for its packets' copies, buffers come back through the pool's ring."""
    with ixy.Mempool(60) as pool, ixy.Ring(32, metadata=PARTS) as ring:
        received: list[bytes] = []

        def take() -> None:
            while len(received) < 300:
                with ring.rx.receive(timeout=5) as batch:
                    received.extend(bytes(packet) for packet in batch)

        thread = threading.Thread(target=take)
        thread.start()
        number = 0
        while number < 300:
            for batch in filled_if(pool, content(number, 1 + number * 37 % 9000)):
                with batch:
                    number += ring.tx.send(batch) if len(batch) else 0
        thread.join()
        assert received == [content(number, 1 + number * 37 % 9000) for number in range(300)]
        assert pool.available == 60


def test_columns_that_only_the_ring_has_say_that_packets_end() -> None:
    """What a batch without parts sends through a ring with them does not go on."""
    with ixy.Mempool(8) as pool, ixy.Ring(32, metadata=PARTS) as ring:
        with batch_of(pool, [frame(1), frame(2)]) as batch:
            assert ring.tx.send(batch) == 2
        with ring.rx.receive() as batch:
            assert batch._packets.nexts is not None
            assert batch._packets.nexts[:2].tolist() == [NO_NEXT, NO_NEXT]
            assert [bytes(packet) for packet in batch] == [frame(1), frame(2)]


def test_who_takes_one_buffer_refuses_packets_of_several_by_name() -> None:
    """A batch that may have some, and a path from a queue that may."""
    machine = Machine(stepped=True)
    with (
        open_card(machine) as card,
        ixy.Mempool(64) as pool,
        ixy.Ring(32) as plain,
        ixy.Ring(32, metadata=PARTS) as ring,
    ):
        for queue, name in ((card.tx[0], "sim:a"), (plain.tx, plain.address)):
            message = rf"takes packets in one buffer only.*: open {name} with metadata=\('parts',\) too"
            with pool.allocate(1, 60, metadata=PARTS) as batch, pytest.raises(ConfigurationError, match=message):
                queue.send(batch)
            with pytest.raises(ConfigurationError, match=message):
                ixy.Path(ring.rx, queue)
            with pytest.raises(ConfigurationError, match=message):
                ixy.Path(ring.rx, [ring.tx, queue])
        assert pool.available == 64


# ---------------------------------------------------------------------------------------------------------------------
# Chains that somebody has spoilt


def test_a_chain_without_an_end_ends_nevertheless() -> None:
    """No length, copy or return goes further than 33 parts."""
    with ixy.Mempool(8) as pool:
        batch = pool.allocate(1, 3 * BUFFER, metadata=PARTS)
        nexts = batch._packets.nexts
        assert nexts is not None
        second = int(nexts[0])
        third = int(pools().nexts[second])
        pools().nexts[third] = second
        assert batch.lengths.tolist() == [33 * BUFFER]
        assert len(bytes(batch[0])) == 33 * BUFFER
        pools().nexts[third] = NO_NEXT
        batch.free()
        assert pool.available == 8


def test_numpy_sees_first_parts() -> None:
    """All packets at once, by bytes of their first buffers."""
    with ixy.Mempool(8) as pool, pool.allocate(2, 4000, metadata=PARTS) as batch:
        batch.bytes[:, 100] = np.array([5, 6])
        assert [packet[100] for packet in batch] == [5, 6]


def test_a_filter_in_a_kernel_sees_the_first_part_and_the_length_of_all() -> None:
    """By the names that a function has for it."""
    longer, ends_so = ixy.filter("greater 4000"), ixy.filter("ether[3000] = 7")

    @ixy.kernel
    def only_long(packet: ixy.Packet) -> int:
        return longer(packet) and not ends_so(packet)

    with ixy.Mempool(16) as pool, ixy.Ring(32, metadata=PARTS) as ring, ixy.Ring(32, metadata=PARTS) as other:
        path = ixy.Path(ring.rx, other.tx, only_long)
        packets = [content(1, 3999), bytes([7]) * 4000, content(2, 2000)]
        assert send(ring.tx, pool, *packets) == 3
        path.run(1)
        with other.rx.receive() as batch:
            assert [bytes(packet) for packet in batch] == packets[1:2]
