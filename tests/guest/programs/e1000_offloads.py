"""Run in a guest: what a gigabit card does to packets for ixy, with the kernel's card of the same kind at the other end
of a hub. Prints a report as JSON.

Arguments: PCI address of ixy's card, address of the kernel's card, number of the network that both are in.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from e1000_pair import kernel_socket, passes

import ixy
from ixy import Flags

TIMEOUT = 30.0
PORT = 9000
ETHERTYPE = b"\x88\xb5"


def until(done: Any) -> Any:
    deadline = time.monotonic() + TIMEOUT
    while not (found := done()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


class Ends:
    """Both ends: our device, and the kernel's interface, which has addresses."""

    def __init__(self, device: ixy.Device, theirs: str, number: str) -> None:
        self.device = device
        self.name = next(Path(f"/sys/bus/pci/devices/{theirs}/net").iterdir()).name
        self.here, self.there = f"10.82.{number}.1", f"10.82.{number}.2"
        self.here6, self.there6 = f"fd00:{number}::1", f"fd00:{number}::2"
        self.packets, self.mac = kernel_socket(theirs)
        neighbour = device.mac.hex(":")
        for command in (
            f"link set {self.name} mtu 9000",
            f"addr add {self.there}/24 dev {self.name}",
            f"-6 addr add {self.there6}/64 dev {self.name} nodad",
            f"neigh replace {self.here} lladdr {neighbour} dev {self.name}",
            f"-6 neigh replace {self.here6} lladdr {neighbour} dev {self.name}",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        subprocess.run(["ethtool", "-K", self.name, "gro", "off"], check=True)  # segments are to be seen as they come
        passes(device, self.packets, self.mac)

    def ethernet(self, kind: int) -> bytes:
        return self.mac + self.device.mac + kind.to_bytes(2, "big")

    def ipv4(self, protocol: int, content: bytes) -> bytes:
        """A frame whose IPv4 header has nonsense for a checksum."""
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 7, 0, 64, protocol, 0xDEAD)
        addresses = socket.inet_aton(self.here) + socket.inet_aton(self.there)
        return self.ethernet(0x0800) + head + addresses + content

    def ipv6(self, protocol: int, content: bytes) -> bytes:
        head = struct.pack("!IHBB", 6 << 28, len(content), protocol, 64)
        addresses = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in (self.here6, self.there6))
        return self.ethernet(0x86DD) + head + addresses + content

    def send(self, frame: bytes, **columns: int) -> None:
        pool = self.device.rx[0].pool
        with pool.allocate(1, len(frame), metadata=("flags", "vlan", "segments", "parts")) as batch:
            batch[0][:] = frame
            for name, value in columns.items():
                setattr(batch, name, value)
            until(lambda: self.device.tx[0].send(batch))


def udp(content: bytes) -> bytes:
    return struct.pack("!HHHH", 5000, PORT, 8 + len(content), 0xBEEF) + content


def tcp(content: bytes) -> bytes:
    return struct.pack("!HHIIBBHHH", 5001, PORT + 1, 1000, 0, 0x50, 0x10, 1024, 0xBEEF, 0) + content


def datagrams(ends: Ends) -> list[bool]:
    """Datagrams whose checksums the card is to make, over IPv4 and IPv6, short and in several buffers: which of them
    the kernel's socket took."""
    taken: list[bool] = []
    both = Flags.IP_PARTIAL | Flags.L4_PARTIAL
    for family, address, make in (
        (socket.AF_INET, ends.there, ends.ipv4),
        (socket.AF_INET6, ends.there6, ends.ipv6),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as port:
            port.bind((address, PORT))
            port.settimeout(TIMEOUT)
            for size in (1, 64, 1001, 1400, 3000, 8001):
                content = bytes(number * 7 % 251 for number in range(size))
                ends.send(make(17, udp(content)), flags=int(both))
                try:
                    taken.append(port.recv(9000) == content)
                except TimeoutError:
                    taken.append(False)
    return taken


def segments(ends: Ends) -> list[int]:
    """The payload of each segment that the kernel's card receives of a packet of 5,000 bytes that is to be cut."""
    content = bytes(number * 3 % 251 for number in range(5000))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as watch:
        watch.bind((ends.name, 0x0800))
        watch.settimeout(2.0)
        both = int(Flags.IP_PARTIAL | Flags.L4_PARTIAL)
        ends.send(ends.ipv4(6, tcp(content)), flags=both, segments=1200)
        found: dict[int, bytes] = {}
        while sum(map(len, found.values())) < len(content):
            try:
                frame = watch.recv(9000)
            except TimeoutError:
                break
            if frame[:6] == ends.mac and frame[23] == 6:
                end = 14 + int.from_bytes(frame[16:18], "big")
                found[int.from_bytes(frame[38:42], "big") - 1000] = frame[54:end]
    joined = b"".join(found[place] for place in sorted(found))
    return [len(found[place]) for place in sorted(found)] if joined == content else []


def tagged(ends: Ends) -> list[Any]:
    """The tag of a frame that ixy has the card put in, as the kernel's card takes it out; that of one the other way."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as watch:
        watch.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
        watch.bind((ends.name, 3))
        watch.settimeout(TIMEOUT)
        ends.send(ends.mac + ends.device.mac + ETHERTYPE + bytes(60), flags=int(Flags.VLAN), vlans=0x6005)
        while True:
            data, ancillary, _, _ = watch.recvmsg(2048, 64)
            if data[6:12] == ends.device.mac:
                break
        status, _, _, _, _, there, _ = struct.unpack("=IIIHHHH", ancillary[0][2])
    ends.packets.send(ends.device.mac + ends.mac + b"\x81\x00\x20\x06" + ETHERTYPE + bytes(60))
    here = receive(ends, lambda packet: packet[12:14] == ETHERTYPE)
    return [there & 0xFFF if status & 16 else data[12:16].hex(), here and here["vlan"]]  # e1000 takes no more


def receive(ends: Ends, wanted: Any) -> dict[str, Any] | None:
    """The first packet that is wanted."""

    def look() -> dict[str, Any] | None:
        with ends.device.rx[0].receive(1) as batch:
            for packet in batch:
                if wanted(packet):
                    flags = Flags(int(batch.flags[0]))
                    return {"bytes": bytes(packet), "flags": flags, "vlan": int(batch.vlans[0])}
        return None

    return until(look)


def received(ends: Ends) -> list[Any]:
    """What the card says of datagrams that the kernel sends, and of one with a wrong checksum; whether one of several
    buffers has come whole."""
    verdicts: list[Any] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind((ends.there, PORT))
        for size in (100, 8001):
            content = bytes(number * 5 % 251 for number in range(size))
            port.sendto(content, (ends.here, 4000))
            found = receive(ends, lambda packet: packet[12:14] == b"\x08\x00" and packet[23] == 17)
            assert found is not None
            verdicts.append([found["bytes"][42:] == content, str(found["flags"].name)])
    wrong = ends.device.mac + ends.mac + ends.ipv4(17, udp(b"wrong" * 20))[12:]
    ends.packets.send(wrong)
    found = receive(ends, lambda packet: packet[12:14] == b"\x08\x00" and bytes(packet[42:47]) == b"wrong")
    assert found is not None
    return [*verdicts, str(found["flags"].name)]


def bad_checksums() -> int:
    """How many the kernel has counted."""
    counted = 0
    lines = Path("/proc/net/snmp").read_text().splitlines() + Path("/proc/net/netstat").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        pairs = zip(names.split()[1:], values.split()[1:], strict=True)
        counted += sum(int(value) for name, value in pairs if "CsumErrors" in name)
    for line in Path("/proc/net/snmp6").read_text().splitlines():
        name, value = line.split()
        counted += int(value) if "CsumErrors" in name else 0
    return counted


def main(ours: str, theirs: str, number: str) -> None:
    options: dict[str, Any] = {
        "metadata": ("flags", "vlan", "segments", "parts"),
        "offloads": ("checksum", "vlan", "segmentation"),
        "mtu": 9000,
    }
    with ixy.open(ours, ring_size=256, **options) as device:
        ends = Ends(device, theirs, number)
        report = {
            "datagrams": datagrams(ends),
            "bad": bad_checksums(),
            # QEMU's 82574 cuts none behind a hub: whoever waits for them waits in vain.
            "segments": segments(ends) if device.info.model != "82574L" else None,
            "tags": tagged(ends),
            "received": received(ends),
            "offloads": [list(device.info.rx_offloads), list(device.info.tx_offloads)],
            "refused": device.stats().rx_refused,
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
