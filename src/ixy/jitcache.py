"""A cache of machine code on disk, which several processes use at once.

An entry is a file that is named by what it was made from, so it never is out of date. Nothing that is found in the
files is trusted to be whole, and nothing that fails ends a program: what cannot be read is compiled, and what cannot be
written is not kept.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("ixy.jit")

_DIGEST_BYTES = 32
_KEPT = 32  # entries of one function, for its types, modes and processors, and for what it was before
_PATIENCE = 120.0  # seconds that another process is given to compile what this one needs too
_LEFT_OVER = 3600.0  # seconds after which nobody writes to a temporary file any more


class Store:
    """The entries of the functions of one source file.

    Args:
        source: the file. Its `__pycache__` is read first, and the user's cache after it; the first of them that can be
            written to is. With NUMBA_CACHE_DIR in the environment, it is that directory alone.
    """

    def __init__(self, source: Path) -> None:
        self.directories = _directories(source)

    def load(self, name: str, key: str) -> bytes | None:
        """What was saved, or None."""
        for directory in self.directories:
            data = _read(directory / _file_name(name, key))
            if data is not None and _checksum(key, data[_DIGEST_BYTES:]) == data[:_DIGEST_BYTES]:
                _used.add(directory)
                return data[_DIGEST_BYTES:]
        return None

    def save(self, name: str, key: str, data: bytes) -> None:
        """Keep data. If that is impossible, it is said, once in a process."""
        if _keeps_no_more:
            return
        failures: list[str] = []
        for directory in self.directories:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                _write(directory / _file_name(name, key), _checksum(key, data) + data)
                _tidy(directory, name)
                _used.add(directory)
                return
            except OSError as error:
                failures.append(f"{directory}: {error.strerror}")
        _say_once("; ".join(failures))

    @contextmanager
    def turn(self, key: str, waiting: Callable[[], object] = lambda: None) -> Generator[None]:
        """Within the block no other process has its turn for this key, or has not ended it for two minutes.

        A process that dies has no turn any more. Where there are no locks, all have their turns.

        Args:
            waiting: called now and then while another process has its turn.
        """
        descriptor = self._open_lock()
        try:
            if descriptor is not None:
                _await_lock(descriptor, int(key[:14], 16), waiting)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _open_lock(self) -> int | None:
        """A file of which a process locks the byte that stands for what it compiles."""
        for directory in self.directories:
            with suppress(OSError):
                directory.mkdir(parents=True, exist_ok=True)
                return os.open(directory / "ixy.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        return None


def _directories(source: Path) -> list[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return [Path(given)]
    directories = [source.parent / "__pycache__"]
    with suppress(RuntimeError):  # the user has no home
        directories.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ixy")
    return directories


def _file_name(name: str, key: str) -> str:
    return f"{name}-{key[:32]}.ixy"


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()


def _read(path: Path) -> bytes | None:
    """The bytes of a file; None if there is none, or something else of its name, which might never answer."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except OSError:
        return None


def _write(path: Path, data: bytes) -> None:
    """Write a file that others find whole or not at all.

    Raises:
        OSError: the disk is full, the directory read-only, or the like.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _tidy(directory: Path, name: str) -> None:
    """Remove a function's oldest entries, and what processes that were killed have left."""
    with suppress(OSError):
        entries = sorted(_ages(directory, f"{name}-*.ixy"), reverse=True)
        old = time.time() - _LEFT_OVER
        left = [(age, path) for age, path in _ages(directory, f"{name}-*.tmp") if age < old]
        for _, path in entries[_KEPT:] + left:
            path.unlink(missing_ok=True)


def _ages(directory: Path, pattern: str) -> Iterator[tuple[float, Path]]:
    """When the files were written, and which they are."""
    for path in directory.glob(pattern):
        with suppress(OSError):  # another process has removed it
            yield path.stat().st_mtime, path


def _await_lock(descriptor: int, place: int, waiting: Callable[[], object]) -> None:
    """Lock a byte of the file, as soon as nobody else has it, or patience has ended."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # the file system has no locks
        waiting()
        time.sleep(0.02)


_used: set[Path] = set()
_failures: list[str] = []
_keeps_no_more = False


def keep_no_more() -> None:
    """From now on this process only reads what others have kept."""
    global _keeps_no_more
    _keeps_no_more = True


def used() -> set[Path]:
    """The directories that this process has read entries from or written them to."""
    return set(_used)


def failure() -> str:
    """Why something could not be kept in this process; empty if all could."""
    return _failures[0] if _failures else ""


def _say_once(failure: str) -> None:
    if not _failures:
        _failures.append(failure)
        log.warning("compiled code cannot be kept, so that it is compiled in each process (%s)", failure)
