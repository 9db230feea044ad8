"""A thread that writes captures, behind the back of who gathers them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dpkt
import numpy as np
import pytest

from ixy.errors import CaptureError
from ixy.formats.behind import Behind
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
