"""Runs in the guest: tell the test device to go, then read it."""

import json
import mmap
import sys
from pathlib import Path

device = Path("/sys/bus/pci/devices") / sys.argv[1]
(device / "enable").write_text("1")
with (device / "resource0").open("r+b", buffering=0) as resource:
    registers = memoryview(mmap.mmap(resource.fileno(), 512 << 10)).cast("I")
before = registers[0]
registers[10] = 1
print(json.dumps({"before": before, "after": registers[0]}))
