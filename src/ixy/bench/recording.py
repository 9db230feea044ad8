"""What it costs to record, to play and to read captures: ticks a packet in lock step with the model, bytes a second.

A card's model delivers batches of the shortest frames, or takes them, and only the recorder's or the player's turns are
timed, with all they do: what the system takes for writing to a file in memory, and the pages of the file that is read.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ixy.apps.capture import Recorder
from ixy.apps.replay import Player, Recording
from ixy.apps.rewriting import rewriting
from ixy.bench.lockstep import RING_SIZE
from ixy.captures.table import CaptureTable, read_capture
from ixy.device import Device, open_device
from ixy.filters import Filter
from ixy.formats.behind import Behind
from ixy.formats.frames import udp_frame
from ixy.formats.reading import Capture, Source, read
from ixy.formats.writing import Writer
from ixy.jit import compiled
from ixy.pacing import AS_RECORDED, AT_ONCE, KEEPING, Timing
from ixy.reporting.environment import tick_unit
from ixy.sim.loop import deliver, drain
from ixy.sim.machine import Machine
from ixy.sim.rack import Rack
from ixy.unsafe import ticks

_FRAME = 60  # bytes, and 4 of its checksum on the wire
_PACKETS = 1 << 18  # of a measurement
_BURST = RING_SIZE // 2  # packets that the model delivers, or takes, in a turn
_BATCH = 32
_ROUNDS = 32  # in which as many packets are gathered, or sent, as a table or a buffer holds
_READ = 1 << 28  # bytes of a file that is read
_MEMORY = "/dev/shm"  # where files lie in memory


def measure(repeat: int) -> Iterator[dict[str, Any]]:
    """Figures, each the median of `repeat` measurements."""
    unit = tick_unit()
    for name, suffix, expression in (
        ("capture to pcap", ".pcap", ""),
        ("capture to pcapng", ".pcapng", ""),
        ("capture to pcap, by a filter", ".pcap", "udp port 42"),
    ):
        costs = np.median([_capture(suffix, expression) for _ in range(repeat)], axis=0)
        for what, value in zip((name, "  … by the thread that writes"), costs.tolist(), strict=True):
            yield {"what": what, "value": round(value, 2), "unit": unit}
    for name, kind, suffix in (
        ("replay of pcap", AT_ONCE, ".pcap"),
        ("replay of pcapng", AT_ONCE, ".pcapng"),
        ("replay of pcap, by its times", AS_RECORDED, ".pcap"),
    ):
        yield {"what": name, "value": _median(repeat, lambda k=kind, s=suffix: _replay(k, s)), "unit": unit}
    for name, size, how in (
        ("read 64-byte frames", _FRAME, read),
        ("read 1000-byte frames", 1000, read),
        ("64-byte frames into 8 columns", _FRAME, _columns),
        ("1000-byte frames into 8 columns", 1000, _columns),
    ):
        yield {"what": name, "value": _median(repeat, lambda s=size, h=how: _reading(s, h)), "unit": "GB/s"}


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for result in results:
        yield f"{result['what']:32} {result['value']:7.1f} {result['unit']}"


def _median(repeat: int, once: Callable[[], float]) -> float:
    return round(float(np.median([once() for _ in range(repeat)])), 2)


@contextmanager
def _place(suffix: str) -> Generator[Path]:
    """The name of a file in memory, which goes in the end."""
    folder = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        yield Path(directory) / f"bench{suffix}"


def _capture(suffix: str, expression: str) -> tuple[float, float]:
    """Ticks to capture a packet: by who receives, and by the thread that writes to the file meanwhile."""
    host = Machine(stepped=True)
    with ExitStack() as stack:
        path = stack.enter_context(_place(suffix))
        device = stack.enter_context(_open(f"sim:a,gen={_FRAME}", host))
        timed = _Timed(path)
        file = stack.enter_context(Behind(timed))
        recorder = Recorder([device.rx[0]], file, _BATCH, None, Filter(expression) if expression else None)
        rounds, card = _rounds(recorder.kernels[0], _deliver), host.cards["a"].index

        def gather() -> int:
            return rounds(host.rack, card, recorder.states[0], _ROUNDS) + _spent(recorder.flush)

        gather()
        cost = _per_packet(gather, lambda: recorder.matched)
        file.finish()
        return cost, float(np.median(timed.costs))


class _Timed(Writer):
    """A writer that notes the ticks a packet takes each time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.costs: list[float] = []

    def flush(self, buffer: Any, used: int, packets: int | None = None) -> None:
        spent = _spent(lambda: super(_Timed, self).flush(buffer, used, packets))
        self.costs.append(spent / max(packets or 0, 1))


def _replay(kind: int, suffix: str) -> float:
    """Ticks to send a packet of a file: by the kernel, and to find it in the file."""
    host = Machine(stepped=True)
    with ExitStack() as stack:
        path = stack.enter_context(_place(suffix))
        _write(path, bytes(_FRAME), _PACKETS)
        device = stack.enter_context(_open("sim:a", host))
        recording = Recording(Source(path), Timing(kind), loops=0)
        player = Player(device, recording, _BATCH, rewriting(), np.zeros(KEEPING, np.int64))
        rounds, card = _rounds(player.kernels.run, _drain), host.cards["a"].index

        def send() -> int:
            spent = rounds(host.rack, card, player.state, _ROUNDS)
            return spent + (_spent(player.fill) if player.at_end else 0)

        send()
        return _per_packet(send, lambda: player.sent)


def _per_packet(work: Callable[[], int], packets: Callable[[], int]) -> float:
    """Ticks a packet: the median of several stretches of work that says how many it has spent."""
    costs: list[float] = []
    while packets() < _PACKETS:
        before = packets()
        costs.append(work() / max(packets() - before, 1))
    return float(np.median(costs))


def _spent(work: Callable[[], object]) -> int:
    """Ticks that a function of Python takes."""
    start = _now()
    work()
    return _now() - start


@cache
def _rounds(kernel: Any, model: Callable[[Rack, int], None]) -> Any:
    """The loop in which a kernel and the model take turns; the ticks of the kernel's."""

    @compiled
    def rounds(rack: Rack, card: int, state: Any, count: int) -> int:
        spent = 0
        for _ in range(count):
            model(rack, card)
            start = ticks()
            kernel(state, _BURST // _BATCH)
            spent += ticks() - start
        return spent

    return rounds


def _reading(size: int, how: Callable[[Path], Capture | CaptureTable]) -> float:
    """Bytes in a nanosecond that are read into arrays."""
    with _place(".pcap") as path:
        _write(path, udp_frame(size), _READ // (size + 16))
        how(path)  # compiled, and warm
        start = time.perf_counter_ns()
        capture = how(path)
        spent = time.perf_counter_ns() - start
        assert not capture.damage
        return path.stat().st_size / spent


def _columns(path: Path) -> CaptureTable:
    """What is there of every packet, and four fields of headers."""
    return read_capture(path, ("ipv4.src", "ipv4.dst", "udp.sport", "udp.dport"))


def _write(path: Path, frame: bytes, count: int) -> None:
    """A file of the same frame, 10 ns apart: who plays it by its times is always late, and never waits."""
    with Writer(path) as file:
        zeros = np.zeros(count, np.int64)
        file.write(np.arange(count) * 10, np.frombuffer(frame, np.uint8), zeros, zeros + len(frame))


def _open(address: str, host: Machine) -> Device:
    return open_device(address, ring_size=RING_SIZE, link_timeout=0, sim=host)


@compiled
def _now() -> int:
    return ticks()


@compiled
def _deliver(rack: Rack, card: int) -> None:
    for _ in range(_BURST):
        deliver(rack, card, 0)


@compiled
def _drain(rack: Rack, card: int) -> None:
    while drain(rack, card) > 0:
        pass
