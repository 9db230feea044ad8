"""Packets relayed along paths, as many as are wanted: what forwarding, echoing and the demonstration have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ixy.apps.session import drain
from ixy.path import Path, PathCounts, run

if TYPE_CHECKING:
    from ixy.asking import PacketFunction
    from ixy.device import Device
    from ixy.record import Record


class Relay:
    """One or two paths between devices, from receive queue to transmit queue of the same number.

    Args:
        ways: for each path, the device that receives and the one that sends.
        function: what to do with each packet.
        batch: the most packets that a path takes at a time.
        count: how many packets to relay in all, None for no limit.
        queue: the number.
        record: makes what the function is given besides, for each path anew; None where it takes packets only.

    Attributes:
        ways: the two queues of each path.
        sources: the queues that are received from.
        targets: the device that each path sends to.
        paths: themselves.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of a ring.
    """

    def __init__(
        self,
        ways: Sequence[tuple[Device, Device]],
        function: PacketFunction,
        batch: int,
        count: int | None = None,
        queue: int = 0,
        record: Callable[[], Record] | None = None,
    ) -> None:
        self.targets = [target for _, target in ways]
        self.ways = [(source.rx[queue], target.tx[queue]) for source, target in ways]
        self.sources = [source for source, _ in self.ways]
        self.paths = [Path(source, target, function, record and record(), batch=batch) for source, target in self.ways]
        self._batch = batch
        self._count = count
        self._turn = 0
        self._limited = False

    def run(self, polls: int) -> int:
        """Poll each path `polls` times, or fewer near the limit; how many packets came."""
        if self._count is None:
            return run(self.paths, polls)
        return self.run_within(polls, self._count - self.counts().received)

    def run_within(self, polls: int, left: int) -> int:
        """Poll each path `polls` times, or fewer, so that no more than `left` packets are taken; how many came."""
        whole = left // (self._batch * len(self.paths))
        if whole == 0 < polls:
            self._turn = (self._turn + 1) % len(self.paths)
            self._limit(min(self._batch, left), 0)
        elif self._limited:
            self._limit(self._batch, self._batch)
        return run(self.paths, min(polls, max(whole, 1)))

    def done(self) -> bool:
        """Whether the limit is reached."""
        return self._count is not None and self.counts().received >= self._count

    def drain(self) -> None:
        """Wait until the devices have sent what they were handed."""
        drain_all([self])

    def counts(self) -> PathCounts:
        """What became of the packets so far, along all paths."""
        return PathCounts.sum(self.paths)

    def _limit(self, one: int, other: int) -> None:
        """How many packets are taken at a time: for the last of them by one path all that are left, by the other none,
        and then the other way round."""
        self._limited = other < self._batch
        for number, path in enumerate(self.paths):
            path.state = path.state._replace(limit=one if number == self._turn else other)


def drain_all(relays: Sequence[Relay]) -> None:
    """Wait until the devices have sent what they were handed, by all their queues."""
    handed: Counter[Device] = Counter()
    for relay in relays:
        for target, path in zip(relay.targets, relay.paths, strict=True):
            handed[target] += path.counts.forwarded
    for target, packets in handed.items():
        drain(target, packets)
