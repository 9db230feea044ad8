"""Run in a guest: one VirtIO card driven by ixy, another by the kernel, a hub between them. Prints a report as JSON.

Arguments: PCI address of ixy's card, address of the kernel's card, number of frames in each direction.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import ixy
from ixy.errors import UnsupportedDevice
from ixy.packets.hugepages import setup

ETHERTYPE = 0x88B5
WINDOW = 64  # frames on their way at most
TIMEOUT = 60.0


def kernel_socket(address: str) -> tuple[socket.socket, bytes]:
    """A packet socket on the kernel's interface at a PCI address, which is set up, and its MAC address."""
    name = next(Path(f"/sys/bus/pci/devices/{address}").glob("virtio*/net/*")).name
    subprocess.run(["ip", "link", "set", name, "up", "promisc", "on"], check=True)
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    packets.bind((name, ETHERTYPE))
    packets.setblocking(False)
    return packets, bytes.fromhex(Path(f"/sys/class/net/{name}/address").read_text().strip().replace(":", ""))


def frame(number: int, target: bytes, source: bytes) -> bytes:
    size = 60 + number % 1455
    return (target + source + ETHERTYPE.to_bytes(2, "big") + number.to_bytes(4, "big") + bytes([number % 251]) * size)[
        :size
    ]


def main(ours: str, theirs: str, count: int) -> None:
    setup(64)
    packets, their_mac = kernel_socket(theirs)
    with ixy.open(ours, ring_size=256) as device:
        to_kernel = [frame(number, their_mac, device.mac) for number in range(count)]
        from_kernel = [frame(number, device.mac, their_mac) for number in range(count)]
        seen_there: list[bytes] = []
        seen_here: list[bytes] = []
        sent = 0
        deadline = time.monotonic() + TIMEOUT
        while len(seen_there) < count or len(seen_here) < count:
            if time.monotonic() > deadline:
                break
            while sent < count and sent - min(len(seen_there), len(seen_here)) < WINDOW:
                with device.rx[0].pool.allocate(1) as batch:
                    batch[0].resize(len(to_kernel[sent]))
                    batch[0][:] = to_kernel[sent]
                    device.tx[0].send(batch)
                packets.send(from_kernel[sent])
                sent += 1
            with device.rx[0].receive(32) as batch:
                seen_here += [bytes(packet[:]) for packet in batch if packet[12:14] == ETHERTYPE.to_bytes(2, "big")]
            try:
                while True:
                    data, (_, _, kind, _, _) = packets.recvfrom(2048)
                    if kind != socket.PACKET_OUTGOING:
                        seen_there.append(data)
            except BlockingIOError:
                pass
        stats = device.stats()
        driver = device._driver
        report = {
            "features": driver.features.names(),
            "ring": device.rx[0].ring.size,
            "link": device.link.up,
            "mac": device.mac.hex(":"),
            "mtu": driver.mtu(),
            "to_kernel": seen_there == to_kernel,
            "from_kernel": seen_here == from_kernel,
            "lengths": [len(seen_there), len(seen_here)],
            "tx_packets": stats.tx_packets,
            "rx_errors": stats.rx_errors,
            "rx_refused": stats.rx_refused,
        }
        report["woken"] = woken(device, packets, frame(0, device.mac, their_mac))
        report["filtered"] = filtered(device, packets, their_mac)
    print(json.dumps(report))


def woken(device: ixy.Device, packets: socket.socket, data: bytes) -> bool | str:
    """Whether a frame wakes who waits until nothing more is there; the error if nobody can."""
    queue = device.rx[0]

    def take_all() -> None:
        while queue.wait(0.1):
            queue.receive().free()

    try:
        take_all()
    except UnsupportedDevice as error:
        return str(error)
    threading.Timer(0.2, packets.send, [data]).start()
    found = queue.wait(TIMEOUT)
    take_all()
    return found


def filtered(device: ixy.Device, packets: socket.socket, source: bytes) -> list[int]:
    """Which frames arrive when the device filters: to a stranger, to the station, to its new address; one of a VLAN
    that it does not receive, and one of a VLAN that it does; to a group and a station that were asked for.
    """
    if "CTRL_RX" not in device._driver.features.names():
        return []
    device.set_promiscuous(False)
    device.set_vlan_filter(6, True)
    group, station = bytes.fromhex("01005e000001"), bytes.fromhex("0200000000cc")
    device.set_mac_filter([group, station])
    old, new = device.mac, bytes.fromhex("0200000000aa")
    tag = b"\x81\x00\x00"
    sent = [frame(0, bytes.fromhex("0200000000bb"), source), frame(1, old, source), frame(2, new, source)]
    sent += [data[:12] + tag + bytes([vlan]) + data[12:] for vlan in (5, 6) for data in [frame(vlan, new, source)]]
    sent += [frame(7, group, source), frame(8, station, source)]
    seen: list[int] = []
    for index, data in enumerate(sent):
        if data[:6] == new:
            device.mac = new
        packets.send(data)
        packets.send(frame(100, b"\xff" * 6, source))  # a broadcast arrives in any case, after the other
        while (number := receive_one(device)) != 100:
            seen += [index] if number is not None else []
    return seen


def receive_one(device: ixy.Device) -> int | None:
    """The number of the next test frame, with a tag or without; None if nothing else has come."""
    with device.rx[0].receive(1) as batch:
        for packet in batch:
            start = 16 if packet[12:14] == b"\x81\x00" else 12
            if packet[start : start + 2] == ETHERTYPE.to_bytes(2, "big"):
                return int.from_bytes(packet[start + 2 : start + 6], "big")
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
