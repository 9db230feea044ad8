"""A file that is written by a thread of its own, behind the back of who receives: to write packets to memory takes
longer than to receive them, and to a disk far longer.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from ixy.errors import CaptureError

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from ixy.formats.writing import Format

    Bytes = NDArray[np.uint8]

_PATIENCE = 2.0  # seconds that a command which is being ended waits for what may never be written, as into a pipe


class File(Protocol):
    """What takes records: `Writer`, `RotatingWriter`, or one of these behind a thread.

    Attributes:
        formats: of the records of each interface.
        parts: how many buffers its user needs: one to fill, and those that are being written.
    """

    @property
    def formats(self) -> list[Format]: ...
    @property
    def parts(self) -> int: ...
    def flush(self, buffer: Bytes, used: int, packets: int | None = None) -> None: ...
    def close(self) -> None: ...


class Behind:
    """Hands records on to a thread that writes them.

    What was handed over is written in order. After an error nothing more is; who hands over or closes gets the error.

    Args:
        file: that is written; it belongs to the thread until this is closed, and is closed then.

    Attributes:
        parts: buffers that its user fills by turns: the one after the next comes back when it is written.
        pending: packets that were handed over and are not in the file yet.
        waited: seconds that its user had to wait since the file took less than came.
    """

    parts = 8

    def __init__(self, file: File) -> None:
        self._file = file
        self.pending, self.waited = 0, 0.0
        self._free = threading.Semaphore(self.parts - 1)
        self._jobs: SimpleQueue[tuple[Bytes, int] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._error: CaptureError | None = None
        self._thread = threading.Thread(target=self._write, name="ixy writes a capture", daemon=True)
        self._thread.start()

    @property
    def formats(self) -> list[Format]:
        return self._file.formats

    def flush(self, buffer: Bytes, used: int, packets: int | None = None) -> None:
        """Have the first `used` bytes of a buffer written, which is not to be touched before the others had their turn.
        Waits until the next one is free.

        Args:
            packets: how many they are.

        Raises:
            CaptureError: what was handed over before could not be written.
        """
        self._check()
        if not used:
            return
        with self._lock:
            self.pending += packets or 0
        self._jobs.put((buffer[:used], packets or 0))
        if not self._free.acquire(blocking=False):
            began = time.monotonic()
            self._free.acquire()
            self.waited += time.monotonic() - began

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            CaptureError: it could not be.
        """
        self._jobs.put(None)
        self._thread.join()
        self._check()

    def close(self) -> None:
        """Close the file, once all is written; if that takes too long, it is left as it is.

        Raises:
            CaptureError: as `finish`, or as the file's.
        """
        self._jobs.put(None)
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._error:
            raise self._error

    def _write(self) -> None:
        while job := self._jobs.get():
            records, packets = job
            if not self._error:
                try:
                    self._file.flush(records, records.size, packets)
                except CaptureError as error:
                    self._error = error
            with self._lock:
                self.pending -= packets
            self._free.release()
