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

import pytest
from harness import Guest

import ixy
from ixy.path import Path as PacketPath
from ixy.path import run, unchanged

CARDS = {"split": (0x10, "10.82.97.1"), "packed": (0x12, "10.82.97.2")}
PAIRS = 2
PINGS = 200
CRC = 4  # we count bytes with the frame check sequence, Linux without


class Cable:
    """Both back ends, and a thread in which paths join them.

    Args:
        sockets: where they listen.
    """

    def __init__(self, sockets: Path) -> None:
        self.sockets = sockets
        self.start()

    def start(self) -> None:
        shape = {"rx_queues": PAIRS, "tx_queues": PAIRS, "link_timeout": 0}
        self.split, self.packed = (ixy.open(f"vhost-server:{self.sockets / kind}", **shape) for kind in CARDS)
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._forward)
        self._worker.start()

    def _forward(self) -> None:
        """Both ways of each pair of queues in turn, asleep while nothing comes."""
        pairs = list(zip(self.split.rx, self.packed.tx, self.packed.rx, self.split.tx, strict=True))
        paths = [[PacketPath(a, b, unchanged), PacketPath(c, d, unchanged)] for a, b, c, d in pairs]
        while not self._stop.is_set():
            for both in paths:
                run(both, 1 << 10, 0.01)

    def end(self) -> None:
        self._stop.set()
        self._worker.join()
        self.split.close()
        self.packed.close()


def arguments(sockets: Path) -> list[str]:
    result = ["-action", "reboot=reset"]
    for kind, (slot, _) in CARDS.items():
        card = f"virtio-net-pci,netdev={kind},addr={slot:#x},mac=52:54:00:00:00:{slot:02x}"
        # Without KVM, QEMU 7.2 dies of a vhost-user card that has MSI-X.
        more = f"disable-legacy=on,mq=on,vectors=0,packed={'on' if kind == 'packed' else 'off'}"
        result += ["-chardev", f"socket,id=c-{kind},path={sockets / kind},reconnect=1"]
        result += ["-netdev", f"vhost-user,id={kind},chardev=c-{kind},queues={PAIRS}"]
        result += ["-device", f"{card},{more}"]
    return result


@pytest.fixture(scope="module")
def cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cable]:
    cable = Cable(tmp_path_factory.mktemp("vhost"))
    yield cable
    cable.end()


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, cable: Cable) -> Iterator[Guest]:
    directory = tmp_path_factory.mktemp("guest") / "vhost"
    with Guest(directory, arguments(cable.sockets), shared_memory=True, processors=PAIRS) as guest:
        yield guest


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


def test_every_packet_is_counted_at_both_ends(guest: Guest, cable: Cable) -> None:
    """Pings, and a second of TCP both ways: what Linux has counted at each card, its back end has, to the byte."""
    namespaces(guest)
    ping(guest, PINGS)
    assert cable.split.link.up
    assert cable.packed.link.up
    server = guest.start("/usr/sbin/ip netns exec packed iperf3 --server --one-off")
    client = f"/usr/sbin/ip netns exec split iperf3 --client {CARDS['packed'][1]} --bidir --time 1 --json"
    done = guest.run(f"until {client} > report; do usleep 100000; done; cat report", 120)
    assert done.exit_code == 0, done.output
    assert guest.wait(server).exit_code == 0
    report = json.loads(done.output)["end"]
    assert min(report["sum_received"]["bytes"], report["sum_received_bidir_reverse"]["bytes"]) > 100_000
    for kind, device in (("split", cable.split), ("packed", cable.packed)):
        assert counts(guest, kind) == ours(device)


def test_the_guest_reboots_under_traffic(guest: Guest, cable: Cable) -> None:
    """Linux starts anew while frames fly both ways: the back ends do as QEMU says, and then no ping is lost."""
    guest.start(f"/usr/sbin/ip netns exec split ping -f -q {CARDS['packed'][1]}")
    before = cable.split.stats().rx_packets
    deadline = time.monotonic() + 60
    while cable.split.stats().rx_packets < before + 100:
        assert time.monotonic() < deadline, "nothing flows"
        time.sleep(0.01)
    guest.reboot()
    namespaces(guest)
    ping(guest, PINGS)
    assert cable.split.stats().rx_errors == cable.packed.stats().rx_errors == 0


def test_the_back_ends_start_anew(guest: Guest, cable: Cable) -> None:
    """They end and are there again while Linux runs: QEMU comes back to them, with the rings as they are."""
    cable.end()
    cable.start()
    assert cable.split.wait_for_link(60).up
    assert cable.packed.wait_for_link(60).up
    ping(guest, PINGS)
    assert ours(cable.split)[0] >= PINGS
    assert ours(cable.packed)[0] >= PINGS
