"""The guardian of a card that is reached through sysfs, on a tree of regular files.

The end of a pipe stands for a card's memory: its other end reads the end of the file once nobody holds the memory.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ixy.bus import guardian_main, lock
from ixy.bus import sysfs as bus_sysfs
from ixy.bus.sysfs import SysfsFunction
from ixy.errors import DeviceBusy, Error

if TYPE_CHECKING:
    from fake_sysfs import FakeSysfs

SLOT = "0000:03:00.0"

COMMAND = 4
MEMORY_AND_MASTER, MEMORY_ONLY = 0b110, 0b010
STATUS_PENDING = 1 << 5

# Opens the card in the tree, lets it be bus master, maps as memory the file whose number is the third argument, and
# forks as the fourth says. Prints the process ids of those that have the card, and lives until its input ends.
DRIVER = """
import ctypes, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from ixy.bus import lock, pci, sysfs
pci.SYSFS = Path(sys.argv[1])
lock.LOCKS = pci.SYSFS / "locks"
sysfs.physical_addresses = lambda *_: None
function = sysfs.SysfsFunction(sys.argv[2])
memory = int(sys.argv[3])
function.config_write(4, 2, 0b110)
function.map(SimpleNamespace(page_size=2 << 20, size=0, virtual_address=0, offset=0, lock=int, fd=memory))
how = sys.argv[4]
child = -1 if how == "alone" else ctypes.CDLL(None).fork() if how == "fork in C" else os.fork()
if child == 0:
    if how in ("fork", "fork and become another program"):
        os.close(memory)
        signal.pause()
    if how == "fork and close":
        function.close()
        os._exit(0)
else:
    print(os.getpid(), child, flush=True)
    if how == "fork and close":
        print(child, "has ended:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    if how == "fork and become another program":
        sys.stdin.readline()
        os.set_inheritable(memory, False)
        os.execlp("cat", "cat")
sys.stdin.read()
"""


@dataclass
class FakeMemory:
    """Memory that is a pipe: `fd` is what a mapping keeps, and `gone` tells whether anybody still has it."""

    offset: int = 0
    page_size: int = 2 << 20
    size: int = 2 << 20
    virtual_address: int = 0
    ends: tuple[int, int] = field(default_factory=os.pipe)

    @property
    def fd(self) -> int:
        return self.ends[1]

    def lock(self) -> None:
        pass

    def gone(self, timeout: float | None = 0) -> bool:
        return bool(select.select([self.ends[0]], [], [], timeout)[0])


@pytest.fixture
def memory() -> Iterator[FakeMemory]:
    memory = FakeMemory()
    yield memory
    os.close(memory.ends[0])


@pytest.fixture
def card(sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card that can be reset, and memory with physical addresses."""
    monkeypatch.setattr(bus_sysfs, "physical_addresses", lambda *_: np.zeros(1, np.int64))
    path = sysfs.add(SLOT)
    (path / "reset").touch()
    return path


def command(card: Path) -> int:
    return int.from_bytes((card / "config").read_bytes()[COMMAND : COMMAND + 2], "little")


def guardians(pid: int) -> list[int]:
    """The children of a process that are guardians."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"guardian_main" in Path("/proc", child, "cmdline").read_bytes()]


@contextmanager
def driver(card: Path, memory: FakeMemory, fork: str = "alone") -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that drives the card, in a process group of its own, and the ids of all that have the card."""
    arguments = [sys.executable, "-c", DRIVER, str(card.parents[3]), SLOT, str(memory.fd), fork]
    with subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[memory.fd],
        start_new_session=True,
        env=os.environ | {"IXY_JIT": "0"},
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        os.close(memory.fd)
        assert command(card) == MEMORY_AND_MASTER
        yield process, pids


# ---------------------------------------------------------------------------------------------------------------------
# The driver dies


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_stopped(card: Path, memory: FakeMemory) -> None:
    """When the memory is let go, the card has stopped: no bus mastering, all other bits kept, and a reset."""
    assert memory.gone(timeout=60)
    assert command(card) == MEMORY_ONLY
    assert (card / "reset").read_text() == "1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_a_card_that_is_stopped(card: Path, memory: FakeMemory, number: int) -> None:
    """The process and its whole group die while the card is bus master. The next process can have the card."""
    with driver(card, memory) as (process, _):
        os.killpg(process.pid, number)
    check_stopped(card, memory)
    SysfsFunction(SLOT).close()


def test_a_process_that_forgets_to_close(card: Path, memory: FakeMemory) -> None:
    """It ends by itself, without a farewell: the same."""
    with driver(card, memory) as (process, _):
        process.communicate("")
        assert process.returncode == 0
    check_stopped(card, memory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_guardian_ignores_signals(card: Path, memory: FakeMemory, number: int) -> None:
    """What would end a process by its default action, such as a shutdown's SIGTERM to all, does not end a guardian."""
    with driver(card, memory) as (process, _):
        (guardian,) = guardians(process.pid)
        os.kill(guardian, number)
        process.kill()
    check_stopped(card, memory)


@contextmanager
def slow_reset(card: Path) -> Iterator[Callable[[], str]]:
    """In place of the reset's file a FIFO that is full: who writes into it waits until the function that this gives is
    called, whose value is what was written."""
    (card / "reset").unlink()
    os.mkfifo(card / "reset")
    fifo = os.open(card / "reset", os.O_RDWR | os.O_NONBLOCK)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(fifo, bytes(select.PIPE_BUF))
    os.set_blocking(fifo, True)

    def written() -> str:
        left, last = filled + 1, b""
        while left:
            last = os.read(fifo, left)
            left -= len(last)
        return last[-1:].decode()

    yield written
    os.close(fifo)


def test_the_next_start_waits_for_the_guardian(card: Path, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reset takes until somebody reads. Memory and lock stay; who opens the card waits and has it."""
    with slow_reset(card) as written:
        with driver(card, memory) as (process, _):
            process.kill()
        resets: list[str] = []

        def read_reset(_: float) -> None:
            assert resets or not memory.gone()
            resets.append("" if resets else written())

        monkeypatch.setattr(lock.time, "sleep", read_reset)
        function = SysfsFunction(SLOT)
        assert memory.gone()
    assert resets[0] == "1"
    assert command(card) == MEMORY_ONLY
    function.close()


def test_the_next_start_does_not_wait_for_ever(card: Path, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guardian whose card cannot be reset: refused after the time that is granted, here none."""
    with slow_reset(card) as written:
        with driver(card, memory) as (process, _):
            process.kill()
        monkeypatch.setattr(lock, "_PATIENCE", 0)
        with pytest.raises(DeviceBusy, match=f"^{SLOT} is in use by another process$"):
            SysfsFunction(SLOT)
        assert written() == "1"
    assert memory.gone(timeout=60)


def test_a_child_does_not_keep_the_card(card: Path, memory: FakeMemory) -> None:
    """The driver forked before it was killed, and the child lives on: the card is stopped, and can be opened again."""
    with driver(card, memory, "fork") as (process, (_, child)):
        process.kill()
        process.wait()
        check_stopped(card, memory)
        SysfsFunction(SLOT).close()
        os.kill(child, signal.SIGKILL)


def test_a_child_that_python_knows_nothing_of(card: Path, memory: FakeMemory) -> None:
    """Forked by C, it has kept all of the driver's files, the channel and the lock among them: the card is stopped all
    the same. The memory is the child's as well as the driver's, and so is the lock.
    """
    with driver(card, memory, "fork in C") as (process, (_, child)):
        process.kill()
        process.wait()
        with (card / "reset").open() as reset:
            until(lambda: reset.read() == "1")
        assert command(card) == MEMORY_ONLY
        os.kill(child, signal.SIGKILL)
    assert memory.gone(timeout=60)


def test_a_driver_that_becomes_another_program(card: Path, memory: FakeMemory) -> None:
    """Its process lives, and so does a child, which has forgotten the channel: the card is stopped."""
    with driver(card, memory, "fork and become another program") as (process, (_, child)):
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
        check_stopped(card, memory)
        assert process.poll() is None
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_the_end_of_a_child_is_not_the_drivers(card: Path, memory: FakeMemory) -> None:
    """The child closes the card and ends: the driver still has it, its guardian and its lock."""
    with driver(card, memory, "fork and close") as (process, (_, child)):
        assert process.stdout is not None
        assert process.stdout.readline() == f"{child} has ended: 0\n"
        assert len(guardians(process.pid)) == 1
        with pytest.raises(DeviceBusy, match=f"is in use by process {process.pid} "):
            SysfsFunction(SLOT)
        assert command(card) == MEMORY_AND_MASTER
        assert (card / "enable").read_text().strip() == "1"
        assert not memory.gone()
        process.kill()
    check_stopped(card, memory)


# ---------------------------------------------------------------------------------------------------------------------
# The driver lives


def test_it_has_no_privileges(card: Path, memory: FakeMemory) -> None:
    """No capability, none to be gained, and few system calls, once it has its first memory."""
    with driver(card, memory) as (process, (pid, _)):
        (guardian,) = guardians(pid)
        lines = Path(f"/proc/{guardian}/status").read_text().splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        process.kill()
    check_stopped(card, memory)


@pytest.mark.usefixtures("card")
def test_unmapped_memory_is_returned() -> None:
    """Each of two pieces is kept until it is unmapped. Unmapping what is not mapped does nothing."""
    one, two = FakeMemory(offset=0), FakeMemory(offset=2 << 20)
    function = SysfsFunction(SLOT)
    function.unmap(one)  # type: ignore[arg-type]
    for memory in (one, two):
        function.map(memory)  # type: ignore[arg-type]
        os.close(memory.fd)
    assert [one.gone(), two.gone()] == [False, False]
    function.unmap(one)  # type: ignore[arg-type]
    assert [one.gone(), two.gone()] == [True, False]
    function.unmap(one)  # type: ignore[arg-type]
    function.unmap(two)  # type: ignore[arg-type]
    assert two.gone()
    function.close()
    for memory in (one, two):
        os.close(memory.ends[0])


def test_closing_dismisses_the_guardian(card: Path, memory: FakeMemory, caplog: pytest.LogCaptureFixture) -> None:
    """A normal end: the command register stays as it was, there is no reset, no process remains, nothing is logged."""
    function = SysfsFunction(SLOT)
    assert guardians(os.getpid()) == []
    function.config_write(COMMAND, 2, MEMORY_AND_MASTER)
    function.map(memory)  # type: ignore[arg-type]
    assert len(guardians(os.getpid())) == 1
    function.unmap(memory)  # type: ignore[arg-type]
    function.close()
    os.close(memory.fd)
    assert memory.gone()
    assert guardians(os.getpid()) == []
    assert command(card) == MEMORY_AND_MASTER
    assert (card / "reset").read_text() == ""
    assert caplog.messages == []


@pytest.mark.usefixtures("card")
def test_an_interrupted_map(
    memory: FakeMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C while `map` waits for the guardian: the answer that nobody took confuses nobody."""
    function = SysfsFunction(SLOT)
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "recv", raises(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            function.map(memory)  # type: ignore[arg-type]
    os.close(memory.fd)
    function.unmap(memory)  # type: ignore[arg-type]
    assert memory.gone()
    function.close()
    assert caplog.messages == []


@pytest.mark.usefixtures("card")
def test_a_guardian_that_was_killed(memory: FakeMemory, caplog: pytest.LogCaptureFixture) -> None:
    """The driver goes on, but maps no more; closing warns, and the card can be opened again."""
    function = SysfsFunction(SLOT)
    function.map(memory)  # type: ignore[arg-type]
    (guardian,) = guardians(os.getpid())
    os.kill(guardian, signal.SIGKILL)
    message = f"^{SLOT}: its guardian process has died; close the device and open it again$"
    with pytest.raises(Error, match=message):
        function.map(memory)  # type: ignore[arg-type]
    function.unmap(memory)  # type: ignore[arg-type]
    function.close()
    assert caplog.messages == [f"{SLOT}: its guardian process had died: nobody would have stopped the card"]
    SysfsFunction(SLOT).close()
    os.close(memory.fd)


@pytest.mark.usefixtures("card")
def test_a_guardian_that_cannot_be_started(memory: FakeMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter where Python says that it is: one line with its name. Nothing is mapped; the card can close."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    function = SysfsFunction(SLOT)
    message = f"^{SLOT}: cannot start its guardian process by /nowhere/python: No such file or directory$"
    with pytest.raises(Error, match=message):
        function.map(memory)  # type: ignore[arg-type]
    os.close(memory.fd)
    assert memory.gone()
    function.close()


# ---------------------------------------------------------------------------------------------------------------------
# The program by itself


@pytest.fixture
def this_process() -> Iterator[int]:
    """The driver as a guardian knows it, by a pidfd; it lives."""
    pidfd = os.pidfd_open(os.getpid())
    yield pidfd
    os.close(pidfd)


@pytest.mark.parametrize(
    ("sent", "farewell", "held"),
    [
        ([b"hold 0", b"hold 4"], False, {b"0", b"4"}),
        ([b"hold 0", b"release 0", b"release 8"], False, set()),
        ([b"hold 0", b"farewell"], True, {b"0"}),
    ],
)
def test_what_the_driver_said_before_it_died(
    this_process: int, sent: list[bytes], farewell: bool, held: set[bytes]
) -> None:
    """Messages that nobody waits for any more are obeyed all the same, in order."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for message in sent:
        socket.send_fds(ours, [message], [ours.fileno()] if message.startswith(b"hold") else [])
    ours.shutdown(socket.SHUT_RDWR)
    files: dict[bytes, int] = {}
    with theirs:
        assert guardian_main.watch(theirs, this_process, files) is farewell
    ours.close()
    assert set(files) == held
    for file in files.values():
        os.close(file)


def test_a_driver_that_died_with_an_answer_unread(this_process: int) -> None:
    """The kernel tells it as a reset connection (unix(7)): the driver is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(b"hold 0")
    ours.close()
    with theirs:
        assert guardian_main.watch(theirs, this_process, {}) is False


def test_a_driver_that_died_while_a_child_has_the_channel() -> None:
    """Its process has ended, after a message that is obeyed; the channel stays open: the driver is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    pidfd = os.pidfd_open(ended.pid)
    select.select([pidfd], [], [])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(ours, [b"hold 0"], [ours.fileno()])
    files: dict[bytes, int] = {}
    with ours, theirs:
        assert guardian_main.watch(theirs, pidfd, files) is False
    assert set(files) == {b"0"}
    os.close(files[b"0"])
    os.close(pidfd)
    ended.wait()


@pytest.fixture
def config(tmp_path: Path) -> Iterator[int]:
    """A configuration space: power management at 0x40, then PCI Express at 0xa0, whose status says: pending."""
    space = bytearray(256)
    space[COMMAND] = MEMORY_AND_MASTER
    space[0x34] = 0x40
    space[0x40:0x42] = 0x01, 0xA0
    space[0xA0] = 0x10
    space[0xAA] = STATUS_PENDING
    (tmp_path / "config").write_bytes(space)
    fd = os.open(tmp_path / "config", os.O_RDWR)
    yield fd
    os.close(fd)


def test_pending_transactions_are_waited_for(config: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pending for three looks: no reset until then, and no bus mastering from the beginning."""
    reset = tmp_path / "reset"
    reset.touch()
    looks: list[tuple[int, str]] = []

    def pass_time(_: float) -> None:
        looks.append((os.pread(config, 1, COMMAND)[0], reset.read_text()))
        if len(looks) == 3:
            os.pwrite(config, b"\0", 0xAA)

    monkeypatch.setattr(guardian_main.time, "sleep", pass_time)
    with reset.open("r+") as file:
        guardian_main.stop(config, file.fileno())
    assert looks == [(MEMORY_ONLY, "")] * 3
    assert reset.read_text() == "1"


def test_transactions_that_stay_pending(config: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken card: it is reset after a second all the same."""
    now = [0.0]
    monkeypatch.setattr(guardian_main.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(guardian_main.time, "sleep", lambda _: now.append(now.pop() + 0.25))
    (tmp_path / "reset").touch()
    with (tmp_path / "reset").open("r+") as file:
        guardian_main.stop(config, file.fileno())
    assert now == [1.25]
    assert (tmp_path / "reset").read_text() == "1"


def test_a_card_without_pci_express(config: int) -> None:
    """The list of capabilities is a ring, or there is none; nor is there a way to reset the card: it is stopped."""
    for place, value in ((0x41, 0x40), (0x34, 0)):
        os.pwrite(config, bytes([MEMORY_AND_MASTER]), COMMAND)
        os.pwrite(config, bytes([value]), place)
        guardian_main.stop(config, -1)
        assert os.pread(config, 1, COMMAND)[0] == MEMORY_ONLY


def raises(error: BaseException) -> Callable[..., None]:
    """A function that raises."""

    def function(*_: object) -> None:
        raise error

    return function
