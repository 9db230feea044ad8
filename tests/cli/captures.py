"""Capture files for the commands, made and read by a library that is not ours."""

from __future__ import annotations

from pathlib import Path

import dpkt


def frames(count: int, seed: int = 0) -> list[bytes]:
    """Frames that all differ, of 60 to 1514 bytes."""
    return [
        bytes((seed + number * 31 + place * 7 + (place >> 8)) & 0xFF for place in range(60 + number * 97 % 1455))
        for number in range(count)
    ]


def write_pcap(path: Path, packets: list[bytes], linktype: int = dpkt.pcap.DLT_EN10MB) -> None:
    """Write a capture, by a library that is not ours."""
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=65535, linktype=linktype)
        for number, packet in enumerate(packets):
            writer.writepkt(packet, ts=1_000_000_000 + number)


def read_pcap(path: Path) -> list[bytes]:
    """The packets of a capture, by a library that is not ours."""
    with path.open("rb") as file:
        return [bytes(packet) for _, packet in dpkt.pcap.Reader(file)]
