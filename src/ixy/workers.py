"""Workers: a thread for each path, on a processor core of its own.

    with ixy.Workers([path, other], cores=[2, 3]) as workers:
        while busy():
            print(workers.total(), workers.stats())

Each thread runs one compiled loop until it is told to end, without Python's lock, and shares nothing with the others.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path as File
from typing import TYPE_CHECKING, NamedTuple, cast

from ixy import clock
from ixy.arguments import integer, number
from ixy.bus.pci import PciDevice
from ixy.counts import CULPRIT, IDLE, PAUSE, POLLED
from ixy.device import MAX_TIMEOUT, RxQueue, TxQueue
from ixy.errors import AddressError, ConfigurationError, Error, OwnershipError, WorkerError
from ixy.path import Path, PathCounts, run
from ixy.process import Owner

if TYPE_CHECKING:
    from ixy.device import Port

log = logging.getLogger("ixy.workers")

MAX_WORKERS = 64
_CORES = File("/sys/devices/system/cpu")
_PATIENCE = 5.0  # seconds that stopping waits; a poll takes microseconds

# Workers and their paths look at each other's insides.
# pyright: reportPrivateUsage=false


class WorkerStats(NamedTuple):
    """What a worker has done so far.

    Attributes:
        core: that it runs on.
        received, forwarded, dropped: as of a path, of all its paths.
        polls: how often it has looked for packets.
        idle: the share of those that found none, 0 to 1.
    """

    core: int
    received: int
    forwarded: int
    dropped: int
    polls: int
    idle: float


class Workers:
    """Threads that each run a path, or two in turn, until they are stopped. Leaving the `with` block stops them.

    All is compiled when the workers are made, so that they start together. If one fails, all stop, and the block or
    `join` raises what it was. So they do when the back end of a device goes (vhost-user), as nobody watches them who
    could tell whether it comes back; a path that Python runs by itself goes on when it does.

    Args:
        paths: for each worker a path, or a list of two. No two workers have a queue in common.
        cores: for each worker the processor core that it runs on, a different one each. By default the cores that this
            process may use, in order, over and over if they are fewer.

    Raises:
        ConfigurationError: no paths, one that is named twice, a queue that two workers have; too many or too few cores,
            one named twice, one that is not there or not for this process; the clock is virtual.
        Error: a device is closed.
        OwnershipError: another thread uses one of the queues.
        TypeError: no paths, or cores that are no integers.
    """

    def __init__(self, paths: Sequence[Path | Sequence[Path]], cores: Sequence[int] | None = None) -> None:
        groups = _grouped(paths)
        if clock.is_virtual():
            raise ConfigurationError("with clock=virtual one thread does all: run the paths in turn, without workers")
        _check_shared(groups)
        self._workers = [
            Worker(self, place, group, core)
            for place, (group, core) in enumerate(zip(groups, choose_cores(cores, len(groups)), strict=True))
        ]
        for worker in self._workers:
            worker.warn_of_distance()
            run(worker.paths, 0)  # which compiles it
        self._owner = Owner()
        self._started = self._ending = False
        self._failure: tuple[Worker, BaseException] | None = None
        self._lock = threading.RLock()  # of who ends them, and who lets their paths go

    def start(self) -> None:
        """Start the threads; the `with` block does it by itself.

        Raises:
            Error: they were started before, or there are no more threads to be had.
        """
        if self._started:
            raise Error("these workers were started before: make new ones")
        self._started = True
        try:
            for port in self._ports():
                port._users.add(self)
            for worker in self._workers:
                worker.thread.start()
        except BaseException as error:
            self.stop()
            if isinstance(error, RuntimeError):
                raise Error(f"no thread for a worker: {error}") from error
            raise

    def stats(self) -> list[WorkerStats]:
        """What each worker has done so far, also while it runs."""
        return [worker.stats() for worker in self._workers]

    def total(self) -> PathCounts:
        """What all have done with packets so far."""
        return PathCounts.sum(path for worker in self._workers for path in worker.paths)

    def stop(self) -> None:
        """End all threads, after the poll that each is at; a second call does nothing.

        Raises:
            OwnershipError: one does not end; stop once more.
        """
        if not self._owner.mine():
            return
        self._tell_all()
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join(_PATIENCE)
            if worker.thread.is_alive():
                raise OwnershipError(f"{worker} does not end: stop it again")
        self._let_go()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all threads have ended, up to `timeout` seconds, or for ever; whether they have.

        Raises:
            WorkerError: one has failed, and all have stopped.
        """
        end = None if timeout is None else time.monotonic() + number("timeout", timeout, 0, MAX_TIMEOUT)
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join(None if end is None else max(end - time.monotonic(), 0))
        if any(worker.thread.is_alive() for worker in self._workers):
            return False
        self._let_go()
        self._raise_failure()
        return True

    def __enter__(self) -> Workers:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if kind is None:
            self._raise_failure()

    def __repr__(self) -> str:
        return f"<Workers on {_listed([worker.core for worker in self._workers])}>"

    def _run(self, worker: Worker) -> None:
        """Run a worker's paths until they are paused, or for a while."""
        run(worker.paths, sys.maxsize)

    def _ports(self) -> list[Port]:
        return list(dict.fromkeys(port for worker in self._workers for port in worker.ports()))

    def _lose(self, port: Port) -> None:
        """The back end of a device has gone: end all, unless they have ended meanwhile, and others run their paths."""
        with self._lock:
            if self in port._users:
                worker = next(worker for worker in self._workers if port in worker.ports())
                self._failed(worker, Error(f"{port.address}: the back end has gone: start it, and the workers, again"))

    def _let_go(self) -> None:
        """All have ended: their paths can be run by others."""
        with self._lock:
            for port in self._ports():
                port._users.discard(self)
            for worker in self._workers:
                worker.pause(False)

    def _tell_all(self) -> None:
        self._ending = True
        for worker in self._workers:
            worker.pause(True)

    def _failed(self, worker: Worker, error: BaseException) -> None:
        """The first error is kept; all are to end."""
        with self._lock:
            if self._failure is None:
                self._failure = worker, error
        self._tell_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            (worker, error), self._failure = self._failure, None
            raise WorkerError(f"{worker}: {worker.described(error)}") from error


class Worker:
    """One thread and its paths.

    Attributes:
        place: its number among the workers.
    """

    def __init__(self, all_of_them: Workers, place: int, paths: list[Path], core: int) -> None:
        self.place = place
        self.paths = paths
        self.core = core
        self._all = all_of_them
        self.thread = threading.Thread(target=self._work, name=f"ixy-worker-{place}", daemon=True)
        for path in paths:
            path.state.counts[CULPRIT] = 0  # of a run before

    def _work(self) -> None:
        try:
            os.sched_setaffinity(0, {self.core})  # of this thread
            while not self._all._ending:
                self._all._run(self)
        except BaseException as error:
            self._all._failed(self, error)

    def ports(self) -> list[Port]:
        """The devices and rings that its paths are on."""
        return list(dict.fromkeys(port for path in self.paths for port in path._ports))

    def pause(self, now: bool) -> None:
        """End the run of its paths, or let others begin."""
        for path in self.paths:
            path.state.counts[PAUSE] = now

    def stats(self) -> WorkerStats:
        counts = PathCounts.sum(self.paths)
        # In the reverse order of the path's, which goes on meanwhile: no more are idle than have been.
        idle, polls = (int(self.paths[0].state.counts[word]) for word in (IDLE, POLLED))
        return WorkerStats(self.core, *counts, polls=polls, idle=idle / polls if polls else 0.0)

    def described(self, error: BaseException) -> str:
        """What has happened, and at which packet, if a kernel raised it."""
        if isinstance(error, Error):
            return str(error)
        said = f"{type(error).__name__}: {error}"
        for path in self.paths:
            if culprit := int(path.state.counts[CULPRIT]):
                return f"{said}, at packet {culprit} of {path._rx}, which begins {path.state.culprit.tobytes().hex()}"
        return said

    def warn_of_distance(self) -> None:
        """Say which devices are attached to other memory than the core."""
        for port in self.ports():
            node, own = _node_of(port), _node(self.core)
            if node is not None and own is not None and node != own:
                log.warning("%s: %s is attached to NUMA node %d, the core to node %d", self, port.address, node, own)

    def __str__(self) -> str:
        return f"worker {self.place} on core {self.core}"


# ---------------------------------------------------------------------------------------------------------------------
# What they are given


def _grouped(paths: object) -> list[list[Path]]:
    """The paths of each worker."""
    if not isinstance(paths, Sequence):
        raise TypeError(f"workers are given a list of paths, not {paths!r}")
    items = cast("Sequence[object]", paths)
    integer("number of workers", len(items), 1, MAX_WORKERS)
    groups: list[list[Path]] = []
    for item in items:
        group = list(cast("Sequence[Path]", item)) if isinstance(item, list | tuple) else [cast(Path, item)]
        integer("number of paths of a worker", len(group), 1, 2)
        for path in group:
            if not isinstance(cast(object, path), Path):
                raise TypeError(f"a worker runs a path, or a list of two, not {path!r}")
            path._check()
        groups.append(group)
    return groups


def _queues(path: Path) -> list[RxQueue | TxQueue]:
    return [path._rx, *path._outputs]


def _check_shared(groups: list[list[Path]]) -> None:
    """No path twice, and no queue in two workers."""
    users: dict[object, int] = {}
    for place, group in enumerate(groups):
        for path in group:
            if path in users:
                raise ConfigurationError(f"the path from {path._rx} is named twice: a path is run by one worker")
            users[path] = place
            for queue in _queues(path):
                if users.setdefault(queue, place) != place:
                    raise ConfigurationError(
                        f"{queue} belongs to paths of workers {users[queue]} and {place}: give each queues of its own"
                    )


def choose_cores(cores: Sequence[int] | None, workers: int) -> list[int]:
    """The core of each worker; raises as `Workers`."""
    allowed = sorted(os.sched_getaffinity(0))
    if cores is None:
        return [allowed[place % len(allowed)] for place in range(workers)]
    if not isinstance(cast(object, cores), Sequence) or isinstance(cores, str):
        raise TypeError(f"cores must be numbers, such as [2, 3], not {cores!r}")
    numbers = [integer("core", core, 0, sys.maxsize) for core in cores]
    if len(numbers) != workers:
        raise ConfigurationError(f"number of cores {len(numbers)}: one for each worker is needed, {workers}")
    for core in numbers:
        if not (_CORES / f"cpu{core}").exists():
            raise ConfigurationError(f"core {core}: this machine has none, possible are {_listed(allowed)}")
        if core not in allowed:
            raise ConfigurationError(f"core {core}: this process may not run there, possible are {_listed(allowed)}")
        if numbers.count(core) > 1:
            raise ConfigurationError(f"core {core} is named twice: each worker has one of its own")
    return numbers


def _node_of(port: Port) -> int | None:
    """The NUMA node that a device is attached to; None for one that is no PCI device, or if the machine has but one."""
    with suppress(AddressError):
        return PciDevice(port.address).numa_node
    return None


def _node(core: int) -> int | None:
    """The NUMA node that a core belongs to."""
    found = [int(entry.name.removeprefix("node")) for entry in (_CORES / f"cpu{core}").glob("node[0-9]*")]
    return found[0] if found else None


def _listed(cores: Sequence[int]) -> str:
    return ("core " if len(cores) == 1 else "cores ") + ", ".join(map(str, cores))
