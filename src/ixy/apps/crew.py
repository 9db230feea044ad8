"""Workers that relay packets, each along the queues of one number, until so many are relayed in all."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ixy.apps.relay import Relay, drain_all
from ixy.path import POLLS
from ixy.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ixy.workers import Worker

_SLICE = 0.005  # seconds between two looks whether the run is to end


class Crew(Workers):
    """A worker for each relay.

    Args:
        relays: what they run.
        cores: see `Workers`.
        count: how many packets to relay in all, None for no limit. With a limit, each worker takes a share of what is
            left, and gives back what it has not used after so many polls.
    """

    def __init__(self, relays: Sequence[Relay], cores: Sequence[int] | None, count: int | None) -> None:
        super().__init__([relay.paths for relay in relays], cores)
        self._relays = relays
        self._count = count
        self._left = count or 0  # that no worker has taken
        self._sharing = threading.Lock()

    def watch(self, polls: int) -> None:
        """Wait a moment, unless `polls` is 0.

        Raises:
            WorkerError: a worker has failed.
        """
        self.join(_SLICE if polls else 0)

    def done(self) -> bool:
        """Whether the limit is reached."""
        return self._count is not None and self.total().received >= self._count

    def drain(self) -> None:
        """Wait until the devices have sent what they were handed."""
        drain_all(self._relays)

    def results(self) -> list[dict[str, Any]]:
        """What each worker has done, for a report."""
        return [{"worker": place} | stats._asdict() for place, stats in enumerate(self.stats())]

    def plan(self) -> list[dict[str, Any]]:
        """Which worker does what, for a report."""
        return [
            {
                "worker": place,
                "core": stats.core,
                "paths": [{"from": str(source), "to": str(target)} for source, target in relay.ways],
            }
            for place, (relay, stats) in enumerate(zip(self._relays, self.stats(), strict=True))
        ]

    def _run(self, worker: Worker) -> None:
        if self._count is None:
            super()._run(worker)
            return
        relay = self._relays[worker.place]
        with self._sharing:
            share = -(-self._left // len(self._relays))
            self._left -= share
        if share == 0:
            time.sleep(_SLICE)  # another worker may give back what it has taken
            return
        before = relay.counts().received
        try:
            relay.run_within(POLLS, share)
        finally:
            received = relay.counts().received - before
            with self._sharing:
                self._left += share - received
        if received == 0:
            time.sleep(_SLICE)  # so that the others get what there is to share
