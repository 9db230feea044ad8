"""The driver of the gigabit cards on QEMU's models of them, through sysfs, with Linux's drivers at the other ends of
hubs: an 82574L, an 82540EM and an 82545EM, which nobody here wrote."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest
from harness import Guest
from in_guest import PROGRAMS, python

# Slots of the cards that ixy drives. Linux's card, of the same model, is in the slot after each.
CARDS = {0x10: "e1000e", 0x12: "e1000", 0x14: "e1000-82545em"}
NAMES = {0x10: "82574L", 0x12: "82540EM", 0x14: "82545EM"}
LEFT, RIGHT = 0x10, 0x12  # between which packets are forwarded
CAPTURED = 0x10
SENDER = bytes.fromhex("020000000001")  # of the frames of `send_at_pace.py`
FRAMES, CAPTURED_FRAMES, PINGS = 150, 600, 200


def slot(number: int) -> str:
    return f"0000:00:{number:02x}.0"


def arguments(directory: Path) -> list[str]:
    """A hub for each card, with that card and Linux's; QEMU records what passes the port of each."""
    result: list[str] = []
    for hub, (number, model) in enumerate(CARDS.items()):
        for place in (number, number + 1):
            result += ["-netdev", f"hubport,id=port{place},hubid={hub}"]
            mac = f"mac=52:54:00:00:00:{place:02x}"
            result += ["-device", f"{model},netdev=port{place},addr={place:#x},{mac},romfile="]
        dump = f"filter-dump,id=dump{number},netdev=port{number},file={directory / NAMES[number]}.pcap"
        result += ["-object", dump]
    return result


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dumps")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, dumps: Path) -> Iterator[Guest]:
    with Guest(tmp_path_factory.mktemp("guest") / "gigabit", arguments(dumps)) as guest:
        result = guest.run("modprobe -a e1000e e1000 af_packet && echo 64 > /proc/sys/vm/nr_hugepages")
        assert result.exit_code == 0, result.output
        yield guest


def command(*words: object) -> str:
    return python(" ".join(["-m ixy", *map(str, words)]))


@pytest.mark.parametrize("number", CARDS, ids=NAMES.values())
def test_frames_pass_each_way(guest: Guest, number: int) -> None:
    """Frames of 60 to 1,514 bytes, all in order; then the filters: what is for the station, its new address, the VLAN,
    stations and groups that were asked for comes in, a stranger's frame, another VLAN's and another group's do not."""
    program = PROGRAMS / "e1000_pair.py"
    result = guest.run(python(f"{program} {slot(number)} {slot(number + 1)} {FRAMES}"), timeout=300)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["lengths"] == [FRAMES, FRAMES]
    assert report["to_kernel"]
    assert report["from_kernel"]
    assert report["tx_packets"] == FRAMES
    assert report["rx_errors"] == report["rx_refused"] == 0
    assert report["link"] == [True, 1000]
    assert report["mac"] == f"52:54:00:00:00:{number:02x}"
    assert report["xstats"]["GPTC"] >= FRAMES
    assert report["filtered"] == [1, 2, 6, 7, 8, 9]
    kind = "MSI-X" if number == 0x10 else "INTx"
    assert report["woken"].startswith(f"{slot(number)}: 1 {kind} interrupts: sysfs delivers none; poll, or run: ")


@pytest.mark.parametrize("number", [0x10, 0x12], ids=["82574L", "82540EM"])
def test_offloads(guest: Guest, dumps: Path, number: int) -> None:
    """What the card is asked to finish, the kernel takes: datagrams over IPv4 and IPv6, of one buffer and of four, none
    with a bad checksum; so says tcpdump of all that QEMU has recorded. Tags go both ways, long frames are received
    whole, and the 82574 tells which checksums are right. QEMU's 82540 tells none; its 82574 cuts no segments of TCP
    behind a hub, but fragments of IP.
    """
    program = PROGRAMS / "e1000_offloads.py"
    result = guest.run(python(f"{program} {slot(number)} {slot(number + 1)} {number}"), timeout=300)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["datagrams"] == [True] * 12
    assert report["bad"] == 0
    assert report["tags"] == [0x005, 0x2006]
    assert report["refused"] == 0
    *whole, wrong = report["received"]
    assert [content for content, _ in whole] == [True, True]
    if number == 0x10:
        assert [verdict for _, verdict in whole] == ["IP_GOOD|L4_GOOD|IPV4|UDP"] * 2
        assert wrong == "IP_BAD|L4_BAD|IPV4|UDP"
    else:
        assert report["segments"] == [1200, 1200, 1200, 1200, 200]
    seen = tcpdump(dumps / f"{NAMES[number]}.pcap", f"ether src 52:54:00:00:00:{number:02x}", "-vv")
    assert seen.count("udp sum ok") == 12
    assert "bad" not in seen
    assert "incorrect" not in seen
    assert number == 0x10 or seen.count("(correct)") == 5


def tcpdump(file: Path, expression: str, *options: str) -> str:
    words = ["tcpdump", "-n", *options, "-r", str(file), expression]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_a_capture_equals_qemus(guest: Guest, dumps: Path) -> None:
    """`ixy capture --count` and QEMU record the same 600 frames, all of other lengths, from 60 to 1,514 bytes, that
    Linux's card sends: more than the ring has descriptors."""
    count, file = CAPTURED_FRAMES, "/dev/shm/capture.pcap"
    words = "capture", slot(CAPTURED), file, "--count", count, "ether", "src", SENDER.hex(":")
    capture = guest.start(f"{command(*words)} && cp {file} .")
    sender = guest.run(python(f"{PROGRAMS / 'send_at_pace.py'} {slot(CAPTURED + 1)} {file} {count}"), 240)
    assert sender.exit_code == 0, sender.output
    ended = guest.wait(capture)
    assert ended.exit_code == 0, ended.output
    ours = read(ended.directory / "capture.pcap")
    assert len(ours) == count
    assert len({len(frame) for frame in ours}) == count
    assert ours == [frame for frame in read(dumps / f"{NAMES[CAPTURED]}.pcap") if frame[6:12] == SENDER]


def read(path: Path) -> list[bytes]:
    """The packets of a capture, by a library that is not ours."""
    with path.open("rb") as file:
        return [bytes(packet) for _, packet in dpkt.pcap.Reader(file)]


def namespace(name: str, number: int, address: str) -> str:
    """Shell commands that put the kernel's interface of a card into a namespace, IPv4 only."""
    return f"""
        interface=$(basename /sys/bus/pci/devices/{slot(number)}/net/*)
        /usr/sbin/ip netns add {name}
        /usr/sbin/ip link set $interface netns {name}
        /usr/sbin/ip netns exec {name} sysctl -qw net.ipv6.conf.$interface.disable_ipv6=1
        /usr/sbin/ip -n {name} addr flush dev $interface
        /usr/sbin/ip -n {name} link set $interface mtu 1500
        /usr/sbin/ip -n {name} addr add {address}/24 dev $interface
        /usr/sbin/ip -n {name} link set $interface up
    """


def test_traffic_passes_the_forwarder_which_is_killed(guest: Guest) -> None:
    """`ixy forward` from an 82574 to an 82540: 200 of 200 pings, TCP by iperf3. A second process is refused. After
    kill -9 the next one forwards pings again; SIGINT ends it, and nothing was dropped.
    """
    made = guest.run(f"set -e{namespace('left', LEFT + 1, '10.82.96.1')}{namespace('right', RIGHT + 1, '10.82.96.2')}")
    assert made.exit_code == 0, made.output
    forwarder = guest.start(command("forward", slot(LEFT), slot(RIGHT)))
    check_pings(guest, PINGS)
    left, right = (f"/usr/sbin/ip netns exec {name}" for name in ("left", "right"))
    iperf = guest.run(f"{right} iperf3 -s -1 -D; {left} iperf3 -c 10.82.96.2 -t 2 -J", 120)
    sums = json.loads(iperf.output[iperf.output.index("{") :])["end"]
    assert sums["sum_received"]["bytes"] > 100_000
    print(f"iperf3 through interpreted code: {sums['sum_received']['bits_per_second'] / 1e6:.1f} Mbit/s")
    pid = (guest.place(forwarder) / "pid").read_text()
    second = guest.run(command("forward", slot(LEFT), slot(RIGHT)))
    assert second.exit_code == 2
    assert f"{slot(LEFT)} is in use by process {pid}" in second.output
    guest.run(f"kill -9 {pid}")
    assert guest.wait(forwarder).exit_code == 137
    forwarder = guest.start(command("forward", slot(LEFT), slot(RIGHT)))
    check_pings(guest, 20)
    shown = guest.run(command("info", slot(LEFT)))
    assert "82574L" in shown.output
    assert "1000 Mbit/s" in shown.output.replace("1 Gbit/s", "1000 Mbit/s"), shown.output
    registers = guest.run(command("registers", slot(RIGHT)))
    assert re.search(r"0x00100 RCTL +0x0400801a .* EN=1 SBP=0 UPE=1 MPE=1 ", registers.output), registers.output
    guest.run(f"kill -INT {(guest.place(forwarder) / 'pid').read_text()}")
    ended = guest.wait(forwarder)
    assert ended.exit_code == 0, ended.output
    assert re.search(r"received (\d+), forwarded \1, dropped 0", ended.output), ended.output


def check_pings(guest: Guest, count: int) -> None:
    ping = "/usr/sbin/ip netns exec left ping"
    result = guest.run(
        f"until {ping} -c 1 -W 1 10.82.96.2 > /dev/null; do :; done; {ping} -A -q -W 20 -c {count} 10.82.96.2", 180
    )
    assert re.search(rf"{count} packets transmitted, {count} (packets )?received", result.output), result.output


def test_the_kernel_drives_the_cards_again(guest: Guest) -> None:
    """Given back, they are with the kernel's drivers, and pings pass between both ends of a hub."""
    code = f'from ixy.bus.binding import unbind; print(unbind("{slot(LEFT)}"), unbind("{slot(RIGHT)}"))'
    assert guest.run(python(f"-c '{code}'")).output.split() == ["e1000e", "e1000"]
    pinged = guest.run(f"""
        interface=$(basename /sys/bus/pci/devices/{slot(LEFT)}/net/*)
        /usr/sbin/ip addr add 10.82.96.3/24 dev $interface
        /usr/sbin/ip link set $interface up
        until ping -c 1 -W 1 10.82.96.1; do :; done
    """)
    assert pinged.exit_code == 0, pinged.output
