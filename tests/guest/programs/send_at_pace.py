"""Run in a guest: frames sent from an interface of the kernel's, no faster than they are recorded elsewhere.

Arguments: PCI address of the card, the capture file that grows meanwhile, number of frames.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

FILE_HEADER, RECORD_HEADER = 24, 16  # bytes
WINDOW = 100_000  # bytes on their way at most: no more frames than a ring has room for
TIMEOUT = 120.0


def frame(number: int) -> bytes:
    """60 to 1514 bytes, of all sizes in between."""
    head = bytes.fromhex("020000000002020000000001 88b5") + number.to_bytes(4, "big")
    return (head + bytes([number % 251]) * 1514)[: 60 + number * 98 % 1455]


def main(address: str, capture: Path, count: int) -> None:
    device = Path(f"/sys/bus/pci/devices/{address}")
    name = next(path for places in ("net/*", "virtio*/net/*") for path in device.glob(places)).name
    Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")  # so that nothing speaks unasked
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    deadline = time.monotonic() + TIMEOUT
    sent = FILE_HEADER  # bytes that the file will have
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as port:
        port.bind((name, 0))
        for number in range(count):
            data = frame(number)
            while not capture.exists() or sent + len(data) - capture.stat().st_size > WINDOW:
                assert time.monotonic() < deadline, f"nothing more is recorded after {number} frames"
            sent += RECORD_HEADER + port.send(data)


main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
