"""Returns each UDP packet that arrives at an interface to its sender; says when it is ready.

Argument: the interface.
"""

from __future__ import annotations

import socket
import sys

IPV4 = 0x0800


def returned(frame: bytes) -> bytes:
    """Both addresses and the ports are swapped, which leaves the checksums right."""
    head, source, target = frame[12:26], frame[26:30], frame[30:34]
    return frame[6:12] + frame[:6] + head + target + source + frame[36:38] + frame[34:36] + frame[38:]


with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(IPV4)) as port:
    port.bind((sys.argv[1], IPV4))
    print("ready", flush=True)
    while True:
        data, (_, _, kind, _, _) = port.recvfrom(2048)
        if kind != socket.PACKET_OUTGOING and data[23] == socket.IPPROTO_UDP:
            port.send(returned(data))
