"""Plugging a wire into a simulated card, and pulling it out: files opened, devices made, frames put on the tape."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import struct
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ixy.errors import Error, PermissionDenied
from ixy.formats.frames import udp_frame
from ixy.formats.pcap import Writer, read
from ixy.packets.dma import HUGE_PAGE
from ixy.sim import rack as state
from ixy.sim.wires import wires
from ixy.unsafe import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.rack import Rack
    from ixy.sim.spec import Spec

log = logging.getLogger("ixy.sim")

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_UP = 0x0002, 0x1000, 0x1
_WORD = 8
_ROW_BYTES = 3 * _WORD  # of the table of frames


@cache
def tape() -> Window:
    """The tape of this process, reserved when it is first needed."""
    return Window(state.CARDS * state.SLOT, HUGE_PAGE)


class Plug:
    """What is plugged into one card's port.

    The card must be paused while this is made and while it is removed. A cable has two ends, so the machine plugs it
    in; here it needs the card's staging buffer only.

    Args:
        rack, card: where.
        spec: what.
        source: the card whose generator the sink checks, if `spec` names one.

    Attributes:
        wired: there is a link.
    """

    def __init__(self, rack: Rack, card: int, spec: Spec, source: int | None) -> None:
        self._wire: NDArray[np.int64] = rack.wires[card]
        self._rack = rack
        self._slot = card * state.SLOT
        self._mapped = 0
        self._fds: list[int] = []
        self._writer: Writer | None = None
        try:
            self._map_slot(spec)
            self._plug_input(spec)
            self._plug_output(spec, source)
        except BaseException:
            self._close()
            raise
        self.wired = bool(self._wire[state.INPUT] or self._wire[state.OUTPUT])

    def remove(self) -> None:
        """Pull everything out; what was recorded is in its file then.

        Raises:
            CaptureError: it is not, and how much of it is.
        """
        try:
            self._finish_record()
        finally:
            self._close()

    # -----------------------------------------------------------------------------------------------------------------
    # Input

    def _plug_input(self, spec: Spec) -> None:
        self._wire[state.RATE] = spec.rate
        self._wire[state.LIMIT] = spec.count
        if spec.tap:
            self._open_tap(spec.tap)
        elif spec.gen:
            self._wire[state.INPUT] = wires.GENERATOR
            self._wire[state.STAMPED] = 1
        elif spec.rx_pcap:
            self._wire[state.INPUT] = wires.REPLAY_TIMED if spec.original_timing else wires.REPLAY_FAST
            self._wire[state.LIMIT] = self._wire[state.FRAME_COUNT]

    def _map_slot(self, spec: Spec) -> None:
        """Memory for the card's staging and records, and the frames that the wire will deliver behind it."""
        frames = _Frames()
        if spec.rx_pcap:
            frames = _frames_of_file(spec.rx_pcap)
        elif spec.gen:
            frames = _Frames.of([udp_frame(spec.gen)])
        size = state.REPLAY + frames.size
        self._mapped = -(-size // state.PAGE) * state.PAGE
        fd = os.memfd_create("ixy-tape", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, self._mapped)
            tape().map(self._slot, self._mapped, fd)
        finally:
            os.close(fd)
        frames.put(self._rack, self._slot + state.REPLAY)
        self._wire[state.FRAMES] = (self._slot + state.REPLAY) // _WORD
        self._wire[state.FRAME_COUNT] = len(frames.lengths)

    def _open_tap(self, name: str) -> None:
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._fds.append(fd)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
            set_up(name)
        except PermissionError:
            raise PermissionDenied(f"tap={name}: no permission to make a TAP device: run as root") from None
        except OSError as error:
            raise Error(f"tap={name}: cannot make a TAP device: {error.strerror}") from None
        self._wire[state.INPUT] = self._wire[state.OUTPUT] = wires.TAP
        self._wire[state.FD_IN] = self._wire[state.FD_OUT] = fd

    # -----------------------------------------------------------------------------------------------------------------
    # Output

    def _plug_output(self, spec: Spec, source: int | None) -> None:
        if spec.tx_pcap:
            self._writer = Writer(spec.tx_pcap)
            self._wire[state.OUTPUT] = wires.RECORD
            self._wire[state.FD_OUT] = self._writer.fileno()
        elif source is not None:
            self._wire[state.OUTPUT] = wires.SINK
            self._expect(source, spec)

    def _expect(self, source: int, spec: Spec) -> None:
        """Keep copies of the generator's frame as it may arrive, in the staging buffer's place for records.

        What comes back to the generator's own card may have its addresses swapped: it was echoed.
        """
        row = int(self._rack.wires[source, state.FRAMES])
        start, length = (int(word) for word in self._rack.tape_words[row : row + 2])
        frame = self._rack.tape[start : start + length].copy()
        if spec.touch is not None:
            frame[spec.touch] += 1
        expected = self._slot + state.RECORDS
        self._rack.tape[expected : expected + length] = frame
        if spec.sink == spec.name:
            frame[:12] = np.roll(frame[:12], 6)
        self._rack.tape[expected + wires.SWAPPED : expected + wires.SWAPPED + length] = frame
        self._wire[state.EXPECTED] = expected
        self._wire[state.EXPECTED_LENGTH] = length

    def _finish_record(self) -> None:
        """Write what the card had not written yet, and report an error that it met."""
        if self._writer is None:
            return
        used, written = int(self._wire[state.RECORD_USED]), int(self._wire[state.RECORD_WRITTEN])
        records = self._rack.tape[self._slot + state.RECORDS :][: state.RECORDS_SIZE]
        fd = self._writer.fileno()
        if written and stat.S_ISREG(os.fstat(fd).st_mode):
            # The card met an error amid a write: take its part back, so that the whole is written again or reported.
            os.ftruncate(fd, os.lseek(fd, -written, os.SEEK_CUR))
        self._writer.packets += int(self._wire[state.RECORDED])
        self._writer.flush(records, used)

    def _close(self) -> None:
        if self._wire[state.OUTPUT] != wires.CABLE:  # a cable stays, as long as one of its ends is open
            self._wire[state.INPUT] = self._wire[state.OUTPUT] = wires.NOTHING
        if self._writer is not None:
            self._writer.close()
        for fd in self._fds:
            os.close(fd)
        if self._mapped:
            tape().unmap(self._slot, self._mapped)


class _Frames:
    """Frames for the tape: a table of rows (offset, length, time) and the bytes behind it."""

    def __init__(self) -> None:
        self.data: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.offsets: NDArray[np.int64] = np.zeros(0, np.int64)
        self.lengths: NDArray[np.int64] = np.zeros(0, np.int64)
        self.times: NDArray[np.int64] = np.zeros(0, np.int64)

    @classmethod
    def of(cls, frames: list[bytes]) -> _Frames:
        result = cls()
        result.lengths = np.array([len(frame) for frame in frames], np.int64)
        result.offsets = np.cumsum(result.lengths) - result.lengths
        result.data = np.frombuffer(b"".join(frames), np.uint8)
        result.times = np.zeros(len(frames), np.int64)
        return result

    @property
    def size(self) -> int:
        return len(self.lengths) * _ROW_BYTES + len(self.data)

    def put(self, rack: Rack, start: int) -> None:
        """Lay the table and the bytes on the tape."""
        first = start + len(self.lengths) * _ROW_BYTES
        table = np.stack([self.offsets + first, self.lengths, self.times], axis=1)
        rack.tape_words[start // _WORD : start // _WORD + table.size] = table.reshape(-1)
        rack.tape[first : first + len(self.data)] = self.data


def _frames_of_file(path: str) -> _Frames:
    """The frames of a capture; short ones are padded, as they would be on a wire."""
    capture = read(path)
    if capture.damage:
        log.warning("%s: damaged, replaying the %d packets before: %s", path, len(capture), capture.damage)
    frames = _Frames()
    short = np.flatnonzero(capture.lengths < wires.MIN_FRAME)
    padding = np.zeros((len(short), wires.MIN_FRAME), np.uint8)
    for row, number in zip(padding, short, strict=True):
        start, length = capture.offsets[number], capture.lengths[number]
        row[:length] = capture.data[start : start + length]
    frames.offsets, frames.lengths = capture.offsets.copy(), np.maximum(capture.lengths, wires.MIN_FRAME)
    frames.offsets[short] = len(capture.data) + np.arange(len(short)) * wires.MIN_FRAME
    frames.data = np.concatenate([capture.data, padding.reshape(-1)])
    frames.times = capture.times - capture.times[0] if len(capture) else capture.times
    return frames


def set_up(interface: str) -> None:
    """Bring a network interface up, as `ip link set … up` does."""
    siocgifflags, siocsifflags = 0x8913, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", interface.encode(), 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, siocgifflags, request), 16)[0]
        fcntl.ioctl(control, siocsifflags, struct.pack("16sH22x", interface.encode(), flags | _IFF_UP))
