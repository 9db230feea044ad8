"""The VirtIO driver through VFIO: QEMU's virtio-net-pci behind an emulated VT-d."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from harness import Guest
from in_guest import PROGRAMS, python
from namespace import Namespace

# Slots and options of the cards to drive. Linux's card is in the slot after each of the pairs.
BEHIND_IOMMU = "iommu_platform=on,disable-legacy=on"
PAIRS = {"split": (0x10, BEHIND_IOMMU), "packed": (0x12, f"{BEHIND_IOMMU},packed=on")}
TWO_QUEUES = 0x14
BYPASSING = {"legacy": (0x15, "disable-modern=on,disable-legacy=off"), "modern": (0x16, "disable-legacy=on")}
FRAMES = 1000

# From linux/if_tun.h
_TUNSETIFF, _TAP, _MULTI_QUEUE, _NO_PI = 0x400454CA, 0x2, 0x100, 0x1000


def slot(number: int) -> str:
    return f"0000:00:{number:02x}.0"


def card(number: int, options: str, netdev: str = "") -> list[str]:
    """Arguments for a card in slot `number`."""
    words = ["virtio-net-pci", f"addr={number:#x}", f"mac=52:54:00:00:00:{number:02x}", netdev, options]
    return ["-device", ",".join(word for word in words if word)]


def arguments(tap: list[int]) -> list[str]:
    """A hub for each pair, a TAP device with two queues, and cards that no wire leads to."""
    result = ["-netdev", f"tap,id=tap,fds={':'.join(map(str, tap))}"]
    result += card(TWO_QUEUES, f"{BEHIND_IOMMU},mq=on,vectors=6", "netdev=tap")
    for hub, (number, options) in enumerate(PAIRS.values()):
        for place, more in ((number, options), (number + 1, "")):
            result += ["-netdev", f"hubport,id=port{place},hubid={hub}", *card(place, more, f"netdev=port{place}")]
    for number, options in BYPASSING.values():
        result += card(number, options)
    return result


@contextmanager
def tap_queues(name: str) -> Iterator[list[int]]:
    """A TAP device with two queues, as file descriptors."""
    with ExitStack() as stack:
        fds: list[int] = []
        for _ in range(2):
            fd = os.open("/dev/net/tun", os.O_RDWR)
            stack.callback(os.close, fd)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _TAP | _MULTI_QUEUE | _NO_PI))
            fds.append(fd)
        yield fds


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[Namespace, list[int]]]:
    """A namespace of the host, and the queues of the TAP device that leads there."""
    tap = f"ixymq{os.getpid()}"
    with tap_queues(tap) as fds, Namespace(f"ixy-mq-{os.getpid()}", tap, "10.82.97.1/24") as namespace:
        yield namespace, fds


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, outside: tuple[Namespace, list[int]]) -> Iterator[Guest]:
    """A machine whose cards are bound to vfio-pci, those at the other ends of the hubs excepted."""
    _, tap = outside
    numbers = [number for number, _ in (*PAIRS.values(), *BYPASSING.values())]
    addresses = [slot(number) for number in (*numbers, TWO_QUEUES)]
    directory = tmp_path_factory.mktemp("guest") / "virtio_vfio"
    with Guest(directory, arguments(tap), iommu=True, pass_fds=tap) as machine:
        assert machine.run("modprobe -a vfio-pci vfio_iommu_type1 virtio_net af_packet").exit_code == 0
        code = f"from ixy.bus.binding import bind; [bind(address) for address in {addresses}]"
        result = machine.run(python(f'-c "{code}"'))
        assert result.exit_code == 0, result.output
        yield machine


def report(guest: Guest, program: str, *words: object) -> dict[str, Any]:
    """What a program in the guest reports."""
    result = guest.run(python(" ".join([str(PROGRAMS / program), *map(str, words)])), timeout=300)
    assert result.exit_code == 0, result.output
    return json.loads(result.output.splitlines()[-1])


@pytest.mark.parametrize("kind", PAIRS)
def test_a_thousand_frames_pass_each_way(guest: Guest, kind: str) -> None:
    """Frames of 60 to 1,514 bytes between the driver and Linux's, through a hub: all arrive, in order. The card is told
    addresses that only the IOMMU knows, and that finds nothing to refuse.
    """
    number, _ = PAIRS[kind]
    found = report(guest, "virtio_pair.py", slot(number), slot(number + 1), FRAMES)
    assert found["lengths"] == [FRAMES, FRAMES]
    assert found["to_kernel"]
    assert found["from_kernel"]
    assert found["tx_packets"] == FRAMES
    assert found["rx_errors"] == found["rx_refused"] == 0
    assert found["link"]
    assert found["mac"] == f"52:54:00:00:00:{number:02x}"
    assert found["filtered"] == [1, 2, 4, 5, 6]
    assert {"VERSION_1", "ACCESS_PLATFORM"} <= set(found["features"])
    assert ("RING_PACKED" in found["features"]) == (kind == "packed")
    assert "DMAR: [DMA" not in guest.run("dmesg").output


def test_two_pairs_of_queues(guest: Guest, outside: tuple[Namespace, list[int]]) -> None:
    """A TAP device with two queues, whose other end returns each frame: 500 flows are sent on each transmit queue, all
    1,000 come back once, on both receive queues.
    """
    namespace, _ = outside
    echo = namespace.start(sys.executable, str(PROGRAMS / "udp_echo.py"), namespace.interface)
    try:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        found = report(guest, "virtio_queues.py", slot(TWO_QUEUES), FRAMES // 2)
    finally:
        end(echo)
    assert found["sent"] == [FRAMES // 2, FRAMES // 2]
    assert found["all_once"]
    assert sum(found["received"]) == FRAMES
    assert all(found["received"])
    assert {"MQ", "ACCESS_PLATFORM"} <= set(found["features"])
    assert "DMAR: [DMA" not in guest.run("dmesg").output


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


@pytest.mark.parametrize("kind", BYPASSING)
def test_a_card_that_bypasses_the_iommu_is_refused(guest: Guest, kind: str) -> None:
    """Without ACCESS_PLATFORM the card would take the IOMMU's addresses for physical ones: it is told none of them, and
    is left without bus mastering. The legacy card shows its features through the I/O ports, by VFIO.
    """
    address = slot(BYPASSING[kind][0])
    result = guest.run(python(f"-m ixy generate {address} --count 1"))
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    assert line.startswith(f"ixy: {address}: behind an IOMMU the device must offer ACCESS_PLATFORM, and it does not")
    assert line.endswith(f"run: ixy unbind {address}")
    command = guest.run(f"od -An -tu1 -j4 -N1 /sys/bus/pci/devices/{address}/config").output
    assert int(command) & 4 == 0
