"""A device that lies: the test writes into the rings what no honest card would.

Whatever stands there, the driver keeps all buffers accounted for, hands out no packet longer than a buffer, does a
bounded amount of work per call, and works again when the device does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import accounted, arrive, batch_of, depart, frame, open_card, receive_all

from ixy.device import Device
from ixy.packets.batch import lent
from ixy.packets.buffers import device_address
from ixy.packets.mempool import Mempool
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

RING, POOL = 64, 160
DD, EOP = 1, 2


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        yield device


def descriptors(device: Device) -> np.ndarray:
    """The receive ring, one row of two words a descriptor."""
    return device.rx[0].ring.state.descriptors.reshape(-1, 2)


def write_back(device: Device, length: int, status: int = DD | EOP, slot: int | slice = slice(None)) -> None:
    descriptors(device)[slot, 1] = length << 32 | status


def check_ring(device: Device) -> None:
    """Every descriptor in the card's hands names, by its address, the buffer that the driver's own list says."""
    ring = device.rx[0].ring.state
    assert len(set(ring.held.ids.tolist())) == RING
    assert set(ring.held.ids.tolist()) <= set(device.rx[0].pool.ids.tolist())
    assert accounted(device) == POOL


@pytest.mark.parametrize("length", [0, 2049, 4096, 65535])
def test_lengths_of_nonsense(device: Device, length: int) -> None:
    """Descriptors that claim no length, or more than a buffer: refused, counted, their buffers used again."""
    write_back(device, length, slot=slice(0, 10))
    with device.rx[0].receive() as batch:
        assert len(batch) == 0
    assert device.stats().rx_refused == 10
    check_ring(device)
    assert descriptors(device)[:10, 1].tolist() == [0] * 10


@pytest.mark.parametrize("length", [1, 59, 2048])
def test_lengths_that_fit(device: Device, length: int) -> None:
    """A strange length that a buffer holds is believed: it is the device's memory that was given to it."""
    write_back(device, length, slot=0)
    with device.rx[0].receive() as batch:
        assert batch.lengths.tolist() == [length]
    check_ring(device)


def test_frames_that_never_end(device: Device) -> None:
    """No EOP for ever: each call looks at as many descriptors as it was asked for, then returns with nothing."""
    for _ in range(10):
        write_back(device, 2048, DD)
        for limit in (1, 32, RING):
            with device.rx[0].receive(limit) as batch:
                assert len(batch) == 0
    assert device.stats().rx_refused == 0  # no frame has ended yet
    check_ring(device)


def test_packets_for_ever(device: Device) -> None:
    """A device that marks every descriptor done at once: a call hands out its limit, the pool is its end."""
    held = []
    for _ in range(10):
        write_back(device, 100)
        held.append(device.rx[0].receive(RING))
    assert [len(batch) for batch in held] == [64, 32, 0, 0, 0, 0, 0, 0, 0, 0]
    ids = [int(number) for batch in held for number in lent(batch)[0].ids[: len(batch)]]
    assert len(set(ids)) == len(ids) == POOL - RING
    assert not set(ids) & set(device.rx[0].ring.state.held.ids.tolist())
    for batch in held:
        batch.free()
    check_ring(device)


def test_packet_that_ends_without_its_beginning(device: Device) -> None:
    """Parts without EOP, then one with: all of it is one refused frame, and the next frame is good."""
    write_back(device, 2048, DD, slice(0, 5))
    write_back(device, 10, DD | EOP, 5)
    write_back(device, 60, DD | EOP, 6)
    with device.rx[0].receive() as batch:
        assert batch.lengths.tolist() == [60]
    assert device.stats().rx_refused == 1
    check_ring(device)


def test_addresses_that_the_device_writes_are_not_believed(device: Device) -> None:
    """The device overwrites the address words too: the driver hands out the buffers that it put there itself."""
    expected = device.rx[0].ring.state.held.ids[:8].tolist()
    descriptors(device)[:8] = (0x7FFF_FFFF_FFFF, 60 << 32 | DD | EOP)
    with device.rx[0].receive() as batch:
        assert lent(batch)[0].ids[: len(batch)].tolist() == expected
    check_ring(device)


words = st.integers(-(2**63), 2**63 - 1)
likely = st.builds(
    lambda length, status, rest: length << 32 | rest << 2 | status,
    st.sampled_from([0, 1, 60, 1514, 2047, 2048, 2049, 65535]),
    st.integers(0, 3),
    st.integers(0, 2**20),
)


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, RING - 1), words, likely | words), max_size=RING),
            st.integers(1, RING),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_random_words_in_the_receive_ring(rounds: list[tuple[list[tuple[int, int, int]], int, bool]]) -> None:
    """Rounds of random descriptors and a receive each; at the end an honest card is understood again."""
    machine = Machine(stepped=True)
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        held = []
        for lies, limit, keep in rounds:
            for slot, address, status in lies:
                descriptors(device)[slot] = address, status
            batch = device.rx[0].receive(limit)
            assert len(batch) <= limit
            assert all(1 <= length <= 2048 for length in batch.lengths)
            if keep:
                held.append(batch)
            else:
                batch.free()
        pool, out = device.rx[0].pool, sum(len(batch) for batch in held)
        assert pool.available + RING + out == POOL
        for batch in held:
            batch.free()
        check_ring(device)
        recover(machine, device)


def recover(machine: Machine, device: Device) -> None:
    """The card becomes honest: nothing is done any more, it goes on where the driver waits, and one frame clears up."""
    ring = device.rx[0].ring.state
    descriptors(device)[:, 1] = 0
    descriptors(device)[:, 0] = [device_address(ring.addresses, buffer) for buffer in ring.held.ids]
    head = int(ring.state[0]) % RING
    card = machine.cards["a"]
    machine.rack.registers[card.index, reg.RDH.offset // 4] = head
    card.write32(reg.RDT.offset, (head - 1) % RING)
    arrive(machine, frame(1))  # may be taken for the end of a frame that was refused
    receive_all(device)
    arrive(machine, frame(2))
    assert receive_all(device) == [frame(2)]
    check_ring(device)


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.lists(st.tuples(st.integers(0, RING - 1), words), max_size=40)), max_size=8
    )
)
def test_random_words_in_the_transmit_ring(rounds: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """Packets are sent while the device writes anything anywhere: a buffer comes back at most once, and all at the end.

    A device that says done too early gets its buffers taken away early; that harms nobody but itself.
    """
    machine = Machine(stepped=True)
    pool = Mempool(200)
    with open_card(machine, ring_size=RING, pool_size=2 * RING) as device:
        queue = device.tx[0]
        for count, lies in rounds:
            with pool.allocate(count) as batch:
                queue.send(batch)
            for slot, word in lies:
                queue.ring.state.descriptors[2 * slot + 1] = word
            assert 0 <= queue.in_flight < RING
            assert pool.available + queue.in_flight == 200
        with pool.allocate(200) as batch:
            free = lent(batch)[0].ids[: len(batch)].tolist()
        assert len(set(free)) == len(free)
    assert pool.available == 200
    pool.release()


def test_registers_that_the_device_changes(device: Device, machine: Machine) -> None:
    """Head and tail registers of nonsense: the driver does not read them, and its own next write mends the tail."""
    card = machine.cards["a"]
    registers = machine.rack.registers[card.index]
    for row in (reg.RDH, reg.RDT, reg.TDH, reg.TDT):
        registers[row.offset // 4] = 0xFFFF_FFFF
    assert receive_all(device) == []
    pool = Mempool(4)
    assert device.tx[0].send(batch_of(pool, [frame(1)])) == 1
    assert card.read32(reg.TDT.offset) == 1
    registers[reg.TDH.offset // 4] = 0
    assert depart(machine) == [frame(1)]
    device.close()
    assert pool.available == 4
    pool.release()
