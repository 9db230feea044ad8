"""2 MiB huge pages: what the system has, and how to get some.

ixy takes its DMA memory from anonymous files on huge pages, so that nothing stays behind when it is killed; it needs
no mount. The hugetlbfs mount that `setup` makes is for peers that share memory by name, such as DPDK.

Source: Documentation/admin-guide/mm/hugetlbpage.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ixy.arguments import integer
from ixy.errors import Error, MemoryUnavailable, PermissionDenied

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
MOUNTS = Path("/proc/self/mounts")
MOUNT_POINT = Path("/mnt/huge")
MAX_PAGES = 1 << 20  # 2 TiB


def free_huge_pages() -> int:
    """How many 2 MiB huge pages the system has left; 0 where it knows none."""
    return _count("free_hugepages")


def setup(pages: int) -> list[str]:
    """See to it that the system has `pages` 2 MiB huge pages and a hugetlbfs mount, and keep what it has already.

    Returns:
        Lines that say what was found and what was done.

    Args:
        pages: 0 to 2^20.

    Raises:
        ConfigurationError: `pages` is out of bounds.
        MemoryUnavailable: the kernel gives no huge page at all.
        PermissionDenied: something has to be changed, and the process may not.
        Error: the mount fails.
    """
    pages = integer("pages", pages, 0, MAX_PAGES)
    try:
        return [_reserve(pages), _mount()]
    except PermissionError as error:
        raise PermissionDenied("no permission to set huge pages up; run: sudo ixy setup") from error


def _count(attribute: str) -> int:
    path = POOL / attribute
    return int(path.read_text()) if path.exists() else 0


def _reserve(pages: int) -> str:
    """Reserve what is missing; the kernel gives fewer where memory is short or in pieces."""
    before = _count("nr_hugepages")
    if before >= pages:
        return f"found {before} huge pages of 2 MiB, {free_huge_pages()} free: enough"
    if not POOL.exists():
        raise MemoryUnavailable("this kernel has no 2 MiB huge pages")
    (POOL / "nr_hugepages").write_text(f"{pages}\n")
    now = _count("nr_hugepages")
    if now == 0:
        raise MemoryUnavailable("the kernel gave no huge page: free some memory, or reserve them at boot (hugepages=)")
    shortage = "" if now >= pages else f", fewer than the {pages} asked for: memory is short or in pieces"
    return f"reserved huge pages of 2 MiB: there were {before}, now there are {now}, {free_huge_pages()} free{shortage}"


def _mount() -> str:
    """Mount hugetlbfs unless it is mounted with pages of 2 MiB."""
    for line in MOUNTS.read_text().splitlines():
        _source, where, kind, options, *_ = line.split()
        if kind == "hugetlbfs" and "pagesize=2M" in options.split(","):
            return f"found hugetlbfs mounted at {where}"
    if os.geteuid() != 0:
        raise PermissionError
    MOUNT_POINT.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "ixy", str(MOUNT_POINT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Error(f"cannot mount hugetlbfs at {MOUNT_POINT}: {' '.join(result.stderr.split())}")
    return f"mounted hugetlbfs at {MOUNT_POINT}"
