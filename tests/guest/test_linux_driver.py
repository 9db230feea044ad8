"""Linux's own ixgbe driver, unmodified, is the judge of the simulated 82599."""

from __future__ import annotations

import hashlib
import json
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator

import pytest
from cards import guest_with_cards
from in_guest import PROGRAMS
from namespace import Namespace
from rig import GUEST, HOST, Rig
from toeplitz import toeplitz

from ixy.registers import i82599 as reg
from ixy.sim.card import state

QUEUES = 4


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("guest") / "linux"
    with (
        guest_with_cards(directory, ["sim:a,tap=ixyjudge0"], processors=QUEUES) as (guest, attachment),
        Namespace("ixyjudge", "ixyjudge0", f"{HOST}/24") as host,
    ):
        rig = Rig(guest, attachment, host)
        print(f"boot: {guest.boot_seconds:.1f} s")
        rig.run("dmesg -c > /dev/null; modprobe ixgbe")
        (directory / "probe").write_text(rig.run("dmesg"))
        rig.bring_up()
        yield rig


def frame(destination: bytes, kind: int = 0x88B5, tag: int | None = None, size: int = 60) -> bytes:
    """A frame of a kind that no protocol takes (IEEE 802's local experimental one by default)."""
    tagged = b"" if tag is None else b"\x81\x00" + tag.to_bytes(2, "big")
    return (destination + bytes.fromhex("020000000001") + tagged + kind.to_bytes(2, "big")).ljust(size, b"\0")


def test_probe_without_a_warning(rig: Rig) -> None:
    """What the kernel says while the driver probes: nothing of warning level or worse, and the card's name."""
    messages = rig.run("dmesg -r | grep -i ixgbe")
    levels = [int(level) & 7 for level in re.findall(r"^<(\d+)>", messages, re.MULTILINE)]
    assert levels
    assert min(levels) >= 5, messages
    assert "Intel(R) 10 Gigabit Network Connection" in messages
    assert f"Multiqueue Enabled: Rx Queue count = {QUEUES}" in messages


def test_link_is_up_at_10_gbit(rig: Rig) -> None:
    assert rig.run("cat /sys/class/net/eth0/speed /sys/class/net/eth0/duplex").split() == ["10000", "full"]
    assert "NIC Link is Up 10 Gbps" in rig.run("dmesg")


def test_ping_both_ways(rig: Rig) -> None:
    """A thousand of a thousand, from the guest and from the host."""
    assert "1000 packets received" in rig.run(f"ping -A -c 1000 -q {HOST}")
    assert "1000 received" in rig.host.run("ping", "-A", "-c", "1000", "-q", GUEST)


def test_ping_with_fragments(rig: Rig) -> None:
    """Packets of 20,000 bytes come in fragments, which have no TCP or UDP header that could be hashed or checked."""
    assert "50 packets received" in rig.run(f"ping -A -c 50 -s 20000 -q {HOST}")


@pytest.mark.parametrize("direction", ["", "--reverse"], ids=["send", "receive"])
def test_tcp_with_all_offloads(rig: Rig, direction: str) -> None:
    """TCP with segmentation and checksums by the card: data flows, and no checksum is found wrong on either side."""
    features = rig.run("ethtool -k eth0")
    for feature in ("rx-checksumming", "tx-checksumming", "tcp-segmentation-offload"):
        assert f"{feature}: on" in features
    errors = rig.statistics()["rx_csum_offload_errors"]
    wrong = host_tcp_errors(rig)
    frames = rig.counter(reg.GPRC) + rig.counter(reg.GPTC)
    server = rig.host.start("iperf3", "--server", "--one-off", "--bind", HOST)
    report = json.loads(
        rig.run(f"until iperf3 -c {HOST} --bytes 20M --json {direction} > r; do usleep 100000; done; cat r")
    )
    server.communicate(timeout=30)
    assert report["end"]["sum_sent"]["bytes"] >= 20 << 20
    assert rig.statistics()["rx_csum_offload_errors"] == errors
    assert host_tcp_errors(rig) == wrong
    rate = report["end"]["sum_received"]["bits_per_second"]
    frames = rig.counter(reg.GPRC) + rig.counter(reg.GPTC) - frames
    seconds = report["end"]["sum_sent"]["seconds"]
    print(f"TCP {direction}: {rate / 1e6:.0f} Mbit/s, {frames / seconds:.0f} packets a second both ways")


def host_tcp_errors(rig: Rig) -> int:
    """Segments with wrong checksums that the host has seen (InCsumErrors of /proc/net/snmp)."""
    names, values = [line.split() for line in rig.host.run("grep", "^Tcp:", "/proc/net/snmp").splitlines()]
    return int(dict(zip(names, values, strict=True))["InCsumErrors"])


def test_segments_checksums_from_both_kinds_of_ip(rig: Rig) -> None:
    """TCP over IPv6, segmented by the card."""
    rig.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; /usr/sbin/ip addr add fd82::2/64 dev eth0 nodad")
    rig.host.run("sysctl", "-qw", f"net.ipv6.conf.{rig.host.interface}.disable_ipv6=0")
    rig.host.run("ip", "addr", "add", "fd82::1/64", "dev", rig.host.interface, "nodad")
    wrong = host_tcp_errors(rig)
    server = rig.host.start("iperf3", "--server", "--one-off", "--bind", "fd82::1")
    rig.run("until iperf3 -c fd82::1 --bytes 5M; do usleep 100000; done")
    server.communicate(timeout=30)
    assert host_tcp_errors(rig) == wrong
    rig.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
    rig.host.run("sysctl", "-qw", f"net.ipv6.conf.{rig.host.interface}.disable_ipv6=1")


def test_statistics_equal_the_models(rig: Rig) -> None:
    """Traffic of several sizes and kinds: what the driver counted by the card's registers is what the model counted."""
    registers = {
        "rx_pkts_nic": reg.GPRC,
        "tx_pkts_nic": reg.GPTC,
        "rx_bytes_nic": reg.GORCL,
        "tx_bytes_nic": reg.GOTCL,
        "broadcast": reg.BPRC,
        "multicast": reg.MPRC,
        "rx_missed_errors": reg.RXMPC[0],
    }
    before, counted = rig.statistics(), {name: rig.counter(row) for name, row in registers.items()}
    frames = [frame(destination, size=size) for destination in (rig.mac(), b"\xff" * 6) for size in (60, 100, 1514)]
    assert rig.receives(frames * 10) == 60
    rig.run(f"ping -A -c 30 -s 700 -q {HOST}")
    after = rig.statistics()
    for name, row in registers.items():
        assert after[name] - before[name] == rig.counter(row) - counted[name], name
    assert after["rx_pkts_nic"] - before["rx_pkts_nic"] == 90
    assert after["broadcast"] - before["broadcast"] == 30
    assert after["tx_pkts_nic"] - before["tx_pkts_nic"] == 30


def flows(rig: Rig) -> list[bytes]:
    """64 TCP flows: of each a reset, which nobody answers."""
    result = []
    for port in range(10000, 10064):
        ports = port.to_bytes(2, "big") + (9).to_bytes(2, "big")
        result.append(ip_frame(rig, 6, ports + bytes(8) + bytes([0x50, 0x04]) + bytes(6)))
    return result


def expected_queues(rig: Rig) -> list[int]:
    """How many of `flows` each queue must get, worked out here from the key and the table that `ethtool -x` shows."""
    shown = rig.run("ethtool -x eth0")
    key = bytes.fromhex(re.search(r"RSS hash key:\s+([0-9a-f:]+)", shown)[1].replace(":", ""))  # type: ignore[index]
    rows = re.findall(r"^\s+\d+:((?:\s+\d+)+)$", shown, re.MULTILINE)
    table = [int(entry) for row in rows for entry in row.split()]
    expected = [0] * QUEUES
    for data in flows(rig):
        expected[table[toeplitz(key, data[26:38]) % 128]] += 1
    return expected


def test_flows_are_spread_over_the_queues(rig: Rig) -> None:
    """Each flow goes to the queue that its hash points to, and the guest counts it there."""
    expected = expected_queues(rig)
    before = rig.statistics()
    chosen = stored_by_queue(rig, flows(rig))
    assert chosen == expected
    assert sum(count > 0 for count in chosen) >= 3
    rig.run(f"ping -c 1 {HOST}")  # so that the guest has taken everything before
    after = rig.statistics()
    seen = [after[f"rx_queue_{queue}_packets"] - before[f"rx_queue_{queue}_packets"] for queue in range(QUEUES)]
    assert sum(seen) == 65
    assert all(0 <= seen[queue] - chosen[queue] <= 1 for queue in range(QUEUES))


def test_jumbo_frames(rig: Rig) -> None:
    """MTU 9000 on both sides: packets of that size pass unfragmented, and longer frames do not."""
    rig.host.run("ip", "link", "set", rig.host.interface, "mtu", "9000")
    rig.run("/usr/sbin/ip link set eth0 mtu 9000")
    rig.bring_up()
    before = rig.counter(reg.PRC64[5])
    assert "50 packets received" in rig.run(f"ping -A -c 50 -s 8972 -q {HOST}")
    assert rig.counter(reg.PRC64[5]) - before == 50
    rig.host.run("ip", "link", "set", rig.host.interface, "mtu", "9200")
    assert rig.receives([frame(rig.mac(), size=9014)]) == 1
    assert rig.receives([frame(rig.mac(), size=9100)]) == 0
    rig.host.run("ip", "link", "set", rig.host.interface, "mtu", "1500")
    rig.run("/usr/sbin/ip link set eth0 mtu 1500")
    rig.bring_up()


def test_vlan_filter_and_tags(rig: Rig) -> None:
    """VLAN 7 is added in the guest: its frames arrive untagged, others are filtered, what is sent there is tagged."""
    rig.run("modprobe 8021q; /usr/sbin/ip link add link eth0 name eth0.7 type vlan id 7")
    rig.run("sysctl -qw net.ipv6.conf.eth0/7.disable_ipv6=1; /usr/sbin/ip link set eth0.7 up")
    received = int(rig.run("cat /sys/class/net/eth0.7/statistics/rx_packets"))
    assert rig.receives([frame(rig.mac(), tag=7)] * 5) == 5
    assert rig.receives([frame(rig.mac(), tag=8)] * 5) == 0
    rig.run(f"ping -c 1 {HOST}")
    assert int(rig.run("cat /sys/class/net/eth0.7/statistics/rx_packets")) - received == 5
    rig.run(
        "/usr/sbin/ip addr add 10.82.100.2/24 dev eth0.7; /usr/sbin/ip neigh add 10.82.100.1 lladdr "
        "02:00:00:00:00:01 dev eth0.7"
    )
    capture = rig.host.start("tcpdump", "-i", rig.host.interface, "-c", "1", "-e", "-n", "--immediate-mode", "vlan 7")
    while "listening" not in capture.stdout.readline():
        pass
    rig.run("ping -c 1 -W 1 10.82.100.1; true")
    assert "vlan 7" in capture.communicate(timeout=30)[0]
    rig.run("/usr/sbin/ip link del eth0.7")


def test_address_filters(rig: Rig) -> None:
    """Unicast, a new MAC address, multicast groups, promiscuous mode: what the card stores changes as Linux says."""
    own, other, new = rig.mac(), bytes.fromhex("020000000099"), bytes.fromhex("026978790055")
    group = bytes.fromhex("01005e525301")
    assert rig.receives([frame(own)] * 3) == 3
    assert rig.receives([frame(other)] * 3) == 0
    assert rig.receives([frame(group)] * 3) == 0
    rig.run("/usr/sbin/ip maddr add 01:00:5e:52:53:01 dev eth0")
    assert rig.receives([frame(group)] * 3) == 3
    rig.run("/usr/sbin/ip maddr del 01:00:5e:52:53:01 dev eth0")
    rig.run("/usr/sbin/ip link set eth0 promisc on")
    assert rig.receives([frame(other)] * 3) == 3
    rig.run("/usr/sbin/ip link set eth0 promisc off")
    assert rig.receives([frame(other)] * 3) == 0
    rig.run(f"/usr/sbin/ip link set eth0 address {new.hex(':')}")
    assert rig.receives([frame(new)] * 3) == 3
    assert rig.receives([frame(own)] * 3) == 0
    rig.run(f"/usr/sbin/ip link set eth0 address {own.hex(':')}")


def udp_frame(rig: Rig, source: int, target: int, payload: bytes = bytes(18)) -> bytes:
    """From the host's address to the guest's."""
    ports = source.to_bytes(2, "big") + target.to_bytes(2, "big")
    udp = ports + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
    return ip_frame(rig, 17, udp)


def ip_frame(rig: Rig, protocol: int, segment: bytes) -> bytes:
    """The headers' checksum is right: 0 of it is what the words sum up to."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0)
    header += socket.inet_aton(HOST) + socket.inet_aton(GUEST)
    total = sum(struct.unpack("!10H", header))
    checksum = ~(total % 0xFFFF) & 0xFFFF
    header = header[:10] + checksum.to_bytes(2, "big") + header[12:]
    return (rig.mac() + bytes.fromhex("020000000001") + b"\x08\x00" + header + segment).ljust(60, b"\0")


def stored_by_queue(rig: Rig, frames: list[bytes]) -> list[int]:
    """Offer frames: how many the card stores in each queue."""
    before = [rig.queue_counter(queue, state.QUEUE_RX) for queue in range(QUEUES)]
    rig.receives(frames)
    return [rig.queue_counter(queue, state.QUEUE_RX) - before[queue] for queue in range(QUEUES)]


def test_rules_by_ethtool(rig: Rig) -> None:
    """`ethtool -N`: a flow to a queue, another one to nowhere; when the rules are deleted, both go as they did.

    The host sends a frame or two of its own, as the link has just come up.
    """

    def stored(port: int) -> list[bool]:
        """In which queues a flow is stored."""
        return [count >= 3 for count in stored_by_queue(rig, [udp_frame(rig, port, 9)] * 3)]

    rig.run("ethtool -K eth0 ntuple on")
    rig.await_link()  # the driver has reset the card
    before = {port: stored(port) for port in (7, 8, 10)}
    assert all(sum(queues) == 1 for queues in before.values())
    elsewhere = (before[7].index(True) + 1) % QUEUES
    match = f"flow-type udp4 src-ip {HOST} dst-ip {GUEST} src-port {{}} dst-port 9 action {{}} loc {{}}"
    rig.run(f"ethtool -N eth0 {match.format(7, elsewhere, 10)} && ethtool -N eth0 {match.format(8, -1, 11)}")
    shown = rig.run("ethtool -n eth0")
    assert re.search(rf"Filter: 10\n.*Action: Direct to queue {elsewhere}\n", shown, re.DOTALL), shown
    assert re.search(r"Filter: 11\n.*Action: Drop\n", shown, re.DOTALL), shown
    assert stored(7) == [queue == elsewhere for queue in range(QUEUES)]
    assert not any(stored(8))
    assert stored(10) == before[10]
    rig.run("ethtool -N eth0 delete 10 && ethtool -N eth0 delete 11")
    assert {port: stored(port) for port in before} == before
    rig.run("ethtool -K eth0 ntuple off")
    rig.bring_up()


def test_flows_are_spread_by_a_new_table(rig: Rig) -> None:
    """`ethtool -X`: two queues of four, then weights, then all."""
    frames = flows(rig)
    for words in ("equal 2", "weight 1 0 3 0", "default"):
        rig.run(f"ethtool -X eth0 {words}")
        expected = expected_queues(rig)
        assert stored_by_queue(rig, frames) == expected
        used = [queue for queue in range(QUEUES) if expected[queue]]
        assert used == {"equal 2": [0, 1], "weight 1 0 3 0": [0, 2], "default": [0, 1, 2, 3]}[words]


def test_pause_frames(rig: Rig) -> None:
    """`ethtool -A`: pause frames are obeyed, counted and not stored; pings go on afterwards.

    Switched off, they are neither obeyed nor counted, but frames for a group like others, whose filter is not exact.
    """
    pause = bytes.fromhex("0180c2000001 020000000001 8808 0001 ffff").ljust(60, b"\0")
    resume = pause[:16] + bytes(44)
    names = ("rx_flow_control_xoff", "rx_flow_control_xon")
    for switch in ("off", "on"):
        rig.run(f"ethtool -A eth0 autoneg off rx {switch} tx {switch} || [ $? = 78 ]")  # 78: it is so already
        rig.await_link()
        shown = rig.run("ethtool -a eth0")
        assert re.findall(r"^(?:RX|TX):\s+(\w+)$", shown, re.MULTILINE) == [switch] * 2, shown
        before = rig.statistics()
        stored = rig.receives([pause, pause, resume])
        assert switch == "off" or stored == 0
        after = rig.statistics()
        counted = [after[name] - before[name] for name in names]
        assert counted == ([2, 1] if switch == "on" else [0, 0])
        assert "20 packets received" in rig.run(f"ping -A -c 20 -q {HOST}")


def test_the_card_stamps_ptp_messages(rig: Rig) -> None:
    """SO_TIMESTAMPING: each PTP message sent and received has a time of the card's clock, all in order.

    Messages that are none get no stamp: the program counts only those to its port, and each has one.
    """
    count = 5
    shown = rig.run("ethtool -T eth0")
    assert "PTP Hardware Clock: 0" in shown
    running = rig.guest.start(f"{sys.executable} -IS {PROGRAMS / 'hardware_stamps.py'} eth0 {HOST} {count}")
    deadline = time.monotonic() + 60
    while "ready" not in (text := (rig.guest.place(running) / "output").read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
    for sequence in range(count):
        message = struct.pack("!BBH26xH12x", 0, 2, 44, sequence)
        rig.host.send([udp_frame(rig, 319, 319, message)])
    ended = rig.guest.wait(running)
    assert ended.exit_code == 0, ended.output
    times = json.loads(ended.output.splitlines()[-1])
    line = [times["before"], *times["sent"], *times["received"], times["after"]]
    assert line == sorted(set(line))
    assert len(line) == 2 * count + 2


def test_large_receive_offload(rig: Rig) -> None:
    """`ethtool -K lro on`: the card joins segments; what arrives in the guest is what the host sent."""
    data = random.Random(1).randbytes(4 << 20)
    rig.run("ethtool -K eth0 lro on")
    rig.await_link()
    before = rig.statistics()
    digest = rig.guest.start("nc -l -p 5000 | sha256sum")
    rig.host.run(sys.executable, "-c", _SEND_TO_GUEST, text=data.hex())
    ended = rig.guest.wait(digest)
    assert ended.output.split()[0] == hashlib.sha256(data).hexdigest()
    after = rig.statistics()
    assert after["hw_rsc_aggregated"] > before["hw_rsc_aggregated"]
    assert after["hw_rsc_flushed"] > before["hw_rsc_flushed"]
    assert after["rx_csum_offload_errors"] == before["rx_csum_offload_errors"]
    rig.run("ethtool -K eth0 lro off")
    rig.bring_up()


_SEND_TO_GUEST = f"""
import socket, sys, time
for _ in range(600):
    try:
        with socket.create_connection(("{GUEST}", 5000)) as end:
            end.sendall(bytes.fromhex(sys.stdin.read()))
            end.shutdown(socket.SHUT_WR)
            end.recv(1)
            break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""


def test_ethtool_knows_the_card(rig: Rig) -> None:
    """`ethtool -i`, `-m`, `-d`, `-e`: driver, module, registers, EEPROM."""
    assert "driver: ixgbe" in rig.run("ethtool -i eth0")
    module = rig.run("ethtool -m eth0")
    assert re.search(r"Transceiver type +: Passive Cable", module)
    assert re.search(r"Vendor PN +: SIMULATED-DAC-1M", module)
    registers = rig.run("ethtool -d eth0")
    assert re.search(r"0x042A4: LINKS .* 0x7", registers)
    eeprom = rig.run("ethtool -e eth0 offset 0 length 6")
    assert re.search(r"0x0000:\s+((?:[0-9a-f]{2} ){6})", eeprom)[1].replace(" ", "") == rig.mac().hex()  # type: ignore[index]


def test_ethtool_self_test(rig: Rig) -> None:
    """`ethtool -t offline`: registers, EEPROM, interrupts, loopback."""
    result = rig.run("ethtool -t eth0 offline", timeout=180)
    assert "The test result is PASS" in result
    assert re.findall(r"\)\s+(\d+)$", result, re.MULTILINE) == ["0"] * 5, result
    rig.bring_up()


def test_link_down_and_up_again_and_again(rig: Rig) -> None:
    for _ in range(5):
        rig.run("/usr/sbin/ip link set eth0 down; /usr/sbin/ip link set eth0 up")
        rig.await_link()
    rig.bring_up()
    assert "10 packets received" in rig.run(f"ping -A -c 10 {HOST}")


def test_driver_unloaded_and_loaded_again_and_again(rig: Rig) -> None:
    for _ in range(5):
        rig.run("rmmod ixgbe; modprobe ixgbe")
    rig.bring_up()
    assert "10 packets received" in rig.run(f"ping -A -c 10 {HOST}")


def test_nothing_went_wrong_meanwhile(rig: Rig) -> None:
    """The kernel has no warning about the driver or the card, and the card met no DMA that it was refused."""
    assert not re.search(r"WARNING|Tx Unit Hang|Adapter removed|PCIe.*error|Oops", rig.run("dmesg"))
    assert rig.attachment.machine.dma_refused(rig.attachment.cards[0].card) == 0
