"""How long a first start takes: processes with an empty cache, and then with what they have kept.

python -m ixy.bench.start WHAT      in a process of its own: what was compiled, as JSON
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ixy.errors import Error

_PACKETS = 1000  # of the demonstration


@dataclass(frozen=True)
class Start:
    """What it costs to start one program.

    Attributes:
        what: the program, one of `PROGRAMS`.
        cold_cpu_seconds, cold_seconds: processor time and time of the process that finds nothing in the cache.
        warm_cpu_seconds, warm_seconds: the least of several processes that find everything.
        compilations: how many functions the first one compiled.
        kernels: the processor seconds that each took, without those that it calls, the dearest first.
    """

    what: str
    cold_cpu_seconds: float
    cold_seconds: float
    warm_cpu_seconds: float
    warm_seconds: float
    compilations: int
    kernels: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def measure(what: str, repeat: int) -> Start:
    """Start a program cold, and `repeat` times warm.

    Raises:
        Error: it failed.
    """
    with TemporaryDirectory(prefix="ixy-start-") as cache:
        cold_cpu, cold, compiled = _run(what, cache)
        warm = [_run(what, cache)[:2] for _ in range(repeat)]
    kernels: dict[str, float] = {}
    for name, seconds in compiled:
        kernels[name] = kernels.get(name, 0.0) + seconds
    dearest = sorted(kernels.items(), key=lambda item: -item[1])
    return Start(
        what=what,
        cold_cpu_seconds=round(cold_cpu, 2),
        cold_seconds=round(cold, 2),
        warm_cpu_seconds=round(min(cpu for cpu, _ in warm), 2),
        warm_seconds=round(min(seconds for _, seconds in warm), 2),
        compilations=len(compiled),
        kernels={name: round(seconds, 3) for name, seconds in dearest},
    )


def _run(what: str, cache: str) -> tuple[float, float, list[tuple[str, float]]]:
    """Processor seconds and seconds of a process, and what it has compiled."""
    command = [sys.executable, "-m", "ixy.bench.start", what]
    with (Path(cache) / "printed").open("w+") as printed:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=printed, env={**os.environ, "NUMBA_CACHE_DIR": cache})
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Error(f"the program {what} failed with exit status {process.returncode}")
        printed.seek(0)
        return usage.ru_utime + usage.ru_stime, seconds, json.load(printed)


# ---------------------------------------------------------------------------------------------------------------------
# In the process that is measured


@contextmanager
def compilations() -> Generator[list[tuple[str, float]]]:
    """What is compiled in the block: names, and processor seconds of each without those that it calls."""
    from numba.core import event

    done: list[tuple[str, float]] = []
    open_ones: list[tuple[float, float]] = []  # when it was begun, and how long others took within it

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:  # noqa: ARG002
            open_ones.append((time.thread_time(), 0.0))

        def on_end(self, event: Any) -> None:
            begun, within = open_ones.pop()
            whole = time.thread_time() - begun
            if open_ones:
                open_ones[-1] = (open_ones[-1][0], open_ones[-1][1] + whole)
            function = event.data["dispatcher"].py_func
            done.append((f"{function.__module__}.{function.__qualname__}", whole - within))

    events: Any = event
    with events.install_listener("numba:compile", Listener()):
        yield done


def _demo() -> None:
    from ixy.apps.demo import demo
    from ixy.apps.settings import Settings

    demo(Settings(count=_PACKETS, as_json=True), count=_PACKETS, size=60)


def _forward() -> None:
    from ixy.bench.prepare import compile_paths, simulated_pair
    from ixy.path import touch

    with simulated_pair("stepped") as (a, b):
        compile_paths([(a, b), (b, a)], touch)


def _virtio() -> None:
    from ixy.bench.prepare import compile_paths, virtio_pair
    from ixy.path import touch

    with virtio_pair("packed") as (a, b):
        compile_paths([(a, b), (b, a)], touch)


# The demonstration; and a forwarder between two cards, or VirtIO devices, that others run.
PROGRAMS: dict[str, Callable[[], None]] = {"demo": _demo, "forward": _forward, "virtio": _virtio}


def main(what: str) -> None:
    """Run a program, and print what it has compiled."""
    with compilations() as done, redirect_stdout(io.StringIO()):
        PROGRAMS[what]()
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
