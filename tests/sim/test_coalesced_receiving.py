"""What the driver receives from a card that puts TCP segments together, and what becomes of it when it is cut again.

The model puts segments together by code of its own; hostile descriptors are written by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lab import OTHER, STATION, accounted, arrive, frame, open_card, receive_all
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

import ixy
from ixy import Flags
from ixy.device import Device
from ixy.drivers.ixgbe.coalescing import follow, take_chain
from ixy.drivers.rings import DROPPED, NEXT
from ixy.errors import ConfigurationError
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.parts import all_buffers
from ixy.packets.pool import POOL_SHIFT, free_count, pools
from ixy.sim.machine import Machine

ETHERNET = Ether(src=OTHER, dst=STATION)
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
COLUMNS = ("flags", "hash", "vlan", "segments", "parts")
RING, POOL = 64, 160


def open_coalescing(machine: Machine, address: str = "sim:a", **options: Any) -> Device:
    asked = {"ring_size": RING, "pool_size": POOL, "metadata": COLUMNS, "offloads": ("coalescing",)} | options
    return open_card(machine, address, **asked)


def payload(start: int, size: int) -> bytes:
    return bytes((start + i) % 251 for i in range(size))


def segment(start: int, size: int, network: Packet = V4, flags: str = "A", sport: int = 1000) -> bytes:
    """A segment whose payload follows from the sequence numbers."""
    tcp = TCP(sport=sport, dport=2000, seq=start, flags=flags)
    return bytes(ETHERNET / network / tcp / payload(start, size)).ljust(60, b"\0")


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
def test_segments_arrive_as_one_packet(machine: Machine, network: Packet) -> None:
    """Ten of 1,400 bytes: one packet in as many buffers as it takes, with lengths and checksum of the whole, and what
    each of them had carried."""
    with open_coalescing(machine) as device:
        for i in range(10):
            arrive(machine, segment(1400 * i, 1400, network))
        machine.step()
        with device.rx[0].receive() as batch:
            assert len(batch) == 1
            whole = Ether(bytes(batch[0]))
            assert bytes(whole[TCP].payload) == payload(0, 14_000)
            assert batch.lengths.tolist() == [len(whole)]
            assert batch.segments.tolist() == [1400]
            assert Flags.TCP | Flags.L4_GOOD in batch[0].flags
        assert accounted(device) == POOL


def test_the_last_segment_is_shorter(machine: Machine) -> None:
    """What is told then is what each had if all were alike: three of 1,000 bytes and one of 10 count as four of 753."""
    with open_coalescing(machine) as device:
        for i in range(3):
            arrive(machine, segment(1000 * i, 1000))
        arrive(machine, segment(3000, 10))
        machine.step()
        with device.rx[0].receive() as batch:
            assert batch.segments.tolist() == [-(-3010 // 4)]


def test_what_is_alone_is_no_segment(machine: Machine) -> None:
    """A single segment, and what is no TCP, come as ever."""
    with open_coalescing(machine) as device:
        datagram = bytes(ETHERNET / V4 / UDP() / bytes(60))
        for data in (segment(0, 100), datagram, frame(3, 200)):
            arrive(machine, data)
        machine.step()
        with device.rx[0].receive() as batch:
            assert {bytes(packet) for packet in batch} == {segment(0, 100), datagram, frame(3, 200)}
            assert batch.segments.tolist() == [0, 0, 0]


def test_a_packet_is_waited_for(machine: Machine) -> None:
    """Before its last part is written nothing is taken; what has come behind it then comes behind it."""
    with open_coalescing(machine) as device:
        for i in range(3):
            arrive(machine, segment(1400 * i, 1400))
        arrive(machine, frame(7))
        assert len(device.rx[0].receive()) == 0
        machine.step()
        assert [len(data) for data in receive_all(device)] == [54 + 3 * 1400, 60]
        assert accounted(device) == POOL


def test_flows_between_each_other(machine: Machine) -> None:
    """Two connections whose segments alternate lie in descriptors that alternate."""
    with open_coalescing(machine) as device:
        for i in range(6):
            for sport in (1, 2):
                arrive(machine, segment(1400 * i, 1400, sport=sport))
        machine.step()
        packets = [Ether(data) for data in receive_all(device)]
        assert [packet[TCP].sport for packet in packets] == [1, 2]
        assert [bytes(packet[TCP].payload) for packet in packets] == [payload(0, 6 * 1400)] * 2
        assert accounted(device) == POOL


def test_an_empty_pool_holds_packets_back(machine: Machine) -> None:
    """A packet of five parts is not taken while four buffers are free; it is whole when they come back."""
    with open_coalescing(machine) as device:
        for i in range(6):
            arrive(machine, segment(1400 * i, 1400))
        machine.step()
        pool = device.rx[0].pool
        with pool.allocate(pool.available - 4):
            assert len(device.rx[0].receive()) == 0
            assert device.xstats()["rx_q0_starved"] == 1
        (data,) = receive_all(device)
        assert bytes(Ether(data)[TCP].payload) == payload(0, 6 * 1400)
        assert accounted(device) == POOL


events = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(1, 1400),
        st.sampled_from(["A", "A", "A", "PA", "FA"]),
        st.sampled_from(["", "", "", "gap", "turn", "receive"]),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def host() -> Machine:
    return Machine(stepped=True)


@pytest.fixture(scope="module")
def opened(host: Machine) -> Iterator[Device]:
    """A card for many examples."""
    with open_coalescing(host) as device:
        yield device


@settings(max_examples=40)
@given(events, st.integers(1, 9))
def test_streams_come_out_whole(
    host: Machine, opened: Device, events: list[tuple[int, int, str, str]], limit: int
) -> None:
    """Any segments of four connections in turns that end anywhere: what a connection's packets carry, put together, is
    what its segments carried; and every buffer comes home."""
    nexts: dict[int, int] = defaultdict(int)
    sent: dict[int, bytes] = defaultdict(bytes)
    came: list[bytes] = []
    for flow, size, flags, then in events:
        nexts[flow] += 7 if then == "gap" else 0
        arrive(host, segment(nexts[flow], size, V6 if flow == 1 else V4, flags, sport=flow))
        sent[flow] += payload(nexts[flow], size)
        nexts[flow] += size
        if then in ("turn", "receive"):
            host.step()
        if then == "receive":
            came += receive_all(opened, limit)
    host.step()
    came += receive_all(opened, limit)
    assert opened.stats().rx_dropped == opened.stats().rx_refused == 0
    carried: dict[int, bytes] = defaultdict(bytes)
    for data in came:
        packet = Ether(data)
        size = packet[IP].len - 40 if IP in packet else packet[IPv6].plen - 20
        carried[packet[TCP].sport] += bytes(packet[TCP])[20:][:size]
    assert carried == sent
    assert accounted(opened) == POOL


def test_put_together_and_cut_again(machine: Machine) -> None:
    """From a card that coalesces to one that segments: at the end of the cable are frames like those that came, with
    the same bytes in the same order and right checksums."""
    asked = {"ring_size": 512, "pool_size": 1024, "metadata": COLUMNS, "offloads": ("coalescing", "segmentation")}
    with (
        open_card(machine, "sim:a", **asked) as a,
        open_card(machine, "sim:b,cable=c", **asked) as b,
        open_card(machine, "sim:c", ring_size=512) as c,
    ):
        path = ixy.Path(a.rx[0], b.tx[0])
        sizes = [1400] * 10 + [700]
        sent = {network: [] for network in ("v4", "v6")}
        for i, size in enumerate(sizes):
            for name, network in (("v4", V4), ("v6", V6)):
                sent[name].append(segment(1400 * i, size, network))
                arrive(machine, sent[name][-1])
        machine.step()
        assert path.run(8) == 2
        frames: list[bytes] = []
        for _ in range(4):
            machine.step()
            frames += receive_all(c)
        packets = [Ether(data) for data in frames]
        for kind, name in ((IP, "v4"), (IPv6, "v6")):
            own = [packet for packet in packets if kind in packet]
            assert len(own) == len(sizes)
            assert max(len(packet) for packet in own) <= max(map(len, sent[name]))
            assert b"".join(bytes(packet[TCP].payload) for packet in own) == payload(0, sum(sizes))
            assert [packet[TCP].seq for packet in own] == sorted(packet[TCP].seq for packet in own)
        assert all(frame == correct(frame) for frame in frames)
        assert b.sent() == 2
        assert machine.cards["a"].breaches.collect() == machine.cards["b"].breaches.collect() == {}


def correct(frame: bytes) -> bytes:
    """The frame as it would be if its checksums were worked out anew."""
    packet = Ether(frame)
    for layer in (IP, TCP):
        if layer in packet:
            del packet[layer].chksum
    return bytes(packet)


# ---------------------------------------------------------------------------------------------------------------------
# Hostile descriptors

DD, EOP = 1, 2


def says(length: int, count: int = 0, following: int = 0, status: int = DD) -> tuple[int, int]:
    """Both words of a descriptor: one that is part of a coalesced packet if there is a count."""
    return count << 17, length << 32 | following << 4 | status


statuses = st.sampled_from([DD, DD | EOP, DD | EOP])
good = st.builds(says, st.integers(1, BUFFER_SIZE), st.integers(0, 15), st.integers(0, RING - 1), statuses)
anything = st.tuples(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1))
descriptors = st.lists(good, min_size=RING, max_size=RING) | st.lists(
    good | anything | st.just((0, 0)), min_size=RING, max_size=RING
)


@settings(
    max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking so large an input takes minutes
@given(descriptors, st.integers(0, RING - 1), st.integers(1, RING), st.integers(0, POOL - RING))
def test_no_descriptor_loses_a_buffer(written: list[tuple[int, int]], start: int, limit: int, free: int) -> None:
    """Whatever the card writes: each buffer is in the ring, free, or in one part of one packet, and no part is longer
    than a buffer."""
    with open_coalescing(Machine(stepped=True)) as device, ExitStack() as stack:
        state, kept = device.rx[0].ring.state, POOL - RING - free
        state.state[NEXT] = start + 5 * RING
        if kept:
            stack.enter_context(device.rx[0].pool.allocate(kept))
        state.descriptors[:] = np.array(written, np.int64).reshape(-1)
        for _ in range(3):
            with device.rx[0].receive(limit) as batch:
                buffers = all_buffers(pools(), batch._packets, 0, len(batch)).tolist()
                places = [*state.held.ids.tolist(), *free_buffers(device), *buffers]
                assert len(set(places)) == len(places) == RING + free
                assert all(0 < length <= 16 * BUFFER_SIZE for length in batch.lengths.tolist())
                assert (pools().sizes[buffers] <= BUFFER_SIZE).all()


def free_buffers(device: Device) -> list[int]:
    number = device.rx[0].pool.number
    return pools().stack[number << POOL_SHIFT :][: free_count(pools(), number)].tolist()


def received(device: Device, written: Sequence[tuple[int, int]]) -> list[list[int]]:
    """What lies in the parts of packets after the card has written the first descriptors: each part is known by the
    descriptor that it lay in."""
    state = device.rx[0].ring.state
    names = {int(buffer): slot for slot, buffer in enumerate(state.held.ids)}
    state.descriptors[: 2 * len(written)] = np.array(written, np.int64).reshape(-1)
    with device.rx[0].receive() as batch:
        return [
            [names[buffer] for buffer in all_buffers(pools(), batch._packets, i, i + 1).tolist()]
            for i in range(len(batch))
        ]


PART = BUFFER_SIZE


@pytest.mark.parametrize(
    ("written", "parts", "refused", "passed"),
    [
        ([says(PART), says(9, status=DD | EOP)], [[0, 1]], 0, 2),
        ([says(PART, 2, 2), says(60, status=DD | EOP), says(9, 2, status=DD | EOP)], [[0, 2], [1]], 0, 3),
        ([says(PART, 2, 2), says(60, status=DD | EOP), (0, 0)], [], 0, 0),
        ([says(PART, 2, 0), says(60, status=DD | EOP)], [[1]], 1, 2),
        ([says(PART, 2, 999), says(60, status=DD | EOP)], [[1]], 1, 2),
        ([says(PART, 2, RING - 1), says(60, status=DD | EOP)], [[1]], 1, 2),
        ([says(PART, 2, 2), says(PART, 2, 2), says(9, 2, status=DD | EOP)], [[0, 2]], 1, 3),
        ([says(0), says(9, status=DD | EOP), says(60, status=DD | EOP)], [[2]], 1, 3),
        ([says(PART + 1, status=DD | EOP), says(60, status=DD | EOP)], [[1]], 1, 2),
        ([*[says(PART)] * 16, says(9, status=DD | EOP), says(60, status=DD | EOP)], [[17]], 1, 18),
        ([says(PART)] * (RING - 1), [], 1, RING - 1),
    ],
    ids=[
        "two in a row",
        "one in between",
        "not all there",
        "goes on in itself",
        "goes on beyond the ring",
        "goes on where the card has none",
        "two go on in one",
        "a part of nothing",
        "longer than a buffer",
        "too many parts",
        "never an end",
    ],
)
def test_chains(
    machine: Machine, written: list[tuple[int, int]], parts: list[list[int]], refused: int, passed: int
) -> None:
    """Which descriptors make a packet, how many packets are refused, and how many descriptors the card gets back."""
    with open_coalescing(machine) as device:
        state = device.rx[0].ring.state
        assert received(device, written) == parts
        assert (state.state[DROPPED], state.state[NEXT]) == (refused, passed)
        assert int(state.tail[0]) == (passed - 1) % RING
        assert (state.descriptors[1 : 2 * passed : 2] == 0).all()
        assert accounted(device) == POOL


@pytest.mark.once
def test_a_length_that_is_written_anew_counts_for_nothing(machine: Machine) -> None:
    """A part is as long as it was when it was looked at."""
    with open_coalescing(machine) as device, device.rx[0].receive(1) as batch:
        state = device.rx[0].ring.state
        state.descriptors[:4] = [*says(PART), *says(9, status=DD | EOP)]
        assert follow(state, pools()) == 2
        state.descriptors[:4] = [*says(0xFFFF), *says(0xFFFF, status=DD | EOP)]
        assert take_chain(state, pools(), batch._packets, 0, 2) == 1
        batch._span[:] = 0, 1
        assert batch.lengths.tolist() == [PART + 9]


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for when the card is opened


def test_registers(machine: Machine) -> None:
    """4.6.7.2: recognition of TCP headers, 16 descriptors a packet, a queue's interrupt, no pure acknowledgements."""
    with open_coalescing(machine, rx_queues=3) as device:
        card = machine.cards["a"]
        assert card.read32(0xEA00) & 1 << 4
        assert [card.read32(0x102C + 0x40 * queue) & 0xD for queue in range(4)] == [0xD, 0xD, 0xD, 0]
        assert [card.read32(0x900 + 4 * i) & 0x00FF00FF for i in range(2)] == [0x00810080, 0x82]
        assert all(card.read32(0x820 + 4 * queue) & 0xFF8 for queue in range(3))
        assert card.read32(0x3028) & 1 << 7
        assert "TCP_LRO" in device.info.rx_offloads
    with open_card(machine) as device:
        assert "TCP_LRO" not in device.info.rx_offloads


def test_what_it_needs(machine: Machine) -> None:
    with pytest.raises(ConfigurationError, match=r"sim:a: offload 'coalescing' needs metadata=\('parts',\) too"):
        open_card(machine, offloads=["coalescing"], metadata=["segments"])
