"""A capture file that is replayed into a card."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ixy.errors import AddressError
from ixy.formats.reading import Capture, read
from ixy.jit import compiled
from ixy.pacing import CATCH_UP_PACKETS, NO_BOUND, Timing, late_by, new_plan, planned_all
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.rack import FRAME, OWN_WORDS, PACED, STARTED, Rack
from ixy.sim.wires.clock import awaits
from ixy.sim.wires.tape import WORD
from ixy.sim.wires.wire import Options, Port, Wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("ixy.sim")

# Words of the input: where the table of frames is, in words of the tape; how many there are, and have been delivered
TABLE, COUNT, POSITION = range(OWN_WORDS, OWN_WORDS + 3)

# Columns of the table: offset in the tape, length, when it is due in nanoseconds after the first frame
OFFSET, LENGTH, DUE, ROW = range(4)


@compiled
def next_frame(rack: Rack, card: int, now: int) -> int:
    wire = rack.inputs[card]
    position = wire[POSITION]
    if position >= wire[COUNT] or (wire[PACED] != 0 and not is_time(rack, wire, now)):
        return 0
    row = int(wire[TABLE] + position * ROW)
    wire[POSITION] = position + 1
    wire[FRAME] = rack.tape_words[row + OFFSET]
    return rack.tape_words[row + LENGTH]


@compiled
def is_time(rack: Rack, wire: NDArray[np.int64], now: int) -> bool:
    """Whether the next frame's time has come. Before the end of the file nobody waits for what is behind it."""
    words, position = rack.tape_words, wire[POSITION]
    place, last = int(wire[TABLE] + position * ROW + DUE), position + CATCH_UP_PACKETS - 1
    due = int(words[place])
    span = int(words[place + (CATCH_UP_PACKETS - 1) * ROW]) - due if last < wire[COUNT] else NO_BOUND
    late = late_by(wire, STARTED, due, span, now)
    if late < 0:
        awaits(rack, now - late)
    return late >= 0


@dataclass(frozen=True)
class Replay(Wire):
    """`sim:a,rx_pcap=in.pcap`, and `timing=original` to keep the gaps between packets that the file recorded."""

    path: str
    original_timing: bool = False

    option = "rx_pcap"
    extras = ("timing",)
    delivers = True
    next_frame = staticmethod(next_frame)

    @property
    def paced(self) -> bool:
        return self.original_timing

    @property
    def reads(self) -> str:
        return self.path

    @classmethod
    def parse(cls, options: Options) -> Replay:
        timing = options.values.get("timing", "fast")
        if timing not in ("fast", "original"):
            raise AddressError(f"{options.address}: timing={timing}: possible are fast and original")
        return cls(options.values[cls.option], timing == "original")

    def due(self, port: Port) -> int | None:
        wire = port.input
        position, started = int(wire[POSITION]), int(wire[STARTED])
        if position >= wire[COUNT]:
            return None
        if not self.paced:
            return 0  # there is one all the time
        return started + int(port.rack.tape_words[wire[TABLE] + position * ROW + DUE]) if started else None

    @contextmanager
    def plugged(self, port: Port) -> Generator[None]:
        """Lay the file's frames on the tape. As long as they are there, no `Writer` opens the file.

        Raises:
            CaptureError: the file cannot be read.
        """
        capture = _read(self.path)  # kept, and with it its lock, till the end
        frames = _Frames(capture, paced=self.paced)
        with port.input_memory(frames.size):
            frames.lay(port.rack, port.input_part)
            port.input[TABLE], port.input[COUNT] = port.input_part // WORD, len(frames.lengths)
            port.input[PACED] = self.paced
            yield


def _read(path: str) -> Capture:
    capture = read(path)
    if capture.damage:
        log.warning("%s: damaged, replaying the %d packets before: %s", path, len(capture), capture.damage)
    if capture.cut:
        log.warning("%s: packets that were cut when captured, and are replayed so: %d", path, capture.cut)
    return capture


class _Frames:
    """A capture's frames as they lie on the tape: the table, then their bytes. Short ones are padded, as on a wire.

    Args:
        paced: they are due as they were recorded.

    Attributes:
        lengths: of the frames, shape (n,), int64.
        size: bytes of the tape that they take.
    """

    def __init__(self, capture: Capture, *, paced: bool) -> None:
        short = np.flatnonzero(capture.lengths < MIN_FRAME)
        padded = np.zeros((len(short), MIN_FRAME), np.uint8)
        for row, number in zip(padded, short, strict=True):
            start, length = capture.offsets[number], capture.lengths[number]
            row[:length] = capture.data[start : start + length]
        self.lengths: NDArray[np.int64] = np.maximum(capture.lengths, MIN_FRAME)
        self._offsets = capture.offsets.copy()
        self._offsets[short] = len(capture.data) + np.arange(len(short)) * MIN_FRAME
        self._due = np.zeros(len(capture), np.int64)
        if paced:
            planned_all(new_plan(Timing(), 0), capture.times, capture.lengths, self._due)
        self._parts = (capture.data, padded.reshape(-1))
        self._table_size = len(self.lengths) * ROW * WORD
        self.size = self._table_size + sum(len(part) for part in self._parts)

    def lay(self, rack: Rack, start: int) -> None:
        """Lay them on the tape, from `start` on."""
        place = start + self._table_size
        table = np.stack([self._offsets + place, self.lengths, self._due], axis=1)
        rack.tape_words[start // WORD :][: table.size] = table.reshape(-1)
        for part in self._parts:
            rack.tape[place : place + len(part)] = part
            place += len(part)
