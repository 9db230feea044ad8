"""Privileges given up, each time by a process of its own: it is for good. Run as root, which has some."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ixy.errors
from ixy.jit import INTERPRETED

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ixy.errors.__file__).parents[1])}
ROOT = os.geteuid() == 0

# `attempt` says what becomes of what any program can do, and nobody in a sandbox.
BEGIN = """
import ctypes, os, socket, subprocess, sys
import ixy

def attempt(what, *arguments):
    try:
        what(*arguments)
    except PermissionError as error:
        return error.errno
    except Exception as error:
        return repr(error)
    return "done"
"""

# A process that can be traced, until its input ends
VICTIM = """
SEIZE = 0x4206
victim = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
"""


def program(source: str, *arguments: object) -> list[str]:
    """What a program prints, line by line."""
    command = [sys.executable, "-c", BEGIN + textwrap.dedent(source), *map(str, arguments)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


# The same four attempts by a function that a path asks for each packet, in compiled code
KERNEL = f"""{VICTIM}
from numba.core import types

open_ = types.ExternalFunction("open", types.int32(types.intp, types.int32))
socket_ = types.ExternalFunction("socket", types.int32(types.int32, types.int32, types.int32))
ptrace_ = types.ExternalFunction("ptrace", types.int64(types.int64, types.int32, types.intp, types.intp))
execv_ = types.ExternalFunction("execv", types.int32(types.intp, types.intp))
path = ctypes.create_string_buffer(sys.argv[1].encode())
word = ctypes.create_string_buffer(b"/bin/echo")
said = ctypes.create_string_buffer(b"executed")
words = (ctypes.c_char_p * 3)(word.value, said.value, None)


class Attempts(ixy.Record):
    path: int
    program: int
    words: int
    victim: int
    tried: int
    opened: int
    connected: int
    traced: int


@ixy.kernel
def attempts(packet: ixy.Packet, state: Attempts) -> int:
    if state.tried == 0:
        state.tried = 1
        state.opened = open_(state.path, 0)
        state.connected = socket_(2, 1, 0)
        state.traced = ptrace_(SEIZE, state.victim, 0, 0)
        execv_(state.program, state.words)
    return ixy.DROP


state = Attempts()
state.path, state.program, state.words = (ctypes.addressof(each) for each in (path, word, words))
state.victim = victim.pid
with ixy.open("sim:a,gen=60") as device:
    run = ixy.Path(device.rx[0], device.tx[0], attempts, state)
    run.run(polls=0)
    if sys.argv[2] == "sandboxed":
        ixy.sandbox()
    while not state.tried:
        run.run(polls=100)
    print(state.opened, state.connected, state.traced)
"""


@pytest.mark.skipif(INTERPRETED, reason="compiled code")
def test_a_kernel(tmp_path: Path) -> None:
    """In a sandbox a kernel opens no file and no socket, traces no process and becomes no other program."""
    (tmp_path / "secret").write_text("")
    assert program(KERNEL, tmp_path / "secret", "free") == ["executed"]
    assert program(KERNEL, tmp_path / "secret", "sandboxed") == ["-1 -1 -1"]


PYTHON = f"""{VICTIM}
libc = ctypes.CDLL(None, use_errno=True)

def ptrace():
    if libc.ptrace(SEIZE, victim.pid, 0, 0):
        raise PermissionError(ctypes.get_errno(), "ptrace")

def each(packet):
    return [
        attempt(open, sys.argv[1]),
        attempt(open, sys.argv[1] + ".new", "w"),
        attempt(socket.socket),
        attempt(ptrace),
        attempt(subprocess.run, ["true"]),
        attempt(os.fork) if sys.argv[2] == "sandboxed" else "done",
        attempt(os.kill, os.getppid(), 0),
        attempt(os.unlink, sys.argv[1]),
    ]

with ixy.open("sim:a,gen=60") as device:
    if sys.argv[2] == "sandboxed":
        ixy.sandbox()
    batch = device.rx[0].receive(1, timeout=10)
    print(*each(batch[0]))
    device.tx[0].send(batch)
victim.stdin.close()
print(victim.wait())
"""


@pytest.mark.once
@pytest.mark.skipif(not ROOT, reason="root could read the file")
def test_a_python_callback(tmp_path: Path) -> None:
    """The same in Python, which raises `PermissionError`; and the device is used and closed."""
    secret = tmp_path / "secret"
    secret.write_text("")
    assert program(PYTHON, secret, "free") == ["done done done done done done done done", "0"]
    secret.write_text("")
    assert program(PYTHON, secret, "sandboxed") == ["13 1 1 1 1 1 1 1", "0"]  # EACCES of Landlock, and EPERM
    assert secret.exists()


@contextmanager
def waiting(source: str) -> Iterator[int]:
    """A program that prints a line when it has done its work, and waits: its process id."""
    command = [sys.executable, "-c", BEGIN + textwrap.dedent(source) + "\nprint(flush=True)\nsys.stdin.read()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process.pid


def privileges(process: int) -> dict[str, set[str]]:
    """What the kernel says of all threads of a process: for each thing, the different values."""
    words = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    found: dict[str, set[str]] = {word: set() for word in words}
    for thread in Path(f"/proc/{process}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name].add(value.strip().lstrip("0") or "0")
    return found


CONFINED = {word: {"0"} for word in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
CONFINED |= {"NoNewPrivs": {"1"}, "Seccomp": {"2"}}


@pytest.mark.once
@pytest.mark.skipif(not ROOT, reason="root has capabilities")
def test_all_threads() -> None:
    """Threads in compiled code, asleep, of NumPy's and of simulated cards, begun before or later: none has a capability
    left."""
    source = """
        import threading
        for _ in range(3):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        a, b = ixy.open("sim:a,gen=60"), ixy.open("sim:b,sink=a")
        workers = ixy.Workers([ixy.Path(a.rx[0], b.tx[0])])
        workers.start()
        ixy.sandbox()
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    """
    with waiting(source) as process:
        assert len(list(Path(f"/proc/{process}/task").iterdir())) >= 7
        assert privileges(process) == CONFINED


@pytest.mark.once
def test_a_thread_that_takes_no_signals() -> None:
    """It cannot be told: that is an error, before any filter is in force."""
    source = """
        import signal, threading
        from ixy.unsafe import privileges
        privileges._PATIENCE = 0.05
        ready = threading.Event()
        def deaf():
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
            ready.set()
            threading.Event().wait()
        threading.Thread(target=deaf, daemon=True).start()
        ready.wait()
        try:
            ixy.sandbox()
        except ixy.Error as error:
            print(type(error).__name__, error)
        socket.socket().close()
    """
    (line,) = program(source)
    assert line.startswith("PermissionDenied sandbox: thread ")
    assert line.endswith(" takes no signals")


def test_what_stays_possible() -> None:
    """New threads, pools and kernels, modules that were not loaded before, and the end of a device."""
    source = """
        import threading
        device = ixy.open("sim:a,gen=60")
        ixy.sandbox()
        assert "mailbox" not in sys.modules
        import mailbox
        thread = threading.Thread(target=print, args=["thread"])
        thread.start()
        thread.join()
        with ixy.Mempool(64) as pool:
            print(len(pool.allocate(10)))

        @ixy.kernel
        def raised(packet: ixy.Packet) -> int:
            packet[20] += 1
            return ixy.FORWARD

        path = ixy.Path(device.rx[0], device.tx[0], raised)
        while not path.counts.forwarded:
            path.run(polls=100)
        device.close()
        print("closed")
    """
    assert program(source) == ["thread", "10", "closed"]


@pytest.mark.once
def test_files(tmp_path: Path) -> None:
    """Files in one directory, and nowhere else: made, read, renamed and removed."""
    (tmp_path / "in").mkdir()
    source = """
        from pathlib import Path
        inside, outside = Path(sys.argv[1]) / "in", Path(sys.argv[1])
        confined = ixy.sandbox(files=[inside])
        (inside / "one").write_text("text")
        (inside / "one").rename(inside / "two")
        print((inside / "two").read_text(), *(path.name for path in inside.iterdir()))
        print(attempt((outside / "one").write_text, ""), attempt((inside / "two").rename, outside / "two"))
        print(confined.files == (str(inside),), confined.sockets)
        (inside / "two").unlink()
        print(attempt(socket.socket, socket.AF_UNIX))
    """
    lines = program(source, tmp_path)
    assert lines[:4] == ["text two", "13 13", "True ()", "1"]
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.once
def test_a_program_that_reads_captures(tmp_path: Path) -> None:
    """In the directory that it has named, whole, chosen by a filter, and part by part; and none anywhere else."""
    source = """
        from ixy.formats.frames import udp_frame
        from ixy.formats.writing import Writer
        import numpy as np
        inside, outside = (f"{sys.argv[1]}/{name}/some.pcap" for name in ("in", "out"))
        for path in (inside, outside):
            with Writer(path) as file:
                zeros = np.zeros(10, np.int64)
                file.write(zeros, np.frombuffer(udp_frame(60), np.uint8), zeros, zeros + 60)
        ixy.sandbox(files=[sys.argv[1] + "/in"])
        print(len(ixy.read_capture(inside)), len(ixy.read_capture(inside, filter="tcp")))
        print([len(part) for part in ixy.capture_chunks(inside, packets=4)])
        try:
            ixy.read_capture(outside)
        except ixy.Error as error:
            print(error.args[0].removeprefix(outside))
    """
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    assert program(source, tmp_path) == ["10 0", "[4, 4, 2]", ": Permission denied"]


@pytest.mark.once
def test_sockets(tmp_path: Path) -> None:
    """A UNIX socket at a path that was named, and no socket of another kind; no file is made beside it."""
    source = """
        path = sys.argv[1] + "/in/socket"
        ixy.sandbox(sockets=[path])
        one, two = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        one.bind(path)
        one.listen()
        two.connect(path)
        os.unlink(path)
        print(attempt(socket.socket), attempt(open, sys.argv[1] + "/in/file", "w"))
        print(attempt(one.getsockopt, 1, 4), attempt(socket.socket(socket.AF_UNIX).bind, sys.argv[1] + "/socket"))
    """
    (tmp_path / "in").mkdir()
    assert program(source, tmp_path) == ["1 1", "done 13"]


@pytest.mark.once
@pytest.mark.skipif(not ROOT, reason="only root has files among another user's")
@pytest.mark.parametrize("owner", [0, 65534])
def test_what_is_removed_in_the_end(tmp_path: Path, owner: int) -> None:
    """Also from another user's folder, for which a capability is kept, and said."""
    (tmp_path / "left").touch()
    os.chown(tmp_path, owner, owner)
    source = """
        from pathlib import Path
        from ixy.sandboxing import removes
        left = Path(sys.argv[1]) / "left"
        removes(left)
        print(*ixy.sandbox().capabilities)
        left.unlink()
        print(attempt(left.touch))
    """
    assert program(source, tmp_path) == ["CAP_DAC_OVERRIDE" if owner else "", "1"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_without_libseccomp() -> None:
    """It is said, with what to install; all the rest is given up, files too."""
    source = """
        from ixy.unsafe import libseccomp
        libseccomp._NAME = "libnone.so.1"
        confined = ixy.sandbox()
        print(confined.system_calls, confined.missing)
        print(attempt(open, "/etc/shadow"), attempt(open, "/etc/new", "w"), attempt(socket.socket, socket.AF_PACKET))
    """
    said, refused = program(source)
    assert said == ("None ('system calls are not filtered: libseccomp is not installed: apt-get install libseccomp2',)")
    assert refused == "13 13 1"


@pytest.mark.once
def test_without_landlock() -> None:
    """It is said; files can be read, and none is made."""
    source = """
        from ixy.unsafe import landlock
        landlock.version = lambda: 0
        confined = ixy.sandbox()
        print(*confined.missing)
        print(attempt(open, "/etc/passwd"), attempt(open, "/etc/new", "w"))
    """
    said, found = program(source)
    assert said == "files are confined by their permissions alone, as this kernel has no Landlock"
    assert found == "done 1"


@pytest.mark.once
def test_a_second_time() -> None:
    """It changes nothing, and says the same."""
    source = """
        first = ixy.sandbox()
        print(first.capabilities, ixy.sandbox(files=["/tmp"]) is first)
    """
    assert program(source) == ["() True"]
