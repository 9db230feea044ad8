"""Receive queues that are waited for: by a call, by select, by asyncio; who wakes, who is refused, what it costs."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from lab import arrive, frame, number_of, open_card, run_by_another_thread

import ixy
from ixy.bus import Irq
from ixy.bus.simulated import SimulatedFunction, SimulatedInterrupts
from ixy.device import Device, RxQueue
from ixy.drivers.ixgbe.device import Ixgbe
from ixy.errors import ConfigurationError, Error, OwnershipError, UnsupportedDevice
from ixy.sim.machine import Machine


@pytest.fixture
def device(machine: Machine) -> Generator[Device]:
    with open_card(machine, ring_size=64, pool_size=100) as device:
        yield device


def readable(queue: RxQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def deliver(machine: Machine, *numbers: int) -> None:
    """Frames arrive, and the card interrupts if it may."""
    for number in numbers:
        arrive(machine, frame(number))
    machine.step()


@contextmanager
def meanwhile(call: Callable[[], object]) -> Generator[list[object]]:
    """Another thread makes a call, and has begun to sleep in it; what it returned or raised, after the block."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() and not asleep(thread):
        time.sleep(0.001)
    yield results
    thread.join()


def asleep(thread: threading.Thread) -> bool:
    """Whether the kernel has put the thread to sleep; not if it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "S"
    return False


# ---------------------------------------------------------------------------------------------------------------------
# Waiting in a call


def test_a_packet_that_is_there_is_not_waited_for(machine: Machine, device: Device) -> None:
    deliver(machine, 1)
    assert device.rx[0].wait()
    assert [number_of(packet) for packet in device.rx[0].receive(timeout=60)] == [1]


def test_without_a_packet_the_time_runs_out(device: Device) -> None:
    assert not device.rx[0].wait(0)
    assert not device.rx[0].wait(0.002)
    assert len(device.rx[0].receive(timeout=0.002)) == 0


@pytest.mark.parametrize("call", [lambda queue: queue.wait(), lambda queue: len(queue.receive(timeout=3600)) == 1])
def test_a_packet_wakes_who_waits(call: Callable[[RxQueue], bool]) -> None:
    """On a card that is run by its thread, so both sides sleep before the packet comes, over a cable, by itself."""
    with ixy.open("sim:w1,cable=w2", link_timeout=0) as device, ixy.open("sim:w2", link_timeout=0) as sender:
        device.rx[0].wait(0)
        with meanwhile(lambda: call(device.rx[0])) as results:
            sender.tx[0].send(sender.rx[0].pool.allocate(1, 60))
        assert results == [True]


def test_packets_that_follow_each_other_wake_each_time() -> None:
    with ixy.open("sim:w3,gen=60,rate=500,count=200", link_timeout=0) as device:
        seen = 0
        while device.rx[0].wait(5) and seen < 200:
            seen += len(device.rx[0].receive())
        assert seen == 200


def test_queues_are_waited_for_by_themselves(machine: Machine) -> None:
    """Each of them has its vector: a packet for one leaves the others unreadable."""
    with open_card(machine, rx_queues=4) as device:
        device.set_rss_table([3])
        assert [readable(queue) for queue in device.rx] == [False] * 4
        packet = bytes.fromhex(
            "026978790001 02aabbccddee 0800 4500002e 00000000 4011 0000 0a000001 0a000002 0001000200"
        )
        arrive(machine, packet.ljust(60, b"\0"))
        machine.step()
        assert [readable(queue) for queue in device.rx] == [False, False, False, True]


# ---------------------------------------------------------------------------------------------------------------------
# select


def test_a_queue_is_readable_until_it_was_found_empty(machine: Machine, device: Device) -> None:
    queue = device.rx[0]
    assert not readable(queue)
    deliver(machine, 1, 2, 3)
    assert readable(queue)
    assert len(queue.receive(2)) == 2
    assert readable(queue)
    assert len(queue.receive(2)) == 1
    assert readable(queue)
    assert len(queue.receive(2)) == 0
    assert not readable(queue)
    deliver(machine, 4)
    assert readable(queue)


def test_what_came_before_is_readable(machine: Machine, device: Device) -> None:
    deliver(machine, 1)
    assert readable(device.rx[0])


def test_waiting_leaves_a_watched_queue_readable(machine: Machine, device: Device) -> None:
    queue = device.rx[0]
    assert not readable(queue)
    deliver(machine, 1)
    assert queue.wait(0)
    assert readable(queue)
    assert len(queue.receive(timeout=0)) == 1
    assert len(queue.receive(timeout=0)) == 0
    assert not readable(queue)
    assert not queue.wait(0)
    deliver(machine, 2)
    assert readable(queue)


def test_no_interrupts_while_packets_are_taken(machine: Machine, device: Device) -> None:
    """After the first message there is no other before the ring was found empty, however many packets come."""
    queue = device.rx[0]
    fd = queue.fileno()
    for number in range(20):
        deliver(machine, 2 * number, 2 * number + 1)
        assert len(queue.receive(1)) == 1
    assert os.eventfd_read(fd) == 1


# ---------------------------------------------------------------------------------------------------------------------
# asyncio


def test_async_for() -> None:
    async def count(device: Device) -> int:
        seen = 0
        async for batch in device.rx[0]:
            seen += len(batch)
            if seen == 100:
                return seen
        return -1

    with ixy.open("sim:w4,gen=60,rate=1000,count=100", link_timeout=0) as device:
        assert asyncio.run(asyncio.wait_for(count(device), 60)) == 100


def test_a_coroutine_that_waits_can_be_cancelled_and_others_run(device: Device) -> None:
    async def try_for_a_moment() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(device.rx[0].receive_async(), 0.01)

    asyncio.run(try_for_a_moment())
    assert not device.rx[0].wait(0)


def test_two_coroutines_do_not_wait_for_one_queue(device: Device) -> None:
    async def both() -> None:
        first = asyncio.create_task(device.rx[0].receive_async())
        await asyncio.sleep(0)
        with pytest.raises(OwnershipError, match=r"sim:a rx\[0\] is in use"):
            await device.rx[0].receive_async()
        first.cancel()

    asyncio.run(both())


def test_closing_ends_a_coroutine_that_waits(device: Device) -> None:
    async def close() -> None:
        waits = asyncio.create_task(device.rx[0].receive_async())
        await asyncio.sleep(0)
        device.close()
        with pytest.raises(Error, match="sim:a is closed"):
            await waits

    asyncio.run(close())


def test_others_have_their_turn_while_packets_are_there(machine: Machine, device: Device) -> None:
    """Before each batch; and who is cancelled then loses none."""
    turns: list[str] = []

    async def take() -> None:
        while True:
            batch = await device.rx[0].receive_async(1)
            turns.append("take")
            batch.free()

    async def watch() -> None:
        while turns.count("take") < 4:
            turns.append("watch")
            await asyncio.sleep(0)

    async def both() -> None:
        taker = asyncio.create_task(take())
        await watch()
        taker.cancel()

    deliver(machine, *range(10))
    asyncio.run(both())
    assert turns.count("take") == 4
    assert "take take" not in " ".join(turns)
    assert [number_of(packet) for packet in device.rx[0].receive()] == [4, 5, 6, 7, 8, 9]


def test_a_file_is_watched_beside_a_coroutine(machine: Machine, device: Device) -> None:
    """Both are told of each packet, whoever takes it, also after a coroutine was cancelled."""
    queue = device.rx[0]

    async def both() -> None:
        told = asyncio.Event()
        asyncio.get_running_loop().add_reader(queue.fileno(), told.set)
        for number in range(4):
            waits = asyncio.create_task(queue.receive_async())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if number % 2:
                waits.cancel()
                await asyncio.sleep(0)
            told.clear()
            deliver(machine, number)
            await asyncio.wait_for(told.wait(), 60)
            batch = queue.receive() if number % 2 else await waits
            assert [number_of(packet) for packet in batch] == [number]
            assert len(queue.receive()) == 0
            assert not readable(queue)

    asyncio.run(both())


# ---------------------------------------------------------------------------------------------------------------------
# Who is refused, and who is told


def test_closing_wakes_who_waits(device: Device) -> None:
    with meanwhile(lambda: device.rx[0].wait()) as results:
        device.close()
    assert isinstance(results[0], Error)
    assert "is closed" in str(results[0])


def test_a_closed_device_is_not_waited_for(device: Device) -> None:
    queue = device.rx[0]
    queue.fileno()
    device.close()
    for call in (queue.wait, queue.fileno, lambda: queue.receive(timeout=1)):
        with pytest.raises(Error, match="sim:a is closed: open it again"):
            call()


def test_a_bell_touches_nothing_of_a_closed_device(device: Device) -> None:
    """Whoever waited may still hold it, and what it rang by may be another file's by now."""
    bell = device.rx[0].bell()
    device.close()
    assert select.select([bell.fd], [], [], 0)[0]
    for touch in (bell.arm, bell.disarm, bell.ring, lambda: bell.pace(0.0)):
        touch()


def test_two_threads_do_not_wait_for_one_queue(machine: Machine, device: Device) -> None:
    with meanwhile(lambda: device.rx[0].wait()) as results:
        with pytest.raises(OwnershipError, match=r"sim:a rx\[0\] is in use"):
            device.rx[0].wait(1)
        deliver(machine, 1)
    assert results == [True]
    assert device.rx[0].wait(1)


def test_a_queue_that_a_path_runs_is_not_waited_for(device: Device) -> None:
    with run_by_another_thread(ixy.Path(device.rx[0], device.tx[0])):
        for call in (device.rx[0].wait, device.rx[0].fileno, lambda: device.rx[0].receive(timeout=1)):
            with pytest.raises(OwnershipError, match="is in use by another thread"):
                call()


def test_a_path_that_begins_ends_a_wait(machine: Machine, device: Device) -> None:
    """The packet that wakes who waits is the path's; who waits is told so."""
    path = ixy.Path(device.rx[0], device.tx[0])
    with meanwhile(lambda: device.rx[0].wait()) as results, run_by_another_thread(path):
        deliver(machine, 1)
        while not results:
            time.sleep(0.001)
    assert isinstance(results[0], OwnershipError)


def test_who_was_interrupted_waits_no_more(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C: the next one is let in."""

    class Poll:
        def register(self, *_: int) -> None: ...
        def poll(self, *_: object) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(select, "poll", Poll)
        with pytest.raises(KeyboardInterrupt):
            device.rx[0].wait()
    with meanwhile(lambda: device.rx[0].wait(0)) as results:
        pass
    assert results == [False]


def test_a_starved_queue_waits_for_buffers_but_not_for_ever(machine: Machine, device: Device) -> None:
    """A packet lies in the ring, and no buffer is free: with an end the time runs out, without one an error tells."""
    queue = device.rx[0]
    held = queue.pool.allocate(100, 60)
    deliver(machine, 1)
    assert not queue.wait(0.005)
    assert len(queue.receive(timeout=0.005)) == 0
    expected = r"sim:a rx\[0\]: packets wait, but all buffers of its pool are in use: free or send"
    with pytest.raises(Error, match=expected):
        queue.wait()
    with pytest.raises(Error, match=expected):
        asyncio.run(queue.receive_async())
    held.free()
    assert queue.wait(0)


def test_an_empty_ring_is_waited_for_without_free_buffers(machine: Machine, device: Device) -> None:
    """Nothing has come, so nothing is wrong; what comes is received once buffers are back."""
    held = device.rx[0].pool.allocate(100, 60)
    with meanwhile(lambda: [number_of(packet) for packet in device.rx[0].receive(timeout=60)]) as results:
        deliver(machine, 7)
        held.free()
    assert results == [[7]]


@pytest.mark.parametrize("timeout", [-1, float("nan"), 1e9])
def test_a_timeout_has_bounds(device: Device, timeout: float) -> None:
    for call in (lambda: device.rx[0].wait(timeout), lambda: device.rx[0].receive(timeout=timeout)):
        with pytest.raises(ConfigurationError, match="timeout"):
            call()


def test_bounds_are_looked_at_while_packets_come_too(machine: Machine, device: Device) -> None:
    deliver(machine, 1)
    path = ixy.Path(device.rx[0], device.tx[0])
    for call in (lambda: device.rx[0].receive(timeout=-1), lambda: path.run(wait=-1)):
        with pytest.raises(ConfigurationError, match=r"(timeout|wait) -1: 0 to 86400 are possible"):
            call()
    assert [number_of(packet) for packet in device.rx[0].receive()] == [1]


def test_a_forked_child_does_not_wait_for_the_parents_queue(machine: Machine, device: Device) -> None:
    queue = device.rx[0]
    fd = queue.fileno()
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            queue.wait(1)
        except OwnershipError:
            try:
                os.fstat(fd)
            except OSError:
                outcome = 0
        finally:
            os._exit(outcome)
    assert os.waitpid(child, 0)[1] == 0
    deliver(machine, 1)
    assert readable(queue)


class _Deaf(SimulatedFunction):
    """A card on a bus that delivers no interrupts, as sysfs."""

    def interrupts(self, kind: Irq, vectors: int) -> SimulatedInterrupts:
        raise UnsupportedDevice(f"{self.address}: {vectors} {kind.value} interrupts: none here; poll")


def test_a_bus_without_interrupts(machine: Machine) -> None:
    """What promises to sleep is refused; `receive` looks again and again."""
    with Device(Ixgbe(_Deaf("sim:a", machine), ring_size=64)) as device:
        queue = device.rx[0]
        for call in (queue.wait, queue.fileno, lambda: asyncio.run(queue.receive_async())):
            with pytest.raises(UnsupportedDevice, match="sim:a: 1 MSI-X interrupts: none here; poll"):
                call()
        assert len(queue.receive(timeout=0.005)) == 0
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(len(queue.receive(timeout=60))))
        thread.start()
        deliver(machine, 1)
        thread.join()
        assert results == [1]


# ---------------------------------------------------------------------------------------------------------------------
# What it costs


def test_nobody_works_while_there_is_nothing_to_do() -> None:
    """Neither who waits nor the thread that runs the cards: processor time over a second of waiting."""
    with ixy.open("sim:w5,cable=w6", link_timeout=0) as device, ixy.open("sim:w6", link_timeout=0):
        assert not device.rx[0].wait(0.1)
        before = time.process_time()
        assert not device.rx[0].wait(1)
        assert time.process_time() - before < 0.2


def test_closing_leaves_no_files() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def use() -> None:
        with ixy.open("sim:w7,gen=60,count=1", link_timeout=0, rx_queues=2) as device:
            for queue in device.rx:
                queue.wait(0)
                queue.fileno()

    use()  # what the process keeps is there then
    before = files()
    use()
    assert files() == before
