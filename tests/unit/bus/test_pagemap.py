"""What /proc/self/pagemap says, and how each of its answers is taken."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from ixy.bus import pagemap
from ixy.bus.pagemap import physical_addresses
from ixy.errors import MemoryUnavailable, PermissionDenied

VIRTUAL = 0x200000
PRESENT = 1 << 63


def write_entries(monkeypatch: pytest.MonkeyPatch, path: Path, entries: list[int]) -> None:
    """A pagemap with `entries` for the small pages from VIRTUAL on."""
    with path.open("wb") as file:
        file.seek(VIRTUAL // mmap.PAGESIZE * 8)
        file.write(b"".join(entry.to_bytes(8, "little") for entry in entries))
    monkeypatch.setattr(pagemap, "PAGEMAP", path)


def test_flags_are_not_part_of_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits 55 to 63 are flags, bits 0 to 54 the frame; the pages are in no order."""
    write_entries(monkeypatch, tmp_path / "pagemap", [PRESENT | 7, 0x1FF << 55 | 3, PRESENT | 1 << 40])
    addresses = physical_addresses(VIRTUAL, 3 * mmap.PAGESIZE, mmap.PAGESIZE)
    assert addresses.tolist() == [7 * mmap.PAGESIZE, 3 * mmap.PAGESIZE, mmap.PAGESIZE << 40]


def test_page_that_is_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second page is swapped out (bit 62): its other bits are no frame."""
    write_entries(monkeypatch, tmp_path / "pagemap", [PRESENT | 7, 1 << 62 | 3])
    with pytest.raises(MemoryUnavailable, match="not resident"):
        physical_addresses(VIRTUAL, 2 * mmap.PAGESIZE, mmap.PAGESIZE)


def test_hidden_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without CAP_SYS_ADMIN sees frame 0 for every page."""
    write_entries(monkeypatch, tmp_path / "pagemap", [PRESENT])
    with pytest.raises(PermissionDenied, match="run as root"):
        physical_addresses(VIRTUAL, mmap.PAGESIZE, mmap.PAGESIZE)


def test_pagemap_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older kernels, and processes that changed their user, may not even open the file."""

    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path), flags)

    write_entries(monkeypatch, tmp_path / "pagemap", [PRESENT])
    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(PermissionDenied, match="run as root"):
        physical_addresses(VIRTUAL, mmap.PAGESIZE, mmap.PAGESIZE)
