"""`--wait`: commands that sleep while no packets come do the same as those that poll, and end as soon."""

from __future__ import annotations

import json
import signal

import pytest
from captures import read_pcap
from messages import report

PACKETS = 200


def test_forward_waits(ixy, tmp_path):
    """Packets that come one by one, with gaps between them, all arrive, in order; the count ends it."""
    addresses = ("sim:a,gen=60,rate=2000", "sim:b,tx_pcap=out.pcap")
    ended = ixy("forward", "--wait", *addresses, "--count", str(PACKETS))
    assert ended.code == 0, ended.errors
    recorded = read_pcap(tmp_path / "out.pcap")
    assert [int.from_bytes(packet[-4:], "big") for packet in recorded] == list(range(PACKETS))


def test_echo_waits(ixy):
    ended = ixy("echo", "--wait", "sim:a,gen=60,rate=2000", "--count", str(PACKETS), "--json")
    assert ended.code == 0, ended.errors
    assert ended.summary["forwarded"] == PACKETS


def test_capture_waits(ixy, tmp_path):
    ended = ixy("capture", "--wait", "sim:a,gen=60,rate=2000", "out.pcap", "--count", str(PACKETS))
    assert ended.code == 0, ended.errors
    assert len(read_pcap(tmp_path / "out.pcap")) == PACKETS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_sleeps(start, number):
    """No packet ever comes; the report of the first second has."""
    running = start("echo", "--wait", "sim:a,cable=b")
    assert next(report(running.stdout))
    running.send_signal(number)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert "received 0, forwarded 0" in output


def test_latency_of_both(ixy):
    """A histogram each, of all frames but the first tenth."""
    ended = ixy("bench", "latency", "--rate", "500", "--seconds", "0.2", "--json")
    assert ended.code == 0, ended.errors
    polls, waits = map(json.loads, ended.output.splitlines())
    assert [polls["path"], waits["path"]] == ["polls", "waits"]
    for found in (polls, waits):
        assert found["lost"] == 0
        assert sum(found["histogram"].values()) == 90
