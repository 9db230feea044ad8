"""The VFIO bus on QEMU's own cards, behind an emulated VT-d: the guest's kernel and IOMMU are the judges."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Guest
from in_guest import PROGRAMS, python
from ours import wait_for_file

E1000E, VIRTIO = "0000:00:08.0", "0000:01:00.0"
FIRST_OF_TWO, SECOND_OF_TWO = "0000:02:00.0", "0000:02:00.1"
USER = "nobody"

# The kernel takes two functions that have a root port to themselves for one group.
CARDS = [
    *("-device", "e1000e,addr=0x8"),
    *("-device", "pcie-root-port,id=one,addr=0x9,chassis=1"),
    *("-device", "virtio-net-pci,bus=one,iommu_platform=on,disable-legacy=on"),
    *("-device", "pcie-root-port,id=two,addr=0xa,chassis=2"),
    *("-device", "e1000e,bus=two,addr=0x0.0,multifunction=on", "-device", "e1000e,bus=two,addr=0x0.1"),
]


def bind(address: str, arguments: str = "") -> str:
    return python(f"-c 'from ixy.bus.binding import bind; bind(\"{address}\"{arguments})'")


def unbind(address: str) -> str:
    return python(f"-c 'from ixy.bus.binding import unbind; print(unbind(\"{address}\"))'")


def through_vfio(guest: Guest, *words: str) -> dict[str, Any]:
    """What the program of that name reports."""
    result = guest.run(python(" ".join([str(PROGRAMS / "through_vfio.py"), *words])))
    assert result.exit_code == 0, result.output
    return json.loads(result.output.splitlines()[-1])


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A machine whose cards are bound to vfio-pci, the second of the two that share a group excepted."""
    with Guest(tmp_path_factory.mktemp("guest") / "vfio", CARDS, iommu=True) as machine:
        result = machine.run("modprobe -a vfio-pci vfio_iommu_type1 e1000e && echo 8 > /proc/sys/vm/nr_hugepages")
        assert result.exit_code == 0, result.output
        binding = machine.run(" && ".join(bind(address) for address in (E1000E, VIRTIO, FIRST_OF_TWO)))
        assert binding.exit_code == 0, binding.output
        yield machine


def test_an_iommu_stands_before_the_cards(guest: Guest) -> None:
    """The machine has VT-d: a card is in a group, and interrupts are remapped."""
    group = guest.run(f"readlink /sys/bus/pci/devices/{E1000E}/iommu_group")
    assert "/kernel/iommu_groups/" in group.output
    assert guest.run("dmesg | grep 'Enabled IRQ remapping'").exit_code == 0


def test_registers_and_configuration(guest: Guest) -> None:
    """An 82574L is identified and written to; after closing its registers are idle memory; it opens again."""
    report = through_vfio(guest, "registers", E1000E)
    assert report["ids"] == [0x8086, 0x10D3]
    assert report["size"] == 128 << 10
    assert report["written"] == 0x1234
    assert report["vectors"] == {"INTx": 1, "MSI": 1, "MSI-X": 5}
    assert report["beyond_config"] == f"Error: {E1000E}: the configuration space ends before 0x1004"
    assert report["io_bar"] == f"UnsupportedDevice: {E1000E}: BAR 2 is not memory"
    assert report["too_many_interrupts"] == f"UnsupportedDevice: {E1000E}: 6 MSI-X interrupts: it has 5"
    assert report["after_close"] == 0
    assert report["again"] == 0x1234


def test_dma_reaches_what_is_mapped_and_nothing_else(guest: Guest) -> None:
    """A frame is sent from mapped memory. Once that is unmapped the IOMMU refuses the same, and names the card."""
    report = through_vfio(guest, "dma", E1000E)
    assert report["page_size"] == 2 << 20
    assert report["sent"]
    first, second = report["addresses"]
    assert first % (1 << 30) == 0
    assert first > 0
    assert second - first == 64 << 20
    assert report["addresses"] != report["pointers"]
    assert report["locked"] == [4 << 20, 2 << 20, 0]
    log = guest.run("dmesg").output.partition("the device is about to read what it may not")[2]
    refused = [line for line in log.splitlines() if "DMAR" in line and "DMA Read" in line]
    assert refused, log
    assert "[00:08.0]" in refused[0]
    assert f"fault addr {second:#x}" in refused[0]


def test_interrupts_arrive_at_eventfds(guest: Guest) -> None:
    """The card raises causes: two MSI-X vectors, MSI, and the line, which comes again until the cause is gone."""
    report = through_vfio(guest, "interrupts", E1000E)
    assert report == {"msix": [1, 1], "msi": 1, "line": [1, 1, 0]}


def test_all_cards_share_a_container(guest: Guest) -> None:
    """Two cards map the same ring memory: pinned once, at the same addresses, until the last one lets it go.

    The VirtIO card sends from it and interrupts; a reset stops it (its status is 15 while it runs, else 0).
    """
    report = through_vfio(guest, "container", E1000E, VIRTIO)
    assert report["same_addresses"]
    assert report["pinned"] == [2 << 20, 2 << 20, 0]
    assert report["used"] == 1
    assert report["interrupted"] == 1
    assert report["status"] == [15, 0]


def test_a_group_that_the_kernel_uses_is_refused(guest: Guest) -> None:
    """The other function of the slot is with the kernel's driver: the error names it. Bound too, both can be used."""
    assert guest.run(f"cd /sys/bus/pci/drivers/e1000e && [ -e {SECOND_OF_TWO} ]").exit_code == 0
    error = through_vfio(guest, "attempt", FIRST_OF_TWO)["error"]
    assert error.startswith(f"DeviceBusy: {FIRST_OF_TWO}: ")
    assert f"{SECOND_OF_TWO}, driver e1000e" in error
    result = guest.run(bind(SECOND_OF_TWO))
    assert result.exit_code == 0, result.output
    assert through_vfio(guest, "attempt", FIRST_OF_TWO)["error"] == "no error"


def test_an_ordinary_user(guest: Guest) -> None:
    """Refused with advice before the card was given to the user; then only the limit on locked memory counts."""
    ample, exact, small = 64 << 20, 4 << 20, 64 << 10
    refused = through_vfio(guest, "user", E1000E, USER, str(ample))
    assert refused["error"].startswith(f"PermissionDenied: {E1000E}: ")
    assert refused["error"].endswith(f"; run: sudo ixy bind --user {USER} {E1000E}")

    result = guest.run(bind(E1000E, f', user="{USER}"'))
    assert result.exit_code == 0, result.output
    assert through_vfio(guest, "user", E1000E, USER, str(exact)) == {"sent": True, "error": "no error"}

    short = through_vfio(guest, "user", E1000E, USER, str(small))["error"]
    assert short == (
        f"MemoryUnavailable: {E1000E}: the limit on locked memory is {small} bytes, but {exact} are needed; "
        f"run: sudo prlimit --pid $$ --memlock={exact}"
    )


def test_one_process_at_a_time_and_a_killed_one_leaves_nothing(guest: Guest) -> None:
    """While a process sends, a second one is refused by name. Killed, it leaves a card without DMA and no page."""
    free_pages = "cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
    before = guest.run(free_pages).output
    running = guest.start(python(f"{PROGRAMS / 'through_vfio.py'} take {E1000E}"))
    wait_for_file(guest, running, "taken")
    pid = (guest.place(running) / "pid").read_text().strip()
    error = through_vfio(guest, "attempt", E1000E)["error"]
    assert error.startswith(f"DeviceBusy: {E1000E} is in use by process {pid} ({sys.executable} ")
    assert guest.run(free_pages).output != before

    guest.run(f"kill -9 {pid}")
    assert guest.wait(running).exit_code == 137
    assert guest.run(free_pages).output == before
    assert through_vfio(guest, "again", E1000E) == {"may_master": 0, "sent": True}


def test_a_card_goes_back_to_the_kernel(guest: Guest) -> None:
    """Unbound, the card is with the kernel's driver again, which gives it an interface."""
    result = guest.run(unbind(FIRST_OF_TWO))
    assert result.output.strip() == "e1000e"
    assert guest.run(f"ls /sys/bus/pci/devices/{FIRST_OF_TWO}/net/*/address").exit_code == 0
