"""Send and receive PTP messages over UDP with the card's time stamps (Linux Documentation/networking/timestamping.rst).

Usage: hardware_stamps.py INTERFACE ADDRESS COUNT. Says `ready` once it receives; then, as JSON, the times of the card's
clock, in nanoseconds: of COUNT messages that were sent to ADDRESS and of COUNT that were received, and what the clock
showed before and after.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import time

EVENT_PORT = 319
SO_TIMESTAMPING = 37
TX_HARDWARE, RX_HARDWARE, RAW_HARDWARE = 1 << 0, 1 << 2, 1 << 6
SIOCSHWTSTAMP = 0x89B0
TX_ON, FILTER_PTP_V2_EVENT = 1, 12
MSG_ERRQUEUE = socket.MSG_ERRQUEUE
PTP_V2 = 2
SIZE = 44  # bytes of a Sync message


def switch_on(port: socket.socket, interface: str) -> None:
    """Let the card stamp PTP messages, in both directions."""
    config = ctypes.create_string_buffer(struct.pack("=iii", 0, TX_ON, FILTER_PTP_V2_EVENT))
    request = struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(config))
    fcntl.ioctl(port, SIOCSHWTSTAMP, request)
    _, transmit, receive = struct.unpack("=iii", config.raw[:12])
    assert transmit == TX_ON
    assert receive == FILTER_PTP_V2_EVENT, receive


def stamp(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The card's time among a message's control data: the third of three (`struct scm_timestamping`)."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING):
            seconds, nanoseconds = struct.unpack_from("=qq", data, 32)
            return seconds * 10**9 + nanoseconds
    return 0


def sync(sequence: int) -> bytes:
    """A Sync message of PTP version 2 (IEEE 1588-2008, 13.3, 13.6)."""
    return struct.pack("!BBH26xH12x", 0, PTP_V2, SIZE, sequence)


def main() -> None:
    interface, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    clock_file = os.open("/dev/ptp0", os.O_RDONLY)
    clock = (~clock_file << 3) | 3  # CLOCKFD of linux/posix-timers.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        switch_on(port, interface)
        port.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_HARDWARE | RX_HARDWARE | RAW_HARDWARE)
        port.bind(("", EVENT_PORT))
        port.settimeout(60)
        before = time.clock_gettime_ns(clock)
        sent = []
        for sequence in range(count):
            port.sendto(sync(sequence), (address, EVENT_PORT))
            deadline = time.monotonic() + 60
            while True:
                try:
                    _, ancillary, _, _ = port.recvmsg(256, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
                except BlockingIOError:
                    assert time.monotonic() < deadline, "no stamp"
                    time.sleep(0.001)
                else:
                    break
            sent.append(stamp(ancillary))
        print("ready", flush=True)
        received = [stamp(port.recvmsg(256, 512)[1]) for _ in range(count)]
        after = time.clock_gettime_ns(clock)
    print(json.dumps({"before": before, "sent": sent, "received": received, "after": after}))


if __name__ == "__main__":
    main()
