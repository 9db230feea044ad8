"""`ixy test`: one trial from port to port, its report, its exit codes, and a device under test in another process."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from contextlib import ExitStack

import dpkt
import pytest
from captures import read_pcap

from ixy.apps import tester
from ixy.apps.rate import parse_rate
from ixy.apps.trial import usual_stream
from ixy.device import open_device

LINK = ("sim:a,cable=b,wire=10G,clock=virtual", "sim:b,clock=virtual")
IMPAIRED = (f"{LINK[0]},delay=9us,jitter=2us,loss=0.01,duplicate=0.02,corrupt=0.05,seed=1", LINK[1])


def test_all_arrives(ixy):
    """1000 packets at a rate: each takes the 67 ns that it is on the wire and the cable's delay, exit code 0."""
    ended = ixy("test", f"{LINK[0]},delay=5us", LINK[1], "--rate", "1Mpps", "--count", "1000", "--json")
    assert (ended.code, ended.errors) == (0, "")
    summary = ended.summary
    assert [summary[name] for name in ("sent", "received", "lost", "corrupted", "ok")] == [1000, 1000, 0, 0, True]
    (stream,) = summary["streams"]
    assert stream["latency_ns"] == dict.fromkeys(("min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"), 5067)
    assert stream["jitter_ns"]["max"] == 0
    ((least, count),) = stream["histogram"]
    assert (least <= 5067 < least * 1.02, count) == (True, 1000)


def test_the_summary_says_what_the_cable_did(ixy):
    """The cable's own counts, which are in the summary too, for both directions."""
    arguments = ("--rate", "2Mpps", "--count", "2000", "--both-ways", "--vlan", "9", "--ipv6", "--no-learning")
    ended = ixy("test", *IMPAIRED, *arguments, "--json")
    assert ended.code == 1
    summary = ended.summary
    assert [cable["from"] for cable in summary["cables"]] == ["sim:a", "sim:b"]
    for stream, cable in zip(summary["streams"], summary["cables"], strict=True):
        for name in ("sent", "lost", "duplicated"):
            assert stream[name] == cable[name]
        assert (stream["received"], stream["corrupted"]) == (cable["arrived"], cable["corrupted"])
        assert 7000 <= stream["latency_ns"]["min"] < stream["latency_ns"]["max"] <= 11_100
    assert ixy("test", *IMPAIRED, *arguments, "--json").summary == summary  # a run can be repeated


@pytest.mark.once
def test_a_table(ixy, tmp_path):
    ended = ixy("test", *IMPAIRED, "--rate", "2Mpps", "--count", "500", "--both-ways", "--csv", "out.csv", "--json")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, stream in zip(rows, ended.summary["streams"], strict=True):
        assert (row["direction"], row["name"]) == (stream["direction"], "udp")
        assert int(row["lost"]) == stream["lost"]
        assert int(row["latency_p99.9_ns"]) == stream["latency_ns"]["p99.9"]
    ended = ixy("test", *LINK, "--count", "10", "--csv", "-")
    assert ended.code == 0
    (row,) = csv.DictReader(io.StringIO(ended.output))  # the report goes to standard error
    assert (row["sent"], row["received"]) == ("10", "10")


@pytest.mark.once
def test_lines_for_people(ixy):
    """A line a second, with what was lost so far; then a row a stream, and a histogram."""
    ended = ixy("test", *IMPAIRED, "--rate", "1kpps", "--seconds", "2.5", "--settle", "0.1", "--no-learning")
    assert ended.code == 1
    lines = ended.output.splitlines()
    live = [line for line in lines if line.startswith("sent ")]
    assert len(live) == 3
    assert live[0].startswith("sent 1000, received ")
    assert live[1].startswith("sent 2000, received ")
    assert live[-1].startswith("sent 2500, received ")
    assert live[-1].endswith(": not ok")
    assert sum("sim:a → sim:b  udp" in line for line in lines) == 3
    assert sum("█" in line for line in lines) == 16


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "50"), "--size 50: 60 to 1514 are possible"),
        (("--size", "79", "--ipv6"), "--size 79: headers and signature need 80 bytes"),
        (("--size", "60", "--vlan", "1"), "--size 60: headers and signature need 64 bytes"),
        (("--flows", "0"), "--flows 0: 1 to"),
        (("--rate", "0"), "--rate 0: 1 to"),
        (("--rate", "15Mpps"), "rate 15000000 packets per second: that is 10080.0 Mbit/s on the wire"),
        (("--burst", "5"), "--burst goes with a --rate"),
        (("--vlan", "4095"), "--vlan 4095: 0 to 4094 are possible"),
        (("--streams", "none.yaml"), "none.yaml: No such file"),
        (("--streams", "none.yaml", "--ipv6"), "--streams says all of its packets"),
        (("--csv", "none/out.csv"), "none/out.csv: No such file"),
        (("sim:c",), "Got unexpected extra argument (sim:c)"),
    ],
)
def test_bad_input(ixy, arguments, message):
    """One line, and exit code 2."""
    assert message in ixy("test", *LINK, "--count", "5", *arguments).complaint()


@pytest.mark.once
def test_without_arguments(ixy):
    """The group prints its help; one port is not enough."""
    assert "run  " in ixy("test").output
    assert "Missing argument 'B'" in ixy("test", "sim:a").complaint()


@pytest.mark.once
def test_streams_of_a_file(ixy, tmp_path):
    """Each stream is judged by itself; one with small packets has no room for a signature, and is refused by name."""
    text = """streams:
  - {name: one, share: 3, size: "70,71", packet: {ipv4: {src: {random: 10.0.0.0/8}}, udp: {sport: {count: 1024-2047}}}}
  - {name: two, size: SIZE, flows: 100, packet: {ipv6: {}, tcp: {sport: {random: 1024-65535}}}}
"""
    for size, code in (("92", 0), ("91", 2)):
        (tmp_path / "streams.yaml").write_text(text.replace("SIZE", size))
        ended = ixy("test", *LINK, "--streams", "streams.yaml", "--count", "400", "--rate", "1Mpps", "--json")
        assert ended.code == code
    assert "two: size 91: its headers and the signature behind them need 92 bytes" in ended.complaint()


def test_through_a_forwarder(start, tmp_path):
    """The device under test is `ixy forward` in another process, between two cables; both ways."""
    paths = [str(tmp_path / name) for name in ("one", "two")]
    forwarder = start(
        "forward", *(f"sim:{end},cable=unix:{path}" for end, path in zip("ab", paths, strict=True)), "--json"
    )
    deadline = time.monotonic() + 300
    try:
        with ExitStack() as stack:
            addresses = [f"sim:{end},cable=unix:{path}" for end, path in zip("cd", paths, strict=True)]
            ports = [stack.enter_context(open_device(address, link_timeout=0)) for address in addresses]
            trials = tester.Tester(ports, [usual_stream("60-100", flows=50)], both_ways=True, settle=1)
            while not trials.run(tester.Trial(count=1)).ok:  # until the forwarder has begun
                assert time.monotonic() < deadline
            result = trials.run(tester.Trial(parse_rate("rate", "1kpps"), count=500))
    finally:
        forwarder.send_signal(signal.SIGINT)
        told, _ = forwarder.communicate(timeout=60)
    assert result.ok, result
    assert [stream.received for stream in result.streams] == [500, 500]
    assert [stream.direction for stream in result.streams] == ["sim:c → sim:d", "sim:d → sim:c"]
    assert result.delays.least > 0
    assert json.loads(told.splitlines()[-1])["forwarded"] >= 1002


@pytest.mark.once
@pytest.mark.parametrize(("touch", "wrong"), [(",touch=48", 100), ("", 0)])
def test_forward_and_echo_end_with_1_for_a_wrong_packet(ixy, touch, wrong):
    """A sink that expects a byte raised, which nobody does, and one that expects none."""
    for arguments in (
        ("forward", "sim:a,gen=60,count=100", f"sim:b,sink=a{touch}", "--count", "100"),
        ("echo", f"sim:a,gen=60,count=100{touch}", "--count", "100"),
    ):
        ended = ixy(*arguments)
        assert f"received 100, lost 0, duplicated 0, reordered 0, wrong {wrong}" in ended.output
        assert ended.code == int(wrong > 0), ended.errors


@pytest.mark.once
def test_forward_ends_with_1_for_a_lost_packet(ixy):
    """A filter lets no packet pass whose number is 40 to 43: the sink sees four that are missing, and none wrong."""
    wanted = "ether[59] < 40 or ether[59] > 43"
    ended = ixy("forward", "sim:a,gen=60,count=100", "sim:b,sink=a", "--count", "100", "--filter", wanted)
    assert "received 96, lost 4, duplicated 0, reordered 0, wrong 0" in ended.output
    assert ended.code == 1


def test_interrupted(start):
    """Ctrl-C ends a trial, which has a summary: exit code 130."""
    process = start("test", "sim:a,cable=b,wire=10G", "sim:b", "--rate", "1kpps", "--seconds", "60", "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["type"] == "rate"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    summary = json.loads(output.splitlines()[-1])
    assert (summary["type"], summary["lost"]) == ("summary", 0)
    assert summary["sent"] >= first["sent"] > 0


@pytest.mark.once
def test_flows_are_sent(ixy, tmp_path):
    """So many, in turn, told apart by source address and port; what is sent is recorded, and nothing arrives."""
    pair = ("sim:a,tx_pcap=out.pcap,clock=virtual", "sim:b,clock=virtual")
    for options, version in (((), "ip"), (("--ipv6",), "ip6")):
        ended = ixy("test", *pair, "--flows", "5", "--count", "20", *options, variables={"IXY_JIT": "0"})
        assert ended.code == 1, ended.errors
        assert "sent 20, received 0, lost 20" in ended.output
        frames = [dpkt.ethernet.Ethernet(frame) for frame in read_pcap(tmp_path / "out.pcap")]
        flows = [(bytes(getattr(frame, version).src), frame.data.data.sport) for frame in frames]
        assert (len(set(flows[:5])), flows[5:]) == (5, flows[:5] * 3)
