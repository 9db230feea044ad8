"""Linux's own ixgbe driver where it gets no messages: the simulated 82599 interrupts by its line (INTx)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from cards import guest_with_cards
from namespace import Namespace
from rig import GUEST, HOST, Rig

PINGS = 200


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A guest whose kernel uses no message-signalled interrupts."""
    directory = tmp_path_factory.mktemp("guest") / "line"
    with (
        guest_with_cards(directory, ["sim:a,tap=ixyline0"], kernel_arguments=["pci=nomsi"]) as (guest, attachment),
        Namespace("ixyline", "ixyline0", f"{HOST}/24") as host,
    ):
        rig = Rig(guest, attachment, host)
        print(f"boot: {guest.boot_seconds:.1f} s")
        rig.run("dmesg -c > /dev/null; modprobe ixgbe")
        rig.bring_up()
        yield rig


def line_interrupts(rig: Rig) -> int:
    """How often the line of eth0 has interrupted; it is one of the I/O APIC's, which other devices may share."""
    (row,) = [row for row in rig.run("cat /proc/interrupts").splitlines() if re.search(r"\beth0\b", row)]
    found = re.match(r"\s*\d+:\s+(\d+)\s+IO-APIC\s+\d+-fasteoi\s", row)
    assert found, row
    return int(found[1])


def test_link_is_up(rig: Rig) -> None:
    """The driver falls back to the line, and the change of the link reaches it there."""
    messages = rig.run("dmesg")
    assert "NIC Link is Up 10 Gbps" in messages, messages
    assert rig.run("cat /sys/class/net/eth0/speed").strip() == "10000"
    assert line_interrupts(rig) > 0


@pytest.mark.parametrize("side", ["guest", "host"])
def test_ping(rig: Rig, side: str) -> None:
    """Two hundred of two hundred, and the line's count has grown."""
    before = line_interrupts(rig)
    if side == "guest":
        assert f"{PINGS} packets received" in rig.run(f"ping -A -c {PINGS} -q {HOST}")
    else:
        assert f"{PINGS} received" in rig.host.run("ping", "-A", "-c", str(PINGS), "-q", GUEST)
    assert line_interrupts(rig) > before


def test_nothing_went_wrong_meanwhile(rig: Rig) -> None:
    """No interrupt that nobody wanted, no hung queue, no DMA that was refused."""
    assert not re.search(r"WARNING|nobody cared|Tx Unit Hang|Adapter removed|Oops", rig.run("dmesg"))
    assert rig.attachment.machine.dma_refused(rig.attachment.cards[0].card) == 0
