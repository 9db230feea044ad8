"""Run in a guest: one gigabit card driven by ixy, another one by the kernel, a hub between them. Prints a report as
JSON.

Arguments: PCI address of ixy's card, address of the kernel's card, number of frames in each direction; perhaps the user
as whom the card is opened.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from virtio_pair import ETHERTYPE, TIMEOUT, WINDOW, frame, receive_one, woken

import ixy
from ixy.errors import Error

KIND = ETHERTYPE.to_bytes(2, "big")


def kernel_socket(address: str) -> tuple[socket.socket, bytes]:
    """A packet socket on the kernel's interface at a PCI address, which is set up, and its MAC address."""
    name = next(Path(f"/sys/bus/pci/devices/{address}/net").iterdir()).name
    subprocess.run(["ip", "link", "set", name, "up", "promisc", "on"], check=True)
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    packets.bind((name, ETHERTYPE))
    packets.setblocking(False)
    return packets, bytes.fromhex(Path(f"/sys/class/net/{name}/address").read_text().strip().replace(":", ""))


def passes(device: ixy.Device, packets: socket.socket, source: bytes) -> None:
    """Wait until frames arrive: QEMU's 82540 takes none for a second after it was set up."""
    deadline = time.monotonic() + TIMEOUT
    number, last = 100, None
    while last != 101 and time.monotonic() < deadline:
        if last == 100:
            number = 101  # what was sent before has arrived when this has
        packets.send(frame(number, b"\xff" * 6, source))
        time.sleep(0.01)
        last = receive_one(device) or last
    while receive_one(device) is not None:
        pass


def exchanged(device: ixy.Device, packets: socket.socket, theirs: bytes, count: int) -> dict[str, object]:
    """So many frames from the shortest to the longest each way; whether all came, in order."""
    numbers = [number * 1454 // (count - 1) for number in range(count)]  # which make frames of 60 to 1,514 bytes
    to_kernel = [frame(number, theirs, device.mac) for number in numbers]
    from_kernel = [frame(number, device.mac, theirs) for number in numbers]
    seen_there: list[bytes] = []
    seen_here: list[bytes] = []
    sent = 0
    deadline = time.monotonic() + TIMEOUT
    while (len(seen_there) < count or len(seen_here) < count) and time.monotonic() < deadline:
        while sent < count and sent - min(len(seen_there), len(seen_here)) < WINDOW:
            with device.rx[0].pool.allocate(1) as batch:
                batch[0].resize(len(to_kernel[sent]))
                batch[0][:] = to_kernel[sent]
                device.tx[0].send(batch)
            packets.send(from_kernel[sent])
            sent += 1
        for queue in device.rx:
            with queue.receive(32) as batch:
                frames = [bytes(packet[:]) for packet in batch]
            seen_here += [data for data in frames if data[12:14] == KIND and data[:6] == device.mac]
        try:
            while True:
                data, (_, _, kind, _, _) = packets.recvfrom(2048)
                if kind != socket.PACKET_OUTGOING:
                    seen_there.append(data)
        except BlockingIOError:
            pass
    return {
        "lengths": [len(seen_there), len(seen_here)],
        "to_kernel": seen_there == to_kernel,
        "from_kernel": seen_here == from_kernel,
    }


def filtered(device: ixy.Device, packets: socket.socket, source: bytes) -> list[int]:
    """Which frames arrive when the device filters: to a stranger, to the station, to its new address; one of a VLAN
    that it does not receive, and one of a VLAN that it does; to groups and stations that were asked for, the last of
    20 by its hash; to a group that was not.
    """
    device.set_promiscuous(False)
    device.set_vlan_filter(6, True)
    groups = [bytes.fromhex("01005e0000") + bytes([number]) for number in range(20)]
    station = bytes.fromhex("0200000000cc")
    device.set_mac_filter([*groups, station])
    passes(device, packets, source)
    old, new = device.mac, bytes.fromhex("0200000000aa")
    tag = b"\x81\x00\x00"
    sent = [frame(0, bytes.fromhex("0200000000bb"), source), frame(1, old, source), frame(2, new, source)]
    sent += [data[:12] + tag + bytes([vlan]) + data[12:] for vlan in (5, 6) for data in [frame(vlan, new, source)]]
    sent += [frame(7, groups[0], source), frame(8, station, source), frame(9, groups[19], source)]
    sent += [frame(10, bytes.fromhex("01005e7f00ff"), source)]
    seen: list[int] = []
    for data in sent:
        if data[:6] == new:
            device.mac = new
        packets.send(data)
        packets.send(frame(100, b"\xff" * 6, source))  # a broadcast arrives in any case, after the other
        deadline = time.monotonic() + TIMEOUT
        while (number := receive_one(device)) != 100:
            seen += [number] if number is not None and number < 100 else []
            assert time.monotonic() < deadline, f"the broadcast after {data[:6].hex(':')} did not arrive"
    return seen


def become(user: str) -> None:
    """Go on as an ordinary user, who may lock some memory."""
    entry = pwd.getpwnam(user)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 20, 64 << 20))
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def main(ours: str, theirs: str, count: int, user: str = "") -> None:
    packets, their_mac = kernel_socket(theirs)
    if user:
        become(user)
    with ixy.open(ours, ring_size=128) as device:  # fewer descriptors than frames, more than WINDOW
        passes(device, packets, their_mac)
        before = device.stats()
        report = exchanged(device, packets, their_mac, count)
        stats = device.stats()
        report |= {
            "link": device.link,
            "mac": device.mac.hex(":"),
            "tx_packets": stats.tx_packets - before.tx_packets,
            "tx_bytes": stats.tx_bytes - before.tx_bytes,
            "rx_bytes": stats.rx_bytes - before.rx_bytes,
            "rx_dropped": stats.rx_dropped,
            "rx_errors": stats.rx_errors,
            "rx_refused": stats.rx_refused,
            "xstats": device.xstats(),
        }
        try:
            report["woken"] = woken(device, packets, frame(0, device.mac, their_mac))
        except Error as error:
            report["woken"] = str(error)
        report["filtered"] = filtered(device, packets, their_mac)
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
