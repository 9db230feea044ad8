"""Buffers that are used by who does not have them, on the low-level interface: the checking mode says who had them.

For a process with `IXY_CHECK=1`, in which `test_checking.py` runs this. The rings are real, over memory that no card
sees.
"""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ixy
from ixy.device import Device
from ixy.drivers.ixgbe.rings import IxgbeRxRing, IxgbeTxRing
from ixy.drivers.rings import enter, exit_from
from ixy.jit import CHECKING
from ixy.packets.buffers import POOL_BUFFERS, POOLS
from ixy.packets.checking import report
from ixy.packets.mempool import Mempool
from ixy.packets.packets import NO_NEXT, Packets, new_packets, slots
from ixy.packets.pool import give, pools, take_soon
from ixy.registers.i82599 import RX_DD, RX_EOP, RX_LENGTH_SHIFT

SIZE = 64  # of the rings
assert CHECKING


@pytest.fixture(autouse=True)
def no_violations() -> None:
    """Here there are some."""


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(100)
    yield pool
    if not pool.closed:
        pool.release()


class Machine:
    """A device "b" with a receive and a transmit ring, but no card."""

    def __init__(self, pool: Mempool) -> None:
        self.descriptors = np.zeros((2, 2 * SIZE), np.int64)
        tails, addresses = np.zeros(2, np.uint32), np.arange(POOLS * POOL_BUFFERS)
        memory = self.descriptors.view(np.uint8)
        self.rx = IxgbeRxRing(memory[0], tails[:1], addresses, pool)
        self.tx = IxgbeTxRing(memory[1], tails[1:], addresses)
        driver: Any = SimpleNamespace(address="b", name="none", rx_rings=[self.rx], tx_rings=[self.tx])
        driver.attach = driver.when_gone = driver.rung_by = lambda _: None
        driver.close, driver.rouse = self._drain, lambda: None
        self.device = Device(driver)

    def _drain(self) -> None:
        self.rx.drain()
        self.tx.drain()

    def arrive(self, slot: int) -> None:
        """Let the card have put a frame of 60 bytes into a descriptor."""
        self.descriptors[0, 2 * slot + 1] = RX_DD | RX_EOP | 60 << RX_LENGTH_SHIFT

    def send(self, packets: Packets, first: int, last: int) -> int:
        return self.tx.kernel(self.tx.state, pools(), packets, first, last)

    def receive(self, packets: Packets) -> int:
        assert enter(self.rx.state, pools()) == 0
        count = self.rx.kernel(self.rx.state, pools(), packets, len(packets.ids))
        exit_from(self.rx.state, pools())
        return count


@pytest.fixture
def machine(pool: Mempool) -> Iterator[Machine]:
    machine = Machine(pool)
    with machine.device:
        yield machine


def taken(pool: Mempool, count: int) -> Packets:
    """Packets of a program that works on the low-level interface."""
    packets = new_packets(count)
    packets.lengths[:] = 60
    assert take_soon(pools(), pool.number, packets, count) == count
    return packets


def violation(expected: str) -> None:
    """One was found, with this message; and it is reported once."""
    with pytest.raises(ixy.OwnershipError, match=f"^{re.escape(expected)}$"):
        report(pools())
    report(pools())


def test_double_free(pool: Mempool) -> None:
    """The first counts. The pool has each buffer once."""
    packets = taken(pool, 3)
    give(pools(), packets, 0, 3)
    give(pools(), packets, 0, 3)
    who, what = packets.holder, packets.ids[0]
    violation(f"double free: batch {who} freed {what}, but its pool had it; and 2 more")
    assert pool.available == 100
    with pool.allocate(100) as batch:
        assert len(batch) == 100
    give(pools(), packets, 2, 3)
    with pytest.raises(ixy.OwnershipError, match=r"^double free"):
        pool.allocate(1)  # whoever calls next is told
    assert pool.available == 100


def test_free_of_what_a_batch_has(pool: Mempool) -> None:
    """The batch keeps it, and gives it back itself."""
    with pool.allocate(2) as batch:
        theirs, mine = batch._packets, new_packets(2)
        mine.ids[:] = theirs.ids
        give(pools(), mine, 1, 2)
        violation(
            f"free of another's buffer: batch {mine.holder} freed {mine.ids[1]}, but batch {theirs.holder} had it"
        )
        assert pool.available == 98
    assert pool.available == 100


def test_a_chain_of_which_one_buffer_is_freed_already(pool: Mempool) -> None:
    """All the others stay with the batch: the first, and those on the way to it."""
    with pool.allocate(1, 5000, metadata=("parts",)) as batch:
        theirs, mine = batch._packets, new_packets(1)
        assert theirs.nexts is not None
        last = pools().nexts[theirs.nexts[0]]
        mine.ids[0] = last
        pools().holders[last] = mine.holder
        give(pools(), mine, 0, 1)
        report(pools())
        give(pools(), theirs, 0, 1)
        violation(f"double free: batch {theirs.holder} freed {last}, but its pool had it")
        assert pool.available == 98
        assert len({int(pools().holders[buffer]) for buffer in (theirs.ids[0], theirs.nexts[0])}) == 1
        pools().nexts[theirs.nexts[0]] = NO_NEXT
    assert pool.available == 100


def test_a_chain_that_comes_back_to_itself(pool: Mempool) -> None:
    """No buffer is freed twice."""
    batch = pool.allocate(1, 5000, metadata=("parts",))
    theirs = batch._packets
    assert theirs.nexts is not None
    second = theirs.nexts[0]
    last = pools().nexts[second]
    pools().nexts[last] = second
    give(pools(), theirs, 0, 1)
    violation(f"double free: batch {theirs.holder} freed {second}, but its pool had it")
    pools().nexts[last] = NO_NEXT
    batch.free()
    assert pool.available == 100


def test_use_after_send(pool: Mempool, machine: Machine) -> None:
    """What is sent again stays where it is, and so does what is freed."""
    packets = taken(pool, 2)
    assert machine.send(packets, 0, 2) == 2
    who, what = packets.holder, packets.ids[0]
    assert machine.send(packets, 0, 1) == 0
    violation(f"use after send: batch {who} passed {what} to b tx[0], but b tx[0] had it")
    give(pools(), packets, 0, 1)
    violation(f"free of another's buffer: batch {who} freed {what}, but b tx[0] had it")
    assert machine.tx.in_flight == 2
    machine.device.close()
    assert pool.available == 100


def test_use_after_free(pool: Mempool, machine: Machine) -> None:
    packets = taken(pool, 1)
    give(pools(), packets, 0, 1)
    assert machine.send(packets, 0, 1) == 0
    violation(f"use after free: batch {packets.holder} passed {packets.ids[0]} to b tx[0], but its pool had it")


@pytest.mark.parametrize("buffer", [5, -1, POOLS * POOL_BUFFERS + 7])
def test_send_of_a_foreign_buffer(machine: Machine, buffer: int) -> None:
    """A number that no living pool has, or none at all."""
    packets = new_packets(1)
    packets.ids[0], packets.lengths[0] = buffer, 60
    assert buffer not in machine.rx.pool.ids
    assert machine.send(packets, 0, 1) == 0
    violation(f"foreign buffer: batch {packets.holder} passed {buffer} to b tx[0], but it is of no living pool")


def test_send_of_what_a_batch_has(pool: Mempool, machine: Machine) -> None:
    """It stays the batch's."""
    with pool.allocate(2) as batch:
        theirs, mine = batch._packets, new_packets(2)
        mine.ids[:], mine.lengths[:] = theirs.ids, 60
        assert machine.send(mine, 0, 1) == 0
        who, what = mine.holder, mine.ids[0]
        violation(f"foreign buffer: batch {who} passed {what} to b tx[0], but batch {theirs.holder} had it")
    assert pool.available == 100


def test_send_of_a_buffer_whose_pool_is_gone(machine: Machine) -> None:
    """It was lost when the pool went, and is nobody's then."""
    gone = Mempool(4)
    packets = taken(gone, 1)
    with pytest.raises(ixy.OwnershipError, match=f"^lost buffer: {packets.ids[0]} "):
        gone.release()
    assert machine.send(packets, 0, 1) == 0
    violation(f"foreign buffer: batch {packets.holder} passed {packets.ids[0]} to b tx[0], but it is of no living pool")


def test_the_others_are_sent(pool: Mempool, machine: Machine) -> None:
    """Of three packets the middle one is foreign: the others go, in their order, with their lengths."""
    packets = taken(pool, 3)
    packets.lengths[:] = 60, 61, 62
    first, second, third = packets.ids.tolist()
    packets.ids[1] = 5
    assert machine.send(packets, 0, 3) == 2
    violation(f"foreign buffer: batch {packets.holder} passed 5 to b tx[0], but it is of no living pool")
    assert machine.tx.state.held.ids[:2].tolist() == [first, third]
    assert machine.descriptors[1, 1:4:2].astype(np.uint16).tolist() == [60, 62]
    packets.ids[2] = second
    give(pools(), packets, 2, 3)
    report(pools())


def test_receive_of_a_buffer_that_was_freed(machine: Machine) -> None:
    """A buffer is stolen from the receive ring. The packet in it is not handed out; those beside it are."""
    machine.rx.fill()
    stolen, kept = machine.rx.state.held.ids[:2].tolist()
    give(pools(), machine.rx.state.held, 0, 1)
    machine.arrive(0)
    machine.arrive(1)
    packets = new_packets(SIZE)
    assert machine.receive(packets) == 1
    violation(f"use after free: b rx[0] passed {stolen} to batch {packets.holder}, but its pool had it")
    assert packets.ids[0] == kept
    give(pools(), packets, 0, 1)


def test_a_buffer_that_is_on_the_stack_and_elsewhere(pool: Mempool) -> None:
    """Somebody writes to the stack itself."""
    with pool.allocate(1) as batch:
        packets = batch._packets
        base = pool.number * POOL_BUFFERS
        pools().stack[base : base + 99] = packets.ids[0]
        mine = new_packets(1)
        take_soon(pools(), pool.number, mine, 1)
        violation(
            f"buffer that is not free: batch {mine.holder} took {packets.ids[0]} from its pool, "
            f"but batch {packets.holder} had it"
        )
        pools().stack[base : base + 99] = np.setdiff1d(pool.ids, packets.ids)


def test_lost_buffers(pool: Mempool) -> None:
    """Reported when the pool goes. What a living batch has is not lost, and it may free that in vain."""
    batch, packets = pool.allocate(5), taken(pool, 3)
    buffer = min(packets.ids)
    with pytest.raises(ixy.OwnershipError) as caught:
        pool.release()
    lost = f"lost buffer: {buffer} was not given back, batch {packets.holder} had it last; and 2 more"
    assert str(caught.value) == lost
    assert pool.closed
    batch.free()


def test_what_collection_finds_is_logged(pool: Mempool, caplog: pytest.LogCaptureFixture) -> None:
    """A batch whose packet was freed behind its back is collected: no exception, but a line in the log."""
    batch = pool.allocate(2)
    packets = batch._packets
    give(pools(), packets, 0, 1)
    del batch
    gc.collect()
    assert caplog.messages == [f"double free: batch {packets.holder} freed {packets.ids[1]}, but its pool had it"]
    assert pool.available == 100


def test_a_bad_index_ends_the_call_and_leaves_the_ring(pool: Mempool, machine: Machine) -> None:
    """A packet that the batch has no room for raises IndexError. Another thread can send then."""
    batch = pool.allocate(2)
    batch._span[:] = 2, 3
    with pytest.raises(IndexError):
        machine.device.tx[0].send(batch)
    batch._span[:] = 0, 2
    sent: list[int] = []

    def send() -> None:
        with pool.allocate(3) as other:
            sent.append(machine.device.tx[0].send(other))

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    assert sent == [3]


def test_free_of_a_buffer_of_no_pool() -> None:
    """Nobody has ever had it."""
    packets = slots(1)
    packets.ids[0] = (POOLS - 1) * POOL_BUFFERS + 5
    give(pools(), packets, 0, 1)
    with pytest.raises(ixy.OwnershipError, match=r"free of another's buffer: .*, but it is of no living pool"):
        report(pools())
