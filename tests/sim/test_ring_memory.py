"""Rings that need more than one huge page, and who has one."""

from __future__ import annotations

from lab import open_card, run_by_another_thread

import ixy
from ixy.drivers.rings import leave, seize
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine


def test_many_large_rings(machine: Machine) -> None:
    """41 rings of 4,096 descriptors, 64 KiB each: the card is told of each, they follow each other."""
    with open_card(machine, rx_queues=1, tx_queues=40, ring_size=4096, pool_size=4128) as device:
        card = machine.cards["a"]
        assert [queue.ring.size for queue in (*device.rx, *device.tx)] == [4096] * 41
        low = [reg.RDBAL[0], *(reg.TDBAL[queue] for queue in range(40))]
        high = [reg.RDBAH[0], *(reg.TDBAH[queue] for queue in range(40))]
        starts = [
            card.read32(upper.offset) << 32 | card.read32(lower.offset) for lower, upper in zip(low, high, strict=True)
        ]
        assert [start - starts[0] for start in starts] == [(1 << 16) * number for number in range(41)]
        begins = [queue.ring.state.descriptors.__array_interface__["data"][0] for queue in (*device.rx, *device.tx)]
        assert [begin - begins[0] for begin in begins] == [(1 << 16) * number for number in range(41)]
        assert {queue.ring.state.descriptors.nbytes for queue in (*device.rx, *device.tx)} == {1 << 16}


def test_a_ring_is_seized_as_often_as_it_is_left(machine: Machine) -> None:
    """By one thread."""
    with open_card(machine) as device:
        words = device.tx[0].ring.state.state
        for _ in range(3):
            assert seize(words)
        for _ in range(3):
            leave(words)
        assert device.tx[0].ring.retire(0)


def test_a_ring_that_is_run_is_not_retired(machine: Machine) -> None:
    """By another thread, which does not leave it: whoever waits for it is told so in the end."""
    with open_card(machine) as device, open_card(machine, "sim:b") as other:
        with run_by_another_thread(ixy.Path(device.rx[0], other.tx[0])):
            assert not other.tx[0].ring.retire(0.01)
        assert other.tx[0].ring.retire(0.01)
