"""Packets relayed along paths, as many as are wanted: what forwarding, echoing and the demonstration have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ixy.apps.session import drain
from ixy.path import Path, PathCounts, run

if TYPE_CHECKING:
    from ixy.device import Device
    from ixy.polls import PacketFunction


class Relay:
    """One or two paths between the first queues of devices.

    Args:
        ways: for each path, the device that receives and the one that sends.
        function: what to do with each packet.
        batch: the most packets that a path takes at a time.
        count: how many packets to relay in all, None for no limit.

    Attributes:
        sources: the queues that are received from.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of a ring.
    """

    def __init__(
        self, ways: Sequence[tuple[Device, Device]], function: PacketFunction, batch: int, count: int | None = None
    ) -> None:
        self._paths = [Path(source.rx[0], target.tx[0], function, batch=batch) for source, target in ways]
        self.sources = [source.rx[0] for source, _ in ways]
        self._targets = [target for _, target in ways]
        self._batch = batch
        self._count = count
        self._turn = 0

    def run(self, polls: int) -> int:
        """Poll each path `polls` times, or fewer near the limit; how many packets came."""
        if self._count is not None:
            whole = (self._count - self.counts().received) // (self._batch * len(self._paths))
            if whole == 0 < polls:
                self._take_turns(self._count - self.counts().received)
            polls = min(polls, max(whole, 1))
        return run(self._paths, polls)

    def done(self) -> bool:
        """Whether the limit is reached."""
        return self._count is not None and self.counts().received >= self._count

    def drain(self) -> None:
        """Wait until the devices have sent what they were handed."""
        for target, path in zip(self._targets, self._paths, strict=True):
            drain(target, path.counts.forwarded)

    def counts(self) -> PathCounts:
        """What became of the packets so far, along all paths."""
        return PathCounts(*map(sum, zip(*(path.counts for path in self._paths), strict=True)))

    def _take_turns(self, left: int) -> None:
        """For the last packets: one path may take all that are left, the other none, then the other way round."""
        self._turn = (self._turn + 1) % len(self._paths)
        for number, path in enumerate(self._paths):
            path.state = path.state._replace(limit=min(self._batch, left) if number == self._turn else 0)
