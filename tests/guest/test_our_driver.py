"""Our driver on simulated 82599s in a guest, through sysfs, with huge pages and the page map."""

from __future__ import annotations

import json
import sys
import time
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
    free_pages,
    kernel_drivers,
    killed_under_traffic,
    offer,
    silence,
    wait_for_file,
    wait_until,
)

from ixy.sim.qemu.attachment import Attachment


@pytest.fixture(scope="module")
def sysfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Attachment]]:
    """A machine without an IOMMU whose kernel drives both cards."""
    with guest_with_cards(tmp_path_factory.mktemp("guest") / "sysfs", CARDS) as machine:
        result = machine[0].run("echo 32 > /proc/sys/vm/nr_hugepages && modprobe ixgbe")
        assert result.exit_code == 0, result.output
        yield machine


def test_a_look_at_a_card_of_the_kernels(sysfs: tuple[Guest, Attachment]) -> None:
    """Its driver keeps it; what sysfs says is told, and where this kernel keeps registers from others, that."""
    guest, attachment = sysfs
    report = driver(guest, "look_at", A)
    assert (report["kernel_driver"], report["state"]) == ("ixgbe", "nobody: the kernel's ixgbe has it")
    assert report["mac"] == attachment.cards[0].card.mac.hex(":")
    assert "registers" in report or "the kernel leaves its registers to its driver" in report["error"]
    assert kernel_drivers(guest) == ["ixgbe", "ixgbe"]


def test_two_cards_are_taken_from_the_kernel(sysfs: tuple[Guest, Attachment]) -> None:
    """The kernel's ixgbe has both cards. Ours forwards from one to the other: frames arrive in order and unchanged."""
    guest, attachment = sysfs
    assert kernel_drivers(guest) == ["ixgbe", "ixgbe"]
    started = time.monotonic()
    report = driver(guest, "forward", A, B, str(FRAMES))
    print(f"{FRAMES} frames forwarded by interpreted code, start included: {time.monotonic() - started:.1f} s")
    check_forwarded(report, attachment)
    check_sunk(attachment, report["tx"])
    # The first card fills its ring while the second one is still being opened: some frames find no descriptor.
    assert attachment.machine.sink_report("a", "b").lost <= report["dropped"]


def test_one_process_at_a_time(sysfs: tuple[Guest, Attachment]) -> None:
    """While one process forwards, a second one is refused, and told which process has the card."""
    guest, _ = sysfs
    with killed_under_traffic(guest) as pid:
        error = driver(guest, "attempt", A, B, "1")["error"]
    assert error.startswith(f"DeviceBusy: {A} is in use by process {pid} ({sys.executable} ")


def test_a_look_at_a_card_that_another_process_drives(sysfs: tuple[Guest, Attachment]) -> None:
    """It serves no telemetry, so registers are read beside it; it goes on forwarding."""
    guest, attachment = sysfs
    with killed_under_traffic(guest) as pid:
        report = driver(guest, "look_at", A)
        before = attachment.machine.sink_report("a", "b").received
        wait_until(lambda: attachment.machine.sink_report("a", "b").received > before + 100)
    assert report["state"].startswith(f"process {pid} ({sys.executable} ")
    assert report["state"].endswith("), which serves this user no telemetry")
    assert (report["model"], report["bus"], report["open_by"]) == ("82599ES SFP+", "sysfs", None)
    assert (report["mac"], report["link_speed"]) == (attachment.cards[0].card.mac.hex(":"), 10_000)
    assert report["registers"]["RDLEN[0]"] == 16 * 4096
    assert report["registers"]["RXDCTL[0]"] & 1 << 25


def test_a_look_into_a_card(sysfs: tuple[Guest, Attachment]) -> None:
    """By the process that has it open: besides, what is in its EEPROM, and its counters."""
    guest, attachment = sysfs
    report = driver(guest, "look_into", A)
    assert (report["driver"], report["bus"], report["firmware"]) == ("ixgbe", "sysfs", "0x80000599")
    assert (report["pcie_speed"], report["pcie_width"], report["rx_queues"]) == (5.0, 8, 1)
    assert report["mac"] == attachment.cards[0].card.mac.hex(":")
    # All good packets, and those of them for which there was a descriptor
    assert report["counters"]["GPRC"] >= report["counters"]["QPRC[0]"] > 0
    assert report["registers"]["RXDCTL[0]"] & 1 << 25


def test_killed_under_traffic_the_card_is_stopped_first(sysfs: tuple[Guest, Attachment]) -> None:
    """SIGKILL while packets flow, through sysfs: all huge pages are free again, and no DMA lands in them.

    Whoever has all pages then finds in them what it wrote, after the card was offered more frames than its ring has
    descriptors. The next process forwards.
    """
    guest, attachment = sysfs
    before = free_pages(guest)
    refused = dma_refused(attachment)
    with killed_under_traffic(guest):
        assert free_pages(guest) != before
    with silence(attachment):
        running = guest.start(python(str(PROGRAMS / "all_pages.py")))
        wait_for_file(guest, running, "filled")
    offer(attachment, 5000)
    (guest.place(running) / "look").touch()
    report = json.loads(guest.wait(running).output)
    assert report == {"pages": int(before), "changed": []}
    assert dma_refused(attachment) == refused
    check_stopped(attachment)
    check_forwarded(driver(guest, "forward", A, B, str(FRAMES)), attachment)
    assert free_pages(guest) == before


def test_the_kernel_drives_the_cards_again(sysfs: tuple[Guest, Attachment]) -> None:
    """Given back, the cards are with the kernel's ixgbe: its link comes up, and it receives frames."""
    guest, _ = sysfs
    code = f'from ixy.bus.binding import unbind; print(unbind("{A}"), unbind("{B}"))'
    assert guest.run(python(f"-c '{code}'")).output.split() == ["ixgbe", "ixgbe"]
    up = f"""
        cd /sys/bus/pci/devices/{A}/net/*
        ip link set $(basename $PWD) promisc on
        ip link set $(basename $PWD) up
        until [ "$(cat carrier)" = 1 -a "$(cat statistics/rx_packets)" -ge 1000 ]; do usleep 10000; done
        cat speed
        ip link set $(basename $PWD) down
    """
    assert guest.run(up).output.split() == ["10000"]
    assert guest.run("dmesg | grep -iE 'ixgbe.*(fail|error|hang)'").output == ""
