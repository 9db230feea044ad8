"""The sections of the report, in their order.

A section is a module beside this one, and its name in `NAMES`. It has

- TITLE, its heading;
- `seconds(effort)`, how long it measures about;
- `measure(effort, told)`, which yields its parts (`ixy.reporting.parts`) as they come, and calls `told(share, what)`
  with the share of its work that is done, 0 to 1, and what it does next. What cannot be measured here is a `Missing`
  part; an `ixy.Error` or `OSError` that it raises becomes one.
"""

from __future__ import annotations

NAMES = ("throughput", "frequency", "sizes", "profile", "unsafe", "latency", "python", "sockets", "virtio")
