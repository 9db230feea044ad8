"""Packets of Scapy: made of ours, and frames made of them.

Scapy is loaded by whoever asks for one of these. Its licence is GPL, so nothing else needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from reprlib import repr as short
from typing import Any, cast, overload

from ixy import clock
from ixy.errors import ConfigurationError
from ixy.packets.batch import Batch, Packet
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.packets import Flags

# A packet and what is made of it look at the same metadata.
# pyright: reportPrivateUsage=false

_SECOND = 1_000_000_000  # ns
_ADDRESSES = 12  # bytes before the place of a VLAN tag
_MAC = 6
_VLAN = b"\x81\x00"  # IEEE 802.1Q


def library(who: str) -> Any:
    """Scapy, with all its layers.

    Args:
        who: needs it, for the message.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return import_module("scapy.all")
    except ImportError as error:
        raise ConfigurationError(f"{who} needs Scapy; run: pip install 'ixy[scapy]'") from error


# ---------------------------------------------------------------------------------------------------------------------
# Ours as Scapy's


@overload
def to_scapy(packets: Batch) -> list[Any]: ...
@overload
def to_scapy(packets: Packet) -> Any: ...
def to_scapy(packets: Packet | Batch) -> Any:
    """A packet as Scapy dissects it, mostly an `Ether`; of a batch, a list of them. They are copies.

    `time` is that of the packet where its device was opened with metadata=("time",), else of this call; `wirelen` is
    its length. A VLAN tag that the device has taken out of the packet is put back.

    Raises:
        ConfigurationError: Scapy is not installed.
        OwnershipError: the packet or batch was sent or freed.
        TypeError: it is none.
    """
    if not isinstance(cast(object, packets), (Batch, Packet)):
        raise TypeError(f"to_scapy takes a packet or a batch, not {type(packets).__name__}")
    scapy = library("ixy.to_scapy")
    several = packets if isinstance(packets, Batch) else [packets]
    made = [dissected(scapy, octets(packet), moment(packet)) for packet in several]
    return made if isinstance(packets, Batch) else made[0]


def octets(packet: Packet) -> bytes:
    """The bytes of a packet as they were on the wire."""
    columns, position = packet._batch._packets, packet._position
    data = packet[:]
    if columns.vlans is None:
        return data
    tag = int(columns.vlans[position])
    tagged = tag or (columns.flags is not None and columns.flags[position] & Flags.VLAN)
    return data[:_ADDRESSES] + _VLAN + tag.to_bytes(2) + data[_ADDRESSES:] if tagged else data


def moment(packet: Packet) -> int:
    """When a packet was received, as far as that is known, in ns since 1970."""
    times = packet._batch._packets.times
    return clock.date_ns() if times is None else int(times[packet._position])


def dissected(scapy: Any, data: bytes, time: int) -> Any:
    """A frame as Scapy dissects it, or where it fails at that, as `Raw`.

    Args:
        time: when it came, ns since 1970.
    """
    try:
        packet = scapy.Ether(data)
    except Exception:  # as Scapy's sockets do: dissectors fail in many ways at what is malformed
        packet = scapy.conf.raw_layer(data)
    packet.time, packet.wirelen = seconds(scapy, time), len(data)
    return packet


def seconds(scapy: Any, time: int) -> Any:
    """Nanoseconds as Scapy has seconds, exactly."""
    return scapy.EDecimal(time) / _SECOND


# ---------------------------------------------------------------------------------------------------------------------
# Scapy's as frames


def frames(packets: Any, who: str, source: bytes | None = None, parts: int = 1) -> Iterator[bytes]:
    """The frames that packets of Scapy stand for, each made when it is asked for.

    Args:
        packets: one, or several, also a generator; one whose fields have several values stands for several.
        who: sends them, for messages.
        source: the address of the sender, for packets that name none.
        parts: how many buffers a packet may take.

    Raises:
        ConfigurationError: Scapy is not installed, or a packet is longer than these buffers.
        TypeError: something else than a packet with an Ethernet header is among them.
    """
    scapy = library(who)
    if not isinstance(packets, (scapy.Packet, Iterable)):
        raise TypeError(f"{who} takes packets of Scapy, not {short(packets)}")
    several = cast("Iterable[Any]", [packets] if isinstance(packets, scapy.Packet) else packets)
    number, most = 0, parts * BUFFER_SIZE
    for each in several:
        for packet in each if isinstance(each, scapy.Packet) else [each]:
            number += 1
            try:
                frame = frame_of(scapy, packet, source)
            except TypeError as error:
                raise TypeError(f"{who}: packet {number}: {error}") from None
            if len(frame) > most:
                place = f"{parts} buffers have" if parts > 1 else "a buffer has"
                raise ConfigurationError(
                    f"{who}: packet {number}: {len(frame)} bytes, and {place} {most}: use fragment()"
                )
            yield frame


def frame_of(scapy: Any, packet: Any, source: bytes | None = None) -> bytes:
    """The bytes of a packet, of which each field has one value.

    One that names no destination goes to everybody: who has an IP address, Scapy would ask on a network of the machine.

    Raises:
        TypeError: something else than a packet with an Ethernet header.
    """
    if not isinstance(packet, scapy.Packet):
        raise TypeError(f"{short(packet)} is no packet")
    if not isinstance(packet, (scapy.Ether, scapy.Dot3)):
        raise TypeError(f"{packet.name} without an Ethernet header: write Ether() before it")
    with asking_nobody(scapy):
        frame: bytes = scapy.raw(packet)
    if source is not None and packet.fields.get("src") is None:
        return frame[:_MAC] + source + frame[2 * _MAC :]
    return frame


_turn = threading.RLock()  # of those who change what Scapy does for a moment


def _everybody(*_: object) -> str:
    return "ff:ff:ff:ff:ff:ff"


@contextmanager
def asking_nobody(scapy: Any) -> Generator[None]:
    """Within the block Scapy asks nobody for Ethernet addresses: everybody is addressed."""
    neighbours = scapy.conf.neighbor
    with _turn:
        kept, neighbours.resolve = neighbours.resolve, _everybody
        try:
            yield
        finally:
            neighbours.resolve = kept
