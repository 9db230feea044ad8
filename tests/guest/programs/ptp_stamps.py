"""Sends a PTP message, and receives one, each with the card's stamp, which must lie between two readings of its clock.

Argument: the interface. Says when it is ready to receive.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import time

PTP = 0x88F7
SIOCSHWTSTAMP, TX_ON, FILTER_V2_EVENTS = 0x89B0, 1, 12  # linux/net_tstamp.h
SO_TIMESTAMPING, TX_HARDWARE, RX_HARDWARE, RAW_HARDWARE = 37, 1 << 0, 1 << 2, 1 << 6
MSG_ERRQUEUE = 0x2000

interface = sys.argv[1]
clock = (~os.open("/dev/ptp0", os.O_RDONLY) << 3) | 3  # FD_TO_CLOCKID, clock_gettime(2)


def now() -> int:
    return time.clock_gettime_ns(clock)


def stamp(port: socket.socket, flags: int) -> int:
    """The stamp of the next frame: the last of three times, in nanoseconds."""
    _, ancillary, _, _ = port.recvmsg(2048, 1024, flags)
    (times,) = [data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING)]
    seconds, nanoseconds = struct.unpack_from("qq", times, 32)
    return seconds * 10**9 + nanoseconds


with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(PTP)) as port:
    port.bind((interface, PTP))
    config = ctypes.create_string_buffer(struct.pack("iii", 0, TX_ON, FILTER_V2_EVENTS))
    fcntl.ioctl(port, SIOCSHWTSTAMP, struct.pack("16sP16x", interface.encode(), ctypes.addressof(config)))
    port.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_HARDWARE | RX_HARDWARE | RAW_HARDWARE)
    message = bytes([0, 2, 0, 44]) + bytes(40)
    before = now()
    port.send(bytes.fromhex("011b19000000 020000000001") + PTP.to_bytes(2, "big") + message)
    poll = select.poll()
    poll.register(port, 0)  # an error is what is in the queue of errors
    assert poll.poll(30_000)
    sent = stamp(port, MSG_ERRQUEUE)
    assert before < sent < now(), (before, sent)
    print("ready", flush=True)
    before = now()
    received = stamp(port, 0)
    assert before < received < now(), (before, received)
    start, began = time.monotonic_ns(), now()
    while time.monotonic_ns() < start + 10**9:
        pass
    print("rate", (now() - began) / (time.monotonic_ns() - start))
