"""A thread that writes captures, behind the back of who gathers them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dpkt
import numpy as np
import pytest

from ixy.errors import CaptureError
from ixy.formats.behind import Behind
from ixy.formats.reading import read
from ixy.formats.rotation import RotatingWriter, Rotation
from ixy.formats.writing import Writer, append

if TYPE_CHECKING:
    from ixy.formats.writing import Format

PACKETS = 1000


class Held:
    """A file that takes nothing until it may."""

    formats: list[Format]
    parts = 1

    def __init__(self) -> None:
        self.may, self.taken, self.closed = threading.Event(), list[int](), False

    def flush(self, buffer: np.ndarray, used: int, packets: int | None = None) -> None:
        assert packets == 1
        self.may.wait()
        self.taken.append(int(buffer[:used][0]))

    def close(self) -> None:
        self.closed = True


def test_all_is_written_in_order(tmp_path: Path) -> None:
    """A record at a time, in buffers that are used again when their turn comes."""
    with Behind(Writer(tmp_path / "out.pcap")) as file:
        buffers = np.zeros((file.parts, 256), np.uint8)
        for number in range(PACKETS):
            buffer, frame = buffers[number % file.parts], np.full(60, number % 251, np.uint8)
            file.flush(buffer, append(buffer, 0, file.formats[0], number, frame, 0, 60), 1)
        file.finish()
        assert file.pending == 0
    with (tmp_path / "out.pcap").open("rb") as capture:
        firsts = [packet[0] for _, packet in dpkt.pcap.Reader(capture)]  # pyright: ignore
    assert firsts == [number % 251 for number in range(PACKETS)]


def test_who_hands_over_waits_for_a_slow_file() -> None:
    """With all buffers full: nothing is lost, nothing overwritten, and how long it took is told."""
    held = Held()
    file = Behind(held)
    buffers = np.arange(file.parts, dtype=np.uint8).reshape(-1, 1)
    for buffer in buffers[:-1]:
        file.flush(buffer, 1, 1)
    assert (file.pending, file.waited) == (file.parts - 1, 0.0)
    threading.Timer(0.05, held.may.set).start()
    file.flush(buffers[-1], 1, 1)
    assert file.waited > 0
    file.close()
    assert (held.taken, held.closed) == (list(range(file.parts)), True)


def test_a_file_that_takes_nothing_is_left() -> None:
    """A pipe that nobody reads: closing gives up, and does not touch what the thread still has."""
    held = Held()
    file = Behind(held)
    file.flush(np.zeros(1, np.uint8), 1, 1)
    file.close()
    assert not held.closed
    held.may.set()


def test_an_error_is_told_to_who_hands_over() -> None:
    """The disk is full: the next call says so, and so does the end; nobody waits for a buffer that never comes back."""
    writer = Writer("/dev/null")
    file = Behind(writer)
    writer._fd = 1 << 20  # pyright: ignore[reportPrivateUsage]  # as if it had been closed
    buffer = np.zeros(100, np.uint8)
    used = append(buffer, 0, file.formats[0], 0, buffer, 0, 60)

    def hand_over() -> None:
        while True:
            file.flush(buffer, used, 1)

    with pytest.raises(CaptureError, match=r"/dev/null: Bad file descriptor; packets written whole: 0"):
        hand_over()
    with pytest.raises(CaptureError):
        file.finish()
    assert file.pending == 0


FRAMES = np.random.default_rng(7).integers(0, 256, (PACKETS, 200), np.uint8)  # which hardly anything compresses
FORMATS = ["out.pcap", "out.pcapng", "out.pcap.gz", "out.pcapng.zst"]


def hand_over(file: Behind) -> None:
    """Ten frames at a time, in buffers that are used again, until all are written; each at the microsecond of its
    number."""
    buffers = np.zeros((file.parts, 1 << 13), np.uint8)
    for first in range(0, PACKETS, 10):
        used, buffer = 0, buffers[first // 10 % file.parts]
        for number in range(first, first + 10):
            used = append(buffer, used, file.formats[0], 1000 * number, FRAMES[number], 0, 200)
        file.flush(buffer, used, 10)
    file.finish()


def recorded(*paths: Path) -> list[int]:
    """The numbers of the frames in several files, which are all whole."""
    numbers: list[int] = []
    for path in paths:
        capture = read(path)
        assert capture.damage is None
        for start, time in zip(capture.offsets.tolist(), capture.times.tolist(), strict=True):
            numbers.append(time // 1000)
            assert capture.data[start : start + 200].tobytes() == FRAMES[numbers[-1]].tobytes()
    return numbers


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("reason", "words"), [(errno.ENOSPC, "disk full"), (errno.EPIPE, "pipe closed")])
def test_what_was_recorded_before_a_disk_is_full_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: int, words: str
) -> None:
    """100,000 bytes find room, also of what is compressed: as many packets are in the file as it is said."""
    path, room, write = tmp_path / name, 100_000, os.write

    def full(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(reason, os.strerror(reason))
        taken = write(fd, data[:room])
        room -= taken
        return taken

    file = Behind(RotatingWriter(str(path), 0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(CaptureError) as caught:
            hand_over(file)
        room = 1000  # what ends a compressed file still has some
        file.close()
    said = str(caught.value)
    assert said.startswith(f"{path}: {words}; packets written whole: ")
    count = int(said.rpartition(" ")[2])
    assert 300 < count < 500
    assert recorded(path) == list(range(count))


@pytest.mark.parametrize("name", FORMATS)
def test_files_in_turn(tmp_path: Path, name: str) -> None:
    """Of files of 20,000 bytes, before they are compressed, the last three are there, each whole, and say when."""
    with Behind(RotatingWriter(str(tmp_path / name), 0, Rotation(size=20_000, files=3))) as file:
        hand_over(file)
    files = sorted(tmp_path.iterdir(), key=lambda path: read(path).times[0])
    assert sorted(path.name for path in files) == [f"{name}{number}" for number in range(3)]
    numbers = recorded(*files)
    assert numbers == list(range(numbers[0], PACKETS))
    assert 180 < len(numbers) <= 280
