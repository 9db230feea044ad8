"""A lock per device, which keeps a second process away.

The lock is an flock(2) on a file: the kernel drops it when its process ends, however it ends. The file holds the
process's id, for the message that the second process prints. It is never removed, since another process may be about
to lock it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import textwrap
from pathlib import Path

from ixy.bus.pci import explained
from ixy.errors import DeviceBusy

LOCKS = Path("/run/lock/ixy")


class DeviceLock:
    """The lock of the device in `slot`, held until `close`.

    Raises:
        DeviceBusy: another process has it; the message names that process.
    """

    def __init__(self, slot: str, address: str) -> None:
        with explained(address, "lock the device"):
            self._fd = _open(_directory() / slot)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._fd)
            os.close(self._fd)
            raise DeviceBusy(f"{address} is in use by {holder}") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let other processes have the device."""
        os.close(self._fd)


def holder(slot: str) -> str | None:
    """Which process has the device in `slot`, in words; None if it is free."""
    try:
        fd = os.open(_directory() / slot, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _holder(fd)
    finally:
        os.close(fd)


def _directory() -> Path:
    """The directory that all users share; where a user may not make it, one of their own."""
    try:
        LOCKS.mkdir(exist_ok=False)
        LOCKS.chmod(0o1777)
    except FileExistsError:
        pass
    except OSError:
        own = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"ixy-{os.getuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        return own
    return LOCKS


def _open(path: Path) -> int:
    """Open the lock file, making it if need be, for any user to lock.

    An existing file is opened without O_CREAT, which the kernel denies even root on another user's file in a shared
    directory (sysctl fs.protected_regular).
    """
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        os.fchmod(fd, 0o666)  # whatever the umask
        return fd


def _holder(fd: int) -> str:
    """The process named in a lock file."""
    pid = os.pread(fd, 20, 0).decode(errors="replace").strip()
    try:
        command = Path("/proc", pid, "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return "another process"
    return f"process {pid} ({textwrap.shorten(command, 80, placeholder=' …')})" if pid else "another process"
