"""Receive, send, free and the card's own progress in any order, against a model of lists."""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lab import arrive, batch_of, depart, frame, number_of, open_card

from ixy.packets.batch import Batch
from ixy.packets.mempool import Mempool
from ixy.sim.machine import Machine

RING = 64
GROUP = 32  # transmit descriptors are reported, and buffers come back, in groups


class Interleavings(RuleBasedStateMachine):
    """A card with small rings and a small pool.

    The model: frames in the receive ring, numbers held in batches, numbers in the transmit ring, counts of what was
    dropped. From these follow, at any time, what must arrive, leave, and be free.
    """

    @initialize(extra=st.integers(GROUP, 80))
    def open(self, extra: int) -> None:
        self.machine = Machine(stepped=True)
        self.device = open_card(self.machine, ring_size=RING, pool_size=RING + extra)
        self.own = Mempool(40)
        self.capacity = RING + extra
        self.next = 0
        self.waiting: deque[int] = deque()  # in the receive ring
        self.held: list[tuple[Batch, list[int]]] = []
        self.flying: deque[int] = deque()  # in the transmit ring
        self.sent = 0  # packets handed to the ring
        self.departed = 0  # of those, out of the port
        self.cleaned = 0  # of those, given back
        self.dropped = 0
        self.starved = 0

    # What the world does

    @rule(count=st.integers(1, 40))
    def frames_arrive(self, count: int) -> None:
        for _ in range(count):
            arrive(self.machine, frame(self.next))
            if len(self.waiting) < RING - 1:
                self.waiting.append(self.next)
            else:
                self.dropped += 1
            self.next += 1

    @rule(limit=st.integers(1, 50))
    def card_sends(self, limit: int) -> None:
        left = [number_of(data) for data in depart(self.machine, limit)]
        expected = [self.flying.popleft() for _ in range(min(limit, len(self.flying)))]
        assert left == expected
        self.departed += len(left)

    # What the program does

    @rule(limit=st.integers(1, RING))
    def receive(self, limit: int) -> None:
        free = self.device.rx[0].pool.available
        batch = self.device.rx[0].receive(limit)
        count = min(limit, len(self.waiting), free)
        if count < min(limit, len(self.waiting)):
            self.starved += 1
        numbers = [self.waiting.popleft() for _ in range(count)]
        assert [bytes(packet) for packet in batch] == [frame(number) for number in numbers]
        self.held.append((batch, numbers))

    @rule(count=st.integers(1, 50))
    def allocate(self, count: int) -> None:
        count = min(count, self.own.available)
        if count:
            numbers = list(range(self.next, self.next + count))
            self.next += count
            self.held.append((batch_of(self.own, [frame(number) for number in numbers]), numbers))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        batch, numbers = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.cleaned = max(self.cleaned, self.departed // GROUP * GROUP)
        count = min(len(numbers), RING - 1 - (self.sent - self.cleaned))
        assert self.device.tx[0].send(batch) == count
        self.sent += count
        self.flying.extend(numbers[:count])
        assert len(batch) == len(numbers) - count
        if numbers[count:]:
            self.held.append((batch, numbers[count:]))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        batch, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        batch.free()

    # What holds at any time

    @invariant()
    def held_packets_are_whole(self) -> None:
        for batch, numbers in getattr(self, "held", []):
            assert len(batch) == len(numbers)
            if numbers:
                assert bytes(batch[0]) == frame(numbers[0])
                assert bytes(batch[-1]) == frame(numbers[-1])

    @invariant()
    def every_buffer_is_somewhere(self) -> None:
        if not hasattr(self, "held"):
            return
        held = sum(len(batch) for batch, _ in self.held)
        in_flight = self.device.tx[0].in_flight
        assert in_flight == self.sent - self.cleaned
        free = self.device.rx[0].pool.available + self.own.available
        assert free + RING + held + in_flight == self.capacity + self.own.capacity

    @invariant()
    def counters_agree(self) -> None:
        if not hasattr(self, "held"):
            return
        stats = self.device.stats()
        assert stats.rx_dropped == self.dropped
        assert stats.rx_starved == self.starved
        assert stats.tx_packets == self.departed
        assert stats.rx_refused == stats.rx_errors == 0

    def teardown(self) -> None:
        if not hasattr(self, "held"):
            return
        pool = self.device.rx[0].pool
        mine = [(batch, numbers) for batch, numbers in self.held if batch.pool is self.own]
        self.device.close()
        assert pool.closed
        assert self.own.available == self.own.capacity - sum(len(batch) for batch, _ in mine)
        for batch, _ in self.held:
            batch.free()
        assert self.own.available == self.own.capacity
        self.own.release()


TestInterleavings = Interleavings.TestCase
