"""Workers: threads that run paths on cores of their own; whatever ends one ends all, and no buffer is lost."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import arrive, depart, frame, number_of, open_card, run_by_another_thread
from vhost_back_end import GET_VRING_BASE, BackEnd

import ixy
from ixy import workers as module
from ixy.bus import pci
from ixy.errors import ConfigurationError, Error, OwnershipError, WorkerError
from ixy.sim.machine import Machine

RING, POOL = 64, 256
ALLOWED = sorted(os.sched_getaffinity(0))


@ixy.kernel
def outside(packet: Any) -> int:
    """Goes outside of packets whose number is odd."""
    return packet[21 + 2000 * (packet[21] & 1)] | 1


@ixy.kernel
def by_number(packet: Any) -> int:
    """Divides by the packet's number: 0 raises."""
    return 100 // packet[21]


@pytest.fixture
def cards(machine: Machine) -> Iterator[list[ixy.Device]]:
    """Four cards."""
    devices = [open_card(machine, f"sim:{name}", ring_size=RING, pool_size=POOL) for name in "abcd"]
    yield devices
    for device in devices:
        device.close()


def until(what: Callable[[], bool]) -> None:
    while not what():
        os.sched_yield()


def home(devices: list[ixy.Device]) -> bool:
    """Whether each buffer is free, in its receive ring, or on its way out."""
    pools = [device.rx[0].pool for device in devices]
    in_flight = sum(device.tx[0].in_flight for device in devices)
    return sum(pool.available for pool in pools) + in_flight == len(devices) * (POOL - RING)


# ---------------------------------------------------------------------------------------------------------------------
# While they run


def test_each_runs_its_path(machine: Machine, cards: list[ixy.Device]) -> None:
    """Two workers, one of them with two paths; counts while they run, by worker and in sum; then they stop."""
    a, b, c, d = cards
    paths = [[ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0])], ixy.Path(c.rx[0], d.tx[0])]
    cores = [ALLOWED[0], ALLOWED[-1]]
    if len(ALLOWED) == 1:
        cores = None  # type: ignore[assignment]
    with ixy.Workers(paths, cores=cores) as workers:
        for number in range(9):
            arrive(machine, frame(number), "abc"[number % 3])
        until(lambda: workers.total().received == 9)
        first, second = workers.stats()
        assert (first.received, first.forwarded, first.dropped) == (6, 6, 0)
        assert (second.received, second.forwarded, second.dropped) == (3, 3, 0)
        assert [first.core, second.core] == [ALLOWED[0], ALLOWED[-1]]
        assert first.polls > 0
        assert 0 <= first.idle <= 1
        until(lambda: workers.stats()[1].idle > 0)
        assert not workers.join(0)
    assert workers.join()
    assert [number_of(data) for name in "bad" for data in depart(machine, name=name)] == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert home(cards)
    arrive(machine, frame(9))
    assert paths[0][0].run(1) == 1  # type: ignore[index]
    workers.stop()
    with pytest.raises(Error, match="started before"):
        workers.start()


def test_cores(cards: list[ixy.Device]) -> None:
    """Each thread may run on its core only; the thread that made them may still run anywhere."""
    a, b, *_ = cards
    with ixy.Workers([ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0])]) as workers:
        until(lambda: all(worker.polls for worker in workers.stats()))
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("ixy-worker-")]
        assert len(threads) == 2
        for thread, stats in zip(threads, workers.stats(), strict=True):
            assert os.sched_getaffinity(thread.native_id or 0) == {stats.core}
        assert sorted(os.sched_getaffinity(0)) == ALLOWED
        assert [stats.core for stats in workers.stats()] == [ALLOWED[0], ALLOWED[1 % len(ALLOWED)]]


def test_a_pipeline(machine: Machine, cards: list[ixy.Device], scaled: Callable[..., int]) -> None:
    """Two workers with a ring between them: every packet once, in order."""
    a, b, *_ = cards
    count = scaled(3_000, 10)
    with ixy.Ring(32) as ring:
        paths = [ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, b.tx[0])]
        left: list[int] = []
        arrived = 0
        with ixy.Workers(paths):
            while len(left) < count:
                if arrived < count and arrived - len(left) < RING // 2:
                    arrive(machine, frame(arrived))
                    arrived += 1
                left += [number_of(data) for data in depart(machine, name="b")]
        assert left == list(range(count))
        assert home(cards)


def test_a_record_each(machine: Machine, cards: list[ixy.Device]) -> None:
    class Seen(ixy.Record):
        packets: int

    @ixy.kernel
    def count(_packet: Any, seen: Seen) -> int:
        seen.packets += 1
        return ixy.FORWARD

    a, b, c, d = cards
    seen = Seen(workers=2)
    paths = [ixy.Path(a.rx[0], b.tx[0], count, seen), ixy.Path(c.rx[0], d.tx[0], count, seen)]
    with ixy.Workers(paths) as workers:
        for number in range(5):
            arrive(machine, frame(number), "ac"[number % 2])
        until(lambda: workers.total().forwarded == 5)
    assert (seen[0].packets, seen[1].packets, seen.total().packets) == (3, 2, 5)


# ---------------------------------------------------------------------------------------------------------------------
# What ends them


@pytest.mark.parametrize("batch", [32, 8])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_kernel_that_raises(machine: Machine, cards: list[ixy.Device], batch: int, outputs: int) -> None:
    """All stop; the error names worker, core, packet and its first bytes; buffers are home."""
    a, b, c, d = cards
    tx = b.tx[0] if outputs == 1 else [b.tx[0], d.tx[0]]
    for number in (2, 4, 6, 7, 8):
        arrive(machine, frame(number))
    bad = ixy.Path(a.rx[0], tx, outside if outputs == 1 else even_to_first, batch=batch)
    workers = ixy.Workers([ixy.Path(c.rx[0], c.tx[0]), bad])
    workers.start()
    with pytest.raises(WorkerError) as raised:
        workers.join()
    said = f"worker 1 on core {ALLOWED[1 % len(ALLOWED)]}: IndexError: byte 2021 of a packet of 60 bytes"
    assert str(raised.value) == f"{said}, at packet 4 of sim:a rx[0], which begins {frame(7)[:32].hex()}"
    assert isinstance(raised.value.__cause__, IndexError)
    assert workers.join()  # it is told once
    assert home(cards)
    assert bad.counts.received in (4, 5)
    bad.run(1)


def test_what_was_raised_before_is_not_told_again(machine: Machine, cards: list[ixy.Device]) -> None:
    a, b, c, d = cards
    before, bad = ixy.Path(a.rx[0], b.tx[0], outside), ixy.Path(c.rx[0], d.tx[0], outside)
    arrive(machine, frame(7))
    with pytest.raises(IndexError):
        before.run(1)
    arrive(machine, frame(9), "c")
    with pytest.raises(WorkerError, match=r"at packet 1 of sim:c rx\[0\], "), ixy.Workers([[before, bad]]) as workers:
        workers.join()


def test_a_batch_of_which_no_packet_was_seen(machine: Machine, cards: list[ixy.Device]) -> None:
    """Its first packet stands for it, wherever the function was in the batch before."""
    a, b, *_ = cards
    seen = Seen()
    path = ixy.Path(a.rx[0], b.tx[0], all_but_the_third_batch, seen)
    for count in (3, 2):
        for _ in range(count):
            arrive(machine, frame(1))
        path.run(1)
    arrive(machine, frame(2))
    said = rf"at packet 6 of sim:a rx\[0\], which begins {frame(2)[:32].hex()}"
    with pytest.raises(WorkerError, match=said), ixy.Workers([path]) as workers:
        workers.join()


class Seen(ixy.Record):
    batches: int
    rest = ixy.array(2)


@ixy.batch_kernel
def all_but_the_third_batch(packets: ixy.Batch, seen: Seen) -> None:
    seen.rest[seen.batches] = 1
    seen.batches += 1
    for i in range(len(packets)):
        packets[i][0] = 2


@ixy.kernel
def even_to_first(packet: Any) -> int:
    return packet[21 + 2000 * (packet[21] & 1)] * 0 + 1


def test_a_division(machine: Machine, cards: list[ixy.Device]) -> None:
    """Any exception of the function's; the block raises it."""
    a, b, *_ = cards

    def work() -> None:
        with ixy.Workers([ixy.Path(a.rx[0], b.tx[0], by_number)]) as workers:
            for number in (1, 256):
                arrive(machine, frame(number))
            until(lambda: workers.total().dropped > 0)

    with pytest.raises(
        WorkerError, match=r"^worker 0 on core \d+: ZeroDivisionError.*, at packet 2 of sim:a rx\[0\], "
    ):
        work()
    assert home(cards)


def test_a_device_closed_under_them(cards: list[ixy.Device]) -> None:
    a, b, c, d = cards
    workers = ixy.Workers([ixy.Path(a.rx[0], b.tx[0]), ixy.Path(c.rx[0], d.tx[0])])
    workers.start()
    until(lambda: all(worker.polls for worker in workers.stats()))
    b.close()
    with pytest.raises(WorkerError, match=r"^worker 0 on core \d+: sim:b is closed: open it again$"):
        workers.join()
    assert home([a, c, d])


def test_a_ring_closed_under_them(cards: list[ixy.Device]) -> None:
    a, b, *_ = cards
    ring = ixy.Ring()
    workers = ixy.Workers([ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, b.tx[0])])
    workers.start()
    until(lambda: all(worker.polls for worker in workers.stats()))
    ring.close()
    with pytest.raises(WorkerError, match=r"^worker \d on core \d+: ring \d+ is closed: make a new one$"):
        workers.join()
    assert home(cards)


def test_a_back_end_gone_under_them(
    machine: Machine, cards: list[ixy.Device], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All end, and it is said in one line, by the error; whatever they have is home in the end. The same device goes on
    with a back end that comes back, under workers that are new."""
    a, b, c, d = cards
    address = f"vhost-user:{tmp_path / 'socket'}"
    with ExitStack() as back_end:
        back_end.enter_context(BackEnd(tmp_path / "socket"))
        with ixy.open(address, ring_size=RING, pool_size=POOL, link_timeout=0) as device:
            there, back = ixy.Path(a.rx[0], device.tx[0]), ixy.Path(device.rx[0], b.tx[0])
            workers = ixy.Workers([ixy.Path(c.rx[0], d.tx[0]), [there, back]])
            workers.start()
            until(lambda: all(worker.polls for worker in workers.stats()))
            arrive(machine, frame(1))
            until(lambda: there.counts.forwarded == 1)
            (tmp_path / "socket").unlink()  # so that nobody else is found there
            back_end.close()
            said = rf"^worker 1 on core \d+: {address}: the back end has gone: start it, and the workers, again$"
            with pytest.raises(WorkerError, match=said):
                workers.join()
            assert not caplog.messages
            back_end.enter_context(BackEnd(tmp_path / "socket2"))
            (tmp_path / "socket2").rename(tmp_path / "socket")
            until(lambda: device.link.up)
            with ixy.Workers([there, back]) as others:
                arrive(machine, frame(2))
                until(lambda: there.counts.forwarded == 2)
                assert not others.join(0)
    assert caplog.messages == [f"{address}: the back end is back"]
    assert home(cards)


def test_a_back_end_gone_under_nobody(
    cards: list[ixy.Device], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that have ended are not told: it is waited for, as by a path without workers."""
    address = f"vhost-user:{tmp_path / 'socket'}"
    with ExitStack() as back_end:
        back_end.enter_context(BackEnd(tmp_path / "socket"))
        with ixy.open(address, ring_size=RING, pool_size=POOL, link_timeout=0) as device:
            with ixy.Workers([ixy.Path(cards[0].rx[0], device.tx[0])]) as workers:
                pass
            (tmp_path / "socket").unlink()
            back_end.close()
            until(lambda: bool(caplog.messages))
            assert workers.join(0)
    assert caplog.messages == [f"{address}: the back end has gone; waiting for it to come back"]


def test_a_back_end_gone_while_they_end(machine: Machine, cards: list[ixy.Device]) -> None:
    """Who tells has seen them before they had ended: their paths are others' by then, and run."""
    a, b, *_ = cards
    path = ixy.Path(a.rx[0], b.tx[0])
    with ixy.Workers([path]) as workers:
        pass
    workers._lose(a)
    assert workers.join(0)
    arrive(machine, frame(1))
    assert path.run(4) == 1


def test_a_back_end_gone_under_a_command(tmp_path: Path) -> None:
    """`ixy forward` ends with a summary, one line and the exit code of an error."""
    address = f"vhost-user:{tmp_path / 'socket'}"
    command = [sys.executable, "-m", "ixy", "forward", address, "sim:forward", "--queues", "1", "--json"]
    with ExitStack() as back_end:
        served = back_end.enter_context(BackEnd(tmp_path / "socket"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            kinds = [json.loads(process.stdout.readline())["type"] for _ in range(2)]
            (tmp_path / "socket").unlink()
            back_end.close()
            output, errors = process.communicate(timeout=60)
    said = f"ixy: worker 0 on core {ALLOWED[0]}: {address}: the back end has gone: start it, and the workers, again"
    assert errors.splitlines()[-1] == said
    assert "gone" not in "".join(errors.splitlines()[:-1])
    assert (process.returncode, kinds, json.loads(output.splitlines()[-1])["type"]) == (
        2,
        ["workers", "rate"],
        "summary",
    )
    assert GET_VRING_BASE not in served.requests  # nobody was there to be stopped


def test_ctrl_c(machine: Machine, cards: list[ixy.Device]) -> None:
    """The main thread waits, and is interrupted: what it then says is the interrupt, and all threads have ended."""
    a, b, *_ = cards
    workers = ixy.Workers([ixy.Path(a.rx[0], b.tx[0])])
    arrive(machine, frame(1))

    def work() -> None:
        with workers:
            until(lambda: workers.total().received == 1)
            main = threading.main_thread().ident
            threading.Thread(target=signal.pthread_kill, args=(main, signal.SIGINT)).start()
            workers.join()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert workers.join(0)
    assert home(cards)


def test_an_error_in_the_block_is_what_it_is(cards: list[ixy.Device]) -> None:
    a, b, *_ = cards
    with pytest.raises(LookupError), ixy.Workers([ixy.Path(a.rx[0], b.tx[0])]) as workers:
        raise LookupError
    assert workers.join()


def test_a_worker_that_finds_no_core(cards: list[ixy.Device], monkeypatch: pytest.MonkeyPatch) -> None:
    """The core has gone since it was looked at."""

    def gone(_thread: int, _cores: set[int]) -> None:
        raise OSError("no such core")

    a, b, *_ = cards
    workers = ixy.Workers([ixy.Path(a.rx[0], b.tx[0])])
    monkeypatch.setattr(os, "sched_setaffinity", gone)
    workers.start()
    with pytest.raises(WorkerError, match=r"^worker 0 on core \d+: OSError: no such core$"):
        workers.join()


def test_no_thread_to_be_had(cards: list[ixy.Device], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two threads cannot be started: the first one ends."""
    a, b, c, d = cards
    workers = ixy.Workers([ixy.Path(a.rx[0], b.tx[0]), ixy.Path(c.rx[0], d.tx[0])])
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "ixy-worker-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(Error, match="no thread for a worker: can't start new thread"):
        workers.start()
    assert workers.join(0)
    assert home(cards)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused, before anything is started


def test_what_is_refused(cards: list[ixy.Device]) -> None:
    a, b, c, d = cards
    one, other, third = ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0]), ixy.Path(c.rx[0], b.tx[0])
    for paths, error, message in (
        ([], ConfigurationError, "number of workers 0: 1 to 64 are possible"),
        ([[]], ConfigurationError, "number of paths of a worker 0: 1 to 2 are possible"),
        ([[one, other, third]], ConfigurationError, "number of paths of a worker 3: 1 to 2 are possible"),
        ([one, one], ConfigurationError, r"the path from sim:a rx\[0\] is named twice"),
        ([[one, one]], ConfigurationError, r"the path from sim:a rx\[0\] is named twice"),
        ([one, third], ConfigurationError, r"sim:b tx\[0\] belongs to paths of workers 0 and 1"),
        (one, TypeError, "workers are given a list of paths, not <ixy.path.Path"),
        ([a], TypeError, "a worker runs a path, or a list of two, not <Device sim:a"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            ixy.Workers(paths)  # type: ignore[arg-type]
    with ixy.Workers([[one, third]]):  # one thread may send from two paths by one queue
        pass
    d.close()
    with pytest.raises(Error, match="sim:d is closed"):
        ixy.Workers([one, ixy.Path(c.rx[0], c.tx[0]), ixy.Path(d.rx[0], d.tx[0])])


def test_cores_that_are_refused(cards: list[ixy.Device], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = cards
    paths = [ixy.Path(a.rx[0], b.tx[0]), ixy.Path(c.rx[0], d.tx[0])]
    known = os.sched_getaffinity(0)
    for cores, error, message in (
        ([ALLOWED[0]], ConfigurationError, "number of cores 1: one for each worker is needed, 2"),
        ([0, 1, 2], ConfigurationError, "number of cores 3: one for each worker is needed, 2"),
        ([], ConfigurationError, "number of cores 0: one"),
        ([ALLOWED[0], ALLOWED[0]], ConfigurationError, f"core {ALLOWED[0]} is named twice"),
        ([ALLOWED[0], 99_999], ConfigurationError, "core 99999: this machine has none, possible are core"),
        ([ALLOWED[0], -1], ConfigurationError, "core -1: 0 to"),
        ([ALLOWED[0], "1"], TypeError, "core must be an integer"),
        ("01", TypeError, "cores must be numbers"),
        (2, TypeError, "cores must be numbers"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            ixy.Workers(paths, cores=cores)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: known - {ALLOWED[-1]} | {1000})
    with pytest.raises(
        ConfigurationError, match=f"^core {ALLOWED[-1]}: this process may not run there, possible are core"
    ):
        ixy.Workers(paths, cores=[1000, ALLOWED[-1]][::-1])


def test_a_queue_in_use(cards: list[ixy.Device]) -> None:
    a, b, *_ = cards
    path = ixy.Path(a.rx[0], b.tx[0])
    with run_by_another_thread(path), pytest.raises(OwnershipError, match=r"^sim:a rx\[0\] is in use"):
        ixy.Workers([path])


def test_a_core_far_from_the_card(
    cards: list[ixy.Device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A card at node 1 and cores at node 0: one line says so. Simulated cards have no node."""
    a, b, *_ = cards
    slot = tmp_path / "bus/pci/devices/0000:03:00.0"
    slot.mkdir(parents=True)
    (slot / "numa_node").write_text("1\n")
    for core in ALLOWED:
        (tmp_path / f"cpu{core}" / "node0").mkdir(parents=True)
    monkeypatch.setattr(pci, "SYSFS", tmp_path)
    monkeypatch.setattr(module, "_CORES", tmp_path)
    path = ixy.Path(a.rx[0], b.tx[0])
    with caplog.at_level(logging.WARNING, "ixy.workers"):
        ixy.Workers([path])
        assert caplog.messages == []
        monkeypatch.setattr(a, "address", "0000:03:00.0")
        ixy.Workers([path])
    core = ALLOWED[0]
    assert caplog.messages == [f"worker 0 on core {core}: 0000:03:00.0 is attached to NUMA node 1, the core to node 0"]


def test_nothing_that_two_workers_write_shares_a_line(cards: list[ixy.Device]) -> None:
    """Pairs of cache lines with the words of paths and rings, and batches, belong to one path each."""
    lines: list[set[int]] = []
    for source, target in zip(cards[::2], cards[1::2], strict=True):
        path = ixy.Path(source.rx[0], [target.tx[0], source.tx[0]], batch=8)
        state = path.state
        arrays = [state.counts, state.packets.ids, state.packets.lengths, state.tx.verdicts, state.tx.picked.ids]
        arrays += [queue.ring.state.state for queue in (source.rx[0], target.tx[0], source.tx[0])]
        spans = [(array.__array_interface__["data"][0], array.nbytes) for array in arrays]
        lines.append({place // 128 for start, size in spans for place in range(start, start + size)})
    assert not lines[0] & lines[1]
