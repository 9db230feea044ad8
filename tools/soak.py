"""Wear the driver out, and see whether anything is lost. Prints a verdict; exit code 1 if something was.

tools/soak.py threads MINUTES   two compiled paths, a receiver in Python, and a thread that allocates and drops
                                batches, on two devices, while garbage is collected
tools/soak.py signals MINUTES   the same, while a signal raises an exception in the main thread every 200 µs
tools/soak.py waits MINUTES     bursts with random pauses to who waits: by calls, select, asyncio, and as a path
tools/soak.py workers PACKETS   two workers, each from a generator to a sink that checks every packet
tools/soak.py devices COUNT     devices opened and closed: file descriptors, threads and memory stay what they were
"""

from __future__ import annotations

import asyncio
import gc
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

import ixy
from ixy.errors import OwnershipError
from ixy.jit import INTERPRETED
from ixy.path import touch
from ixy.sim.machine import Machine

PACKETS = 2_000 if INTERPRETED else 50_000  # that arrive at each device in a round
BURSTS = 50 if INTERPRETED else 500
RING, POOL = 128, 512
PERIOD = 200e-6  # seconds between two signals
REPORT = 10.0  # seconds between two; in so many some packet comes
MORE = 4096  # KiB of memory that a process may take while it runs
PATIENCE = 60.0  # seconds without a packet until it is said that all stands still


class Interrupt(BaseException):
    """What the signal's handler raises."""


class Storm:
    """Signals that raise `Interrupt` in the main thread, once in each `call` at most.

    One that comes in `__del__` is told to nobody, as Python has it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._armed = False
        signal.signal(signal.SIGALRM, self._handle)
        sys.unraisablehook = lambda what: None if what.exc_type is Interrupt else sys.__unraisablehook__(what)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            self.count += 1
            raise Interrupt

    def call(self, function: Callable[[], object]) -> None:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0, PERIOD), PERIOD)
        try:
            self._armed = True
            for _ in range(100):
                function()
            self._armed = False
        except Interrupt:
            pass
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)


class Round:
    """Two devices, each with a generator that sends `PACKETS`, and what works on them at the same time.

    Attributes:
        counted: packets that the receiver has counted; fewer than it received if it was interrupted.
        handed: those of them that it handed to a transmit queue.
    """

    def __init__(self, storm: Storm | None) -> None:
        self.storm = storm
        self.counted = self.handed = 0
        self._done = threading.Event()
        self._failures: list[str] = []

    def run(self) -> list[str]:
        """What was lost."""
        machine = Machine()
        options = {"tx_queues": 2, "ring_size": RING, "pool_size": POOL, "sim": machine}
        address = f"gen=60,count={PACKETS}"
        with ixy.open(f"sim:a,{address}", **options) as self.a, ixy.open(f"sim:b,{address}", **options) as self.b:
            self.paths = [ixy.Path(self.a.rx[0], self.b.tx[0], touch), ixy.Path(self.b.rx[0], self.a.tx[0], touch)]
            with ixy.Mempool(POOL) as self.pool:
                self._work()
                return self._failures or self._losses()

    def _work(self) -> None:
        roles: list[Callable[[], object]] = [*(path_role(path) for path in self.paths), self._allocate]
        if self.storm is None:
            roles.append(self._receive)
        threads = [threading.Thread(target=self._repeat, args=(role,)) for role in roles]
        for thread in threads:
            thread.start()
        received, since = self._received(), time.monotonic()
        while not self._failures and not self._all_received():
            if self.storm is None:
                time.sleep(0.001)
            else:
                self.storm.call(random.choice((self._receive, self._allocate)))
            if received != self._received():
                received, since = self._received(), time.monotonic()
            elif time.monotonic() > since + PATIENCE:
                self._failures.append(f"nothing was received for {PATIENCE:.0f} s: {self._state()}")
        self._done.set()
        for thread in threads:
            thread.join()

    def _repeat(self, role: Callable[[], object]) -> None:
        try:
            while not self._done.is_set():
                role()
        except Exception:
            self._failures.append(traceback.format_exc())

    def _receive(self) -> None:
        """Take packets from the queue that a path uses too, and send some of them on."""
        try:
            with self.b.rx[0].receive(random.randint(1, 64)) as batch:
                self.counted += len(batch)
                if random.random() < 0.5:
                    self.handed += self.a.tx[1].send(batch)
        except OwnershipError:  # the path is at work
            time.sleep(0)

    def _allocate(self) -> None:
        """Take packets from any pool; drop them in any way."""
        pool = random.choice((self.pool, self.a.rx[0].pool, self.b.rx[0].pool))
        batch = pool.allocate(random.randint(1, 64))
        choice = random.randrange(4)
        if choice == 0:
            batch.free()
        elif choice == 1:
            with batch:
                pass
        elif choice == 2:
            cycle: list[object] = [batch]
            cycle.append(cycle)
            del cycle
            del batch
            gc.collect()

    def _received(self) -> list[int]:
        """From each device."""
        return [self.paths[0].counts.received, self.paths[1].counts.received + self.counted]

    def _all_received(self) -> bool:
        taken = self._received()
        if self.storm is not None and taken[0] == PACKETS:  # what the receiver took it need not have counted
            return self.b.stats().rx_packets == PACKETS and not self._waiting()
        return taken == [PACKETS, PACKETS]

    def _waiting(self) -> bool:
        """Whether packets wait in the second device's ring: whoever looks takes them away."""
        before = self._received()
        time.sleep(0.01)
        return self._received() != before

    def _state(self) -> str:
        counts = [path.counts for path in self.paths]
        return f"{counts}, {self.counted} by the receiver, {self.a.stats()}, {self.b.stats()}"

    def _losses(self) -> list[str]:
        gc.collect()
        found: list[str] = []
        for device in (self.a, self.b):
            stats = device.stats()
            if (stats.rx_packets, stats.rx_dropped, stats.rx_errors) != (PACKETS, 0, 0):
                found.append(f"{device.address}: of {PACKETS} packets, {stats}")
        if self.storm is None:
            handed = [self.paths[1].counts.forwarded + self.handed, self.paths[0].counts.forwarded]
            for device, count in zip((self.a, self.b), handed, strict=True):
                end = time.monotonic() + PATIENCE
                while device.sent() < count and time.monotonic() < end:
                    time.sleep(0.001)
                if device.sent() != count:
                    found.append(f"{device.address}: {count} packets were handed to it, {device.sent()} were sent")
        pools = (self.a.rx[0].pool, self.b.rx[0].pool, self.pool)
        free = [pool.available for pool in pools]
        flying = sum(queue.in_flight for device in (self.a, self.b) for queue in device.tx)
        if sum(free) + flying + 2 * RING != 3 * POOL:
            found.append(f"of {3 * POOL} buffers, {free} are free, {flying} in flight, {2 * RING} in receive rings")
        return found + [f"{pool!r} has buffers twice" for pool in pools if twice(pool)]


def path_role(path: ixy.Path) -> Callable[[], object]:
    """Run a path for a while; its queue may be in use by the receiver."""

    def role() -> None:
        try:
            path.run(random.randint(1, 256))
        except OwnershipError:
            time.sleep(0)

    return role


def twice(pool: ixy.Mempool) -> bool:
    """Whether a pool hands a buffer out twice: each packet is given a number of its own, and must keep it."""
    batches: list[ixy.Batch] = []
    while pool.available and len(batches) < 2 * pool.capacity:
        batches.append(pool.allocate(1))
        batches[-1][0][0:4] = len(batches).to_bytes(4, "little")
    return any(batch[0][0:4] != number.to_bytes(4, "little") for number, batch in enumerate(batches, 1))


def soak(minutes: float, storm: Storm | None) -> list[str]:
    """Rounds for so many minutes, at least one; what was lost."""
    end = time.monotonic() + 60 * minutes
    rounds = 0
    losses: list[str] = []
    while not losses and (rounds == 0 or time.monotonic() < end):
        losses = Round(storm).run()
        rounds += 1
    print(f"{rounds} rounds of {2 * PACKETS} packets{f', {storm.count} interrupts' if storm else ''}")
    return losses


# ---------------------------------------------------------------------------------------------------------------------
# Waits


class Receiver:
    """A thread that waits for packets in one way, again and again.

    Attributes:
        received: packets so far.
    """

    def __init__(self, receive: Callable[[], int]) -> None:
        self.received = 0
        self._receive = receive
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def has(self, count: int) -> bool:
        """Wait until so many packets were received; False if they are not, with all the time that it takes."""
        with self._changed:
            return self._changed.wait_for(lambda: self.received >= count, PATIENCE)

    def join(self) -> None:
        """The device was closed."""
        self._thread.join()

    def _work(self) -> None:
        with suppress(ixy.Error):  # until the device is closed
            while True:
                count = self._receive()
                with self._changed:
                    self.received += count
                    self._changed.notify_all()


def ways(device: ixy.Device) -> dict[str, Callable[[], int]]:
    """How packets can be waited for: each takes some, after having waited perhaps."""
    queue = device.rx[0]
    path = ixy.Path(queue, device.tx[0])

    def wait() -> int:
        queue.wait(PATIENCE)
        return len(queue.receive(random.randint(1, 64)))

    def watch() -> int:
        select.select([queue], [], [], PATIENCE)
        return len(queue.receive(random.randint(1, 64)))

    async def take() -> int:
        return len(await queue.receive_async(random.randint(1, 64)))

    return {
        "wait": wait,
        "timeout": lambda: len(queue.receive(random.randint(1, 64), timeout=PATIENCE)),
        "select": watch,
        "asyncio": lambda: asyncio.run(take()),
        "path": lambda: path.run(random.randint(1, 1000), wait=PATIENCE),
    }


def bursts(way: str, count: int) -> list[str]:
    """Send so many bursts to who waits in this way; the next only when the last has arrived, so none helps another."""
    machine = Machine()
    with ixy.open("sim:a,cable=b", sim=machine) as source, ixy.open("sim:b", ring_size=RING, sim=machine) as target:
        receiver = Receiver(ways(target)[way])
        sent = 0
        for number in range(count):
            for _ in range(random.randint(1, 8)):
                with source.rx[0].pool.allocate(random.randint(1, 8)) as batch:
                    sent += source.tx[0].send(batch)
                pause(random.choice((0, 1e-6, 1e-5, 1e-4)))
            if not receiver.has(sent):
                return [f"{way}: after burst {number}, {receiver.received} of {sent} packets were received"]
            pause(random.choice((0, 1e-5, 1e-4, 1e-3, 1e-2)))
    receiver.join()
    return []


def pause(most: float) -> None:
    """For a random time: short ones without sleep, which takes 50 µs at least."""
    end = time.perf_counter() + random.uniform(0, most)
    if most > 1e-4:
        time.sleep(max(end - time.perf_counter(), 0))
    while time.perf_counter() < end:
        pass


def wear_waits(minutes: float) -> list[str]:
    """Bursts for so many minutes, at least once for each way; what was stranded."""
    end = time.monotonic() + 60 * minutes
    rounds = 0
    losses: list[str] = []
    while not losses and (rounds == 0 or time.monotonic() < end):
        for way in ("wait", "timeout", "select", "asyncio", "path"):
            losses += bursts(way, BURSTS)
        rounds += 1
    print(f"{rounds} rounds of {BURSTS} bursts to each of 5 who wait")
    return losses


# ---------------------------------------------------------------------------------------------------------------------
# Workers

LANES = (("a", "b"), ("c", "d"))  # generator and sink of each
LONG_RING, LARGE_POOL = 4096, 12_288  # three threads may have but two cores: each is to find much when its turn comes


def wear_workers(packets: int) -> list[str]:
    """So many packets through two workers; what was lost, and how much memory it took."""
    machine = Machine()
    share = -(-packets // len(LANES))
    with ExitStack() as stack:

        def opened(address: str) -> ixy.Device:
            shape = {"ring_size": LONG_RING, "pool_size": LARGE_POOL}
            return stack.enter_context(ixy.open(address, **shape, sim=machine, link_timeout=0))

        pairs = [(opened(f"sim:{a},gen=60,count={share}"), opened(f"sim:{b},sink={a},touch=48")) for a, b in LANES]
        paths = [ixy.Path(source.rx[0], target.tx[0], touch) for source, target in pairs]
        with ixy.Workers(paths) as workers:
            memory = watched(workers, share * len(LANES))
        found = [
            loss for pair, path in zip(pairs, paths, strict=True) for loss in lane_losses(machine, *pair, path, share)
        ]
    if max(memory) - memory[0] > MORE:
        found.append(f"{max(memory) - memory[0]} KiB of memory more")
    return found


def watched(workers: ixy.Workers, packets: int) -> list[int]:
    """Tell how far the workers are, until all has come or nothing comes any more; KiB of memory each time."""
    begun = before = time.monotonic()
    received, memory = 0, [footprint()[2]]
    while received < packets:
        until = before + REPORT
        while time.monotonic() < until and workers.total().received < packets:
            workers.join(0.01)
        last, received = received, workers.total().received
        now = time.monotonic()
        memory.append(footprint()[2])
        rate = (received - last) / (now - before) / 1e6
        print(f"{received} of {packets}, {rate:.2f} Mpps, {memory[-1]} KiB", flush=True)
        before = now
        if received == last:
            break
    seconds = time.monotonic() - begun
    print(f"{seconds:.0f} s, {received / seconds / 1e6:.2f} Mpps, {min(memory)} to {max(memory)} KiB of memory")
    return memory


def lane_losses(machine: Machine, source: ixy.Device, target: ixy.Device, path: ixy.Path, packets: int) -> list[str]:
    """What has not come through: every packet once, in order, with its byte raised by one, and every buffer home."""
    end = time.monotonic() + PATIENCE
    while target.sent() < path.counts.forwarded and time.monotonic() < end:
        time.sleep(0.001)
    stats, name = source.stats(), str(path.counts)
    seen = machine.sink_report(*(device.address.removeprefix("sim:") for device in (source, target)))
    dropped = stats.rx_dropped + stats.rx_errors + stats.rx_refused + path.counts.dropped
    found: list[str] = []
    if seen.received + dropped != packets or seen.wrong or seen.reordered:
        found.append(f"of {packets} packets: {name}, {stats}, {seen}")
    pool = source.rx[0].pool
    if pool.available + target.tx[0].in_flight + LONG_RING != LARGE_POOL:
        found.append(f"of {LARGE_POOL} buffers {pool.available} are free, and {target.tx[0].in_flight} in flight")
    return found


def footprint() -> tuple[int, int, int]:
    """Open files, threads, and KiB of memory."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return len(list(Path("/proc/self/fd").iterdir())), int(status["Threads"]), int(status["VmRSS"].split()[0])


def wear_devices(count: int) -> list[str]:
    """Open and close devices, with traffic; what they left behind."""

    def one() -> None:
        with ixy.open("sim:a,gen=60") as a, ixy.open("sim:b,sink=a") as b:  # both have a link at once
            b.tx[0].send(a.rx[0].receive(32))

    for _ in range(max(count // 20, 40)):  # each number that a pool can have was used once then
        one()
    gc.collect()
    before = footprint()
    for _ in range(count // 2):
        one()
    gc.collect()
    after = footprint()
    print("before and after: files, threads, KiB of memory:", before, after)
    left = [f"{n - m} {what} more" for m, n, what in zip(before, after, ("files", "threads"), strict=False) if n > m]
    return left + ([f"{after[2] - before[2]} KiB of memory more"] if after[2] - before[2] > MORE else [])


def main(what: str, amount: str) -> int:
    if what == "devices":
        losses = wear_devices(int(amount))
    elif what == "workers":
        losses = wear_workers(int(amount))
    elif what == "waits":
        losses = wear_waits(float(amount))
    else:
        losses = soak(float(amount), Storm() if what == "signals" else None)
    print("\n".join(losses) if losses else "nothing was lost")
    return int(bool(losses))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("threads", "signals", "waits", "workers", "devices"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
