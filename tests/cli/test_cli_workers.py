"""`ixy forward` with several queues and cores: what each worker carries, that nothing is lost, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections import defaultdict

import dpkt
import pytest
from captures import read_pcap, write_pcap
from messages import complaints
from toeplitz import KEY, toeplitz

PACKETS = 240  # fewer than a ring has descriptors, whichever queue they come to
FLOWS = 12
ALLOWED = sorted(os.sched_getaffinity(0))
SPREAD = "Toeplitz over IPv4, IPv6, TCP and UDP, 2 queues, default key"


def udp(number: int) -> bytes:
    """A packet of one of some flows, with a number."""
    packet = dpkt.udp.UDP(sport=1000 + number % FLOWS, dport=7, data=number.to_bytes(22, "big"))
    packet.ulen = len(packet)
    ip = dpkt.ip.IP(src=b"\x0a\x00\x00\x01", dst=b"\x0a\x00\x00\x02", p=17, ttl=9, data=packet)
    ip.len = len(ip)
    return bytes(dpkt.ethernet.Ethernet(dst=b"\x02" + bytes(5), src=b"\x06" + bytes(5), data=ip))


def queue_of(packet: bytes) -> int:
    """Where a packet comes to, by the definition of the hash: two queues take turns in the table."""
    return toeplitz(KEY, packet[26:34] + packet[34:38]) & 1


def by_flow(packets: list[bytes]) -> dict[int, list[bytes]]:
    flows: dict[int, list[bytes]] = defaultdict(list)
    for packet in packets:
        flows[struct.unpack_from(">H", packet, 34)[0]].append(packet)
    return flows


def test_two_queues(ixy, tmp_path):
    """Each flow arrives whole and in order; each worker has carried what the hash gives to its queue."""
    packets = [udp(number) for number in range(PACKETS)]
    write_pcap(tmp_path / "in.pcap", packets)
    addresses = ("sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap")
    ended = ixy("forward", *addresses, "--queues", "2", "--count", str(PACKETS), "--json")
    assert ended.code == 0, ended.errors
    assert by_flow(read_pcap(tmp_path / "out.pcap")) == by_flow(packets)
    plan, summary = json.loads(ended.output.splitlines()[0]), ended.summary
    assert (plan["type"], plan["spread"]) == ("workers", {"sim:a": SPREAD, "sim:b": SPREAD})
    assert [worker["core"] for worker in plan["workers"]] == [ALLOWED[0], ALLOWED[1 % len(ALLOWED)]]
    assert plan["workers"][1]["paths"] == [
        {"from": "sim:a rx[1]", "to": "sim:b tx[1]"},
        {"from": "sim:b rx[1]", "to": "sim:a tx[1]"},
    ]
    expected = [sum(queue_of(packet) == queue for packet in packets) for queue in range(2)]
    assert 0 < expected[0] < PACKETS
    assert [worker["received"] for worker in summary["workers"]] == expected
    assert all(worker["polls"] > 0 and 0 <= worker["idle"] <= 1 for worker in summary["workers"])
    assert (summary["received"], summary["forwarded"], summary["dropped"]) == (PACKETS, PACKETS, 0)


def test_more_queues_than_cores(ixy):
    """Workers take the cores over and over."""
    os.sched_setaffinity(0, {ALLOWED[0]})  # which the command inherits
    try:
        ended = ixy("forward", "sim:a", "sim:b", "--queues", "2", "--seconds", "0.01", "--json")
    finally:
        os.sched_setaffinity(0, ALLOWED)
    assert ended.code == 0, ended.errors
    assert [worker["core"] for worker in ended.summary["workers"]] == [ALLOWED[0]] * 2


@pytest.mark.parametrize("count", [1, 77])
def test_count_is_exact(ixy, tmp_path, count):
    """All workers together forward so many packets and not one more."""
    write_pcap(tmp_path / "in.pcap", [udp(number) for number in range(PACKETS)])
    addresses = ("sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap")
    ended = ixy("forward", *addresses, "--queues", "2", "--count", str(count), "--json")
    assert ended.code == 0, ended.errors
    assert len(read_pcap(tmp_path / "out.pcap")) == ended.summary["forwarded"] == count


def test_cores_alone(ixy, tmp_path):
    """A pair of queues for each core, both ways; as text, it is said what goes where and what each has done."""
    packets = [udp(number) for number in range(PACKETS)]
    write_pcap(tmp_path / "in.pcap", packets)
    core = ALLOWED[-1]
    addresses = ("sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap")
    ended = ixy("forward", "--touch", *addresses, "--cores", str(core), "--count", str(PACKETS))
    assert ended.code == 0, ended.errors
    touched = [packet[:48] + bytes([(packet[48] + 1) % 256]) + packet[49:] for packet in packets]
    assert read_pcap(tmp_path / "out.pcap") == touched
    lines = ended.output.splitlines()
    assert lines[:3] == [
        "sim:a: all packets come to one queue",
        "sim:b: all packets come to one queue",
        f"worker 0 on core {core}: sim:a rx[0] → sim:b tx[0], sim:b rx[0] → sim:a tx[0]",
    ]
    counts = f"received {PACKETS}, forwarded {PACKETS}, dropped 0"
    assert lines[-2].startswith(f"worker 0 on core {core}: {counts}; ")
    assert lines[-1] == counts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("limited", [False, True])
def test_a_signal_ends_the_run_cleanly(start, tmp_path, number, limited):
    """As with one queue: a summary, a whole file, and an exit code that says whether the run was cut short."""
    limit = ["--seconds", "3600"] if limited else []
    addresses = ("sim:a,gen=60,rate=1000", "sim:b,tx_pcap=out.pcap")
    process = start("forward", "--one-way", *addresses, "--queues", "2", "--json", *limit)
    kinds = [json.loads(process.stdout.readline())["type"] for _ in range(2)]
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (complaints(errors), kinds) == ("", ["workers", "rate"])
    assert process.returncode == (128 + number if limited else 0)
    summary = json.loads(output.splitlines()[-1])
    recorded = read_pcap(tmp_path / "out.pcap")
    assert len(recorded) == summary["forwarded"] == sum(worker["forwarded"] for worker in summary["workers"]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--queues", "2", "--cores", str(ALLOWED[0])], "number of cores 1: one for each worker is needed, 2"),
        (["--queues", "1", "--cores", f"{ALLOWED[0]},9999"], "number of cores 2: one for each worker is needed, 1"),
        (["--cores", f"{ALLOWED[0]},{ALLOWED[0]}"], f"core {ALLOWED[0]} is named twice"),
        (["--cores", "9999"], "core 9999: this machine has none, possible are core"),
        (["--cores", "0,x"], "--cores 'x' is no number"),
        (["--cores", "-1"], "--cores -1: 0 to 65536 are possible"),
        (["--queues", "0"], "--queues 0: 1 to 64 are possible"),
        (["--queues", "17"], "sim:a: --queues 17: it spreads packets over 16 at most"),
    ],
)
def test_what_is_refused(ixy, options, message):
    ended = ixy("forward", "sim:a,gen=60", "sim:b,sink=a", *options)
    assert message in ended.complaint()
    assert ended.output == ""


def test_a_core_that_is_not_allowed(ixy):
    """A process that may run on one core only is not let onto another."""
    if len(ALLOWED) < 2:
        return
    ended = ixy(
        "forward", "sim:a", "sim:b", "--cores", str(ALLOWED[1]),
        preexec_fn=lambda: os.sched_setaffinity(0, {ALLOWED[0]}),
    )  # fmt: skip
    assert f"core {ALLOWED[1]}: this process may not run there, possible are core {ALLOWED[0]}" in ended.complaint()
