"""Files that are read through a mapping, and files that are written: none is both, and what they lie on may be full."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from ixy.errors import CaptureError
from ixy.streams import closed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EPIPE: "pipe closed",
    errno.EFBIG: "file too large for the limit on file sizes (ulimit -f)",
}


def reason(error: OSError) -> str:
    """Why a file takes no more."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def opened(path: str | Path) -> IO[bytes]:
    """A file to be read, or a second descriptor of standard input ("-").

    Raises:
        OSError: there is none.
    """
    return os.fdopen(os.dup(0), "rb") if str(path) == "-" else Path(path).open("rb")


def is_mappable(file: IO[bytes]) -> bool:
    """Whether it is a file on a disk, of which nothing has been read."""
    return bool(os.fstat(file.fileno()).st_size) and file.seekable() and file.tell() == 0


def mapped(file: IO[bytes]) -> Bytes:
    """A file as an array, shape (its size,), uint8, read-only. It and its lock live as long as the array.

    Shortening the file while it is in use kills the process.
    """
    if not os.fstat(file.fileno()).st_size:
        return np.zeros(0, np.uint8)
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def spooled(parts: Iterable[bytes | Bytes]) -> Bytes:
    """What comes in parts, mapped: it lies in a file without a name, which goes with the array.

    Raises:
        OSError: the disk for temporary files is full.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        for part in parts:
            rest = memoryview(cast("bytes", part))
            while rest:
                rest = rest[file.write(rest) :]
        return mapped(file)


def share(file: IO[bytes], path: str | Path) -> None:
    """Keep `Writer`s off a file that is read.

    Raises:
        CaptureError: it is being written.
    """
    _lock(file.fileno(), fcntl.LOCK_SH, path)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def check_place(path: str | Path) -> None:
    """Refuse a path at which no file can be, without touching what is there.

    Raises:
        CaptureError: there is no such folder, or a folder of that name.
    """
    if str(path) == "-":
        return
    try:
        folder = stat.S_ISDIR(Path(path).parent.stat().st_mode)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    if not folder or Path(path).is_dir():
        raise CaptureError(f"{path}: {os.strerror(errno.EISDIR if folder else errno.ENOTDIR)}")


def open_emptied(path: str | Path) -> int:
    """A descriptor of the emptied file, or a second one of standard output ("-"): either is the caller's to close.

    Raises:
        CaptureError: it cannot be opened, or somebody in ixy reads or writes it.
    """
    try:
        fd = _standard_output() if str(path) == "-" else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    if is_regular(fd):
        try:
            _claim(fd, path)
        except CaptureError:
            os.close(fd)
            raise
    return fd


def is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _standard_output() -> int:
    if closed(1):
        raise CaptureError("standard output is closed: name a file")
    return os.dup(1)


def _claim(fd: int, path: str | Path) -> None:
    """Empty a file that nobody in ixy reads or writes. Standard output is not emptied, and its lock not kept."""
    _lock(fd, fcntl.LOCK_EX, path)
    if str(path) == "-":
        _lock(fd, fcntl.LOCK_UN, path)
        return
    os.ftruncate(fd, 0)
    _lock(fd, fcntl.LOCK_SH, path)  # it may be read as it grows


def _lock(fd: int, kind: int, path: str | Path) -> None:
    """Keep others from emptying a file that is mapped: their next access beyond its end would be a SIGBUS."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CaptureError(f"{path}: in use: it is being read or written; name another file") from None
    except OSError:
        pass  # not every file system has locks
