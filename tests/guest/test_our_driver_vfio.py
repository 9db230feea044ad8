"""Our driver on simulated 82599s in a guest, through VFIO: the model honours the guest's IOMMU."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from cards import guest_with_cards
from harness import Guest
from in_guest import PROGRAMS, python
from ours import (
    CARDS,
    FRAMES,
    A,
    B,
    check_forwarded,
    check_stopped,
    check_sunk,
    dma_refused,
    driver,
    killed_under_traffic,
    silence,
    wait_for_file,
)

from ixy.sim.card.state import DMA_ADDRESS
from ixy.sim.qemu.attachment import Attachment

USER = "nobody"


@pytest.fixture(scope="module")
def vfio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Attachment]]:
    """A machine with an IOMMU whose cards are bound to vfio-pci for an ordinary user. It has no huge pages."""
    with guest_with_cards(tmp_path_factory.mktemp("guest") / "vfio", CARDS, iommu=True) as machine:
        code = f'from ixy.bus.binding import bind; [bind(address, user="{USER}") for address in ("{A}", "{B}")]'
        result = machine[0].run("modprobe -a vfio-pci vfio_iommu_type1 && " + python(f"-c '{code}'"))
        assert result.exit_code == 0, result.output
        yield machine


def test_an_ordinary_user_through_vfio(vfio: tuple[Guest, Attachment]) -> None:
    """The limit on locked memory is too small for one card, then for two: each error says the number needed."""
    guest, attachment = vfio
    limit = 64 << 10
    limits = []
    while "error" in (report := driver(guest, "forward_as", USER, str(limit), A, B, str(FRAMES))):
        needed = re.fullmatch(
            rf"MemoryUnavailable: \S+: the limit on locked memory is {limit} bytes, but (\d+) are needed; run: .*",
            report["error"],
        )
        assert needed, report["error"]
        limit = int(needed[1])
        limits.append(limit)
    assert len(limits) == 2
    assert limits[1] == 2 * limits[0]
    check_forwarded(report, attachment)
    check_sunk(attachment, report["tx"])
    assert dma_refused(attachment) == 0


def test_a_look_into_a_card_through_vfio(vfio: tuple[Guest, Attachment]) -> None:
    """Only the process that has it open can look, and tells; from outside there is what sysfs says."""
    guest, attachment = vfio
    report = driver(guest, "look_into", A)
    assert (report["driver"], report["bus"], report["firmware"]) == ("ixgbe", "VFIO", "0x80000599")
    assert report["mac"] == attachment.cards[0].card.mac.hex(":")
    assert (report["pcie_speed"], report["pcie_width"]) == (5.0, 8)
    assert "64 interrupts by MSI-X" in report["features"]
    assert report["counters"]["GPRC"] > 0
    with killed_under_traffic(guest) as pid:
        report = driver(guest, "look_at", A)
    assert report["state"].startswith(f"process {pid} (")
    assert (report["model"], report["kernel_driver"]) == ("82599ES SFP+", "vfio-pci")


def test_interrupts_through_vfio(vfio: tuple[Guest, Attachment]) -> None:
    """The driver sleeps while no frame comes; the next one wakes it, by MSI-X."""
    guest, attachment = vfio
    with silence(attachment):
        running = guest.start(python(f"{PROGRAMS / 'our_driver.py'} wait_for_packets {A}"))
        wait_for_file(guest, running, "asleep")
    result = guest.wait(running)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["woken"]
    assert report["received"] > 0


def test_a_process_killed_under_traffic_leaves_a_card_that_is_reset(vfio: tuple[Guest, Attachment]) -> None:
    """SIGKILL while packets flow, through VFIO: the kernel resets the card before it frees memory: no DMA is late."""
    guest, attachment = vfio
    with killed_under_traffic(guest):
        pass
    assert dma_refused(attachment) == 0
    check_stopped(attachment)
    check_forwarded(driver(guest, "forward", A, B, str(FRAMES)), attachment)


def test_dma_that_the_iommu_does_not_allow_is_refused(vfio: tuple[Guest, Attachment]) -> None:
    """A driver that takes the packet buffers out of the IOMMU while the card receives: the card is refused."""
    guest, attachment = vfio
    report = driver(guest, "withdraw_memory", A)
    assert dma_refused(attachment) > 0
    address = int(attachment.machine.rack.counters[attachment.cards[0].card.index, DMA_ADDRESS])
    assert report["first"] <= address < report["end"]
