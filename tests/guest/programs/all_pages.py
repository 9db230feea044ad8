"""Runs in the guest: take all free huge pages, fill them, and see whether anybody else writes there.

Leaves the file `filled`; once the file `look` has appeared, prints how many pages it had, and which have changed.
"""

import json
import mmap
import os
import time
from pathlib import Path

SIZE = 2 << 20
PATTERN = bytes([0xA5]) * SIZE

count = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
file = os.memfd_create("all", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
os.ftruncate(file, count * SIZE)
os.posix_fallocate(file, 0, count * SIZE)
memory = mmap.mmap(file, count * SIZE)
for _ in range(count):
    memory.write(PATTERN)
Path("filled").touch()
while not Path("look").exists():
    time.sleep(0.01)
changed = [page for page in range(count) if memory[page * SIZE : (page + 1) * SIZE] != PATTERN]
print(json.dumps({"pages": count, "changed": changed}))
