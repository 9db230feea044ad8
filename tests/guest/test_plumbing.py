"""A process as PCI hardware: a device made for the test answers Linux, reaches its memory and interrupts it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Guest, GuestDeathError
from plumbing import ADDRESS, IDENTITY, TestDevice, guest_with_device

from ixy.sim.qemu.memory import NO_MEMORY

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, TestDevice]]:
    with guest_with_device(tmp_path_factory.mktemp("guest") / "plumbing", iommu=True) as machine:
        yield machine


@pytest.fixture(scope="module")
def machine_without_iommu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, TestDevice]]:
    """One that can be restarted: QEMU crashes when a machine with an IOMMU and a proxied device is."""
    directory = tmp_path_factory.mktemp("guest") / "restarted"
    with guest_with_device(directory, ["-action", "reboot=reset"]) as machine:
        yield machine


def report_of(guest: Guest, program: str) -> dict[str, Any]:
    """What a program, run in the guest, prints as JSON."""
    result = guest.run(f"{sys.executable} {PROGRAMS / program} {ADDRESS}")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_linux_reaches_registers_and_the_device_reaches_memory(machine: tuple[Guest, TestDevice]) -> None:
    """Through sysfs: identification, BARs, register access, DMA with and without bus mastering, function reset."""
    guest, _ = machine
    report = report_of(guest, "plumbing_sysfs.py")
    assert report["ids"] == ["0x8086", "0x10fb", "0x020000", "0x000c"]
    ranges = [[int(word, 16) for word in line.split()] for line in report["resource"]]
    assert ranges[0][1] - ranges[0][0] + 1 == 512 << 10
    assert ranges[4][1] - ranges[4][0] + 1 == 16 << 10
    assert all(end == 0 for i, (_, end, _) in enumerate(ranges) if i not in (0, 4))
    assert report["identity"] == IDENTITY
    assert report["end"] == 0xFFFFFFFF
    assert report["scratch"] == 0xCAFE
    assert report["dma_without_bus_master"] == 0
    assert report["dma"] == 1
    assert report["inverted"] == bytes(255 - i for i in range(16)).hex()
    assert report["dma_to_nowhere"] == 0
    assert report["scratch_after_reset"] == 0
    print(f"register read from the guest: {report['read_microseconds']} µs")


def test_interrupts_arrive(machine: tuple[Guest, TestDevice]) -> None:
    """Through VFIO: MSI-X vectors with mask and pending bit, the INTA line as a level, reset."""
    guest, _ = machine
    assert guest.run("modprobe -a vfio-pci vfio_iommu_type1").exit_code == 0
    report = report_of(guest, "plumbing_vfio.py")
    assert report["identity"] == IDENTITY
    assert report["msix"] == [1, 1, 1, 1]
    assert report["pending"] == 1 << 5
    assert report["while_masked"] == 0
    assert report["unmasked"] == 1
    assert report["still_pending"] == 0
    assert report["intx"] == [1, 1, 0]
    assert report["scratch_after_reset"] == 0
    print(f"from a register write in the guest to its interrupt's event: {report['interrupt_microseconds']} µs")


def test_the_death_of_qemu_ends_the_service(machine: tuple[Guest, TestDevice]) -> None:
    """QEMU is killed: the thread that serves the device comes to its end, for which the fixture waits."""
    guest, _ = machine
    guest.kill()
    with pytest.raises(GuestDeathError):
        guest.run("true")


def test_a_reboot_resets_the_device_and_it_works_again(machine_without_iommu: tuple[Guest, TestDevice]) -> None:
    """The machine restarts with values in registers: they are gone, and Linux finds the device once more."""
    guest, device = machine_without_iommu
    report_of(guest, "plumbing_sysfs.py")
    device.write(4, 4, 0xCAFE)
    guest.reboot()
    assert device.read(4, 4) == 0
    assert device.memory is NO_MEMORY
    assert report_of(guest, "plumbing_sysfs.py")["dma"] == 1


def test_a_guest_survives_the_death_of_its_device(machine_without_iommu: tuple[Guest, TestDevice]) -> None:
    """The device goes while Linux uses it: reads give ones, as from a card that was pulled out, and nothing hangs."""
    guest, _ = machine_without_iommu
    report = report_of(guest, "plumbing_death.py")
    assert report == {"before": IDENTITY, "after": 0xFFFFFFFF}
    assert guest.run("echo alive").output == "alive\n"
