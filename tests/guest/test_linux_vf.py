"""Linux's own ixgbevf driver on virtual functions of a simulated 82599, whose physical function has our driver."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from cards import guest_with_cards
from namespace import Namespace
from rig import GUEST, HOST, Rig

from ixy.registers import i82599 as reg
from ixy.sim.checklist import report_of

OTHER = "10.82.99.3"
IP = "/usr/sbin/ip"
SECOND = f"{IP} netns exec second"


class Functions(Rig):
    """The first function is eth0, and the second eth1, in a namespace of the guest's."""

    def second(self, command: str) -> str:
        return self.run(f"{SECOND} sh -c '{command}'")

    def bring_up_second(self) -> None:
        self.second(f"sysctl -qw net.ipv6.conf.eth1.disable_ipv6=1; {IP} link set eth1 up")
        self.second(f"{IP} addr replace {OTHER}/24 dev eth1")
        self.second("until [ $(cat /sys/class/net/eth1/carrier) = 1 ]; do usleep 10000; done")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Functions]:
    directory = tmp_path_factory.mktemp("guest") / "vf"
    addresses = ["sim:a.vf0,vfs=2,tap=ixyvf0", "sim:a.vf1"]
    with (
        guest_with_cards(directory, addresses) as (guest, attachment),
        Namespace("ixyvf", "ixyvf0", f"{HOST}/24") as host,
    ):
        rig = Functions(guest, attachment, host)
        rig.run("dmesg -c > /dev/null; modprobe ixgbevf")
        (directory / "probe").write_text(rig.run("dmesg"))
        rig.bring_up()
        rig.run(f"{IP} netns add second && {IP} link set eth1 netns second")
        rig.bring_up_second()
        yield rig


def test_probe_without_a_warning(rig: Functions) -> None:
    """It gets its address from the mailbox, and four queues."""
    messages = rig.run("dmesg -r | grep -i ixgbevf")
    levels = [int(level) & 7 for level in re.findall(r"^<(\d+)>", messages, re.MULTILINE)]
    assert levels
    assert min(levels) >= 5, messages
    assert "02:69:78:79:80:01" in messages
    assert "NIC Link is Up 10 Gbps" in rig.run("dmesg")


def test_ping_both_ways(rig: Functions) -> None:
    assert "200 packets received" in rig.run(f"ping -A -c 200 -q {HOST}")
    assert "200 received" in rig.host.run("ping", "-A", "-c", "200", "-q", GUEST)


def test_ping_from_function_to_function(rig: Functions) -> None:
    """By the card's switch: the wire does not see them, but who asks for the address is seen by all."""
    before = rig.counter(reg.GPTC)
    assert "200 packets received" in rig.run(f"ping -A -c 200 -q {OTHER}")
    assert rig.counter(reg.GPTC) - before < 20
    first, second = (function.virtual for function in rig.attachment.functions)
    assert min(first.sent, second.received) >= 200


@pytest.mark.parametrize("direction", ["", "--reverse"], ids=["send", "receive"])
def test_tcp_with_all_offloads(rig: Functions, direction: str) -> None:
    """TCP with segmentation and checksums by the function, along the wire."""
    server = rig.host.start("iperf3", "--server", "--one-off", "--bind", HOST)
    report = json.loads(
        rig.run(f"until iperf3 -c {HOST} --bytes 4M --json {direction} > r; do usleep 100000; done; cat r")
    )
    server.communicate(timeout=30)
    assert report["end"]["sum_sent"]["bytes"] >= 4 << 20
    print(f"TCP {direction}: {report['end']['sum_received']['bits_per_second'] / 1e6:.0f} Mbit/s")


def test_tcp_from_function_to_function(rig: Functions) -> None:
    server = rig.guest.start(f"{SECOND} iperf3 --server --one-off --bind {OTHER}")
    rig.run(f"until iperf3 -c {OTHER} --bytes 4M; do usleep 100000; done")
    assert rig.guest.wait(server).exit_code == 0


def test_statistics_equal_the_models(rig: Functions) -> None:
    """What the driver counted by the function's registers is what the model counted."""
    function = rig.attachment.functions[0].virtual
    rig.run("ping -A -c 30 -s 700 -q " + HOST)
    shown = rig.statistics()
    assert shown["rx_packets"] > 30
    rx, tx = rig.run("cat /sys/class/net/eth0/statistics/rx_packets /sys/class/net/eth0/statistics/tx_packets").split()
    assert (int(rx), int(tx)) == (function.received, function.sent)


def test_reset_by_a_change_of_mtu(rig: Functions) -> None:
    """MTU 9000: the driver asks for it by the mailbox, and resets the function; frames of that size pass."""
    rig.host.run("ip", "link", "set", rig.host.interface, "mtu", "9000")
    rig.run(f"{IP} link set eth0 mtu 9000")
    rig.bring_up()
    assert "20 packets received" in rig.run(f"ping -A -c 20 -s 8972 -q {HOST}")
    rig.host.run("ip", "link", "set", rig.host.interface, "mtu", "1500")
    rig.run(f"{IP} link set eth0 mtu 1500")
    rig.bring_up()


def test_vlan(rig: Functions) -> None:
    """VLAN 7, which both functions join by the mailbox: they reach each other there, and nobody else is in it."""
    rig.run("modprobe 8021q")
    for run, interface, address in ((rig.run, "eth0", "10.7.0.2"), (rig.second, "eth1", "10.7.0.3")):
        run(f"{IP} link add link {interface} name v7 type vlan id 7; sysctl -qw net.ipv6.conf.v7.disable_ipv6=1")
        run(f"{IP} addr add {address}/24 dev v7; {IP} link set v7 up")
    assert "20 packets received" in rig.run("ping -A -c 20 -q 10.7.0.3")
    rig.second(f"{IP} link del v7")
    assert "0 packets received" in rig.run("ping -c 1 -W 1 -q 10.7.0.3; true")
    rig.run(f"{IP} link del v7")


def test_another_address(rig: Functions) -> None:
    """The function may have another one, but not that of the other function, which is refused."""
    own, second = rig.mac(), bytes.fromhex(rig.second("cat /sys/class/net/eth1/address").strip().replace(":", ""))
    new = bytes.fromhex("026978790055")
    rig.run(f"{IP} link set eth0 address {new.hex(':')}")
    assert rig.guest.run(f"{IP} link set eth0 address {second.hex(':')}").exit_code != 0
    assert rig.mac() == new
    rig.run(f"{IP} link set eth0 address {own.hex(':')}")
    rig.bring_up()
    assert "10 packets received" in rig.run(f"ping -A -c 10 -q {HOST}")


def test_ethtool_self_test(rig: Functions) -> None:
    """`ethtool -t offline`: the function's registers, and the link."""
    result = rig.run("ethtool -t eth0 offline", timeout=180)
    assert "The test result is PASS" in result, result
    rig.bring_up()


def test_driver_unloaded_and_loaded_again(rig: Functions) -> None:
    rig.run("rmmod ixgbevf; modprobe ixgbevf")
    rig.bring_up()
    assert "10 packets received" in rig.run(f"ping -A -c 10 -q {HOST}")


def test_nothing_went_wrong_meanwhile(rig: Functions) -> None:
    """The kernel has no warning, the functions met no DMA that was refused, and broke no rule that is punished."""
    assert not re.search(r"WARNING|Tx Unit Hang|Adapter removed|Oops", rig.run("dmesg"))
    (card,) = rig.attachment.simulated
    assert rig.attachment.machine.dma_refused(card) == 0
    assert [rule.sentence for rule in report_of(card).broken if rule.punished] == []
    for function in rig.attachment.functions:
        assert (function.virtual.spoofed, function.virtual.dma_refused) == (0, 0)
