"""Runs in the guest: take all free huge pages, fill them, and see whether anybody else writes there.

Each page is filled with its own physical address: a card that takes the page for a ring writes packets to the page.
Leaves the file `filled`; once the file `look` has appeared, prints how many pages it had, and which have changed.
"""

import ctypes
import json
import mmap
import os
import time
from pathlib import Path

SIZE = 2 << 20

count = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
file = os.memfd_create("all", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
os.ftruncate(file, count * SIZE)
os.posix_fallocate(file, 0, count * SIZE)
memory = mmap.mmap(file, count * SIZE, mmap.MAP_SHARED | mmap.MAP_POPULATE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))


def pattern(page: int) -> bytes:
    """What fills a page (Linux Documentation/admin-guide/mm/pagemap.rst)."""
    entry = os.pread(pagemap, 8, (start + page * SIZE) // mmap.PAGESIZE * 8)
    frame = int.from_bytes(entry, "little") & (1 << 55) - 1
    return (frame * mmap.PAGESIZE).to_bytes(8, "little") * (SIZE // 8)


pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
patterns = [pattern(page) for page in range(count)]
memory[:] = b"".join(patterns)
Path("filled").touch()
while not Path("look").exists():
    time.sleep(0.01)
changed = [page for page in range(count) if memory[page * SIZE : (page + 1) * SIZE] != patterns[page]]
print(json.dumps({"pages": count, "changed": changed}))
