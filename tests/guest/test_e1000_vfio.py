"""The driver of the gigabit cards through VFIO, on QEMU's models behind an emulated VT-d: as an ordinary user, with
interrupts by MSI-X on an 82574 and by the line on an 82540."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from harness import Guest
from in_guest import PROGRAMS, python

CARDS = {0x10: "e1000e", 0x12: "e1000"}  # those that ixy drives; Linux's are in the slots after them
FRAMES = 150
USER = "nobody"


def slot(number: int) -> str:
    return f"0000:00:{number:02x}.0"


def arguments() -> list[str]:
    result: list[str] = []
    for hub, (number, model) in enumerate(CARDS.items()):
        for place in (number, number + 1):
            result += ["-netdev", f"hubport,id=port{place},hubid={hub}"]
            mac = f"mac=52:54:00:00:00:{place:02x}"
            result += ["-device", f"{model},netdev=port{place},addr={place:#x},{mac},romfile="]
    return result


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A machine without huge pages, whose cards are bound to vfio-pci for an ordinary user."""
    with Guest(tmp_path_factory.mktemp("guest") / "gigabit_vfio", arguments(), iommu=True) as machine:
        assert machine.run("modprobe -a vfio-pci vfio_iommu_type1 e1000e e1000 af_packet").exit_code == 0
        addresses = [slot(number) for number in CARDS]
        code = f"from ixy.bus.binding import bind; [bind(address, user='{USER}') for address in {addresses}]"
        result = machine.run(python(f'-c "{code}"'), 200)
        assert result.exit_code == 0, result.output
        yield machine


@pytest.mark.parametrize("number", CARDS, ids=["82574L", "82540EM"])
def test_an_ordinary_user(guest: Guest, number: int) -> None:
    """Frames pass each way, filters filter, who sleeps is woken; the IOMMU finds nothing to refuse."""
    program = PROGRAMS / "e1000_pair.py"
    result = guest.run(python(f"{program} {slot(number)} {slot(number + 1)} {FRAMES} {USER}"), timeout=300)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["lengths"] == [FRAMES, FRAMES]
    assert report["to_kernel"]
    assert report["from_kernel"]
    assert report["rx_errors"] == report["rx_refused"] == 0
    assert report["woken"] is True
    assert report["filtered"] == [1, 2, 6, 7, 8, 9]
    assert "DMAR: [DMA" not in guest.run("dmesg").output
