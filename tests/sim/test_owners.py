"""Everything has one owner: what threads, processes, copies, interrupts and the collector cannot change."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab import accounted, arrive, batch_of, depart, frame, open_card

import ixy
from ixy.jit import INTERPRETED
from ixy.packets.batch import Batch
from ixy.packets.packets import slots
from ixy.packets.pool import call_attention, claim, give, owner, pools, release, serve, take, wanted
from ixy.sim.machine import Machine

RING, POOL = 64, 160
IN_THE_WAY = "is in use by another thread"


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the error that it raises, in another thread."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


# ---------------------------------------------------------------------------------------------------------------------
# Pools and threads


def test_what_others_return_is_fetched_by_the_owner() -> None:
    """This thread owns a pool of four, and took all. Another one gives two back: they are the pool's, and the owner is
    told; a third thread, which does not own the pool, takes nothing.
    """
    with ixy.Mempool(4) as pool:
        every = pools()
        packets, others = slots(4), slots(4)
        assert claim(every.words, pool.number)
        assert take(every, pool.number, packets, 4) == 4
        assert not wanted(every, pool.number)
        elsewhere(lambda: give(every, packets, 1, 3))
        assert (pool.available, wanted(every, pool.number)) == (2, True)
        assert elsewhere(lambda: take(every, pool.number, others, 4)) == 0
        serve(every, pool.number)
        assert not wanted(every, pool.number)
        assert take(every, pool.number, others, 4) == 2
        assert sorted(others.ids[:2].tolist()) == sorted(packets.ids[1:3].tolist())
        give(every, others, 0, 2)
        give(every, packets, 0, 1)
        give(every, packets, 3, 4)
        release(every.words, pool.number)
        assert pool.available == 4


def test_a_ring_of_returned_buffers_goes_round() -> None:
    """A pool has a ring of 65,536 cells: after 22,000 times three buffers it has gone round, and none is lost."""
    with ixy.Mempool(3) as pool:
        every, packets = pools(), slots(3)
        turns = 300 if INTERPRETED else 22_000

        def give_back() -> None:
            for _ in range(turns):
                there.acquire()
                give(every, packets, 0, 3)
                gone.release()

        there, gone = threading.Semaphore(0), threading.Semaphore(0)
        thread = threading.Thread(target=give_back)
        thread.start()
        assert claim(every.words, pool.number)
        for _ in range(turns):
            assert take(every, pool.number, packets, 3) == 3
            there.release()
            gone.acquire()
        release(every.words, pool.number)
        thread.join()
        assert pool.available == 3
        assert sorted(pool.allocate(3)._packets.ids.tolist()) == pool.ids.tolist()


def test_an_owner_lets_those_who_wait_have_the_pool() -> None:
    """A thread that allocates waits for the owner; serving it lets it have what it wants, then the pool is the owner's
    again.
    """
    with ixy.Mempool(4) as pool:
        every = pools()
        assert claim(every.words, pool.number)
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(len(pool.allocate(3))))
        thread.start()
        while not found:
            serve(every, pool.number)
        rest = slots(4)
        count = take(every, pool.number, rest, 4)
        assert count >= 1
        give(every, rest, 0, count)
        thread.join()
        release(every.words, pool.number)
        assert (found, owner(every, pool.number)) == ([3], 0)


def test_a_pool_that_is_not_let_go_is_said() -> None:
    """After a second in which the owner serves nobody, the thread that waits says so."""
    with ixy.Mempool(4) as pool:
        assert claim(pools().words, pool.number)
        error = elsewhere(lambda: pool.allocate(1))
        assert isinstance(error, ixy.OwnershipError)
        assert "held by another thread" in str(error)
        release(pools().words, pool.number)
        call_attention(pools().words, pool.number)
        assert len(pool.allocate(4)) == 4


@contextmanager
def collector_by_hand() -> Generator[None]:
    """Where kernels are interpreted, the collector does not run by itself within the block."""
    if INTERPRETED:
        gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_threads_share_a_pool_with_a_path(machine: Machine) -> None:
    """While a path runs, two threads allocate, drop and free at random: no buffer is lost or there twice.

    The collector may come into an interpreted kernel, which it cannot into a compiled one: there it runs between them.
    """
    with open_card(machine, pool_size=1024) as device, collector_by_hand():
        path, pool = ixy.Path(device.rx[0], device.tx[0]), device.rx[0].pool
        stop = threading.Event()
        errors: list[BaseException] = []

        def repeat(step: Callable[[], object]) -> None:
            try:
                while not stop.is_set():
                    step()
            except BaseException as error:
                errors.append(error)

        def share() -> None:
            batch = pool.allocate(16)  # of what those leave that wait for the collector
            cycle: list[Any] = [batch]
            cycle.append(cycle)

        runner = threading.Thread(target=repeat, args=(lambda: path.run(50),))
        others = [threading.Thread(target=repeat, args=(share,)) for _ in range(2)]
        for thread in (runner, *others):
            thread.start()
        for turn in range(30 if INTERPRETED else 300):
            arrive(machine, frame(turn))
            machine.step()
            gc.collect(0)
        stop.set()
        for thread in (runner, *others):
            thread.join()
        gc.collect()
        assert errors == []
        assert accounted(device) == 1024
        with pool.allocate(1024) as batch:
            ids = batch._packets.ids[: len(batch)].tolist()
            assert len(set(ids)) == len(ids) == pool.capacity - device.rx[0].ring.size - device.tx[0].in_flight


# ---------------------------------------------------------------------------------------------------------------------
# Queues and threads


@ixy.kernel
def last(packet: Any) -> int:
    """A function that goes outside of its packet."""
    return packet[2000]


def test_a_queue_has_one_runner(machine: Machine) -> None:
    """While one thread runs a path, the queues of the path are refused to another, by name; others are not."""
    with open_card(machine, rx_queues=2, tx_queues=2, ring_size=RING, pool_size=POOL) as device:
        path = ixy.Path(device.rx[0], device.tx[0])
        path.run(0)
        batch = device.rx[1].pool.allocate(1)
        with ixy.path.entered(path):
            for use, name in (
                (lambda: device.rx[0].receive(), r"sim:a rx\[0\]"),
                (lambda: device.tx[0].send(batch), r"sim:a tx\[0\]"),
                (lambda: path.run(1), r"sim:a rx\[0\]"),
                (lambda: ixy.Path(device.rx[1], device.tx[0]).run(1), r"sim:a tx\[0\]"),
            ):
                error = elsewhere(use)
                with pytest.raises(ixy.OwnershipError, match=f"{name} {IN_THE_WAY}"):
                    raise error
            assert elsewhere(lambda: ixy.Path(device.rx[1], device.tx[1]).run(1)) == 0
        assert elsewhere(lambda: path.run(1)) == 0
        batch.free()
        assert (accounted(device), device.rx[1].pool.available) == (POOL, POOL - RING)


def test_a_path_that_raises_lets_go(machine: Machine) -> None:
    """Of two paths run in turn one raises: both queues and pools are free for another thread, and no buffer is lost."""
    with open_card(machine, pool_size=POOL, ring_size=RING) as a, open_card(machine, "sim:b", ring_size=RING) as b:
        paths = [ixy.Path(b.rx[0], a.tx[0]), ixy.Path(a.rx[0], b.tx[0], last)]
        arrive(machine, frame(1))
        with pytest.raises(IndexError):
            ixy.path.run(paths, 1)
        assert paths[1].counts == (1, 0, 1)
        assert elsewhere(lambda: paths[0].run(1)) == 0
        assert elsewhere(lambda: len(a.rx[0].receive())) == 0
        assert elsewhere(lambda: len(a.rx[0].pool.allocate(1))) == 1
        assert accounted(a) == POOL


def test_closing_ends_a_path(machine: Machine) -> None:
    """A path that would run for ever in another thread ends when either of its devices is closed."""
    for closes in (0, 1):
        devices = [open_card(machine, "sim:a"), open_card(machine, "sim:b")]
        path = ixy.Path(devices[0].rx[0], devices[1].tx[0])
        path.run(0)
        outcome: list[object] = []
        thread = threading.Thread(target=lambda path=path, outcome=outcome: outcome.append(path.run(1 << 62)))
        thread.start()
        while owner(pools(), devices[0].rx[0].pool.number) in (0, threading.get_ident()):
            pass
        devices[closes].close()
        thread.join()
        assert outcome == [0]
        with pytest.raises(ixy.Error, match="is closed"):
            path.run(1)
        devices[1 - closes].close()


def test_paths_need_open_devices_and_queues(machine: Machine) -> None:
    """Neither a closed device nor what is no queue makes a path, and nobody's pool is touched."""
    with open_card(machine, "sim:b", ring_size=RING, pool_size=POOL) as b:
        a = open_card(machine)
        a.close()
        for rx, tx in ((a.rx[0], b.tx[0]), (b.rx[0], a.tx[0])):
            with pytest.raises(ixy.Error, match="sim:a is closed"):
                ixy.Path(rx, tx)
        for rx, tx in ((b, b.tx[0]), (b.rx[0], None), (b.tx[0], b.rx[0])):
            with pytest.raises(TypeError, match="must be a queue"):
                ixy.Path(rx, tx)  # pyright: ignore[reportArgumentType]
        assert accounted(b) == POOL


def test_counts_are_plain_integers(machine: Machine) -> None:
    """In all modes what `send` and `run` return is Python's own, for json and the like."""
    with open_card(machine) as device:
        arrive(machine, frame(1))
        assert type(ixy.Path(device.rx[0], device.tx[0]).run(1)) is int
        assert type(device.tx[0].send(batch_of(device.rx[0].pool, [frame(1)]))) is int


def test_what_is_no_batch_is_not_sent(machine: Machine) -> None:
    with open_card(machine) as device:
        for thing in (b"bytes", None, [1, 2], object()):
            with pytest.raises(TypeError, match="a Batch is needed, not"):
                device.tx[0].send(thing)  # pyright: ignore[reportArgumentType]


def test_a_function_may_keep_what_it_was_given(machine: Machine) -> None:
    """Interpreted, a packet is an object that a function can keep: it is a copy, and does no harm later. Compiled, a
    function that keeps something in a list is refused."""
    kept: list[Any] = []

    def keep(packet: Any) -> int:
        kept.append(packet)
        packet[20] = 7
        return ixy.FORWARD

    with open_card(machine) as device:
        if not INTERPRETED:
            with pytest.raises(ixy.KernelError, match="'kept' is a list"):
                ixy.Path(device.rx[0], device.tx[0], ixy.kernel(keep))
            return
        path = ixy.Path(device.rx[0], device.tx[0], ixy.kernel(keep))
        arrive(machine, frame(1))
        assert path.run(1) == 1
        kept[0][21] = 8
        assert depart(machine)[0][20:22] == bytes([7, frame(1)[21]])
    kept[0][0] = 1
    assert bytes(kept[0][:])[20] == 7


# ---------------------------------------------------------------------------------------------------------------------
# Copies, the collector, the end


def test_nothing_that_owns_is_copied(machine: Machine) -> None:
    """Batches, packets, pools, devices, queues and paths are neither copied nor pickled; all go on working."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        pool = device.rx[0].pool
        batch = batch_of(pool, [frame(1)])
        path = ixy.Path(device.rx[0], device.tx[0])
        for thing in (batch, batch[0], batch.bytes, pool, device, device.rx[0], device.tx[0], path):
            for make in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be copied or pickled"):
                    make(thing)
        assert bytes(batch[0]) == frame(1)
        batch.free()
        assert accounted(device) == POOL


def test_a_device_that_nobody_has_is_closed_with_a_warning(machine: Machine) -> None:
    """Then the card can be opened again."""
    for _ in range(3):
        open_card(machine)
        with pytest.warns(ResourceWarning, match="sim:a .* was never closed"):
            gc.collect()  # a device and its queues refer to each other
    open_card(machine).close()


def test_a_batch_whose_end_was_interrupted_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise before the first instruction of `__del__`, and Python does not call it again. What
    the batch had is the pool's again when it is looked for.
    """
    with ixy.Mempool(8) as pool:
        batch = pool.allocate(5)
        monkeypatch.setattr(Batch, "__del__", lambda _: None)
        del batch
        monkeypatch.undo()
        assert pool.available == 8
        with pool.allocate(8) as everything:
            assert len(everything) == 8


class Interruption(BaseException):
    pass


@pytest.mark.skipif(INTERPRETED, reason="an interpreted kernel can be interrupted, which a compiled one cannot")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # interrupts in __del__ end there
def test_interrupts_lose_nothing(machine: Machine) -> None:
    """A signal handler raises at random between the instructions of allocate, send, receive and free, hundreds of
    times: each buffer is in one place afterwards.
    """
    armed = False

    def interrupt(*_: object) -> None:
        if armed:
            raise Interruption

    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        pool, hits, delay = device.rx[0].pool, 0, 0
        device.tx[0].send(pool.allocate(1))
        device.rx[0].receive().free()
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            while hits < 300:
                delay = (delay + 7) % 290
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, (10 + delay) / 1e6)
                    for _ in range(40):
                        with pool.allocate(2) as batch:
                            device.tx[0].send(batch)
                        device.rx[0].receive(8).free()
                        pool.allocate(3).free()
                    armed = False
                except Interruption:
                    armed = False
                    hits += 1
                batch = None
                machine.step()
                assert accounted(device) == POOL, f"after {hits} interrupts"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


PROGRAM = """
import threading, time
import ixy
device, other = ixy.open("sim:a,gen=60"), ixy.open("sim:b")
path = ixy.Path(device.rx[0], other.tx[0])
path.run(0)
keep = other.rx[0].pool.allocate(8), device.rx[0].receive(8)
def run():
    try:
        while True:
            path.run(1 << 40)
    except ixy.Error:
        pass
threading.Thread(target=run, daemon=True).start()
while not path.counts.received:
    time.sleep(0.001)
raise SystemExit(3)
"""


def test_a_program_ends_in_silence(tmp_path: Path) -> None:
    """With open devices, living batches and a thread that forwards: nothing is said, and the exit code is its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def in_a_child(work: Callable[[], None]) -> None:
    """Do `work` in a forked child, and fail if it does not end well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_none_of_its_parents_things(machine: Machine) -> None:
    """Used in a forked child, a device, its queues, a path, a pool, a batch and a packet say whose they are. Closing
    and dropping them there touches nothing of the parent's, and the child can open a device of its own.
    """
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        pool = device.rx[0].pool
        batch, path = batch_of(pool, [frame(1), frame(2)]), ixy.Path(device.rx[0], device.tx[0])
        packet = batch[0]
        uses: list[Callable[[], object]] = [
            device.stats,
            lambda: device.mac,
            device.rx[0].receive,
            lambda: device.tx[0].send(batch),
            lambda: path.run(1),
            lambda: pool.allocate(1),
            lambda: batch[0],
            lambda: batch.lengths,
            lambda: packet[0],
            lambda: packet.__setitem__(0, 1),
        ]

        def use_and_close() -> None:
            for use in uses:
                with pytest.raises(ixy.OwnershipError, match=f"process {os.getppid()}"):
                    use()
            batch.free()
            device.close()
            pool.release()
            gc.collect()
            with ixy.open("sim:a", sim=Machine(stepped=True), link_timeout=0) as own:
                assert len(own.rx[0].pool.allocate(4)) == 4

        in_a_child(use_and_close)
        assert bytes(packet) == frame(1)
        arrive(machine, frame(3))
        assert [bytes(received) for received in device.rx[0].receive()] == [frame(3)]
        batch.free()
        gc.collect()
        assert accounted(device) == POOL


def test_worker_processes_open_their_own(machine: Machine) -> None:
    """Two workers of multiprocessing, forked while a device is open here, each open one and receive from it."""
    with open_card(machine) as device, multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(receive_one, [1, 2]) == [60, 60]
        assert device.stats().rx_packets == 0


def receive_one(number: int) -> int:
    own = Machine(stepped=True)
    with open_card(own) as device:
        arrive(own, frame(number))
        return len(device.rx[0].receive()[0])
