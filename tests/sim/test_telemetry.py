"""The socket by which a process tells of its devices, as its clients see it, well-meaning and not."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from lab import arrive, frame, open_card, until

import ixy
from ixy.errors import Error
from ixy.sim.machine import Machine
from ixy.telemetry.client import State, ask, processes

pytestmark = pytest.mark.once

NOBODY = 65534
PREFIX = f"ixy.{os.getpid()}"


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """DPDK's runtime directory, for this test alone; its name is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="ixy") as name:
        monkeypatch.setenv("RUNTIME_DIRECTORY", name)
        yield Path(name) / "dpdk"


def connect(path: Path) -> socket.socket:
    """A client of DPDK's telemetry."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(str(path))
    client.settimeout(30)
    return client


def said(client: socket.socket, request: bytes | None = None) -> Any:
    """What it is told, after it has said something."""
    if request is not None:
        client.send(request)
    return json.loads(client.recv(1 << 20))


def in_child(program: str) -> subprocess.Popen[str]:
    """A program of another process, which says when it is ready, and waits for its input to end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "IXY_JIT": "0"}
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


SERVING = """
import sys, ixy
with ixy.serve_telemetry(), ixy.open("sim:there", link_timeout=0):
    print("ready", flush=True)
    sys.stdin.read()
"""


# ---------------------------------------------------------------------------------------------------------------------
# The protocol


def test_what_dpdks_clients_ask(machine: Machine, directory: Path) -> None:
    """The socket is where they look; first it tells who it is, and then it answers under the command's name."""
    with ixy.serve_telemetry() as telemetry, open_card(machine) as device:
        assert telemetry.prefix == PREFIX
        assert telemetry.path == directory / PREFIX / "dpdk_telemetry.v2"
        for number in range(3):
            arrive(machine, frame(number))
        port = device.number
        with connect(telemetry.path) as client:
            greeting = said(client)
            assert greeting["pid"] == os.getpid()
            assert set(greeting) == {"version", "pid", "max_output_len"}
            assert said(client, b"/info") == {"/info": greeting}
            assert "/ethdev/xstats" in said(client, b"/")["/"]
            assert said(client, b"/help,/ethdev/list")["/help"]["/ethdev/list"].startswith("Returns")
            assert said(client, b"/ethdev/list") == {"/ethdev/list": [port]}
            info = said(client, b"/ethdev/info,%d" % port)["/ethdev/info"]
            assert (info["name"], info["mac_addr"], info["nb_rx_queues"]) == ("sim:a", "02:69:78:79:00:01", 1)
            stats = said(client, b"/ethdev/stats,%d" % port)["/ethdev/stats"]
            assert (stats["ipackets"], stats["ibytes"], stats["q_ipackets"]) == (3, 192, [3] + 15 * [0])
            told = said(client, b"/ethdev/xstats,%d,hide_zero=true" % port)["/ethdev/xstats"]
            assert told == {name: count for name, count in device.xstats().items() if count}
            assert said(client, b"/ethdev/link_status,%d" % port) == {"/ethdev/link_status": {"status": "DOWN"}}


def test_our_own_commands(machine: Machine) -> None:
    """All that is known of a device, and all its registers, in one message."""
    with ixy.serve_telemetry() as telemetry, open_card(machine) as device:
        port = device.number
        assert ask(telemetry.path, "/ixy/devices") == {str(port): "sim:a"}
        told = ask(telemetry.path, f"/ixy/info,{port}")
        assert (told["model"], told["pcie_width"]) == ("82599ES SFP+", 8)
        assert ask(telemetry.path, f"/ixy/registers,{port}") == {
            name: reading.value for name, reading in device.registers().items()
        }
        arrive(machine, frame(0))
        assert ask(telemetry.path, f"/ixy/xstats,{port},clear")["GPRC"] == 1
        assert ask(telemetry.path, f"/ixy/xstats,{port}")["GPRC"] == 0


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"/nonsense", {"/nonsense": None}),
        (b"garbage", {"garbage": None}),
        (b",", {"none": None}),
        (b"/ethdev/info", {"/ethdev/info": None}),
        (b"/ethdev/info,77777", {"/ethdev/info": None}),
        (b"/ethdev/info,-1", {"/ethdev/info": None}),
        (b"/ethdev/info,0x", {"/ethdev/info": None}),
        (b"/ethdev/stats," + 900 * b"9", {"/ethdev/stats": None}),
        (b"/help,/nonsense", {"/help": None}),
        (b"/" + 900 * b"x", {"/" + 55 * "x": None}),
        (b"\xff\x00\xfe", {"�\x00�": None}),
        (b"/" + 60_000 * b"x", {"none": None}),
    ],
)
def test_requests_that_make_no_sense(request_: bytes, answer: dict[str, None]) -> None:
    """Each has an answer, which is null, and the next one is served as ever."""
    with ixy.serve_telemetry() as telemetry, connect(telemetry.path) as client:
        said(client)
        assert said(client, request_) == answer
        assert said(client, b"/ethdev/list") == {"/ethdev/list": []}


def test_noise(machine: Machine) -> None:
    """2,000 messages of random bytes and of commands with random ends: each has an answer that is JSON."""
    chance = random.Random(1)
    commands = [b"", b"/", b"/help,", b"/ethdev/info,", b"/ethdev/stats,", b"/ixy/xstats,", b"/ethdev/link_status,"]
    with ixy.serve_telemetry() as telemetry, open_card(machine), connect(telemetry.path) as client:
        said(client)
        for _ in range(2000):
            request = chance.choice(commands) + chance.randbytes(chance.randint(1, 40))
            assert len(said(client, request)) == 1
        assert said(client, b"/info")["/info"]["pid"] == os.getpid()


# ---------------------------------------------------------------------------------------------------------------------
# Clients that are no good


def test_a_client_that_never_reads_is_left(machine: Machine) -> None:
    """It asks for all registers over and over until it is hung up on; others are answered meanwhile."""
    with ixy.serve_telemetry() as telemetry, open_card(machine) as device, connect(telemetry.path) as deaf:
        request = b"/ixy/registers,%d" % device.number
        with pytest.raises(OSError):  # noqa: PT011, PT012 - a broken pipe, or a connection that was reset
            for _ in range(1000):
                deaf.send(request)
                assert ask(telemetry.path, "/ethdev/list") == [device.number]


def test_more_clients_than_ten_are_not_let_in() -> None:
    """As with DPDK. When one leaves, the next one is."""
    with ixy.serve_telemetry() as telemetry:
        clients = [connect(telemetry.path) for _ in range(10)]
        for client in clients:
            said(client)
        with connect(telemetry.path) as late:
            assert late.recv(1024) == b""
        clients.pop().close()
        until(lambda: _is_let_in(telemetry.path))
        for client in clients:
            assert said(client, b"/ethdev/list") == {"/ethdev/list": []}
            client.close()


def _is_let_in(path: Path) -> bool:
    with connect(path) as client:
        return client.recv(1024) != b""


def test_clients_that_leave_in_the_midst() -> None:
    """Before they are greeted, and before they are answered."""
    with ixy.serve_telemetry() as telemetry:
        for request in 50 * (None, b"/"):
            with connect(telemetry.path) as client:
                if request is not None:
                    client.send(request)
        until(lambda: _is_let_in(telemetry.path))
        assert ask(telemetry.path, "/ethdev/list") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_other_users_are_not_let_in(directory: Path) -> None:
    """The directory is this user's alone; and even if it were not, who connects is hung up on."""
    with ixy.serve_telemetry() as telemetry:
        assert stat.S_IMODE(telemetry.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(telemetry.path.parent.stat().st_mode) == 0o700
        for path in (telemetry.path.parent, directory, directory.parent):
            path.chmod(0o755)
        telemetry.path.chmod(0o666)
        os.seteuid(NOBODY)
        try:
            with connect(telemetry.path) as client:
                assert client.recv(1024) == b""
        finally:
            os.seteuid(0)
        assert ask(telemetry.path, "/ethdev/list") == []


# ---------------------------------------------------------------------------------------------------------------------
# From the first who serves to the last


def test_nothing_stays_behind(directory: Path) -> None:
    """Whoever serves last removes the socket and its directory; a second close does nothing."""
    with ixy.serve_telemetry() as first:
        second = ixy.serve_telemetry()
        assert second.path == first.path
    assert ask(second.path, "/ethdev/list") == []
    second.close()
    assert list(directory.iterdir()) == []
    first.close()
    with ixy.serve_telemetry() as third:
        assert ask(third.path, "/ethdev/list") == []


def test_devices_that_come_and_go(machine: Machine) -> None:
    """Each has a number of its own, which no other gets; what is closed is not told of."""
    with ixy.serve_telemetry() as telemetry:
        with open_card(machine) as first:
            assert ask(telemetry.path, "/ethdev/list") == [first.number]
        with open_card(machine) as second:
            assert second.number > first.number
            assert ask(telemetry.path, "/ethdev/list") == [second.number]
            assert ask(telemetry.path, f"/ethdev/stats,{first.number}") is None


def test_a_place_that_is_no_place(directory: Path) -> None:
    """A file in its place, one that others may write to, and one whose name is too long: one line each."""
    directory.parent.joinpath("dpdk").write_text("")
    with pytest.raises(Error, match=r"no telemetry: .*(File exists|not a directory of this user's alone)"):
        ixy.serve_telemetry()
    directory.unlink()
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(Error, match="not a directory of this user's alone: remove it"):
        ixy.serve_telemetry()


def test_a_name_that_is_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / ("x" * 100)))
    with pytest.raises(Error, match=r"no telemetry: .*too long"):
        ixy.serve_telemetry()
    assert list((tmp_path / ("x" * 100) / "dpdk").iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_serve(machine: Machine) -> None:
    """It closes what it inherited, and removes nothing: when the parent serves no more, nobody does."""
    reader, writer = os.pipe()
    with ixy.serve_telemetry() as telemetry, open_card(machine) as device:
        child = os.fork()
        if child == 0:
            os.close(writer)
            telemetry.close()
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        assert ask(telemetry.path, "/ethdev/list") == [device.number]
        path = telemetry.path
    with pytest.raises(FileNotFoundError):
        ask(path, "/ethdev/list")
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0


def test_processes_that_serve_and_that_died(directory: Path) -> None:
    """One that runs is told with its device; one that was killed as dead, and what it left is removed."""
    with ixy.serve_telemetry():
        child = in_child(SERVING)
        found = {process.number: process for process in processes()}
        assert found[child.pid].state is State.RUNS
        assert list(found[child.pid].devices.values()) == ["sim:there"]
        assert found[os.getpid()].devices == {}
        child.send_signal(signal.SIGKILL)
        child.wait()
        found = {process.number: process.state for process in processes()}
        assert found == {os.getpid(): State.RUNS, child.pid: State.DEAD}
        assert [path.name for path in directory.iterdir()] == [PREFIX]
        assert [process.number for process in processes()] == [os.getpid()]
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


def test_a_program_that_ends_without_a_word(directory: Path) -> None:
    """It has never closed what serves."""
    child = in_child(SERVING.replace("with ixy.serve_telemetry(), ", "telemetry = ixy.serve_telemetry()\nwith "))
    assert [process.number for process in processes()] == [child.pid]
    child.communicate("")
    assert child.returncode == 0
    assert list(directory.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_who_answers_is_not_trusted(directory: Path) -> None:
    """Something else that listens at such a place: an error in one line, whatever it says."""
    place = directory / "ixy.1"
    place.mkdir(parents=True)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
        listener.bind(str(place / "dpdk_telemetry.v2"))
        listener.listen()
        for greeting in (b"no JSON", b"[]", b"\xff", b'{"max_output_len": -1}', b'{"max_output_len": 1e9}', b""):
            assert _told_by(listener, place, greeting, b"").startswith(f"{place / 'dpdk_telemetry.v2'}: ")
        greeting = b'{"max_output_len": 1024}'
        for answer in (b"no JSON", b"[1]", b'{"/other": 1}', b""):
            assert _told_by(listener, place, greeting, answer).startswith(f"{place / 'dpdk_telemetry.v2'}: ")


def _told_by(listener: socket.socket, place: Path, greeting: bytes, answer: bytes) -> str:
    """The error of who asks, when this is said to him."""
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            client, _ = listener.accept()
            if greeting:
                client.send(greeting)
            if answer:
                client.recv(1024)
                client.send(answer)
            client.close()
        os._exit(0)
    with pytest.raises(Error) as caught:
        ask(place / "dpdk_telemetry.v2", "/ixy/devices")
    os.waitpid(child, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)
