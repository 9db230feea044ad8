"""The yardstick: the same algorithm in plain C, with a C driver's data structures, on the same simulated cards.

It comes in two layouts: that of the published C driver, and that of this driver, so that what a layout is worth does
not pass for what a language costs.
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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy import unsafe
from ixy.bench.environment import cpu_model
from ixy.errors import Error, MemoryUnavailable
from ixy.packets.buffers import STRIDE
from ixy.packets.dma import allocate_rings

if TYPE_CHECKING:
    from ixy.device import RxQueue, TxQueue
    from ixy.sim.machine import Machine

_SOURCE = Path(__file__).with_name("reference.c")
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
    """The C forwarder between two queues whose cards are up and have not seen a packet; it takes over their rings.

    Args:
        library: from `build`.
        rx, tx: the queues. Python must not use them any more, but closes their devices before the reference.
        host: the machine of their cards.
        layout: of its packets and descriptors.

    Attributes:
        poll: takes one batch along; called from compiled code with `handle`, returns the number of packets.
        handle: of the forwarder's state.

    Raises:
        MemoryUnavailable: there is none for its packets.
    """

    def __init__(self, library: Path, rx: RxQueue, tx: TxQueue, host: Machine, layout: Layout) -> None:
        self._library = _load(library)
        self._host = host
        self._memory = allocate_rings(_BUFFERS * layout.stride)
        addresses = host.map(self._memory).addresses(np.arange(_BUFFERS, dtype=np.int64) * layout.stride)
        rx_state, tx_state = rx.ring.state, tx.ring.state
        self.poll: Callable[[int], int] = unsafe.foreign(str(library), "ixy_reference_poll")
        self.handle: int = self._library.ixy_reference_create(
            rx_state.descriptors,
            rx_state.tail,
            tx_state.descriptors,
            tx_state.tail,
            rx.ring.size,
            self._memory.bytes,
            addresses,
            _BUFFERS,
            layout.stride,
            layout.grouped,
        )
        if self.handle == 0:
            self._return_memory()
            raise MemoryUnavailable("the C reference found no memory for its state")

    def set_batch(self, batch: int) -> None:
        """Take up to so many packets at a time."""
        self._library.ixy_reference_set_batch(self.handle, batch)

    def close(self) -> None:
        """Return its memory. Its cards have stopped."""
        self._library.ixy_reference_destroy(self.handle)
        self._return_memory()

    def _return_memory(self) -> None:
        self._host.unmap(self._memory)
        self._memory.close()


def build() -> Path:
    """Compile the reference, or find what was compiled before from the same source for the same processor.

    Raises:
        NoReference: no compiler, or it fails; says why.
    """
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if compiler is None:
        raise NoReference("no C compiler (gcc, cc, clang) found: install one to measure beside C")
    key = "\0".join([_SOURCE.read_text(), compiler, *_FLAGS, cpu_model()])
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
            subprocess.run([compiler, *_FLAGS, "-o", output, _SOURCE], check=True, capture_output=True, text=True)
            output.replace(library)
    except OSError as error:
        raise NoReference(f"cannot compile the C reference into {library.parent}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[0]
        raise NoReference(f"{compiler} cannot compile the C reference: {reason}") from None


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.ixy_reference_create.restype = ctypes.c_int64
    library.ixy_reference_create.argtypes = [
        _WORDS,
        _REGISTER,
        _WORDS,
        _REGISTER,
        ctypes.c_uint32,
        _BYTES,
        _WORDS,
        ctypes.c_uint32,
        ctypes.c_uint32,
        ctypes.c_uint32,
    ]
    library.ixy_reference_set_batch.restype = None
    library.ixy_reference_set_batch.argtypes = [ctypes.c_int64, ctypes.c_uint32]
    library.ixy_reference_destroy.restype = None
    library.ixy_reference_destroy.argtypes = [ctypes.c_int64]
    return library
