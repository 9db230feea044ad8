"""Cables between processes: frames in a Unix socket, each behind its length in four bytes."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import BROADCAST, batch_of, frame, number_of, open_card, receive_all, until

import ixy
from ixy import errors
from ixy.device import Device
from ixy.packets.mempool import Mempool
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine
from ixy.sim.wires.stream import Line
from ixy.sim.wires.wire import Port


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(1024)
    yield pool
    pool.release()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cable"


def framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Another program that connects to a card's socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.settimeout(30)
        yield peer


def arrived(machine: Machine, device: Device, count: int) -> list[bytes]:
    """So many frames, for which the machine is stepped, and then no more."""
    found: list[bytes] = []
    while len(found) < count:
        machine.step()
        found += receive_all(device)
    for _ in range(3):
        machine.step()
    return found + receive_all(device)


def read(machine: Machine, peer: socket.socket, size: int) -> bytes:
    """So many bytes from a card."""
    data = b""
    while len(data) < size:
        machine.step()
        data += peer.recv(size - len(data))
    return data


# ---------------------------------------------------------------------------------------------------------------------
# Two cards


def test_two_cards(machine: Machine, pool: Mempool, path: Path) -> None:
    """Who comes first listens; once both are there, the socket's file is gone, and frames go both ways."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a:
        assert not a.link.up
        assert stat.S_ISSOCK(path.stat().st_mode)
        with open_card(machine, f"sim:b,cable=unix:{path}") as b:
            machine.step()
            assert a.link == b.link == (True, 10_000)
            assert not path.exists()
            frames = [frame(number, 60 + 20 * number) for number in range(60)]
            for _ in range(10):  # more than the memory on their way has room for at once
                for sender, receiver in ((a, b), (b, a)):
                    sender.tx[0].send(batch_of(pool, frames))
                    assert arrived(machine, receiver, 60) == frames
        machine.step()
        assert not a.link.up
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("first", ["a", "b"])
def test_the_one_that_stays_is_found_again(machine: Machine, pool: Mempool, path: Path, first: str) -> None:
    """Whichever has listened: the other one is closed and opened, three times; each time LSC is raised."""
    second = {"a": "b", "b": "a"}[first]
    with open_card(machine, f"sim:{first},cable=unix:{path}") as stays:
        card = machine.cards[first]
        for number in range(3):
            with open_card(machine, f"sim:{second},cable=unix:{path}") as comes:
                machine.step()
                assert stays.link.up
                assert card.read32(reg.EICR.offset) & 1 << 20
                comes.tx[0].send(batch_of(pool, [frame(number)]))
                assert [number_of(data) for data in arrived(machine, stays, 1)] == [number]
            machine.step()
            assert not stays.link.up
            assert card.read32(reg.EICR.offset) & 1 << 20


def test_a_third_one_finds_nobody(machine: Machine, path: Path) -> None:
    """It waits until one of the two has gone."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, open_card(machine, f"sim:b,cable=unix:{path}") as b:
        machine.step()
        with open_card(machine, f"sim:c,cable=unix:{path}") as c:
            machine.step(3)
            assert (a.link.up, b.link.up, c.link.up) == (True, True, False)
            a.close()
            machine.step(3)
            machine.step()
            assert (b.link.up, c.link.up) == (True, True)


def test_what_was_sent_before_closing_arrives(machine: Machine, pool: Mempool, path: Path) -> None:
    """Also what did not fit into the socket."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a:
        machine.step()
        with connected(path) as peer:
            machine.step()
            frames = [frame(number, 1500) for number in range(400)]
            for start in range(0, 400, 200):
                assert a.tx[0].send(batch_of(pool, frames[start : start + 200])) == 200
                machine.step(8)
            with ThreadPoolExecutor(1) as threads:
                reading = threads.submit(lambda: b"".join(iter(lambda: peer.recv(1 << 16), b"")))
                a.close()
                assert reading.result() == b"".join(map(framed, frames))


def test_an_impaired_cable(machine: Machine, pool: Mempool, path: Path) -> None:
    """What one address says holds for both directions."""
    with (
        open_card(machine, f"sim:a,cable=unix:{path},loss=0.5,delay=10us,seed=2") as a,
        open_card(machine, f"sim:b,cable=unix:{path}") as b,
    ):
        machine.step()
        for device in (a, b):
            device.tx[0].send(batch_of(pool, [frame(number) for number in range(200)]))
        for arriving, receiver in ((False, b), (True, a)):
            while machine.impaired("a", arriving=arriving).sent < 200:
                machine.step()
            told = machine.impairments("a", arriving=arriving)
            assert told["number"].tolist() == list(range(200))
            kept = told["number"][told["what"] == 0].tolist()
            assert 60 < len(kept) < 140
            assert [number_of(data) for data in arrived(machine, receiver, len(kept))] == kept


def test_the_cards_go_on_while_a_connection_ends(
    machine: Machine, pool: Mempool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that were delayed are due then, and have nowhere to go; nobody sleeps on what is being closed."""
    say = Line.say

    def slowly(line: Line, data: bytes) -> bool:
        time.sleep(0.01)
        machine.step()
        assert [file for wire in machine.wires() for file in wire.files(Port(machine, card))] == []
        return say(line, data)

    monkeypatch.setattr(Line, "say", slowly)
    with open_card(machine, f"sim:a,cable=unix:{path},delay=10ms") as a, connected(path) as peer:
        card = machine.cards["a"]
        machine.step()
        a.tx[0].send(batch_of(pool, [frame(1)]))
        while machine.impaired("a").sent == 0:
            machine.step()
        machine.unplug(card)
        assert peer.recv(1) == b""


# ---------------------------------------------------------------------------------------------------------------------
# Another program


def test_the_framing(machine: Machine, pool: Mempool, path: Path) -> None:
    """Four bytes of length, big-endian, and the frame without its check sequence; short frames are padded."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path) as peer:
        machine.step()
        a.tx[0].send(batch_of(pool, [frame(1, 60), frame(2, 1514)]))
        assert read(machine, peer, 4 + 60 + 4 + 1514) == framed(frame(1, 60)) + framed(frame(2, 1514))
        peer.sendall(framed(frame(3, 42)) + framed(frame(4, 1514)) + framed(frame(5, 60)))
        assert arrived(machine, a, 3) == [frame(3, 42).ljust(60, b"\0"), frame(4, 1514), frame(5, 60)]


def test_frames_in_pieces(machine: Machine, path: Path) -> None:
    """A frame counts when all of it has come."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path) as peer:
        machine.step()
        data = framed(frame(1, 61)) + framed(frame(2, 77))
        for place in range(len(data)):
            machine.step()
            assert len(receive_all(a)) == (place in (65, 65 + 81))
            peer.sendall(data[place : place + 1])
        assert arrived(machine, a, 1) == [frame(2, 77)]


def test_a_card_connects_to_a_program_that_listens(machine: Machine, pool: Mempool, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with open_card(machine, f"sim:a,cable=unix:{path}") as a:
            peer, _ = listener.accept()
            peer.settimeout(30)
            with peer:
                assert a.link.up
                a.tx[0].send(batch_of(pool, [frame(1)]))
                assert read(machine, peer, 64) == framed(frame(1))
            machine.step(2)
            peer, _ = listener.accept()  # it comes again
            peer.close()
        assert path.exists()  # it is not the card's


@pytest.mark.parametrize(("length", "sent"), [(0, 4), (69_633, 4), (0xFFFF_FFFF, 4), (0x8000_0000, 2000)])
def test_bad_frames(machine: Machine, path: Path, caplog: pytest.LogCaptureFixture, length: int, sent: int) -> None:
    """They end the connection, which is said; what came before has arrived, and the next one is welcome."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a:
        with connected(path) as peer:
            machine.step()
            peer.sendall(framed(frame(1)) + struct.pack(">I", length).ljust(sent, b"\0"))
            assert arrived(machine, a, 1) == [frame(1)]
            machine.step(2)
            assert not a.link.up
            assert peer.recv(1) == b""
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said == [f"sim:a: unix:{path}: the other end sent a frame of {length} bytes: the connection is ended"]
        with connected(path) as peer:
            machine.step()
            assert a.link.up
            peer.sendall(framed(frame(2)))
            assert arrived(machine, a, 1) == [frame(2)]


def test_the_longest_frame_there_can_be(machine: Machine, path: Path) -> None:
    """It is too long for the card, which counts it; what follows arrives."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path) as peer:
        machine.step()
        for _ in range(5):
            peer.sendall(framed(bytes(69_632)))
            machine.step()
        peer.sendall(framed(frame(1)))
        assert arrived(machine, a, 1) == [frame(1)]
        assert machine.cards["a"].read32(reg.ROC.offset) == 5


def test_nobody_reads(machine: Machine, pool: Mempool, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What finds no room is lost, which is told in the end; the card goes on."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path) as peer:
        machine.step()
        for _ in range(10):
            assert a.tx[0].send(batch_of(pool, [frame(number, 1500) for number in range(200)])) == 200
            machine.step(8)
        peer.sendall(framed(frame(1)))
        assert arrived(machine, a, 1) == [frame(1)]
        a.close()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"sim:a: unix:{path}: the other end did not take all frames"]


def test_the_other_end_goes_first(
    machine: Machine, pool: Mempool, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Right before the card is closed, which has sent all that it was handed: there is nothing to complain of."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a:
        with connected(path) as peer:
            machine.step()
            assert a.tx[0].send(batch_of(pool, [frame(1)])) == 1
            assert read(machine, peer, 64) == framed(frame(1))
        a.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


@given(st.lists(st.binary(max_size=100), max_size=8), st.integers(1, 200))
def test_any_bytes(pieces: list[bytes], step: int) -> None:
    """Whatever another program sends, frames are found as a plain loop finds them, up to the first that is bad."""
    machine, path = Machine(stepped=True), Path(f"/tmp/ixy-any-bytes-{os.getpid()}")
    data = b"".join(framed(piece) if number % 3 else piece for number, piece in enumerate(pieces))
    expected, at = [], 0
    while len(data) - at >= 4:
        (length,) = struct.unpack_from(">I", data, at)
        if not 0 < length <= 69_632 or len(data) - at - 4 < length:
            break
        expected.append(data[at + 4 :][:length].ljust(60, b"\0"))
        at += 4 + length
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path) as peer:
        machine.step()
        a.set_promiscuous(True)
        for start in range(0, len(data), step):
            try:
                peer.sendall(data[start : start + step])
            except BrokenPipeError:
                break
            machine.step()
        assert arrived(machine, a, len(expected)) == expected


# ---------------------------------------------------------------------------------------------------------------------
# Sockets that cannot be


def test_a_stale_file_is_cleared(machine: Machine, path: Path) -> None:
    """Who listened there was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path):
        machine.step()
        assert a.link.up


def test_a_directory_that_is_locked(machine: Machine, path: Path) -> None:
    """The cards do not wait for whoever has locked it; a later look finds it free."""
    with open_card(machine, f"sim:a,cable=unix:{path}"):
        with connected(path):
            machine.step()
        directory = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        machine.step(3)
        machine.step()
        assert not path.exists()
        os.close(directory)
        machine.step()
        assert path.exists()


def test_a_path_that_is_no_socket(machine: Machine, tmp_path: Path, path: Path) -> None:
    path.write_text("precious")
    for wrong, message in [
        (path, "is no socket: name another file"),
        (tmp_path, "is no socket: name another file"),
        (tmp_path / "missing" / "cable", "there is no such directory: make it first"),
        (path / "cable", "there is no such directory: make it first"),
    ]:
        with pytest.raises(errors.AddressError, match=f"cable=unix:{wrong}: {message}"):
            open_card(machine, f"sim:a,cable=unix:{wrong}")
    assert path.read_text() == "precious"
    assert not machine.cards


def test_a_socket_of_another_kind(machine: Machine, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(errors.Error, match=f"cable=unix:{path}: Protocol wrong type for socket"):
            open_card(machine, f"sim:a,cable=unix:{path}")
    assert path.exists()


def test_a_directory_that_goes(machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The link stays down, which is said once, until there is a directory again."""
    path = tmp_path / "directory" / "cable"
    path.parent.mkdir()
    with open_card(machine, f"sim:a,cable=unix:{path}") as a:
        with connected(path):
            machine.step()
            path.parent.rmdir()
        machine.step(5)
        machine.step(5)
        assert not a.link.up
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said == [f"cable=unix:{path}: there is no such directory: make it first"]
        path.parent.mkdir()
        machine.step()
        with connected(path):
            machine.step()
            assert a.link.up


# ---------------------------------------------------------------------------------------------------------------------
# Two processes

ECHO = """
import sys
import ixy
with ixy.open(sys.argv[1], link_timeout=60) as device:
    print("open", flush=True)
    path = ixy.Path(device.rx[0], device.tx[0])
    while True:
        path.run(1000, wait=0.1)
"""


@contextmanager
def echo(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that sends back what comes."""
    command = [sys.executable, "-c", ECHO, f"sim:far,cable=unix:{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes(pool: Mempool, path: Path) -> None:
    """The other one is killed, and another one comes."""
    with ixy.open(f"sim:near,cable=unix:{path}", link_timeout=0) as device:
        for turn in range(2):
            with echo(path) as process:
                assert process.stdout
                assert process.stdout.readline() == "open\n"
                until(lambda: device.link.up)
                frames = [frame(100 * turn + number, 60 + number, BROADCAST) for number in range(50)]
                device.tx[0].send(batch_of(pool, frames))
                found: list[bytes] = []
                while len(found) < 50:
                    with device.rx[0].receive(timeout=60) as batch:
                        found += [bytes(packet) for packet in batch]
                assert found == frames
                process.send_signal(signal.SIGKILL)
                until(lambda: not device.link.up)


def test_a_forked_child_does_not_hold_the_line(machine: Machine, path: Path) -> None:
    """The other end sees that the card was closed, though a child of its process lives on."""
    with open_card(machine, f"sim:a,cable=unix:{path}") as a, connected(path) as peer:
        machine.step()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        a.close()
        assert peer.recv(1) == b""
        os.close(writing)
        os.waitpid(child, 0)


# ---------------------------------------------------------------------------------------------------------------------
# QEMU


@contextmanager
def qemu_hub(listens: Path, connects: Path) -> Iterator[None]:
    """QEMU without a machine, whose hub joins two sockets."""
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "none"]
    for number, (path, server) in enumerate([(listens, "on"), (connects, "off")]):
        command += ["-netdev", f"stream,id=s{number},server={server},addr.type=unix,addr.path={path}"]
        command += ["-netdev", f"hubport,id=h{number},hubid=0,netdev=s{number}"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86")
def test_frames_through_qemu(pool: Mempool, tmp_path: Path) -> None:
    """One card listens for QEMU, the other one connects to it; when QEMU has gone, the links are down."""
    near, far = tmp_path / "near", tmp_path / "far"
    with ixy.open(f"sim:near,cable=unix:{near}", link_timeout=0) as a:
        with qemu_hub(far, near):
            until(far.exists)
            with ixy.open(f"sim:far,cable=unix:{far}", link_timeout=0) as b:
                until(lambda: a.link.up and b.link.up)
                frames = [frame(number, 60 + 14 * number, BROADCAST) for number in range(100)]
                for sender, receiver in ((a, b), (b, a)):
                    sender.tx[0].send(batch_of(pool, frames))
                    found: list[bytes] = []
                    while len(found) < 100:
                        with receiver.rx[0].receive(timeout=60) as batch:
                            assert len(batch) > 0
                            found += [bytes(packet) for packet in batch]
                    assert found == frames
        until(lambda: not a.link.up)
