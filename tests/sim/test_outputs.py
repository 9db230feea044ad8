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
