"""VirtIO's offloads on QEMU's virtio-net-pci, with the kernel of the host behind its TAPs.

A guest joins two cards. Behind one a namespace has the TAP itself, so that what the kernel sends there are packets of
up to 64 KiB without checksums. Behind the other a bridge hands what comes out of the TAP to a veth pair without
offloads: there the kernel cuts and adds up as it is told, and a namespace behind it looks at every checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import Guest
from in_guest import PROGRAMS, python
from namespaces import Namespace, needs, needs_tap, run, tap_name, wait_until
from toeplitz import KEY, toeplitz

pytestmark = [*needs("ethtool", "tcpdump", "nstat"), needs_tap]

# The cards that the guest joins, the second of which hashes; one for long frames, and Linux's beside it
A, B, C, D = (f"0000:00:{slot:02x}.0" for slot in (0x10, 0x11, 0x12, 0x13))
LEFT, RIGHT = "10.82.95.1", "10.82.95.2"
BYTES = 1_000_000  # each way
_TUNSETIFF, _TAP, _NO_PI, _VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000

# Runs in a namespace: sends so many bytes to whoever connects, or gets them, and prints what they are in short.
SERVER = """
import hashlib, socket, sys
with socket.create_server((sys.argv[1], 5001)) as server:
    print("listening", flush=True)
    for _ in range(2):
        connection, _ = server.accept()
        with connection:
            data = connection.recv(1, socket.MSG_WAITALL)
            if data == b"s":
                connection.sendall(bytes(i * i >> 3 & 255 for i in range(int(sys.argv[2]))))
            else:
                while more := connection.recv(1 << 16):
                    data += more
                print(hashlib.sha256(data[1:]).hexdigest(), len(data) - 1, flush=True)
"""
CLIENT = """
import hashlib, socket, sys
data = bytes(i * i >> 3 & 255 for i in range(int(sys.argv[2])))
with socket.create_connection((sys.argv[1], 5001), source_address=("", 5002)) as connection:
    connection.sendall(b"r" + data)
with socket.create_connection((sys.argv[1], 5001), source_address=("", 5003)) as connection:
    connection.sendall(b"s")
    data = connection.recv(len(data), socket.MSG_WAITALL)
    print(hashlib.sha256(data).hexdigest(), len(data))
"""


class Rig(NamedTuple):
    guest: Guest
    left: Namespace
    right: Namespace


def tap(name: str) -> int:
    """A new TAP whose user reads and writes VirtIO's headers; its file."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_PI | _VNET_HDR))
    return fd


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ExitStack() as stack:
        left, middle, right = (Namespace(tap_name(end)) for end in "lmr")
        for namespace in (left, middle, right):
            stack.callback(namespace.close)
        files = [tap(tap_name(end)) for end in "ab"]
        for fd in files:
            stack.callback(os.close, fd)
        left.take(tap_name("a"), [f"{LEFT}/24"])
        pair = ("name", tap_name("c"), "type", "veth", "peer", "name", tap_name("d"))
        run("ip", "link", "add", *pair)
        middle.take(tap_name("b"), [])
        run("ip", "link", "set", tap_name("c"), "netns", middle.name)
        right.take(tap_name("d"), [f"{RIGHT}/24"])
        middle.run("ip", "link", "add", "bridge", "type", "bridge")
        middle.run("ethtool", "-K", tap_name("c"), "tx", "off")
        for interface in ("net", tap_name("c")):
            middle.run("ip", "link", "set", interface, "master", "bridge")
        for interface in ("bridge", tap_name("c")):
            middle.run("ip", "link", "set", interface, "up")
        for namespace in (left, right):  # else a slow path is given small packets (tcp(7))
            namespace.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno", "net.ipv4.tcp_min_tso_segs=44")
        directory = tmp_path_factory.mktemp("guest") / "offloads"
        with Guest(directory, arguments(files), pass_fds=files) as guest:
            assert guest.run("modprobe -a virtio_net af_packet").exit_code == 0
            yield Rig(guest, left, right)


def arguments(files: list[int]) -> list[str]:
    result: list[str] = []
    for slot, fd, options in ((0x10, files[0], ",packed=on"), (0x11, files[1], ",hash=on")):
        result += ["-netdev", f"tap,id=port{slot},fd={fd}"]
        result += ["-device", f"virtio-net-pci,netdev=port{slot},addr={slot:#x},disable-legacy=on{options}"]
    for slot in (0x12, 0x13):
        result += ["-netdev", f"hubport,id=port{slot},hubid=0"]
        result += ["-device", f"virtio-net-pci,netdev=port{slot},addr={slot:#x},disable-legacy=on"]
    return result


def counters(namespace: Namespace) -> dict[str, int]:
    """What the kernel of a namespace has counted."""
    lines = re.findall(r"^(\w+)\s+(\d+)", namespace.run("nstat", "-az"), re.MULTILINE)
    return {name: int(value) for name, value in lines}


def test_packets_of_64_kib_without_checksums_arrive_whole_and_right(rig: Rig, tmp_path: Path) -> None:
    """TCP each way, of which much comes in large pieces: what arrives is what was sent, no receiver has seen a wrong
    checksum, and tcpdump none where the kernel had to make them all. The hash that is told is the flow's. Then frames
    of up to 9,014 bytes pass a card both ways.
    """
    guest, left, right = rig
    expected = hashlib.sha256(bytes(i * i >> 3 & 255 for i in range(BYTES))).hexdigest()
    program = guest.start(python(f"{PROGRAMS / 'virtio_offloads.py'} {A} {B} {C} {D}"))
    await_forwarding(guest, program)
    listen = ("tcpdump", "-i", "net", "-Q", "in", "-Z", "root", "-w", str(tmp_path / "dump"), "tcp")
    with (
        right.running(*listen, ready="listening on"),
        right.running(sys.executable, "-c", SERVER, RIGHT, str(BYTES), ready="listening") as server,
    ):
        answer = left.run(sys.executable, "-c", CLIENT, RIGHT, str(BYTES), timeout=200)
        assert answer.split() == [expected, str(BYTES)]
        assert server.stdout
        assert server.stdout.readline().split() == [expected, str(BYTES)]
    (guest.place(program) / "stop").touch()
    ended = guest.wait(program, 200)
    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.output.splitlines()[-1])
    check_flow(report, run("tcpdump", "-r", str(tmp_path / "dump"), "-nvv"))
    for namespace in (left, right):
        counted = counters(namespace)
        # Not TcpInErrs: there a SYN counts too that came again, because the guest was slow
        bad = ("TcpInCsumErrors", "IpInHdrErrors", "UdpInCsumErrors", "IpExtInCsumErrors")
        assert {name: counted.get(name, 0) for name in bad} == dict.fromkeys(bad, 0)
    assert (report["good"], report["mtu"], report["refused"]) == (40, 9000, 0)


def await_forwarding(guest: Guest, program: int) -> None:
    """Wait until the guest's program forwards. It imports the package first, which takes a minute on a busy machine."""
    try:
        wait_until((guest.place(program) / "ready").exists, "the guest does not forward", seconds=180)
    except AssertionError:
        guest.wait(program, 0)  # tells what the guest has said
        raise


def check_flow(report: dict[str, Any], seen: str) -> None:
    assert seen.count("(correct)") > BYTES // 1500
    assert "incorrect" not in seen
    there, back = report["seen"]
    assert there["longest"] > 30_000
    assert min(there["joined"], there["partial"], back["partial"]) > 0
    flow = socket.inet_aton(RIGHT) + socket.inet_aton(LEFT) + struct.pack(">HH", 5001, 5003)
    assert back["hash"] == toeplitz(KEY, flow)
    assert report["errors"] == [0, 0]
    assert [xstats["tx_q0_unchanged"] for xstats in report["xstats"]] == [0, 0]
    for received, forwarded, dropped in report["counts"]:
        assert (forwarded, dropped) == (received, 0)
    for features in report["features"]:
        assert {"CSUM", "GUEST_CSUM", "HOST_TSO4", "HOST_TSO6", "GUEST_TSO4", "GUEST_TSO6"} <= set(features)
