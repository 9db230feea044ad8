"""DMA memory, on the real thing: the kernel's memory, huge pages where it has some."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from ixy.bus.pagemap import physical_addresses
from ixy.errors import MemoryUnavailable
from ixy.packets import dma
from ixy.packets.dma import (
    HUGE_PAGE,
    PACKET_REGION,
    RING_REGION,
    DmaMapping,
    DmaMemory,
    allocate_rings,
    allocated,
)
from ixy.packets.hugepages import free_huge_pages
from ixy.unsafe import Window

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
KPF_HUGE = 17  # bit of /proc/kpageflags, Documentation/admin-guide/mm/pagemap.rst
WANTED = 4


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """At least four free huge pages; what is added goes away again."""
    missing = max(WANTED - free_huge_pages(), 0)
    if missing and (os.geteuid() != 0 or not POOL.exists()):
        pytest.skip(f"needs {WANTED} free huge pages: run as root, or `sudo ixy setup`")
    if missing:
        POOL.write_text(str(int(POOL.read_text()) + missing))
    try:
        if free_huge_pages() < WANTED:
            pytest.skip("the kernel gives no huge pages: memory is short, or in pieces")
        yield
    finally:
        if missing:
            POOL.write_text(str(max(int(POOL.read_text()) - missing, 0)))


@pytest.fixture
def no_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses huge pages, as one does that was built without them."""
    create = os.memfd_create

    def refuse_huge(name: str, flags: int) -> int:
        if flags & os.MFD_HUGETLB:
            raise OSError(errno.ENOSYS, "no huge pages")
        return create(name, flags)

    monkeypatch.setattr("os.memfd_create", refuse_huge)


def seen_elsewhere(fd: int, size: int) -> tuple[mmap.mmap, NDArray[np.uint8]]:
    """A second mapping of the file behind DMA memory, made by the standard library."""
    mapping = mmap.mmap(fd, size)
    return mapping, np.frombuffer(mapping, np.uint8)


@pytest.mark.usefixtures("huge_pages")
def test_memory_on_huge_pages() -> None:
    """Room for 3 MiB: two huge pages, which another mapping of the file shows too, and given back at the end."""
    free = free_huge_pages()
    memory = allocate_rings(3 << 20)
    assert (memory.size, memory.page_size, memory.bytes.shape) == (2 * HUGE_PAGE, HUGE_PAGE, (2 * HUGE_PAGE,))
    assert memory.virtual_address % HUGE_PAGE == 0
    memory.bytes[[0, -1]] = 17, 4
    _, other = seen_elsewhere(memory.fd, memory.size)
    assert other[[0, -1]].tolist() == [17, 4]
    del other, _
    memory.close()
    assert free_huge_pages() == free


@pytest.mark.usefixtures("no_huge_pages")
def test_memory_without_huge_pages() -> None:
    """Small pages do where no device is given physical addresses; the size is the same."""
    memory = allocate_rings(3 << 20)
    assert (memory.size, memory.page_size) == (2 * HUGE_PAGE, 4096)
    memory.bytes[:] = 0xA5
    with closing(mmap.mmap(memory.fd, memory.size)) as other:
        assert other[:] == b"\xa5" * memory.size
    memory.close()


def all_huge_pages() -> int:
    """As many as can be left, whoever else uses some meanwhile."""
    return int(POOL.read_text()) if POOL.exists() else 0


def test_more_memory_than_huge_pages_are_left() -> None:
    """One page more than there ever are: all of it comes on small pages, and the attempt leaves no file open."""
    size = (all_huge_pages() + 1) * HUGE_PAGE
    if size > PACKET_REGION:
        pytest.skip("this machine has more huge pages than the window has room for")
    files = len(list(Path("/proc/self/fd").iterdir()))
    with patch.object(Window, "map", autospec=True, side_effect=Window.map) as mapped:
        memory = DmaMemory(0, size)
    assert (memory.size, memory.page_size) == (size, 4096)
    assert len(list(Path("/proc/self/fd").iterdir())) == files + 1
    assert mapped.call_count == 1, "a mapping was tried for which there were no pages"
    memory.close()


def test_a_mapping_that_fails_leaves_no_hole() -> None:
    """A file of more huge pages than there are cannot be mapped, and its whole place in the window stays reserved.

    Anything that is mapped later could else fall into the hole, and be overwritten by the next memory put there.
    """
    size = (all_huge_pages() + 1) * HUGE_PAGE
    window = Window(size + HUGE_PAGE, HUGE_PAGE)
    fd = os.memfd_create("test", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    os.ftruncate(fd, size)
    with pytest.raises(MemoryUnavailable, match="cannot map"):
        window.map(0, size, fd)
    os.close(fd)
    assert reserved(window.address(0), window.size) == window.size
    window.close()


def reserved(start: int, size: int) -> int:
    """How many bytes of a range of this process's address space are mapped without access."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, access = line.split()[:2]
        low, high = (int(address, 16) for address in where.split("-"))
        if access == "---p":
            total += max(min(high, start + size) - max(low, start), 0)
    return total


@pytest.mark.usefixtures("no_huge_pages")
def test_ring_memory_takes_the_first_gap() -> None:
    """Three pieces side by side; the middle one's place is taken again, but only by what fits into it."""
    first, second, third = (allocate_rings(2 * HUGE_PAGE) for _ in range(3))
    second.close()
    larger, fitting = allocate_rings(3 * HUGE_PAGE), allocate_rings(HUGE_PAGE + 1)
    offsets = [memory.offset - first.offset for memory in (third, larger, fitting)]
    assert offsets == [4 * HUGE_PAGE, 6 * HUGE_PAGE, 2 * HUGE_PAGE]
    for memory in (first, third, larger, fitting):
        memory.close()


def test_ring_memory_has_an_end() -> None:
    """More than the whole region cannot be had."""
    with pytest.raises(MemoryUnavailable, match="close a device first"):
        allocate_rings(RING_REGION + 1)


def test_mapping_of_scattered_pages() -> None:
    """Offsets in three pages at 0x600000, 0x200000 and 0x400000: looked up page by page."""
    mapping = DmaMapping(np.array([0x600000, 0x200000, 0x400000]), HUGE_PAGE)
    offsets = np.array([0, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 5])
    assert mapping.addresses(offsets).tolist() == [0x600000, 0x7FFFFF, 0x200000, 0x400005]
    assert mapping.address(HUGE_PAGE + 16, 2 * HUGE_PAGE - 16) == 0x200010
    with pytest.raises(MemoryUnavailable, match="2 bytes of DMA memory are not contiguous"):
        mapping.address(HUGE_PAGE - 1, 2)


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.skipif(os.geteuid() != 0, reason="physical addresses are for root alone")
def test_physical_addresses_of_huge_pages() -> None:
    """Locked memory that nobody has touched is in memory, each page at a place of its own, aligned to its size.

    The kernel's own list of page frames says that each is a huge page, and a second mapping of the same file, at
    another virtual address, is at the same places in the same order.
    """
    memory = allocate_rings(WANTED * HUGE_PAGE)
    memory.lock()
    addresses = physical_addresses(memory.virtual_address, memory.size, HUGE_PAGE)
    assert addresses.shape == (WANTED,)
    assert len(set(addresses.tolist())) == WANTED
    assert not np.any(addresses % HUGE_PAGE)
    with Path("/proc/kpageflags").open("rb") as file:
        for address in addresses.tolist():
            flags = int.from_bytes(os.pread(file.fileno(), 8, address // mmap.PAGESIZE * 8), "little")
            assert flags >> KPF_HUGE & 1
    _, other = seen_elsewhere(memory.fd, memory.size)
    assert other[::HUGE_PAGE].tolist() == [0] * WANTED  # read, so that the mapping has the pages
    assert other.ctypes.data != memory.virtual_address
    assert physical_addresses(other.ctypes.data, memory.size, HUGE_PAGE).tolist() == addresses.tolist()
    del other, _
    memory.close()


@pytest.mark.usefixtures("no_huge_pages")
@pytest.mark.skipif(os.geteuid() != 0, reason="physical addresses are for root alone")
def test_physical_addresses_of_one_page_mapped_twice() -> None:
    """Small pages: the first page of a piece, seen through two mappings, has one frame; the second has another."""
    memory = allocate_rings(HUGE_PAGE)
    memory.bytes[: 2 * mmap.PAGESIZE] = 1
    here = physical_addresses(memory.virtual_address, 2 * mmap.PAGESIZE, mmap.PAGESIZE)
    _, other = seen_elsewhere(memory.fd, memory.size)
    assert other[:: mmap.PAGESIZE][:2].tolist() == [1, 1]
    there = physical_addresses(other.ctypes.data, 2 * mmap.PAGESIZE, mmap.PAGESIZE)
    assert here.tolist() == there.tolist()
    assert here[0] != here[1]
    del other, _
    memory.close()


@pytest.mark.parametrize("pages", ["huge_pages", "no_huge_pages"])
def test_the_size_of_memory_is_final(pages: str, request: pytest.FixtureRequest) -> None:
    """Whoever shares its file can neither shorten nor lengthen it, nor forbid what the file is for."""
    request.getfixturevalue(pages)
    memory = allocate_rings(HUGE_PAGE)
    for size in (0, memory.size - HUGE_PAGE // 2, 2 * memory.size):
        with pytest.raises(OSError):  # noqa: PT011
            os.ftruncate(memory.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    memory.bytes[:] = 1
    assert os.fstat(memory.fd).st_size == memory.size
    memory.close()


@pytest.mark.parametrize("pages", ["huge_pages", "no_huge_pages"])
def test_a_limit_on_the_size_of_files_is_named(pages: str, request: pytest.FixtureRequest) -> None:
    """It lies a byte below what is asked for. No memory and no file stay, and once it is lifted there is memory."""
    request.getfixturevalue(pages)
    before, files = allocated(), sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * HUGE_PAGE - 1, limits[1]))
    try:
        with pytest.raises(MemoryUnavailable, match=rf"^no {2 * HUGE_PAGE} bytes .*size of files \(ulimit -f\)$"):
            allocate_rings(2 * HUGE_PAGE)
        assert (allocated(), sorted(os.listdir("/proc/self/fd"))) == (before, files)  # noqa: PTH208
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    allocate_rings(2 * HUGE_PAGE).close()


@pytest.mark.usefixtures("no_huge_pages")
def test_packets_and_rings_do_not_meet() -> None:
    """Rings lie behind the region of packet buffers, inside the window."""
    memory = allocate_rings(1)
    assert memory.offset >= PACKET_REGION
    assert memory.offset + memory.size <= dma.window().size == PACKET_REGION + RING_REGION
    memory.close()
