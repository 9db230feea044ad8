"""The VirtIO driver through VFIO: QEMU's virtio-net-pci behind an emulated VT-d."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from harness import Guest
from in_guest import PROGRAMS, python
from namespace import Namespace
from toeplitz import KEY, toeplitz

# Slots and options of the cards to drive. Linux's card is in the slot after each of the pairs.
BEHIND_IOMMU = "iommu_platform=on,disable-legacy=on"
PAIRS = {"split": (0x10, BEHIND_IOMMU), "packed": (0x12, f"{BEHIND_IOMMU},packed=on")}
TWO_QUEUES = {"automatic": (0x14, ""), "rss": (0x17, ",rss=on")}
BYPASSING = {"legacy": (0x15, "disable-modern=on,disable-legacy=off"), "modern": (0x16, "disable-legacy=on")}
FRAMES = 1000
THERE, HERE = socket.inet_aton("10.82.97.1"), socket.inet_aton("10.82.97.2")  # in the packets of `virtio_queues.py`

# From linux/if_tun.h
_TUNSETIFF, _TAP, _MULTI_QUEUE, _NO_PI = 0x400454CA, 0x2, 0x100, 0x1000


def slot(number: int) -> str:
    return f"0000:00:{number:02x}.0"


def card(number: int, options: str, netdev: str = "") -> list[str]:
    """Arguments for a card in slot `number`."""
    words = ["virtio-net-pci", f"addr={number:#x}", f"mac=52:54:00:00:00:{number:02x}", netdev, options]
    return ["-device", ",".join(word for word in words if word)]


def arguments(taps: dict[str, list[int]]) -> list[str]:
    """TAP devices with two queues, a hub for each pair, and cards that no wire leads to."""
    result: list[str] = []
    for kind, (number, more) in TWO_QUEUES.items():
        result += ["-netdev", f"tap,id={kind},fds={':'.join(map(str, taps[kind]))}"]
        result += card(number, f"{BEHIND_IOMMU},mq=on,vectors=6{more}", f"netdev={kind}")
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


class Outside(NamedTuple):
    """A namespace of the host, and the queues of the TAP device that leads there."""

    namespace: Namespace
    fds: list[int]


@pytest.fixture(scope="module")
def outside() -> Iterator[dict[str, Outside]]:
    """What is at the other end of each card with two queues."""
    with ExitStack() as stack:
        ends: dict[str, Outside] = {}
        for kind, (number, _) in TWO_QUEUES.items():
            tap = f"ixymq{number}p{os.getpid()}"
            fds = stack.enter_context(tap_queues(tap))
            namespace = stack.enter_context(Namespace(f"ixy-mq{number}-{os.getpid()}", tap, "10.82.97.1/24"))
            ends[kind] = Outside(namespace, fds)
        yield ends


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, outside: dict[str, Outside]) -> Iterator[Guest]:
    """A machine whose cards are bound to vfio-pci, those at the other ends of the hubs excepted."""
    taps = {kind: end.fds for kind, end in outside.items()}
    fds = [fd for queues in taps.values() for fd in queues]
    driven = (*PAIRS.values(), *BYPASSING.values(), *TWO_QUEUES.values())
    addresses = [slot(number) for number, _ in driven]
    directory = tmp_path_factory.mktemp("guest") / "virtio_vfio"
    with Guest(directory, arguments(taps), iommu=True, pass_fds=fds) as machine:
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
    addresses that only the IOMMU knows, and that finds nothing to refuse. Who waits is woken by MSI-X.
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
    assert found["woken"] is True
    assert found["filtered"] == [1, 2, 4, 5, 6]
    assert {"VERSION_1", "ACCESS_PLATFORM"} <= set(found["features"])
    assert ("RING_PACKED" in found["features"]) == (kind == "packed")
    assert "DMAR: [DMA" not in guest.run("dmesg").output


@pytest.mark.parametrize("kind", TWO_QUEUES)
def test_two_pairs_of_queues(guest: Guest, outside: dict[str, Outside], kind: str) -> None:
    """A TAP device with two queues, whose other end returns each frame: 500 flows are sent on each transmit queue, all
    1,000 come back once, on both receive queues; with RSS, each on that to which its hash leads.
    """
    namespace = outside[kind].namespace
    echo = namespace.start(sys.executable, str(PROGRAMS / "udp_echo.py"), namespace.interface)
    try:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        found = report(guest, "virtio_queues.py", slot(TWO_QUEUES[kind][0]), FRAMES // 2)
    finally:
        end(echo)
    assert found["sent"] == [FRAMES // 2, FRAMES // 2]
    first, second = found["received"]
    assert sorted(first + second) == list(range(FRAMES))
    assert first
    assert second
    assert {"MQ", "ACCESS_PLATFORM"} <= set(found["features"])
    assert ("RSS" in found["features"]) == (kind == "rss")
    if kind == "rss":
        assert found["spread"] == "Toeplitz over IPv4, IPv6, TCP and UDP, 2 queues, default key"
        assert found["received"] == [[flow for flow in range(FRAMES) if by_hash(flow) == queue] for queue in (0, 1)]
    else:
        assert found["spread"] == "the device spreads packets over 2 queues by itself"
    assert "DMAR: [DMA" not in guest.run("dmesg").output


def by_hash(flow: int) -> int:
    """The queue for what `virtio_queues.py` gets back of a flow: two queues take turns in the table."""
    ports = struct.pack("!HH", 7, 10_000 + flow)
    return (toeplitz(KEY, THERE + HERE + ports) & 127) % 2


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
