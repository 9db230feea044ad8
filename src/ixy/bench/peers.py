"""What people write in Python for packets, and is measured beside ours: loops over an AF_PACKET socket, and Scapy's.

python -m ixy.bench.peers socket|scapy receive|transmit|forward|capture|replay INTERFACE FILE

FILE is a tally of the packets; of who captures or replays, the capture.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ixy.bench.packet_socket import open_socket
from ixy.bench.tally import open_tally
from ixy.formats.frames import udp_frame

if TYPE_CHECKING:
    import socket

_ROOM = 2048  # bytes of a frame
_BURST = 64  # packets, after which the tally is written
_BUFFER = 1 << 16  # bytes that are gathered before they are written
_FILE_HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)  # of a pcap: nanoseconds, Ethernet


def _patient(interface: str) -> socket.socket:
    sock = open_socket(interface)
    sock.settimeout(None)
    return sock


def _socket_receive(interface: str, file: str) -> None:
    sock, buffer, tally = _patient(interface), bytearray(_ROOM), open_tally(file)
    while True:
        for _ in range(_BURST):
            sock.recv_into(buffer)
        tally[0] += _BURST


def _socket_transmit(interface: str, file: str) -> None:
    sock, frame, tally = _patient(interface), udp_frame(), open_tally(file)
    while True:
        for _ in range(_BURST):
            sock.send(frame)
        tally[0] += _BURST


def _socket_forward(interface: str, file: str) -> None:
    sock, buffer, tally = _patient(interface), bytearray(_ROOM), open_tally(file)
    view = memoryview(buffer)
    while True:
        for _ in range(_BURST):
            size = sock.recv_into(buffer)
            buffer[:12] = buffer[6:12] + buffer[:6]
            sock.send(view[:size])
        tally[0] += _BURST


def _socket_capture(interface: str, file: str) -> None:
    sock, buffer, head = _patient(interface), bytearray(_ROOM), struct.Struct("=IIII")
    view = memoryview(buffer)
    with open(file, "wb", _BUFFER) as out:  # noqa: PTH123
        out.write(_FILE_HEADER)
        while True:
            size = sock.recv_into(buffer)
            out.write(head.pack(*divmod(time.time_ns(), 10**9), size, size))
            out.write(view[:size])


def _scapy() -> Any:
    """All of Scapy, as its users have it."""
    return import_module("scapy.all")


def _scapy_receive(interface: str, file: str) -> None:
    scapy, tally = _scapy(), open_tally(file)

    def count(_packet: Any) -> None:
        tally[0] += 1

    scapy.sniff(iface=interface, store=False, prn=count)


def _scapy_transmit(interface: str, file: str) -> None:
    scapy = _scapy()
    open_tally(file)
    scapy.sendp(scapy.Ether(udp_frame()), iface=interface, loop=1, verbose=False)


def _scapy_forward(interface: str, file: str) -> None:
    scapy, tally = _scapy(), open_tally(file)
    sock = scapy.conf.L2socket(iface=interface)

    def back(packet: Any) -> None:
        packet.src, packet.dst = packet.dst, packet.src
        sock.send(packet)
        tally[0] += 1

    scapy.sniff(opened_socket=sock, store=False, prn=back)


def _scapy_capture(interface: str, file: str) -> None:
    scapy = _scapy()
    scapy.sniff(iface=interface, store=False, prn=scapy.PcapWriter(file).write)


def _scapy_replay(interface: str, file: str) -> None:
    scapy = _scapy()
    scapy.sendp(scapy.rdpcap(file), iface=interface, loop=1, verbose=False)


LOOPS: dict[tuple[str, str], Callable[[str, str], None]] = {
    ("socket", "receive"): _socket_receive,
    ("socket", "transmit"): _socket_transmit,
    ("socket", "forward"): _socket_forward,
    ("socket", "capture"): _socket_capture,
    ("scapy", "receive"): _scapy_receive,
    ("scapy", "transmit"): _scapy_transmit,
    ("scapy", "forward"): _scapy_forward,
    ("scapy", "capture"): _scapy_capture,
    ("scapy", "replay"): _scapy_replay,
}


if __name__ == "__main__":
    LOOPS[sys.argv[1], sys.argv[2]](*sys.argv[3:])
