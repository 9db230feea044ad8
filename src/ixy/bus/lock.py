"""A lock per device, which keeps a second process away.

The lock is an flock(2) on a file: the kernel drops it when its process ends, however it ends, and the guardian
(`ixy.bus.guardian`) that it may have left behind. The file holds the process's id, for the message that the second
process prints. It is never removed, since another process may be about to lock it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import textwrap
import time
from pathlib import Path

from ixy.bus.pci import explained
from ixy.errors import DeviceBusy
from ixy.process import forget_in_child

LOCKS = Path("/run/lock/ixy")

_PATIENCE = 5.0  # seconds for a guardian to stop its card: 1 for pending requests, and the kernel's reset


class DeviceLock:
    """The lock of the device in `slot`, held until `close`.

    Attributes:
        fd: the open file; whoever inherits it has the lock too.

    Raises:
        DeviceBusy: another process has it; the message names that process.
    """

    def __init__(self, slot: str, address: str) -> None:
        with explained(address, "lock the device"):
            self.fd = _open(_directory() / slot)
        try:
            _take(self.fd)
            with explained(address, "lock the device"):
                os.ftruncate(self.fd, 0)
                os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = _holder(self.fd)
            os.close(self.fd)
            raise DeviceBusy(f"{address} is in use by {holder}") from None
        except BaseException:
            os.close(self.fd)
            raise
        forget_in_child(self)

    def close(self) -> None:
        """Let other processes have the device."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def forget(self) -> None:
        """The same for a child: the parent keeps the lock. See `ixy.process.Inheritance`."""
        self.close()


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


def _take(fd: int) -> None:
    """Lock the file. If its process has ended, a guardian has it, for a moment."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _command(_process(fd)) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _holder(fd: int) -> str:
    """The process named in a lock file, if it is alive."""
    pid = _process(fd)
    command = _command(pid)
    return f"process {pid} ({textwrap.shorten(command, 80, placeholder=' …')})" if command else "another process"


def _process(fd: int) -> str:
    """The process id in a lock file."""
    return os.pread(fd, 20, 0).decode(errors="replace").strip()


def _command(pid: str) -> str:
    """The command of a process; empty if it has ended, even if nobody has waited for it yet."""
    try:
        return Path("/proc", pid, "cmdline").read_text(errors="replace").replace("\0", " ") if pid else ""
    except (OSError, ValueError):  # there is none; the file holds what is no process id
        return ""
