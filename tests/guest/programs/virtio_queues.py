"""Run in a guest: UDP packets sent on two queues of a VirtIO card, which come back. Prints a report as JSON.

Arguments: PCI address of the card, number of flows on each queue, each of which has one packet.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

import ixy

WINDOW = 64  # packets on their way at most
TIMEOUT = 60.0
HERE, THERE = socket.inet_aton("10.82.97.2"), socket.inet_aton("10.82.97.1")
FIRST_PORT, ECHO_PORT = 10_000, 7


def packet(number: int, source: bytes) -> bytes:
    """UDP from a port of its own, 60 bytes; without checksums, of which nobody on the way takes note."""
    ethernet = b"\xff" * 6 + source + b"\x08\x00"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, socket.IPPROTO_UDP, 0, HERE, THERE)
    udp = struct.pack("!HHHH", FIRST_PORT + number, ECHO_PORT, 26, 0)
    return (ethernet + ip + udp).ljust(60, b"\0")


def send(queue: ixy.TxQueue, data: bytes) -> int:
    with queue.device.rx[0].pool.allocate(1) as batch:
        batch[0].resize(len(data))
        batch[0][:] = data
        return queue.send(batch)


def numbers(queue: ixy.RxQueue) -> list[int]:
    """Those of the packets that have come back."""
    with queue.receive(32) as batch:
        echoes = [bytes(packet[:]) for packet in batch if packet[12:14] == b"\x08\x00"]
    return [int.from_bytes(echo[36:38], "big") - FIRST_PORT for echo in echoes if echo[26:30] == THERE]


def main(address: str, flows: int) -> None:
    with ixy.open(address, rx_queues=2, tx_queues=2, ring_size=256) as device:
        sent, back = [0, 0], [[], []]
        deadline = time.monotonic() + TIMEOUT
        while sum(map(len, back)) < 2 * flows and time.monotonic() < deadline:
            for index in range(2):
                if sent[index] < flows and sum(sent) - sum(map(len, back)) < WINDOW:
                    sent[index] += send(device.tx[index], packet(index * flows + sent[index], device.mac))
                back[index] += numbers(device.rx[index])
        report = {
            "features": device._driver.features.names(),
            "spread": device.spread,
            "sent": sent,
            "received": [sorted(each) for each in back],
        }
    print(json.dumps(report))


main(sys.argv[1], int(sys.argv[2]))
