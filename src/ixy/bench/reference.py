"""The yardstick: the same algorithm in plain C, with a C driver's data structures, on the same simulated cards.

It comes in two layouts: that of the published C driver, and that of this driver, so that what a layout is worth does
not pass for what a language costs. Beside it stands the limit: the least work that any program must do for a packet,
in C too, by scalar instructions and, where the processor has them, by vectors of 512 bits.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy import unsafe
from ixy.errors import Error, MemoryUnavailable
from ixy.packets.buffers import STRIDE
from ixy.packets.dma import allocate_rings
from ixy.reporting.environment import cpu_model

if TYPE_CHECKING:
    from ixy.device import RxQueue, TxQueue
    from ixy.sim.machine import Machine

_SOURCES = [Path(__file__).with_name(name) for name in ("reference.c", "limit.c")]
_FLAGS = ["-std=c11", "-O2", "-march=native", "-shared", "-fPIC"]
_BUFFERS = 4096  # as many as a receive queue of the driver has

_BYTES = np.ctypeslib.ndpointer(np.uint8, flags=("C", "W"))
_REGISTER = np.ctypeslib.ndpointer(np.uint32, shape=(1,), flags=("C", "W"))
_WORDS = np.ctypeslib.ndpointer(np.int64, flags=("C", "W"))


class Layout(NamedTuple):
    """How a forwarder lays out what it shares with the cards, where C drivers differ from this one.

    Attributes:
        stride: bytes from one packet buffer to the next.
        grouped: of a group of transmit descriptors that are cleaned at once, only the last asks for a status report.
    """

    stride: int
    grouped: bool


PUBLISHED = Layout(stride=2048, grouped=False)
OURS = Layout(stride=STRIDE, grouped=True)


class NoReference(Error):
    """The C reference cannot be built here."""


class Reference:
    """A C forwarder between two queues whose cards are up and have not seen a packet; it takes over their rings.

    Args:
        library: from `build`.
        rx, tx: the queues. Python must not use them any more, but closes their devices before the reference.
        host: the machine of their cards.

    Attributes:
        poll: takes one batch along; called from compiled code with `handle`, returns the number of packets.
        handle: of the forwarder's state.

    Raises:
        MemoryUnavailable: there is none for its packets.
    """

    poll: Callable[[int], int]
    handle: int

    def __init__(self, prefix: str, library: Path, buffers: int, stride: int, host: Machine) -> None:
        self._host = host
        self._library = ctypes.CDLL(str(library))
        self._set_batch = self._function(f"{prefix}_set_batch", None, ctypes.c_int64, ctypes.c_uint32)
        self._destroy = self._function(f"{prefix}_destroy", None, ctypes.c_int64)
        self._memory = allocate_rings(buffers * stride)
        self._addresses = host.map(self._memory).addresses(np.arange(buffers, dtype=np.int64) * stride)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        function = self._library[name]
        function.restype, function.argtypes = result, arguments
        return function

    def _create(self, name: str, rx: RxQueue, tx: TxQueue, *numbers: int) -> None:
        """Let the forwarder take over the rings; `numbers` are what this one is told besides."""
        kinds = _WORDS, _REGISTER, _WORDS, _REGISTER, ctypes.c_uint32, _BYTES, _WORDS
        create = self._function(name, ctypes.c_int64, *kinds, *([ctypes.c_uint32] * len(numbers)))
        one, two = rx.ring.state, tx.ring.state
        rings = one.descriptors, one.tail, two.descriptors, two.tail, rx.ring.size
        self.handle = create(*rings, self._memory.bytes, self._addresses, *numbers)
        if self.handle == 0:
            self._return_memory()
            raise MemoryUnavailable("a C reference found no memory for its state")

    def set_batch(self, batch: int) -> None:
        """Take up to so many packets at a time."""
        self._set_batch(self.handle, batch)

    def close(self) -> None:
        """Return its memory. Its cards have stopped."""
        self._destroy(self.handle)
        self._return_memory()

    def _return_memory(self) -> None:
        self._host.unmap(self._memory)
        self._memory.close()


class Algorithm(Reference):
    """The published driver's algorithm.

    Args:
        layout: of its packets and descriptors.
    """

    def __init__(self, library: Path, rx: RxQueue, tx: TxQueue, host: Machine, layout: Layout) -> None:
        super().__init__("ixy_reference", library, _BUFFERS, layout.stride, host)
        self.poll = unsafe.foreign(str(library), "ixy_reference_poll")
        self._create("ixy_reference_create", rx, tx, _BUFFERS, layout.stride, layout.grouped)


class Limit(Reference):
    """The least work, with as many buffers as both rings have descriptors.

    Args:
        simd: by vectors.
    """

    def __init__(self, library: Path, rx: RxQueue, tx: TxQueue, host: Machine, simd: bool) -> None:
        super().__init__("ixy_limit", library, 2 * rx.ring.size, STRIDE, host)
        self.poll = unsafe.foreign(str(library), "ixy_limit_simd_poll" if simd else "ixy_limit_poll")
        self._create("ixy_limit_create", rx, tx)


def has_simd(library: Path) -> bool:
    """Whether the processor has the vectors for the limit's second kind."""
    return bool(ctypes.CDLL(str(library)).ixy_limit_has_simd())


def build() -> Path:
    """Compile the reference, or find what was compiled before from the same source for the same processor.

    Raises:
        NoReference: no compiler, or it fails; says why.
    """
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if compiler is None:
        raise NoReference("no C compiler (gcc, cc, clang) found: install one to measure beside C")
    key = "\0".join([*(source.read_text() for source in _SOURCES), compiler, *_FLAGS, cpu_model()])
    library = _cache_directory() / f"reference-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        _compile(compiler, library)
    return library


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ixy"


def _compile(compiler: str, library: Path) -> None:
    """Compile beside the target and rename, so that no other process loads half a library."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as directory:
            output = Path(directory) / library.name
            subprocess.run([compiler, *_FLAGS, "-o", output, *_SOURCES], check=True, capture_output=True, text=True)
            output.replace(library)
    except OSError as error:
        raise NoReference(f"cannot compile the C reference into {library.parent}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[0]
        raise NoReference(f"{compiler} cannot compile the C reference: {reason}") from None
