"""`ixy demo`: succeeds if every packet that arrives is as it should be, and fails if one is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BROKEN_FORWARDER = """
import sys
import ixy
import ixy.apps.demo
from ixy.cli import run

@ixy.kernel
def forward(packet):
    packet[48] += 1
    {fault}
    return ixy.FORWARD

ixy.apps.demo.touch = forward
sys.exit(run(["demo", "--count", "200"]))
"""


def demo_with(fault: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """The demonstration with a forwarder that does something else besides."""
    script = directory / "broken.py"
    script.write_text(BROKEN_FORWARDER.format(fault=fault))
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)


def test_all_packets_pass(ixy):
    """2000 packets go in at one card and out at the other, all of them right."""
    ended = ixy("demo", "--count", "2000", "--json")
    assert ended.code == 0
    summary = ended.summary
    assert [summary[key] for key in ("sent", "received", "lost", "wrong", "reordered")] == [2000, 2000, 0, 0, 0]
    assert summary["ok"] is True
    source, target = summary["devices"]
    # 60 bytes and a frame check sequence of 4 each
    assert (source["rx_packets"], source["rx_dropped"]) == (2000, 0)
    assert (target["tx_packets"], target["tx_bytes"]) == (2000, 128_000)


def test_largest_packets_pass(ixy):
    """The same with 1514 bytes, in batches of 1; the summary is text."""
    ended = ixy("demo", "--count", "300", "--size", "1514", "--batch", "1")
    assert ended.code == 0
    assert "sent 300, received 300, lost 0, wrong 0, duplicated 0, reordered 0: ok\n" in ended.output


def test_a_wrong_byte_fails(tmp_path):
    """A forwarder that changes one more byte of every packet: all are wrong, exit code 1."""
    process = demo_with("packet[20] += 1", tmp_path)
    assert process.returncode == 1
    assert "sent 200, received 200, lost 0, wrong 200, duplicated 0, reordered 0: not ok\n" in process.stdout


def test_one_wrong_packet_fails(tmp_path):
    """A forwarder that spoils only the packet with number 77: one is wrong, exit code 1."""
    process = demo_with("if packet[59] == 77: packet[30] ^= 1", tmp_path)
    assert process.returncode == 1
    assert "wrong 1," in process.stdout


def test_nothing_arrives_fails(tmp_path):
    """A forwarder that drops everything: the demonstration ends all the same, with exit code 1."""
    process = demo_with("return ixy.DROP", tmp_path)
    assert process.returncode == 1
    assert "sent 200, received 0, lost 200, wrong 0, duplicated 0, reordered 0: not ok\n" in process.stdout
