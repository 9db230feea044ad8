"""Receive-side scaling, from `ixy.open` to the queue on which a packet comes."""

from __future__ import annotations

import logging
import re
import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import OTHER, STATION, arrive, frame, open_card
from toeplitz import KEY, VECTORS, VECTORS_6, Vector, toeplitz

from ixy import Flags
from ixy.device import Device
from ixy.errors import ConfigurationError, Error
from ixy.sim.machine import Machine

TCP, UDP, ICMP, FRAGMENT = 6, 17, 1, 44
WHOLE, FIRST, LATER = "whole", "first fragment", "later fragment"


@dataclass(frozen=True)
class Flow:
    """A packet of a flow, and what a card with `key` must make of it."""

    source: bytes
    target: bytes
    protocol: int = UDP
    ports: tuple[int, int] = (0, 0)
    tag: int | None = None
    part: str = WHOLE

    def frame(self) -> bytes:
        """From the addresses of the stations to the padding, without checksums, by the RFCs."""
        payload = struct.pack("!HH", *self.ports).ljust(32, b"\0")
        tag = b"" if self.tag is None else struct.pack("!HH", 0x8100, self.tag)
        ether_type = b"\x08\x00" if len(self.source) == 4 else b"\x86\xdd"
        packet = self._ipv4(payload) if len(self.source) == 4 else self._ipv6(payload)
        return STATION + OTHER + tag + ether_type + packet

    def _ipv4(self, payload: bytes) -> bytes:
        """RFC 791: bit 13 says that more fragments follow, the offset counts 8 bytes."""
        fragment = {WHOLE: 0, FIRST: 1 << 13, LATER: 100}[self.part]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, self.protocol, 0)
        return head + self.source + self.target + payload

    def _ipv6(self, payload: bytes) -> bytes:
        """RFC 8200: fragments have a header of their own, in which the offset comes before the flag."""
        following = self.protocol
        if self.part != WHOLE:
            payload = struct.pack("!BBHI", following, 0, {FIRST: 1, LATER: 100 << 3}[self.part], 7) + payload
            following = FRAGMENT
        return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + self.source + self.target + payload

    def hash(self, key: bytes) -> int:
        """Over the ports too where a whole packet has some."""
        ports = struct.pack("!HH", *self.ports) if self.part == WHOLE and self.protocol in (TCP, UDP) else b""
        return toeplitz(key, self.source + self.target + ports)

    def back(self) -> Flow:
        """A packet of the other direction."""
        return replace(self, source=self.target, target=self.source, ports=self.ports[::-1])


def flows(**fixed: Any) -> st.SearchStrategy[Flow]:
    """Packets of any kind, but for what is `fixed`."""
    parts = {
        "protocol": st.sampled_from([TCP, UDP, ICMP, 253]),
        "ports": st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
        "tag": st.none() | st.integers(0, 0xFFFF),
        "part": st.sampled_from([WHOLE, WHOLE, FIRST, LATER]),
    } | {name: st.just(value) for name, value in fixed.items()}
    addresses = [st.binary(min_size=size, max_size=size) for size in (4, 16)]
    return st.one_of(st.builds(Flow, source=address, target=address, **parts) for address in addresses)


def many_flows() -> list[Flow]:
    return [Flow(bytes([10, 0, 0, n]), bytes([10, 1, n, 2]), UDP, (1000 + 7 * n, 53)) for n in range(64)]


def arrivals(device: Device) -> list[list[bytes]]:
    """The packets on each queue."""
    found: list[list[bytes]] = []
    for queue in device.rx:
        with queue.receive(64) as batch:
            found.append([bytes(packet) for packet in batch])
    return found


def expected(frames: list[bytes], queues: list[int], count: int) -> list[list[bytes]]:
    """The frames by queue, in order."""
    return [[data for data, at in zip(frames, queues, strict=True) if at == queue] for queue in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# Hashes, and the queues that they lead to


@pytest.mark.parametrize("vector", VECTORS + VECTORS_6, ids=lambda vector: vector.source[0])
@pytest.mark.parametrize("queues", [1, 4])
def test_hashes_are_those_that_microsoft_published(machine: Machine, vector: Vector, queues: int) -> None:
    """With the ports of TCP and UDP, and without where the protocol has none. The low 7 bits choose one of 128 entries
    in which the queues take turns; what is no IP comes to queue 0 and has no hash.
    """
    source, target = (ip_address(address).packed for address, _ in (vector.source, vector.target))
    flow = Flow(source, target, TCP, (vector.source[1], vector.target[1]))
    assert (flow.hash(KEY), replace(flow, protocol=ICMP).hash(KEY)) == (vector.ports, vector.addresses)
    with open_card(machine, rx_queues=queues, metadata=("hash", "flags")) as device:
        for protocol, value in ((TCP, vector.ports), (UDP, vector.ports), (ICMP, vector.addresses)):
            arrive(machine, replace(flow, protocol=protocol).frame())
            with device.rx[(value & 127) % queues].receive() as batch:
                assert batch.hashes.tolist() == [value]
                assert [packet.hash for packet in batch] == [value]
                assert [Flags.HASH in packet.flags for packet in batch] == [True]
        arrive(machine, frame(1))
        with device.rx[0].receive() as batch:
            assert batch.hashes.tolist() == [0]
            assert [Flags.HASH in packet.flags for packet in batch] == [False]


@settings(max_examples=50)
@given(
    st.lists(flows(), min_size=1, max_size=16),
    st.binary(min_size=40, max_size=40),
    st.integers(1, 5).flatmap(
        lambda queues: st.tuples(st.just(queues), st.lists(st.integers(0, queues - 1), min_size=1, max_size=128))
    ),
)
def test_any_packets_by_any_key_and_table(
    machine: Machine, packets: list[Flow], key: bytes, spread: tuple[int, list[int]]
) -> None:
    """Tagged and not, IPv4 and IPv6, fragments, with ports and without, and frames that are no IP in between."""
    queues, table = spread
    options: dict[str, Any] = {"rss_key": key, "metadata": ("hash",), "ring_size": 64, "pool_size": 96}
    with open_card(machine, rx_queues=queues, **options) as device:
        device.set_rss_table(table)
        hashes = [packet.hash(key) for packet in packets]
        for packet in packets:
            arrive(machine, packet.frame())
            arrive(machine, frame())
        where = [table[(value & 127) % len(table)] for value in hashes]
        for number, queue in enumerate(device.rx):
            with queue.receive(64) as batch:
                found = [value for value, data in zip(batch.hashes.tolist(), batch, strict=True) if data[:] != frame()]
                assert found == [value for value, at in zip(hashes, where, strict=True) if at == number]
                assert len(batch) - len(found) == (len(packets) if number == 0 else 0)


def test_packets_are_spread_without_being_asked_for_their_hashes(machine: Machine) -> None:
    """By default over all queues, and each packet is on the queue of its hash, in order."""
    packets = many_flows()
    frames = [packet.frame() for packet in packets]
    with open_card(machine, rx_queues=3) as device:
        for data in frames:
            arrive(machine, data)
        found = arrivals(device)
    assert found == expected(frames, [(packet.hash(KEY) & 127) % 3 for packet in packets], 3)
    assert all(found)


@pytest.mark.parametrize("rss_key", ["symmetric", None])
def test_both_directions_of_a_flow(machine: Machine, rss_key: str | None) -> None:
    """By the symmetric key they come to one queue, and the flows to all queues; by the default key some do not."""
    apart = 0
    with open_card(machine, rx_queues=4, rss_key=rss_key) as device:

        def queue_of(flow: Flow) -> int:
            arrive(machine, flow.frame())
            return next(number for number, found in enumerate(arrivals(device)) if found)

        used = set()
        for flow in many_flows():
            there, back = queue_of(flow), queue_of(flow.back())
            used |= {there, back}
            apart += there != back
    assert used == {0, 1, 2, 3}
    assert (apart == 0) == (rss_key == "symmetric")


@settings(max_examples=50)
@given(flows(tag=None))
def test_the_symmetric_key_hashes_both_directions_alike(machine: Machine, flow: Flow) -> None:
    """Whatever the addresses and ports."""
    options: dict[str, Any] = {"metadata": ("hash",), "rss_key": "symmetric"}
    with open_card(machine, ring_size=64, pool_size=96, **options) as device:
        for packet in (flow, flow.back()):
            arrive(machine, packet.frame())
        with device.rx[0].receive() as batch:
            assert batch.hashes[0] == batch.hashes[1] == flow.hash(bytes.fromhex("6d5a" * 20))


# ---------------------------------------------------------------------------------------------------------------------
# The redirection table


def test_the_table_is_read_and_set(machine: Machine) -> None:
    """128 entries, at first in turns; then what is given, over and over. A queue that is not named gets nothing."""
    packets = many_flows()
    with open_card(machine, rx_queues=3) as device:
        assert device.rss is not None
        assert device.rss.table == (0, 1, 2) * 42 + (0, 1)
        device.set_rss_table([2, 1, 1, 1])
        assert device.rss.table == (2, 1, 1, 1) * 32
        for packet in packets:
            arrive(machine, packet.frame())
        queues = [2 if packet.hash(KEY) % 4 == 0 else 1 for packet in packets]
        found = arrivals(device)
        assert found == expected([packet.frame() for packet in packets], queues, 3)
        assert not found[0]
        device.set_rss_table([*[0] * 127, 1])
        assert device.rss.table == (0,) * 127 + (1,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "sim:a: entries of the redirection table 0: 1 to 128 are possible"),
        ([0] * 129, "sim:a: entries of the redirection table 129: 1 to 128"),
        ([0, 3], "sim:a: receive queue 3: 0 to 2"),
        ([-1], "sim:a: receive queue -1: 0 to 2"),
    ],
)
def test_tables_that_make_no_sense(machine: Machine, table: list[int], message: str) -> None:
    """One line that says what is possible; the table stays as it was."""
    with open_card(machine, rx_queues=3) as device:
        before = device.rss
        with pytest.raises(ConfigurationError, match=message):
            device.set_rss_table(table)
        for wrong in (["1"], [None], [0.5]):
            with pytest.raises(TypeError, match="sim:a: receive queue must be an integer"):
                device.set_rss_table(wrong)  # type: ignore[arg-type]
        assert device.rss == before


def test_there_is_no_table_where_nothing_is_hashed(machine: Machine) -> None:
    with open_card(machine) as device:
        assert device.rss is None
        with pytest.raises(ConfigurationError, match="there is no redirection table: all packets come to one"):
            device.set_rss_table([0])
    for late in (lambda: device.rss, lambda: device.spread, lambda: device.set_rss_table([0])):
        with pytest.raises(Error, match="sim:a is closed"):
            late()


# ---------------------------------------------------------------------------------------------------------------------
# What is said and what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "all packets come to one queue"),
        ({"metadata": ("hash",)}, "Toeplitz over IPv4, IPv6, TCP and UDP, 1 queue, default key"),
        ({"rx_queues": 4}, "Toeplitz over IPv4, IPv6, TCP and UDP, 4 queues, default key"),
        ({"rx_queues": 2, "rss_key": "symmetric"}, "Toeplitz over IPv4, IPv6, TCP and UDP, 2 queues, symmetric key"),
        ({"rx_queues": 16, "rss_key": b"k" * 40}, "Toeplitz over IPv4, IPv6, TCP and UDP, 16 queues, own key"),
    ],
)
def test_how_packets_are_spread_is_said(
    machine: Machine, options: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the device, and in the log when there is more than one queue."""
    caplog.set_level(logging.INFO, "ixy.device")
    with open_card(machine, ring_size=64, pool_size=96, **options) as device:
        assert device.spread == said
        assert repr(device.rss) == (f"<Rss {said}>" if device.rss else "None")
    assert caplog.messages == ([f"sim:a: {said}"] if options.get("rx_queues", 1) > 1 else [])


def test_keys_as_they_are_given(machine: Machine) -> None:
    """Read back as bytes, whatever holds them."""
    key = bytes(range(40))
    for asked, used in ((key, key), (bytearray(key), key), (memoryview(key), key), (None, KEY)):
        with open_card(machine, rx_queues=2, rss_key=asked) as device:
            assert device.rss is not None
            assert device.rss.key == used


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (b"", ConfigurationError, "rss_key of 0 bytes: a key has 40"),
        (bytes(39), ConfigurationError, "rss_key of 39 bytes: a key has 40"),
        (bytes(52), ConfigurationError, "rss_key of 52 bytes: a key has 40"),
        ("Symmetric", ConfigurationError, "rss_key 'Symmetric': write 'symmetric', or 40 bytes"),
        ("6d5a" * 20, ConfigurationError, "write 'symmetric', or 40 bytes"),
        (0x6D5A, TypeError, "rss_key must be 40 bytes, not int 27994"),
        ([0] * 40, TypeError, "rss_key must be 40 bytes, not list"),
    ],
    ids=["empty", "short", "long", "capital", "hexadecimal", "number", "list"],
)
def test_keys_that_are_refused(machine: Machine, key: Any, error: type[Exception], message: str) -> None:
    """Before the card is touched, however many queues it has."""
    for queues in (1, 2):
        with pytest.raises(error, match=re.escape(message)):
            open_card(machine, rx_queues=queues, rss_key=key)
    open_card(machine).close()


@pytest.mark.parametrize("queues", [16, 17, 128])
def test_more_queues_than_the_table_can_name(machine: Machine, queues: int) -> None:
    """An entry has 4 bits (8.2.3.7.14): packets are spread over the first 16 queues."""
    with open_card(machine, rx_queues=queues, ring_size=64, pool_size=96) as device:
        assert device.rss is not None
        assert set(device.rss.table) == set(range(16))
        if queues > 16:
            with pytest.raises(ConfigurationError, match=r"^sim:a: receive queue 16: 0 to 15 are possible"):
                device.set_rss_table([0, 16])
        assert set(device.rss.table) == set(range(16))
