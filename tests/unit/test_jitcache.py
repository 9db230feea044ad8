"""The cache's files: whatever is in them or becomes of them, what is loaded is what was saved, or nothing."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ixy import jitcache
from ixy.jitcache import Store

KEY, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Of a source file in a folder of its own, with a home beside it."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(jitcache, "_failures", [])
    (tmp_path / "source").mkdir()
    return Store(tmp_path / "source" / "kernels.py")


def entries(store: Store) -> list[Path]:
    return [path for directory in store.directories for path in directory.glob("*.ixy")]


def test_what_was_saved_is_loaded(store: Store) -> None:
    """By its key, beside the source; nothing else is left in the folder."""
    store.save("run", KEY, b"code")
    assert store.load("run", KEY) == b"code"
    assert store.load("run", OTHER) is None
    assert store.load("other", KEY) is None
    assert [path.suffix for path in (store.directories[0]).iterdir()] == [".ixy"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"code", b"dose"))


def foreign(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("damage", [cut, empty, changed, foreign, folder, fifo, loop])
def test_damaged_entry_is_no_entry(store: Store, damage: Callable[[Path], None]) -> None:
    """Nothing is loaded, nothing waits, and what is saved after that is loaded again."""
    store.save("run", KEY, b"code")
    damage(entries(store)[0])
    assert store.load("run", KEY) is None
    store.save("run", KEY, b"code")
    assert store.load("run", KEY) == b"code"


def test_entry_under_the_name_of_another_is_no_entry(store: Store) -> None:
    """A file that was copied or renamed holds other code than its name says."""
    store.save("run", KEY, b"code")
    store.save("run", OTHER, b"other")
    one, two = entries(store)
    one.write_bytes(two.read_bytes())
    assert [store.load("run", key) for key in (KEY, OTHER)].count(None) == 1


def no_folder(directory: Path) -> None:
    """In its place there is a file, so that no one can make it, root included."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_text("not a folder")


def test_user_has_a_cache_where_the_source_cannot_be_written_to(store: Store) -> None:
    """As with a package that root has installed."""
    beside, home = store.directories
    no_folder(beside)
    store.save("run", KEY, b"code")
    assert [path.parent for path in entries(store)] == [home]
    assert store.load("run", KEY) == b"code"


def test_what_was_compiled_beforehand_is_read_where_nothing_can_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that is mounted read-only."""
    store.save("run", KEY, b"code")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system", "somewhere")

    monkeypatch.setattr(jitcache, "_write", refuse)
    assert store.load("run", KEY) == b"code"


def test_nowhere_to_write_is_said_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """One line for the process, which says what is wrong, however many kernels are compiled."""
    for directory in store.directories:
        no_folder(directory)
    with caplog.at_level(logging.WARNING, "ixy.jit"):
        for key in (KEY, OTHER):
            store.save("run", key, b"code")
            assert store.load("run", key) is None
    (message,) = caplog.messages
    assert str(store.directories[0]) in message
    assert "cannot be kept" in message


def test_disk_that_is_full_leaves_no_half_file(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Writing fails in the middle, here of the largest file that the process may write; what was there stays."""
    store.save("run", KEY, b"code")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        store.save("run", OTHER, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for directory in store.directories for path in directory.iterdir()] == entries(store)
    assert [store.load("run", key) for key in (KEY, OTHER)] == [b"code", None]
    assert "File too large" in caplog.text


def test_old_entries_make_room_for_new_ones(store: Store) -> None:
    """A function that is edited all day does not fill the disk; other functions keep their entries."""
    store.save("other", KEY, b"code")
    keys = [f"{number:032x}" * 2 for number in range(3 * jitcache._KEPT)]
    for age, key in enumerate(keys):
        store.save("run", key, b"code")
        path = store.directories[0] / jitcache._file_name("run", key)
        os.utime(path, (age, age))
    kept = [key for key in keys if store.load("run", key)]
    assert keys[-1] in kept
    assert len(kept) <= jitcache._KEPT
    assert store.load("other", KEY) == b"code"


HOLD = """
import os, sys
from pathlib import Path
from ixy.jitcache import Store
with Store(Path(sys.argv[1])).turn(sys.argv[2]):
    print("begun", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold(store: Store) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Another process that has its turn, until it is told to end it."""
    processes: list[subprocess.Popen[str]] = []

    def start(key: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(store.directories[0].parent / "kernels.py"), key]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        processes.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


TRY = """
import sys
from pathlib import Path
from ixy import jitcache
jitcache.time.sleep = lambda seconds: sys.exit(1)  # it would wait
with jitcache.Store(Path(sys.argv[1])).turn(sys.argv[2]):
    pass
"""


def has_begun(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "begun\n"


def test_turns_of_two_processes_follow_each_other(
    store: Store, hold: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process has its turn this one waits; for another key it does not."""
    monkeypatch.setattr(jitcache, "_PATIENCE", 0.1)
    other = hold(KEY)
    assert has_begun(other)
    assert not taken_at_once(store, KEY)
    assert taken_at_once(store, OTHER)
    other.communicate("end\n")
    assert taken_at_once(store, KEY)


def test_turn_of_a_process_that_was_killed_is_over(store: Store, hold: Callable[[str], subprocess.Popen[str]]) -> None:
    """Nothing is left that others would wait for."""
    other = hold(KEY)
    assert has_begun(other)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert taken_at_once(store, KEY)


def test_turn_is_taken_in_the_end_from_a_process_that_stands_still(
    store: Store, hold: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in its turn keeps others waiting only so long."""
    other = hold(KEY)
    assert has_begun(other)
    other.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(jitcache, "_PATIENCE", 0.1)
    waited: list[str] = []
    with store.turn(KEY, lambda: waited.append("a little")):
        assert waited
        store.save("run", KEY, b"code")
    assert store.load("run", KEY) == b"code"


def test_no_locks_no_turns(store: Store) -> None:
    """Where no lock file can be made, everybody compiles."""
    for directory in store.directories:
        no_folder(directory)
    with store.turn(KEY):
        pass


def taken_at_once(store: Store, key: str) -> bool:
    """Whether a third process gets its turn without waiting for somebody."""
    command = [sys.executable, "-c", TRY, str(store.directories[0].parent / "kernels.py"), key]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0
