"""Linux's driver of virtio-net, unmodified, with QEMU as a vhost-user front end and `vhost-server:` as the back end.

A guest has two cards, one with split rings and one with packed ones, each in a namespace of its own. The back ends of
both are joined by paths in this process: what the namespaces say to each other goes through them.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import Guest

import ixy
from ixy.path import Path as PacketPath
from ixy.path import run, unchanged

CARDS = {"split": (0x10, "10.82.97.1"), "packed": (0x12, "10.82.97.2")}
PAIRS = 2
PINGS = 200
CRC = 4  # we count bytes with the frame check sequence, Linux without


class Cable(NamedTuple):
    """Both back ends, and the guest."""

    guest: Guest
    split: ixy.Device
    packed: ixy.Device


def arguments(sockets: Path) -> list[str]:
    result = ["-action", "reboot=reset"]
    for kind, (slot, _) in CARDS.items():
        card = f"virtio-net-pci,netdev={kind},addr={slot:#x},mac=52:54:00:00:00:{slot:02x}"
        # Without KVM, QEMU 7.2 dies of a vhost-user card that has MSI-X.
        more = f"disable-legacy=on,mq=on,vectors=0,packed={'on' if kind == 'packed' else 'off'}"
        result += ["-chardev", f"socket,id=c-{kind},path={sockets / kind}"]
        result += ["-netdev", f"vhost-user,id={kind},chardev=c-{kind},queues={PAIRS}"]
        result += ["-device", f"{card},{more}"]
    return result


def forward(paths: list[list[PacketPath]], stop: threading.Event) -> None:
    """Each two paths in turn, which sleep while nothing comes."""
    while not stop.is_set():
        for pair in paths:
            run(pair, 1 << 10, 0.01)


@pytest.fixture(scope="module")
def cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cable]:
    sockets = tmp_path_factory.mktemp("vhost")
    shape = {"rx_queues": PAIRS, "tx_queues": PAIRS, "link_timeout": 0}
    with (
        ixy.open(f"vhost-server:{sockets / 'split'}", **shape) as split,
        ixy.open(f"vhost-server:{sockets / 'packed'}", **shape) as packed,
    ):
        paths = [
            [PacketPath(split.rx[i], packed.tx[i], unchanged), PacketPath(packed.rx[i], split.tx[i], unchanged)]
            for i in range(PAIRS)
        ]
        stop = threading.Event()
        worker = threading.Thread(target=forward, args=(paths, stop))
        worker.start()
        try:
            directory = tmp_path_factory.mktemp("guest") / "vhost"
            with Guest(directory, arguments(sockets), shared_memory=True, processors=PAIRS) as guest:
                yield Cable(guest, split, packed)
        finally:
            stop.set()
            worker.join()


def namespaces(guest: Guest) -> None:
    """Give each card a namespace, IPv4 only, and a neighbour: nobody speaks unasked."""
    commands = ["set -e", "modprobe -a virtio_net af_packet"]
    macs = {kind: f"52:54:00:00:00:{slot:02x}" for kind, (slot, _) in CARDS.items()}
    for kind, (slot, address) in CARDS.items():
        (other,) = CARDS.keys() - {kind}
        commands += [
            f"interface=$(basename /sys/bus/pci/devices/0000:00:{slot:02x}.0/virtio*/net/*)",
            f"/usr/sbin/ip netns add {kind}",
            f"/usr/sbin/ip link set $interface netns {kind}",
            f"/usr/sbin/ip -n {kind} link set $interface name card",
            f"/usr/sbin/ip netns exec {kind} sysctl -qw net.ipv6.conf.card.disable_ipv6=1",
            f"/usr/sbin/ip -n {kind} addr add {address}/24 dev card",
            f"/usr/sbin/ip -n {kind} link set card up",
            f"/usr/sbin/ip -n {kind} neigh replace {CARDS[other][1]} lladdr {macs[other]} dev card",
            f"/usr/sbin/ip -n {kind} link set lo up",
        ]
    done = guest.run("\n".join(commands))
    assert done.exit_code == 0, done.output


def ping(guest: Guest, count: int) -> None:
    address = CARDS["packed"][1]
    done = guest.run(f"/usr/sbin/ip netns exec split ping -A -q -W 20 -c {count} {address}", 180)
    assert re.search(rf"{count} packets transmitted, {count} (packets )?received", done.output), done.output


def counts(guest: Guest, kind: str) -> list[int]:
    """What Linux has counted: packets and bytes in, packets and bytes out."""
    names = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
    files = " ".join(f"/sys/class/net/card/statistics/{name}" for name in names)
    return [int(word) for word in guest.run(f"/usr/sbin/ip netns exec {kind} cat {files}").output.split()]


def ours(device: ixy.Device) -> list[int]:
    """What we have: the same of the other end."""
    stats = device.stats()
    assert stats.rx_errors == stats.rx_refused == 0
    sent, received = stats.tx_packets, stats.rx_packets
    return [sent, stats.tx_bytes - CRC * sent, received, stats.rx_bytes - CRC * received]


def test_every_packet_is_counted_at_both_ends(cable: Cable) -> None:
    """Pings, and a second of TCP both ways: what Linux has counted at each card, its back end has, to the byte."""
    guest, split, packed = cable
    namespaces(guest)
    ping(guest, PINGS)
    assert split.link.up
    assert packed.link.up
    server = guest.start("/usr/sbin/ip netns exec packed iperf3 --server --one-off")
    client = f"/usr/sbin/ip netns exec split iperf3 --client {CARDS['packed'][1]} --bidir --time 1 --json"
    done = guest.run(f"until {client} > report; do usleep 100000; done; cat report", 120)
    assert done.exit_code == 0, done.output
    assert guest.wait(server).exit_code == 0
    report = json.loads(done.output)["end"]
    assert min(report["sum_received"]["bytes"], report["sum_received_bidir_reverse"]["bytes"]) > 100_000
    for kind, device in (("split", split), ("packed", packed)):
        assert counts(guest, kind) == ours(device)


def test_the_guest_reboots_under_traffic(cable: Cable) -> None:
    """Linux starts anew while frames fly both ways: the back ends do as QEMU says, and then no ping is lost."""
    guest, split, packed = cable
    guest.start(f"/usr/sbin/ip netns exec split ping -f -q {CARDS['packed'][1]}")
    before = split.stats().rx_packets
    deadline = time.monotonic() + 60
    while split.stats().rx_packets < before + 100:
        assert time.monotonic() < deadline, "nothing flows"
        time.sleep(0.01)
    guest.reboot()
    namespaces(guest)
    ping(guest, PINGS)
    assert split.link.up
    assert packed.link.up
    assert split.stats().rx_errors == packed.stats().rx_errors == 0
