"""What a Python program reaches through the kernel: an AF_PACKET socket."""

from __future__ import annotations

from collections.abc import Iterator

from ixy.bench import packet_socket
from ixy.evaluate.effort import Effort
from ixy.reporting.parts import Part, Table, of
from ixy.reporting.progress import Told

TITLE = "A socket of the kernel"


def seconds(effort: Effort) -> float:
    return 3 + 3 * effort.repeat * effort.window


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    told(0, "sending, receiving and forwarding through AF_PACKET")
    found = packet_socket.measure(effort.window, effort.repeat)
    yield Table(
        "af_packet",
        "Packets through an AF_PACKET socket, in Mpps",
        ["work", "Mpps"],
        [[work, of([rate / 1e6 for rate in rates])] for work, rates in found.items()],
        "A loop in Python over socket.send and socket.recv_into, on veth links of a network namespace of its own; "
        "60-byte packets, in forwarding one byte of each raised. Another process sends what is received.",
        effort.repeat,
    )
