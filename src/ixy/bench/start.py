"""How long a first start takes: processes with an empty cache, and then with what they have kept.

python -m ixy.bench.start WHAT [NUMBER]     in a process of its own: what was compiled, and with a number, how long a
                                            path took with a function that has it as a constant, as JSON
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
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.errors import Error

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ixy.device import Device
    from ixy.packets.batch import Packet

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
        new_function_cpu_seconds: what it costs to make a path of a function, in a process that finds its devices'
            kernels in the cache; the least of several. None for a program without a path of its own.
        known_function_cpu_seconds: the same of a function that is found there too.
    """

    what: str
    cold_cpu_seconds: float
    cold_seconds: float
    warm_cpu_seconds: float
    warm_seconds: float
    compilations: int
    kernels: dict[str, float]
    new_function_cpu_seconds: float | None
    known_function_cpu_seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def measure(what: str, repeat: int) -> Start:
    """Start a program cold, and `repeat` times warm.

    Raises:
        Error: it failed.
    """
    with TemporaryDirectory(prefix="ixy-start-") as cache:
        cold_cpu, cold, compiled, _ = _run(what, cache)
        warm = [_run(what, cache)[:2] for _ in range(repeat)]
        numbers = range(repeat) if what in WITH_PATHS else ()
        new, known = ([_run(what, cache, number).function for number in numbers] for _ in range(2))
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
        new_function_cpu_seconds=_least(new),
        known_function_cpu_seconds=_least(known),
    )


def _least(seconds: list[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(min(known), 3) if known else None


class Run(NamedTuple):
    """A process.

    Attributes:
        cpu, seconds: processor seconds and seconds.
        compiled: what it has compiled, and the processor seconds of each.
        function: processor seconds of a path with another function; None if there was none.
    """

    cpu: float
    seconds: float
    compiled: list[tuple[str, float]]
    function: float | None


def _run(what: str, cache: str, number: int | None = None) -> Run:
    command = [sys.executable, "-m", "ixy.bench.start", what, *([] if number is None else [str(number)])]
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
        return Run(usage.ru_utime + usage.ru_stime, seconds, *json.load(printed))


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


def _demo(_number: int | None) -> float | None:
    from ixy.apps.demo import demo
    from ixy.apps.settings import Settings

    demo(Settings(count=_PACKETS, as_json=True), count=_PACKETS, size=60)


def _forward(number: int | None) -> float | None:
    from ixy.bench.prepare import simulated_pair

    return _forwarding(simulated_pair("stepped"), number)


def _virtio(number: int | None) -> float | None:
    from ixy.bench.prepare import virtio_pair

    return _forwarding(virtio_pair("packed"), number)


def _forwarding(pair: AbstractContextManager[tuple[Device, Device]], number: int | None) -> float | None:
    """Make a forwarder; the processor seconds of one more path, with a function that counts by this number."""
    from ixy.bench.prepare import compile_paths
    from ixy.path import touch

    with pair as (a, b):
        compile_paths([(a, b), (b, a)], touch)
        return None if number is None else _counting(a, b, number)


def _counting(a: Device, b: Device, number: int) -> float:
    from ixy.path import Path, kernel
    from ixy.record import Record

    class Counted(Record):
        packets: int

    @kernel
    def count(packet: Packet, counted: Counted) -> bool:
        counted.packets += number
        return bool(packet.ipv4)

    begun = time.process_time()
    Path(a.rx[0], b.tx[0], count, Counted()).run(0)
    return time.process_time() - begun


# The demonstration; and a forwarder between two cards, or VirtIO devices, that others run.
PROGRAMS: dict[str, Callable[[int | None], float | None]] = {"demo": _demo, "forward": _forward, "virtio": _virtio}
WITH_PATHS = ("forward", "virtio")  # of a function that is handed in


def main(what: str, *number: str) -> None:
    """Run a program, and print what it has compiled, and how long one more path took."""
    with compilations() as done, redirect_stdout(io.StringIO()):
        function = PROGRAMS[what](int(number[0]) if number else None)
    json.dump((done, function), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
