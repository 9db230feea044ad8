"""Linux's own ixgbe driver on a simulated X540: its PHY, and the time stamps of PTP messages."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cards import guest_with_cards
from namespace import Namespace
from rig import GUEST, HOST, Rig

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("guest") / "x540"
    with (
        guest_with_cards(directory, ["sim:a,card=x540,tap=ixyx540"]) as (guest, attachment),
        Namespace("ixyx540", "ixyx540", f"{HOST}/24") as host,
    ):
        rig = Rig(guest, attachment, host)
        rig.run("dmesg -c > /dev/null; modprobe ixgbe")
        (directory / "probe").write_text(rig.run("dmesg"))
        rig.bring_up()
        yield rig


def test_probe_without_a_warning(rig: Rig) -> None:
    """The driver knows the kind of card, and the link comes up with pause frames both ways."""
    messages = rig.run("dmesg -r | grep -i ixgbe")
    levels = [int(level) & 7 for level in re.findall(r"^<(\d+)>", messages, re.MULTILINE)]
    assert levels
    assert min(levels) >= 5, messages
    assert "MAC: 3, PHY: 0" in messages  # an X540, whose PHY it has not looked for yet
    assert "NIC Link is Up 10 Gbps, Flow Control: RX/TX" in rig.run("dmesg")


def test_ping_both_ways(rig: Rig) -> None:
    assert "200 packets received" in rig.run(f"ping -A -c 200 -q {HOST}")
    assert "200 received" in rig.host.run("ping", "-A", "-c", "200", "-q", GUEST)


def test_negotiated_speed(rig: Rig) -> None:
    """`ethtool -s advertise`: without 10 Gbit/s it is 1, then 10 again."""
    for advertised, speed in (("0x20", 1000), ("0x1020", 10_000)):
        rig.run(f"ethtool -s eth0 advertise {advertised}")
        rig.run(f'until [ "$(cat /sys/class/net/eth0/speed)" = {speed} ]; do usleep 10000; done')
    assert "10 packets received" in rig.run(f"ping -A -c 10 -q {HOST}")


def test_eeprom_and_self_test(rig: Rig) -> None:
    eeprom = rig.run("ethtool -e eth0 offset 0 length 6")
    assert re.search(r"0x0000:\s+((?:[0-9a-f]{2} ){6})", eeprom)[1].replace(" ", "") == rig.mac().hex()  # type: ignore[index]
    result = rig.run("ethtool -t eth0 offline", timeout=180)
    assert re.findall(r"\)\s+(\d+)$", result, re.MULTILINE) == ["0"] * 5, result
    rig.bring_up()


def test_stamps(rig: Rig) -> None:
    """SO_TIMESTAMPING of a message that is sent and one that arrives; the card's clock goes as fast as the guest's."""
    assert "hardware-raw-clock" in rig.run("ethtool -T eth0")
    rig.run("/usr/sbin/ip link set eth0 promisc on")
    number = rig.guest.start(f"{sys.executable} {PROGRAMS / 'ptp_stamps.py'} eth0")
    output = rig.guest.place(number) / "output"
    deadline = time.monotonic() + 60
    while "ready" not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.01)
    message = bytes([0, 2, 0, 44]) + bytes(40)
    rig.host.send([bytes.fromhex("011b19000000 020000000002 88f7") + message])
    result = rig.guest.wait(number)
    assert result.exit_code == 0, result.output
    assert 0.9 < float(re.search(r"rate (\S+)", result.output)[1]) < 1.1  # type: ignore[index]


def test_nothing_went_wrong_meanwhile(rig: Rig) -> None:
    assert not re.search(r"WARNING|Tx Unit Hang|Timestamp hang|Adapter removed|Oops", rig.run("dmesg"))
    assert rig.attachment.machine.dma_refused(rig.attachment.cards[0].card) == 0
