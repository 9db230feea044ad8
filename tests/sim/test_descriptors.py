"""The descriptors that the driver writes, bit by bit, and in which order it shares them with the card.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
from lab import accounted, arrive, batch_of, depart, frame, number_of, open_card

from ixy.device import Device
from ixy.drivers.ixgbe import datapath
from ixy.packets.batch import Batch, lent
from ixy.packets.mempool import Mempool
from ixy.packets.packets import new_packets
from ixy.packets.pool import give, pools
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

RING, GROUP = 64, 32
DD = np.uint64(1 << 32)  # of a transmit descriptor, as its second word is written back (7.2.3.2.4)


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    with open_card(machine, ring_size=RING, pool_size=2 * RING) as device:
        yield device


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(256)
    yield pool
    pool.release()


# What of the driver these tests know


def transmitted(device: Device) -> list[tuple[int, int]]:
    """The two words of each transmit descriptor, unsigned."""
    words = device.tx[0].ring.state.descriptors.view(np.uint64).reshape(-1, 2)
    return [(int(address), int(command)) for address, command in words]


def received(device: Device) -> list[tuple[int, int]]:
    """The two words of each receive descriptor."""
    words = device.rx[0].ring.state.descriptors.view(np.uint64).reshape(-1, 2)
    return [(int(address), int(status)) for address, status in words]


def room(device: Device, wanted: int) -> int:
    """What a compiled loop is told that the transmit ring takes."""
    ring = device.tx[0].ring
    return ring.room(ring.state, pools(), wanted)


def send(device: Device, batch: Batch) -> int:
    """As `TxQueue.send`, by the data path that stands in its module now."""
    device.attach(batch.pool)
    packets, span = lent(batch)
    sent = datapath.tx_batch(device.tx[0].ring.state, pools(), packets, span[0], span[1])
    span[0] += sent
    return sent


def receive(device: Device, limit: int) -> int:
    """As `RxQueue.receive`, likewise; gives the packets back, and says how many there were."""
    packets = new_packets(limit)
    count = datapath.rx_batch(device.rx[0].ring.state, pools(), packets, limit)
    give(pools(), packets, 0, count)
    return count


def command(length: int, *, report: bool) -> int:
    """7.2.3.2.4: DTALEN 15:0, DTYP 0011b at 20, DCMD at 24 (EOP 0, IFCS 1, RS 3, DEXT 5), PAYLEN at 46."""
    dcmd = 1 << 0 | 1 << 1 | 1 << 5 | (1 << 3 if report else 0)
    return length | 0b0011 << 20 | dcmd << 24 | length << 46


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


@pytest.mark.parametrize("length", [1, 60, 1514, 2048])
def test_transmit_descriptor(machine: Machine, device: Device, pool: Mempool, length: int) -> None:
    """All 128 bits: where the packet lies, and what is to be done with it."""
    batch = batch_of(pool, [frame(7, length)])
    batch[0][0] = 0xA7
    device.tx[0].send(batch)
    address, second = transmitted(device)[0]
    assert second == command(length, report=False)
    assert machine.rack.memory[address - machine.rack.base] == 0xA7


def test_status_is_asked_for_once_in_a_group(machine: Machine, device: Device, pool: Mempool) -> None:
    """RS is in every 32nd descriptor, counted from the first, whatever the batches are: 4 times around the ring. So
    there are never 40 without (7.2.3.4.2), it never comes without EOP (8.2.3.9.10), and no DD of before is left.
    """
    sizes = [1, 30, 1, 33, 2, 29, 31, 1, 31, 32, 5, 27, 31, 2]
    index = 0
    for size in sizes:
        assert device.tx[0].send(batch_of(pool, [frame(n, 60 + n) for n in range(size)])) == size
        for n in range(size):
            slot = (index + n) % RING
            assert transmitted(device)[slot][1] == command(60 + n, report=slot % GROUP == GROUP - 1), (index, n)
        index += size
        assert len(depart(machine)) == size
    assert index == 4 * RING


def test_status_is_asked_for_in_each_group_of_a_large_batch(machine: Machine, pool: Mempool) -> None:
    """A batch of 100 from the start of a ring of 128 ends three groups."""
    with open_card(machine, ring_size=128, pool_size=160) as device:
        assert device.tx[0].send(batch_of(pool, [frame(n) for n in range(100)])) == 100
        reports = [slot for slot, (_, word) in enumerate(transmitted(device)[:100]) if word == command(60, report=True)]
        assert reports == [31, 63, 95]


def test_room_is_what_the_ring_takes(machine: Machine, device: Device, pool: Mempool) -> None:
    """At each filling of the ring, at each place of its start: what is offered beyond the room is not taken, and what
    is within is. With a full ring, tail and head would be the same, and the card would see an empty one (7.2.3.3).
    """
    for filling in range(RING):
        if filling:
            assert device.tx[0].send(batch_of(pool, [frame(n) for n in range(filling)])) == filling
        told = room(device, RING)
        with batch_of(pool, [frame(n) for n in range(RING)]) as more:
            assert device.tx[0].send(more) == told
        assert device.tx[0].in_flight == RING - 1
        assert room(device, 1) == 0
        tail, head = (machine.cards["a"].read32(register[0].offset) for register in (reg.TDT, reg.TDH))
        assert (head - tail) % RING >= 1
        left = len(depart(machine))
        assert left >= told
        # The last packets of a group stay in flight until others follow: fill it up.
        rest = -device.tx[0].in_flight % GROUP
        while room(device, RING) < RING - 1:
            device.tx[0].send(batch_of(pool, [frame(0)] * max(rest, 1)))
            depart(machine)
            rest = -device.tx[0].in_flight % GROUP


def test_room_cleans_only_where_it_must(machine: Machine, device: Device, pool: Mempool) -> None:
    """40 packets were sent and reported, not the first of the ring: who asks for what there is anyway leaves them; who
    asks for more does not.
    """
    for count in (GROUP, 40):
        device.tx[0].send(batch_of(pool, [frame(n) for n in range(count)]))
        depart(machine)
    assert room(device, 23) == 23
    assert device.tx[0].in_flight == 40
    assert room(device, 24) == 23 + GROUP
    assert device.tx[0].in_flight == 8


def test_buffers_come_back_with_the_report(device: Device, pool: Mempool) -> None:
    """A group comes back when its last descriptor is done, not when any other is."""
    device.tx[0].send(batch_of(pool, [frame(n) for n in range(GROUP + 1)]))
    words = device.tx[0].ring.state.descriptors.view(np.uint64).reshape(-1, 2)
    words[: GROUP - 1, 1] |= DD
    words[GROUP, 1] |= DD
    assert room(device, RING) == RING - 1 - GROUP - 1
    words[GROUP - 1, 1] |= DD
    assert room(device, RING) == RING - 1 - 1
    assert pool.available == pool.capacity - 1


# ---------------------------------------------------------------------------------------------------------------------
# Receive


def test_receive_descriptor_is_made_anew(machine: Machine, device: Device) -> None:
    """7.1.6.1: a fresh buffer's address, and a second word of zeros, or the card's last DD would be taken for a new
    packet. The tail follows: it is the last descriptor that the card has (7.1.9).
    """
    card = machine.cards["a"]
    held = []
    for number in range(2 * RING):
        before = received(device)[number % RING][0]
        arrive(machine, frame(number))
        assert received(device)[number % RING][1] & 1  # done
        batch = device.rx[0].receive(1)
        assert number_of(bytes(batch[0])) == number
        address, second = received(device)[number % RING]
        assert second == 0
        assert address != before
        assert card.read32(reg.RDT[0].offset) == number % RING
        held.append(batch)
        if len(held) == RING:
            for old in held:
                old.free()
            held.clear()
    assert accounted(device) == 2 * RING


# ---------------------------------------------------------------------------------------------------------------------
# Order


class Order:
    """The data path in Python, with the two primitives by which it shares memory with the card in our hands.

    Attributes:
        rung: called with the new value before a doorbell is rung.
        loaded: how many words were loaded with acquire.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rung: Callable[[int], None] = lambda _: None
        self.loaded = 0
        for name, kernel in list(vars(datapath).items()):
            if hasattr(kernel, "py_func") and kernel.py_func.__module__ == datapath.__name__:
                monkeypatch.setattr(datapath, name, kernel.py_func)
        monkeypatch.setattr(datapath, "store_release", self._store)
        monkeypatch.setattr(datapath, "load_acquire", self._load)
        monkeypatch.setattr(datapath, "fence_acquire", lambda: None)
        monkeypatch.setattr(datapath, "has", lambda _: False)  # no metadata was asked for
        monkeypatch.setattr(datapath, "put", lambda *_: None)

    def _store(self, array: np.ndarray, index: int, value: int) -> None:
        self.rung(int(value))
        array[index] = value

    def _load(self, array: np.ndarray, index: int) -> int:
        self.loaded += 1
        return int(array[index])


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    return Order(monkeypatch)


def test_doorbell_comes_after_the_descriptors(machine: Machine, device: Device, pool: Mempool, order: Order) -> None:
    """When the tail says that descriptors are the card's, all their words are there, RS included (7.2.3.3)."""
    rings: list[int] = []

    def check(tail: int) -> None:
        rings.append(tail)
        for slot in range(tail):
            assert transmitted(device)[slot][1] == command(60 + slot, report=slot % GROUP == GROUP - 1)

    order.rung = check
    assert send(device, batch_of(pool, [frame(n, 60 + n) for n in range(40)])) == 40
    assert rings == [40]
    assert machine.cards["a"].read32(reg.TDT[0].offset) == 40


def test_buffer_is_the_cards_only_when_it_is_set(machine: Machine, device: Device, order: Order) -> None:
    """The same for receive descriptors that go back, whose buffers are fresh and whose status is 0 (7.1.9)."""
    addresses = [address for address, _ in received(device)]
    rings: list[int] = []

    def check(tail: int) -> None:
        rings.append(tail)
        for slot in range(tail + 1):
            address, status = received(device)[slot]
            assert status == 0
            assert address != addresses[slot]

    order.rung = check
    for number in range(20):
        arrive(machine, frame(number))
    assert receive(device, 20) == 20
    assert rings == [19]


def test_status_is_loaded_before_what_it_stands_for(machine: Machine, device: Device, order: Order) -> None:
    """Each descriptor's status is loaded with acquire: what is read of its packet is read later (7.1.6.2)."""
    for number in range(5):
        arrive(machine, frame(number))
    assert receive(device, 32) == 5
    assert order.loaded >= 6  # one more that was not done


COMPILED = """
import numba
import numpy as np
from ixy.unsafe import load_acquire, store_release

@numba.njit
def kernel(words, tail):
    value = load_acquire(words, 1)
    store_release(tail, 0, value)
    return value

kernel(np.zeros(2, np.int64), np.zeros(1, np.uint32))
print(kernel.inspect_llvm(kernel.signatures[0]))
"""


def test_compiled_accesses_are_atomic() -> None:
    """What the compiler makes of the two primitives: instructions that it neither repeats, drops nor moves."""
    environment = os.environ | {"IXY_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"load atomic i64, .* acquire", run.stdout)
    assert re.search(r"store atomic i32 .* release", run.stdout)


def shared(module: ModuleType) -> Iterator[tuple[str, ast.Subscript]]:
    """Each element of an array of a ring that is shared with the card, as the module's source reads or writes it."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
            yield node.value.attr, node


def test_no_plain_access_to_what_the_card_writes() -> None:
    """The source reads a descriptor's second word, which says whether it is done, by `load_acquire` alone, which may
    not be hoisted out of a loop, and rings doorbells by `store_release` alone, before which all else is visible. Plain
    are only stores to descriptors that are the driver's, and RS that is laid over one.
    """
    accesses = list(shared(datapath))
    read = [node for name, node in accesses if name == "descriptors" and isinstance(node.ctx, ast.Load)]
    assert "descriptors" in {name for name, _ in accesses}  # the name is still this
    assert not [node.lineno for name, node in accesses if name == "tail"]
    assert not [node.lineno for node in read if ast.unparse(node.slice).endswith("+ 1")]
