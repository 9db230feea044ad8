"""Who is told what is compiled. Importing this module costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

# Called with an entry's name, how many of the kernels that go into it are compiled, and how many there may be; when it
# is compiled these are equal.
Watcher = Callable[[str, int, int], None]

watchers: list[Watcher] = []


@contextmanager
def watched(watcher: Watcher) -> Generator[None]:
    """Within the block `watcher` is told of all that is compiled, in the thread that compiles it."""
    watchers.append(watcher)
    try:
        yield
    finally:
        watchers.remove(watcher)
