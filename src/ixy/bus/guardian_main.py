"""What a guardian process runs: `guardian_main.py CHANNEL DRIVER CONFIG RESET PRIVILEGES FILTER`. It imports the
standard library only.

CHANNEL is the number of a socket whose other end the driver has. Each message on it is answered by itself:

    hold N       keep memory N, whose file comes with the message
    release N    let it go
    farewell     the driver has stopped the card; end, and touch nothing

If the driver ends without a farewell, nobody is left who could stop the card, and the guardian does: through CONFIG,
the number of the open configuration space, and the file RESET. Until then it keeps the memory, and, since it inherited
the lock's file, the lock. DRIVER is the number of a pidfd (pidfd_open(2)), which tells that the driver has ended even
where a child of it has the other end of the channel.

All that it will need is open then. So it begins by giving its privileges up, with what the file PRIVILEGES defines
(`unsafe/privileges.py`), and has its system calls filtered by the program in the file FILTER, the number of an open one
or -1. Whatever goes wrong about that, it guards.
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import socket
import sys
import time
from contextlib import suppress

# PCI Local Bus 3.0, 6.2 and 6.7; PCI Express Base 3.0, 7.8.5
_COMMAND = 0x04
_BUS_MASTER = 1 << 2
_CAPABILITIES = 0x34
_EXPRESS = 0x10
_DEVICE_STATUS = 0x0A
_TRANSACTIONS_PENDING = 1 << 5

_DEADLINE = 1.0  # seconds for what the card has asked the bus for; a broken card waits for ever


def watch(channel: socket.socket, driver: int, held: dict[bytes, int]) -> bool:
    """Hold memory in `held` as the driver wants it, until it says farewell (True) or is gone (False)."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(driver, select.POLLIN)
    while channel.fileno() in dict(poll.poll()):  # what a driver said before it ended still counts
        try:
            message, files, _, _ = socket.recv_fds(channel, 64, 1)
        except ConnectionResetError:  # gone, with an answer that it has not read
            return False
        word, _, name = message.partition(b" ")
        if word == b"hold":
            (held[name],) = files
        elif word == b"release" and name in held:
            os.close(held.pop(name))
        elif not word:
            return False
        with suppress(BrokenPipeError):
            channel.sendall(message)
        if word == b"farewell":
            return True
    return False


def stop(config: int, reset: int) -> None:
    """No more requests to the bus, the pending ones done, and the card's rings forgotten.

    Without the reset, whoever enables bus mastering next would let the card go on where it was. Some cards have none,
    and -1 instead of its file.
    """
    with suppress(OSError):
        os.pwrite(config, (_read(config, _COMMAND, 2) & ~_BUS_MASTER).to_bytes(2, "little"), _COMMAND)
        _drain(config)
    with suppress(OSError):
        os.write(reset, b"1")


def _drain(config: int) -> None:
    """Wait until no transaction is pending. What the card wrote has arrived by then: an answer passes no write."""
    express = _express(config)
    deadline = time.monotonic() + _DEADLINE
    while express and _read(config, express + _DEVICE_STATUS, 2) & _TRANSACTIONS_PENDING:
        if time.monotonic() > deadline:
            return
        time.sleep(0.001)


def _express(config: int) -> int:
    """Where the PCI Express capability is; 0 if there is none."""
    place = _read(config, _CAPABILITIES, 1) & ~3
    for _ in range(48):  # as many as fit, should the list be a ring
        if not place or _read(config, place, 1) == _EXPRESS:
            return place
        place = _read(config, place + 1, 1) & ~3
    return 0


def _read(config: int, offset: int, size: int) -> int:
    return int.from_bytes(os.pread(config, size, offset), "little")


def give_up(privileges: str, filter_: int) -> None:
    """Keep no privilege that only opening files takes."""
    with suppress(Exception):
        own = runpy.run_path(privileges)
        own["give_up"]()
        if filter_ >= 0:
            own["filter_calls"](os.pread(filter_, os.fstat(filter_).st_size, 0))


def _opened(path: str) -> int:
    """A file to be written to; -1 if there is none."""
    with suppress(OSError):
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    return -1


def main(channel: str, driver: str, config: str, reset: str, privileges: str, filter_: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end, reset_file = socket.socket(fileno=int(channel)), _opened(reset)
    give_up(privileges, int(filter_))
    held: dict[bytes, int] = {}
    if watch(end, int(driver), held):
        return
    stop(int(config), reset_file)
    for file in held.values():  # before the lock goes with this process: the next one may need the pages
        os.close(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
