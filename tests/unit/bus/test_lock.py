"""Locks of devices: the parts that opening a card does not show."""

from __future__ import annotations

import os
import resource
import signal
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ixy.bus import lock
from ixy.bus.lock import DeviceLock, holder
from ixy.errors import DeviceBusy, Error

if TYPE_CHECKING:
    from fake_sysfs import FakeSysfs

SLOT = "0000:03:00.0"


def test_directory_and_file_are_for_all_users(sysfs: FakeSysfs) -> None:
    """Root and users see one another: any user may lock any file, and remove only their own, whatever the umask."""
    lock.LOCKS.rmdir()
    umask = os.umask(0o077)
    try:
        DeviceLock(SLOT, SLOT).close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(lock.LOCKS.stat().st_mode) == 0o1777
    assert stat.S_IMODE((lock.LOCKS / SLOT).stat().st_mode) == 0o666
    assert lock.LOCKS.parent == sysfs.root


def test_user_who_cannot_make_the_directory(sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the shared directory cannot be made, the lock lies in the user's own, and works there."""
    monkeypatch.setattr(lock, "LOCKS", sysfs.root / "absent/locks")
    with closing(DeviceLock(SLOT, SLOT)):
        assert (sysfs.root / f"ixy-{os.getuid()}" / SLOT).exists()
        assert f"process {os.getpid()} " in str(holder(SLOT))
        with pytest.raises(DeviceBusy):
            DeviceLock(SLOT, SLOT)


@pytest.mark.usefixtures("sysfs")
def test_holder() -> None:
    """Known while the lock is held; no one before and after."""
    assert holder(SLOT) is None
    with closing(DeviceLock(SLOT, SLOT)):
        words = str(holder(SLOT))
    assert words.startswith(f"process {os.getpid()} (")
    assert "\n" not in words
    assert holder(SLOT) is None


@pytest.mark.usefixtures("sysfs")
@pytest.mark.parametrize("content", [b"", b"x/../..\n", b"\xff\n", b"1\x002\n", b"4194305\n"])
def test_holder_that_cannot_be_named(content: bytes) -> None:
    """A file that names no process, as between locking and writing: 4194304 is the largest id that Linux gives."""
    with closing(DeviceLock(SLOT, SLOT)):
        (lock.LOCKS / SLOT).write_bytes(content)
        assert holder(SLOT) == "another process"


@pytest.mark.usefixtures("sysfs")
def test_holder_that_lives_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at once; only what a process that has ended left behind is waited for."""
    monkeypatch.setattr(lock.time, "sleep", lambda _: pytest.fail("waited"))
    with closing(DeviceLock(SLOT, SLOT)), pytest.raises(DeviceBusy, match=f"process {os.getpid()} "):
        DeviceLock(SLOT, SLOT)


def test_symbolic_link_is_not_followed(sysfs: FakeSysfs, tmp_path: Path) -> None:
    """A link that somebody left in the shared directory: an error, and its target stays as it is."""
    (tmp_path / "victim").write_text("kept")
    (lock.LOCKS / SLOT).symlink_to(tmp_path / "victim")
    with pytest.raises(Error, match=f"{SLOT}: cannot lock the device"):
        DeviceLock(SLOT, SLOT)
    assert (tmp_path / "victim").read_text() == "kept"
    assert sysfs.log == []


@pytest.mark.usefixtures("sysfs")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_neither_holds_nor_releases_the_lock() -> None:
    """It closes its copy, which leaves the parent's as it is; while it lives, the parent's release counts."""
    with closing(DeviceLock(SLOT, SLOT)) as held:
        parent, child_end = os.pipe()
        child = os.fork()
        if child == 0:
            held.close()
            os.write(child_end, b"x")
            signal.pause()
            os._exit(0)
        assert os.read(parent, 1) == b"x"
        assert str(holder(SLOT)).startswith(f"process {os.getpid()} ")
    assert holder(SLOT) is None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(parent)
    os.close(child_end)


@pytest.mark.usefixtures("sysfs")
def test_a_lock_that_cannot_be_written_is_no_lock() -> None:
    """No file may grow: it is said in a line, and nothing keeps the lock."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (lock.LOCKS / SLOT).touch()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(Error, match=f"{SLOT}: cannot lock the device: File too large"):
            DeviceLock(SLOT, SLOT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert holder(SLOT) is None
