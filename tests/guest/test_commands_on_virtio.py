"""The commands as a user types them, on QEMU's virtio-net-pci, with Linux's driver at the other end of each hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest
from harness import Guest
from in_guest import PROGRAMS, python

# Slots of the cards that the commands open, with their options. Linux's card is in the slot after each.
CARDS = {0x10: "disable-legacy=on", 0x12: "disable-legacy=on,packed=on", 0x14: "disable-legacy=on"}
A, B, CAPTURED = (f"0000:00:{slot:02x}.0" for slot in CARDS)
LEFT, RIGHT, SENDER = (f"0000:00:{slot + 1:02x}.0" for slot in CARDS)
PINGS = 1000
FRAMES = 10_000


def arguments(dump: Path) -> list[str]:
    """A hub for each card, with that card and one for Linux; QEMU records what passes the port of the last."""
    result: list[str] = []
    for hub, (slot, options) in enumerate(CARDS.items()):
        for place, more in ((slot, f",{options}"), (slot + 1, "")):
            result += ["-netdev", f"hubport,id=port{place},hubid={hub}"]
            mac = f"mac=52:54:00:00:00:{place:02x}"
            result += ["-device", f"virtio-net-pci,netdev=port{place},addr={place:#x},{mac}{more}"]
    return [*result, "-object", f"filter-dump,id=dump,netdev=port{max(CARDS)},file={dump}"]


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dump") / "port.pcap"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, dump: Path) -> Iterator[Guest]:
    with Guest(tmp_path_factory.mktemp("guest") / "commands", arguments(dump)) as guest:
        result = guest.run(f"modprobe -a virtio_net af_packet && {command('setup')}")
        assert result.exit_code == 0, result.output
        yield guest


def command(*words: object) -> str:
    return python(" ".join(["-m ixy", *map(str, words)]))


def namespace(name: str, card: str, address: str) -> str:
    """Shell commands that put the kernel's interface of a card into a namespace, IPv4 only."""
    return f"""
        interface=$(basename /sys/bus/pci/devices/{card}/virtio*/net/*)
        /usr/sbin/ip netns add {name}
        /usr/sbin/ip link set $interface netns {name}
        /usr/sbin/ip netns exec {name} sysctl -qw net.ipv6.conf.$interface.disable_ipv6=1
        /usr/sbin/ip -n {name} addr add {address}/24 dev $interface
        /usr/sbin/ip -n {name} link set $interface up
    """


def packets(line: str) -> tuple[int, ...]:
    """Of a device's line of a summary: packets in and out, dropped, errors, refused, starved."""
    found = re.fullmatch(
        r"\S+ +in (\d+) packets, \d+ bytes; out (\d+) packets, \d+ bytes"
        r"; dropped (\d+), errors (\d+), refused (\d+), starved (\d+)",
        line,
    )
    assert found, line
    return tuple(map(int, found.groups()))


def test_pings_pass_the_forwarder(guest: Guest) -> None:
    """`ixy forward` joins two namespaces of the guest: 1,000 of 1,000 pings are answered. SIGINT ends it: the summary
    says that what came in at one card has left through the other, and the exit code is that of a run without limit.
    """
    made = guest.run(f"set -e{namespace('left', LEFT, '10.82.96.1')}{namespace('right', RIGHT, '10.82.96.2')}")
    assert made.exit_code == 0, made.output
    forwarder = guest.start(command("forward", A, B))
    ping = "/usr/sbin/ip netns exec left ping"
    result = guest.run(
        f"until {ping} -c 1 -W 1 10.82.96.2 > /dev/null; do :; done; {ping} -A -q -W 20 -c {PINGS} 10.82.96.2", 180
    )
    assert re.search(rf"{PINGS} packets transmitted, {PINGS} (packets )?received", result.output), result.output
    guest.run(f"kill -INT {(guest.place(forwarder) / 'pid').read_text()}")
    ended = guest.wait(forwarder)
    assert ended.exit_code == 0, ended.output
    *_, time, a, b, counts = ended.output.splitlines()
    assert re.fullmatch(r"after \d+\.\d{3} s:", time)
    assert (a.split()[0], b.split()[0]) == (A, B)
    (a_in, a_out, *a_lost), (b_in, b_out, *b_lost) = packets(a), packets(b)
    assert (a_in, b_in) == (b_out, a_out)
    assert min(a_in, b_in) >= PINGS
    assert not any(a_lost + b_lost)
    assert counts == f"received {a_in + b_in}, forwarded {a_in + b_in}, dropped 0"


def test_a_capture_equals_qemus(guest: Guest, dump: Path) -> None:
    """`ixy capture --count` and QEMU record the same 10,000 frames of 60 to 1,514 bytes that Linux's card sends."""
    file = "/dev/shm/capture.pcap"
    capture = guest.start(f"{command('capture', CAPTURED, file, '--count', FRAMES)} && cp {file} .")
    sender = guest.run(python(f"{PROGRAMS / 'send_at_pace.py'} {SENDER} {file} {FRAMES}"), 180)
    assert sender.exit_code == 0, sender.output
    ended = guest.wait(capture)
    assert ended.exit_code == 0, ended.output
    counted = f"received {FRAMES}, matched {FRAMES}, captured {FRAMES}, lost by card 0, lost by file 0"
    assert ended.output.splitlines()[-1] == counted
    ours, qemus = read(ended.directory / "capture.pcap"), read(dump)
    assert len(ours) == FRAMES
    assert {len(frame) for frame in ours} == set(range(60, 1515))
    assert ours == qemus


def read(path: Path) -> list[bytes]:
    """The packets of a capture, by a library that is not ours."""
    with path.open("rb") as file:
        return [bytes(packet) for _, packet in dpkt.pcap.Reader(file)]
