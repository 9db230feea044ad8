"""Paths with several outputs: each packet goes where the function says, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lab import arrive, depart, frame, open_card

import ixy
from ixy.drivers.rings import RUNNER
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError, OwnershipError
from ixy.registers import virtio as reg
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd, drain

RING, POOL = 64, 256


@ixy.kernel
def by_byte(packet: ixy.Packet) -> int:
    """Byte 30 says where to."""
    return packet[30]


def to(output: int, number: int) -> bytes:
    data = frame(number)
    return data[:30] + bytes([output]) + data[31:]


def cards(machine: Machine, names: str) -> list[ixy.Device]:
    return [open_card(machine, f"sim:{name}", ring_size=RING, pool_size=POOL) for name in names]


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate], max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=40), max_size=6), st.sampled_from([1, 8, 32]))
def test_each_packet_goes_where_its_verdict_says(rounds: list[list[int]], batch: int) -> None:
    """In order on each output; what is dropped is counted; no buffer is lost."""
    machine = Machine(stepped=True)
    devices = cards(machine, "abcd")
    path = ixy.Path(devices[0].rx[0], [device.tx[0] for device in devices[1:]], by_byte, batch=batch)
    expected: dict[int, list[bytes]] = {output: [] for output in range(4)}
    left: dict[str, list[bytes]] = {name: [] for name in "bcd"}
    number = 0
    for verdicts in rounds:
        for output in verdicts:
            arrive(machine, to(output, number))
            expected[output].append(to(output, number))
            number += 1
        path.run(len(verdicts) + 1)
        for name in left:
            left[name] += depart(machine, name=name)
    assert [left["b"], left["c"], left["d"]] == [expected[1], expected[2], expected[3]]
    assert path.sent == [len(expected[output]) for output in (1, 2, 3)]
    assert path.counts == (number, number - len(expected[0]), len(expected[0]))
    in_flight = sum(device.tx[0].in_flight for device in devices[1:])
    assert devices[0].rx[0].pool.available + RING + in_flight == POOL
    for device in devices:
        device.close()


def test_a_full_output_holds_all_back(machine: Machine) -> None:
    """Card c sends nothing: once its ring is full, packets wait in the receive ring, whichever way they would go."""
    a, b, c = cards(machine, "abc")
    with a, b, c:
        path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], by_byte)
        for start in range(0, 120, 40):
            for number in range(start, start + 40):
                arrive(machine, to(2 if number < 80 else 1, number))
            path.run(10)
        assert path.sent == [0, 63]
        depart(machine, name="c")
        path.run(10)
        assert path.sent[1] == 80
        assert len(depart(machine, name="b")) == path.sent[0] > 0


def test_outputs_of_several_drivers(machine: Machine) -> None:
    """Two simulated cards, and a VirtIO device in between."""
    back_end = BackEnd("model", 1 << reg.VERSION_1 | 1 << reg.MAC, 1)
    a, b, c = cards(machine, "abc")
    with a, b, c, ixy.Device(VirtioNet(InProcess(back_end), ring_size=RING, pool_size=POOL)) as virtio:
        path = ixy.Path(a.rx[0], [b.tx[0], virtio.tx[0], c.tx[0]], by_byte)
        for number in range(30):
            arrive(machine, to(number % 4, number))
        path.run(4)
        assert depart(machine, name="b") == [to(1, number) for number in range(1, 30, 4)]
        assert depart(machine, name="c") == [to(3, number) for number in range(3, 30, 4)]
        taken = np.zeros(2048, np.uint8)
        for number in range(2, 30, 4):
            drain(back_end.queues[1], taken)
            assert taken[:60].tobytes() == to(2, number)
        assert path.sent == [8, 7, 7]


@pytest.mark.parametrize("verdict", [3, 255])
def test_no_such_output(machine: Machine, verdict: int) -> None:
    """It is said, with both numbers; the packets at hand are dropped, and the path goes on."""
    a, b, c = cards(machine, "abc")
    with a, b, c:
        path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], by_byte)
        for output in (1, verdict):
            arrive(machine, to(output, 1))
        with pytest.raises(IndexError, match=f"^output {verdict} of a path that has 2$"):
            path.run(2)
        assert path.counts == (2, 0, 2)
        arrive(machine, to(2, 5))
        assert path.run(2) == 1
        assert depart(machine, name="c") == [to(2, 5)]
        assert a.rx[0].pool.available + RING + c.tx[0].in_flight == POOL


def test_a_pool_for_all_outputs(machine: Machine) -> None:
    """Each transmit ring may keep 31 packets that it has sent: with fewer buffers, packets would stop for good."""
    a, b, c = (
        open_card(machine, f"sim:{name}", ring_size=RING, pool_size=96 if name == "a" else POOL) for name in "abc"
    )
    with a, b, c, pytest.raises(ConfigurationError, match="2 outputs need a pool of 128 packet buffers"):
        ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], by_byte)


def test_records_and_true(machine: Machine) -> None:
    """A verdict may be a comparison: True is the first output."""

    class Seen(ixy.Record):
        packets: int

    @ixy.kernel
    def large(packet: Any, seen: Seen) -> bool:
        seen.packets += 1
        return packet.length > 60

    a, b, c = cards(machine, "abc")
    with a, b, c:
        seen = Seen()
        path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], large, seen)
        arrive(machine, frame(1))
        arrive(machine, frame(2, 80))
        path.run(2)
        assert (path.sent, path.counts.dropped, seen.packets) == ([1, 0], 1, 2)


def test_what_is_refused(machine: Machine) -> None:
    """No output, one named twice, one that is none, one that another thread uses, and one that is closed."""
    a, b, c = cards(machine, "abc")
    with a, b, c:
        for outputs, error in (
            ([], ConfigurationError),
            ([b.tx[0], b.tx[0]], ConfigurationError),
            ([b.tx[0], c.rx[0]], TypeError),
            (7, TypeError),
        ):
            with pytest.raises(error, match=r"output|tx"):
                ixy.Path(a.rx[0], outputs, by_byte)  # type: ignore[arg-type]
        path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], by_byte)
        words = c.tx[0].ring.state.state
        words[RUNNER] = -2  # the number of no thread that there is
        with pytest.raises(OwnershipError, match=r"sim:c tx\[0\]"):
            path.run(1)
        words[RUNNER] = 0
        assert path.run(1) == 0  # the other output was let go
        c.close()
        with pytest.raises(ixy.Error, match="sim:c is closed"):
            path.run(1)


# ---------------------------------------------------------------------------------------------------------------------
# Copies, and functions of a whole batch


@ixy.kernel
def by_bits(packet: ixy.Packet) -> int:
    """Byte 30 says to which of three outputs, bit by bit."""
    bits = packet[30]
    if bits == 3:
        return ixy.copy_to(2, 1)
    if bits == 7:
        return ixy.copy_to(1, 2, 3)
    if bits == 0:
        return ixy.copy_to()
    verdict = 0
    for output in range(1, 4):
        if bits >> (output - 1) & 1:
            verdict = output if verdict == 0 else ixy.copy_to(verdict, output)
    return verdict


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate], max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), max_size=40), max_size=5), st.sampled_from([1, 32]))
def test_copies_go_to_each_output(rounds: list[list[int]], batch: int) -> None:
    """The same bytes, in order, on each output that is named, and no buffer is lost."""
    machine = Machine(stepped=True)
    devices = cards(machine, "abcd")
    path = ixy.Path(devices[0].rx[0], [device.tx[0] for device in devices[1:]], by_bits, batch=batch)
    expected: dict[str, list[bytes]] = {name: [] for name in "bcd"}
    left: dict[str, list[bytes]] = {name: [] for name in "bcd"}
    number = 0
    for verdicts in rounds:
        for bits in verdicts:
            data = to(bits, number)
            arrive(machine, data)
            number += 1
            for bit, name in enumerate("bcd"):
                if bits >> bit & 1:
                    expected[name].append(data)
        path.run(len(verdicts) + 1)
        for name in left:
            left[name] += depart(machine, name=name)
    assert left == expected
    assert path.sent == [len(each) for each in expected.values()]
    dropped = sum(verdicts.count(0) for verdicts in rounds)
    assert path.counts == (number, number - dropped, dropped)
    assert path.lost == 0
    in_flight = sum(device.tx[0].in_flight for device in devices[1:])
    assert devices[0].rx[0].pool.available + RING + in_flight == POOL
    for device in devices:
        device.close()


def test_copies_without_buffers_are_counted(machine: Machine) -> None:
    """64 of 160 buffers are in the receive ring; of 96 packets that wait in vain, copies find what is left."""
    a, b, c = (
        open_card(machine, f"sim:{name}", ring_size=RING, pool_size=160 if name == "a" else POOL) for name in "abc"
    )
    with a, b, c:
        path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], by_bits)
        for start in range(0, 60, 30):  # both rings have room for 63
            for number in range(start, start + 30):
                arrive(machine, to(3, number))
            path.run(10)
        assert path.counts == (60, 60, 0)
        assert path.lost == 60 - (160 - RING - 60)
        assert path.sent == [160 - RING - 60, 60]
        assert depart(machine, name="c") == [to(3, number) for number in range(60)]
        assert depart(machine, name="b") == [to(3, number) for number in range(60)][: path.sent[0]]
        assert a.rx[0].pool.available == 0


def test_copies_to_no_such_output(machine: Machine) -> None:
    @ixy.kernel
    def wrong(packet: ixy.Packet) -> int:
        return ixy.copy_to(packet[30] & 7, packet[30] >> 3)

    a, b = cards(machine, "ab")
    with a, b:
        path = ixy.Path(a.rx[0], b.tx[0], wrong)
        arrive(machine, to(4 << 3 | 1, 1))
        with pytest.raises(IndexError, match=r"^output 4 of a path that has 1$"):
            path.run(2)
        for none in (61, 63, 64, 65, 1 << 40, -3):
            assert ixy.copy_to(1, none) == ixy.copy_to(1, 61)
        arrive(machine, to(1, 2))
        assert path.run(2) == 1
        assert depart(machine, name="b") == [to(1, 2)]


class Tally(ixy.Record):
    largest: int
    bytes: int
    numbers: int
    places = ixy.array(256)
    seen = ixy.array(1 << 10)


@ixy.batch_kernel
def tally(packets: ixy.Batch, state: Tally) -> None:
    state.largest = max(state.largest, len(packets))
    for i in range(len(packets)):
        state.places[i] = packets[i][21]
        ixy.prefetch(state.seen, state.places[i])
        state.bytes += packets[i].length
        state.numbers += packets[i].number
    for i in range(len(packets)):
        state.seen[state.places[i]] += 1
        if packets[i][30] != 1:
            packets.verdicts[i] = packets[i][30]
        packets[-1].length = 61


@pytest.mark.parametrize("batch", [1, 32])
def test_a_function_of_a_batch(machine: Machine, batch: int) -> None:
    """It sees each packet once, with number, bytes and length, and says where each goes; FORWARD is what it need not
    say."""
    a, b, c = cards(machine, "abc")
    with a, b, c:
        state = Tally()
        path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], tally, state, batch=batch)
        data = [to(number % 3, number) for number in range(45)]
        for each in data:
            arrive(machine, each)
        path.run(50)
        assert path.counts == (45, 30, 15)
        longer = [44] if batch == 32 else list(range(45))
        longer = [31, 44] if batch == 32 else longer
        for name, output in (("b", 1), ("c", 2)):
            found = depart(machine, name=name)
            assert [each[:60] for each in found] == data[output::3]
            assert [len(each) for each in found] == [61 if k in longer else 60 for k in range(output, 45, 3)]
        assert (state.largest, state.bytes, state.numbers) == (batch, 45 * 60, 45 * 44 // 2)
        assert list(state.seen)[:46] == [1] * 45 + [0]


def test_a_function_of_a_batch_to_one_output(machine: Machine) -> None:
    """Without a list, a verdict other than 0 and 1 is no output; and an index outside is told with both numbers."""

    @ixy.batch_kernel
    def odd(packets: ixy.Batch) -> None:
        for i in range(len(packets)):
            packets.verdicts[i] = packets[i][30]
            if packets[i][30] == 9:
                packets[len(packets)][0] = 0

    a, b = cards(machine, "ab")
    with a, b:
        path = ixy.Path(a.rx[0], b.tx[0], odd)
        for output in (1, 0, 1):
            arrive(machine, to(output, output))
        assert path.run(1) == 3
        assert depart(machine, name="b") == [to(1, 1)] * 2
        for verdict, words in ((2, "output 2 of a path that has 1"), (9, "packet 1 of a batch of 1")):
            arrive(machine, to(verdict, 1))
            with pytest.raises(IndexError, match=f"^{words}$"):
                path.run(1)
        assert path.counts == (5, 2, 3)
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight == POOL


def test_a_function_of_a_batch_returns_nothing(machine: Machine) -> None:
    @ixy.batch_kernel
    def constant(packets: ixy.Batch) -> int:
        packets.verdicts[0] = 1
        return 1

    @ixy.batch_kernel
    def computed(packets: ixy.Batch) -> int:
        return len(packets)

    a, b = cards(machine, "ab")
    with a, b:
        with pytest.raises(ixy.KernelError, match=r"a function of a batch returns nothing: write packets\.verdicts"):
            ixy.Path(a.rx[0], b.tx[0], constant)
        arrive(machine, to(1, 1))
        with pytest.raises(ixy.KernelError, match=r"a function of a batch returns nothing: write packets\.verdicts"):
            ixy.Path(a.rx[0], b.tx[0], computed).run(1)


# ---------------------------------------------------------------------------------------------------------------------
# Packets for Python


@ixy.kernel
def to_python(packet: ixy.Packet) -> int:
    """Byte 30: 0 to 2 as ever, 3 to Python, 4 to Python and to the first output."""
    kind = packet[30]
    if kind == 3:
        return ixy.UP
    return ixy.copy_to(1, ixy.UP) if kind == 4 else kind


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate], max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=40), max_size=5), st.sampled_from([1, 32]))
def test_packets_for_python(rounds: list[list[int]], batch: int) -> None:
    """In order, with their bytes; they are forwarded as far as counts go, and no buffer is lost."""
    machine = Machine(stepped=True)
    a, b, c = cards(machine, "abc")
    path = ixy.Path(a.rx[0], [b.tx[0], c.tx[0]], to_python, batch=batch)
    expected: list[list[bytes]] = [[], [], []]
    found: list[list[bytes]] = [[], [], []]
    number = 0
    for kinds in rounds:
        for kind in kinds:
            data = to(kind, number)
            arrive(machine, data)
            number += 1
            for output, which in enumerate([(1, 4), (2,), (3, 4)]):
                if kind in which:
                    expected[output].append(data)
        path.run(len(kinds) + 1)
        found[0] += depart(machine, name="b")
        found[1] += depart(machine, name="c")
        with path.up.receive(64) as batch_of_python:
            found[2] += [packet[:] for packet in batch_of_python]
    assert found == expected
    assert path.sent == [len(each) for each in expected[:2]]
    dropped = sum(kinds.count(0) for kinds in rounds)
    assert (path.counts, path.lost) == ((number, number - dropped, dropped), 0)
    in_flight = b.tx[0].in_flight + c.tx[0].in_flight
    assert a.rx[0].pool.available + RING + in_flight == POOL
    for device in (a, b, c):
        device.close()


def test_packets_for_python_without_room(machine: Machine) -> None:
    """With 256 buffers and a ring of 64, 64 packets may wait for Python; the others are lost, and counted."""

    @ixy.kernel
    def all_up(_packet: ixy.Packet) -> int:
        return ixy.UP

    a, b = cards(machine, "ab")
    with a, b:
        path = ixy.Path(a.rx[0], b.tx[0], all_up)
        for start in range(0, 90, 30):
            for number in range(start, start + 30):
                arrive(machine, frame(number))
            path.run(4)
        assert path.counts == (90, 90, 0)
        assert path.lost == 26
        with path.up.receive(64) as packets:
            assert [packet[:] for packet in packets] == [frame(number) for number in range(64)]
        assert a.rx[0].pool.available + RING == POOL
        plain = ixy.Path(a.rx[0], b.tx[0])
        with pytest.raises(ConfigurationError, match=r"does not name ixy\.UP"):
            _ = plain.up


def test_copies_of_what_another_thread_sent(machine: Machine) -> None:
    """A path from a ring between threads finds buffers in the pools that the packets are of."""
    a, b, c = cards(machine, "abc")
    with a, b, c, ixy.Ring(64) as ring:
        first, second = ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, [b.tx[0], c.tx[0]], by_bits)
        for number in range(40):
            arrive(machine, to(number & 3, number))
        first.run(4)
        second.run(4)
        assert depart(machine, name="b") == [to(number & 3, number) for number in range(40) if number & 1]
        assert depart(machine, name="c") == [to(number & 3, number) for number in range(40) if number & 2]
        assert second.lost == 0
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight + c.tx[0].in_flight == POOL
