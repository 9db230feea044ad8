"""The VirtIO driver on QEMU's virtio-net-pci, with Linux's driver at the other end of a hub."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from harness import Guest
from in_guest import PROGRAMS, python

PROGRAM = PROGRAMS / "virtio_pair.py"

# Which interface and rings the card offers, and in which slot it is; Linux's card is in the slot after it.
CARDS = {
    "legacy": (0x10, "disable-modern=on,disable-legacy=off"),
    "modern": (0x12, "disable-legacy=on"),
    "packed": (0x14, "disable-legacy=on,packed=on"),
}
FRAMES = 1000


def arguments() -> list[str]:
    """A hub for each kind of card, with that card and one for Linux."""
    result: list[str] = []
    for hub, (slot, options) in enumerate(CARDS.values()):
        for place, more in ((slot, f",{options}"), (slot + 1, "")):
            result += ["-netdev", f"hubport,id=port{place},hubid={hub}"]
            mac = f"mac=52:54:00:00:00:{place:02x}"
            result += ["-device", f"virtio-net-pci,netdev=port{place},addr={place:#x},{mac}{more}"]
    return result


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with Guest(tmp_path_factory.mktemp("guest") / "virtio", arguments()) as guest:
        assert guest.run("modprobe virtio_net af_packet; true").exit_code == 0
        yield guest


@pytest.mark.parametrize("kind", CARDS)
def test_a_thousand_frames_pass_each_way(guest: Guest, kind: str) -> None:
    """Frames of 60 to 1,514 bytes: Linux receives what the driver sends, the driver what Linux sends, all in order.
    Then the filters: a stranger's frame and one of another VLAN stay out; to the station's own and its new address, and
    of the VLAN and to the group and the station that were asked for, they come in.
    """
    slot, _ = CARDS[kind]
    ours, theirs = f"0000:00:{slot:02x}.0", f"0000:00:{slot + 1:02x}.0"
    result = guest.run(python(f"{PROGRAM} {ours} {theirs} {FRAMES}"), timeout=300)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["lengths"] == [FRAMES, FRAMES]
    assert report["to_kernel"]
    assert report["from_kernel"]
    assert report["tx_packets"] == FRAMES
    assert report["rx_errors"] == report["rx_refused"] == 0
    assert report["link"]
    assert report["mac"] == f"52:54:00:00:00:{slot:02x}"
    if kind == "legacy":
        assert report["woken"].startswith(f"{ours}: no interrupts from a legacy device; poll, or")
    else:
        assert report["woken"] == f"{ours}: 1 MSI-X interrupts: sysfs delivers none; poll, or run: sudo ixy bind {ours}"
    assert report["filtered"] == [1, 2, 4, 5, 6]
    assert ("VERSION_1" in report["features"]) == (kind != "legacy")
    assert ("RING_PACKED" in report["features"]) == (kind == "packed")
