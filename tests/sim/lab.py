"""A bench for cards: frames arrive at a card's port and leave it as the test says, one by one, without a wire."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dpkt
import numpy as np

import ixy
from ixy.device import Device
from ixy.packets.batch import Batch
from ixy.packets.mempool import Mempool
from ixy.path import entered
from ixy.sim.card import receive, transmit
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.machine import Machine
from ixy.sim.rack import PAGE, SLOT
from ixy.sim.wires.tape import mapped

BROADCAST = b"\xff" * 6
STATION = bytes.fromhex("026978790001")  # of the first card that is plugged into a machine
OTHER = bytes.fromhex("02aabbccddee")


def frame(number: int = 0, size: int = 60, destination: bytes = STATION) -> bytes:
    """A frame that carries its number and, behind it, bytes that follow from it."""
    body = number.to_bytes(8, "big") + random.Random(number).randbytes(max(size - 22, 0))
    return (destination + OTHER + b"\x88\xb5" + body)[:size]


def number_of(data: bytes) -> int:
    """The number that `frame` wrote."""
    return int.from_bytes(data[14:22], "big")


def open_card(machine: Machine, address: str = "sim:a", **options: int) -> Device:
    return ixy.open(address, sim=machine, link_timeout=0, **options)


def arrive(machine: Machine, data: bytes, name: str = "a") -> None:
    """A frame arrives at the card's port."""
    rack, card = machine.rack, machine.cards[name].index
    size = -(-max(len(data), 1) // PAGE) * PAGE
    start = (card + 1) * SLOT - size  # no wire has memory there
    with mapped(start, size):
        rack.tape[start:][: len(data)] = np.frombuffer(data, np.uint8)
        receive.receive(rack, card, start, len(data))


def depart(machine: Machine, limit: int = 1 << 16, name: str = "a", queue: int = 0) -> list[bytes]:
    """The card works off up to `limit` transmit descriptors: the frames that leave its port."""
    rack, card = machine.rack, machine.cards[name].index
    frames: list[bytes] = []
    for _ in range(limit):
        if not transmit.can_transmit(rack, card, queue):
            break
        length = transmit.fetch(rack, card, queue)
        if length == transmit.LATER:
            machine.answer()
        elif length > 0:
            length = max(length, MIN_FRAME)
            transmit.count_sent(rack, card, queue, card * SLOT, length)
            frames.append(rack.tape[card * SLOT :][:length].tobytes())
    return frames


def receive_all(device: Device, limit: int = 32, queue: int = 0) -> list[bytes]:
    """All packets that the device has, given back to their pool."""
    frames: list[bytes] = []
    while True:
        with device.rx[queue].receive(limit) as batch:
            if not len(batch):
                return frames
            frames += [bytes(packet) for packet in batch]


def batch_of(pool: Mempool, frames: Sequence[bytes]) -> Batch:
    """Packets with these contents, from a pool that has enough."""
    batch = pool.allocate(len(frames), 60)
    assert len(batch) == len(frames)
    for packet, data in zip(batch, frames, strict=True):
        packet.resize(len(data))
        packet[:] = data
    return batch


def accounted(device: Device, pool: Mempool | None = None) -> int:
    """How many buffers of a receive queue's pool are free, lie in its ring, or are on their way out."""
    pool = pool or device.rx[0].pool
    in_rings = sum(queue.ring.size for queue in device.rx if queue.pool is pool)
    return pool.available + in_rings + sum(queue.in_flight for queue in device.tx)


@contextmanager
def run_by_another_thread(path: ixy.Path) -> Generator[None]:
    """Within the block another thread runs the path's queues."""
    begun, done = threading.Event(), threading.Event()

    def hold() -> None:
        with entered(path):
            begun.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def write_pcap(path: Path, frames: Sequence[bytes], gap: float = 0.0) -> str:
    """A capture file, written by dpkt."""
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, nano=True)
        for number, data in enumerate(frames):
            writer.writepkt(data, 1_700_000_000 + number * gap)
    return str(path)


def read_pcap(path: Path) -> list[bytes]:
    """A capture file's frames, read by dpkt."""
    with path.open("rb") as file:
        return [data for _, data in dpkt.pcap.UniversalReader(file)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def memory_files() -> int:
    """How many of the process's open files are ixy's memory."""
    targets = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(target.name.startswith("memfd:ixy") for target in targets)
