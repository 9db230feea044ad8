"""Our driver on simulated 82599s in a guest, through sysfs, with huge pages and the page map."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cards import guest_with_cards
from harness import Guest
from ours import (
    CARDS,
    FRAMES,
    A,
    B,
    check_forwarded,
    check_sunk,
    driver,
    free_pages,
    kernel_drivers,
    kill_under_traffic,
    python,
)

from ixy.sim.pci.attachment import Attachment


@pytest.fixture(scope="module")
def sysfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Attachment]]:
    """A machine without an IOMMU whose kernel drives both cards."""
    with guest_with_cards(tmp_path_factory.mktemp("guest") / "sysfs", CARDS) as machine:
        result = machine[0].run("echo 32 > /proc/sys/vm/nr_hugepages && modprobe ixgbe")
        assert result.exit_code == 0, result.output
        yield machine


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


def test_killed_under_traffic_the_next_start_works(sysfs: tuple[Guest, Attachment]) -> None:
    """SIGKILL while packets flow, through sysfs: no huge page stays taken, and the next process forwards."""
    guest, attachment = sysfs
    before = free_pages(guest)
    kill_under_traffic(guest)
    assert free_pages(guest) == before
    check_forwarded(driver(guest, "forward", A, B, str(FRAMES)), attachment)


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
