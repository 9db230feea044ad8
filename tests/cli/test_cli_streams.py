"""Standard streams that are closed, full, no UTF-8, or carry a capture."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import dpkt
import pytest
from captures import read_pcap

COUNT = ("--count", "5")


def without(*descriptors: int) -> Callable[[], None]:
    """What a daemon does before it starts a child: close some of the standard streams."""

    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"], ["bench"], ["--version"]])
def test_full_output(ixy, arguments):
    """What is printed finds no room: one line says so, and the exit code is not 0."""
    with Path("/dev/full").open("wb") as full:
        ended = ixy(*arguments, preexec_fn=lambda: os.dup2(full.fileno(), 1))
    assert ended.complaint() == "ixy: standard output: No space left on device"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"], ["sim"]])
def test_closed_output(ixy, arguments):
    """What is printed has nowhere to go: likewise."""
    ended = ixy(*arguments, preexec_fn=without(1))
    assert ended.complaint() == "ixy: standard output: Bad file descriptor"


def test_nobody_reads_the_output(ixy):
    """A pipe whose reader has gone: a quiet end."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = ixy("list", preexec_fn=lambda: os.dup2(writer, 1))
    os.close(writer)
    assert (ended.code, ended.errors) == (1, "")


def test_closed_error_output(ixy):
    """A complaint that nobody can hear changes no exit code, and does not go to standard output."""
    ended = ixy("frobnicate", preexec_fn=without(2))
    assert (ended.code, ended.output) == (2, "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_a_capture_with_closed_streams(ixy, tmp_path, closed):
    """The file holds the packets and nothing else, whatever numbers were free; the report takes what is open."""
    ended = ixy("capture", "sim:a,gen=60,count=5", "out.pcap", *COUNT, preexec_fn=without(*closed))
    assert ended.code == 0
    assert (tmp_path / "out.pcap").stat().st_size == 24 + 5 * (16 + 60)
    assert len(read_pcap(tmp_path / "out.pcap")) == 5
    assert ("captured 5" in ended.output) == (1 not in closed)
    assert ("captured 5" in ended.errors) == (1 in closed and 2 not in closed)


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    "arguments",
    [
        ("capture", "sim:a,gen=60,count=5", "-"),
        ("capture", "sim:a,gen=60,count=5", "/dev/stdout"),
        ("generate", "sim:a,tx_pcap=-"),
        ("generate", "sim:a,tx_pcap=/proc/self/fd/1"),
        ("forward", "--one-way", "sim:a,gen=60,count=5", "sim:b,tx_pcap=-"),
    ],
)
def test_no_report_lies_in_a_capture(ixy, arguments, options):
    """A capture on standard output, however that is named: five packets and nothing else; the report goes elsewhere."""
    ended = ixy(*arguments, *COUNT, *options)
    assert ended.code == 0, ended.errors
    assert len(list(dpkt.pcap.Reader(io.BytesIO(ended.bytes)))) == 5
    assert len(ended.bytes) == 24 + 5 * (16 + 60)
    assert ('"tx_packets"' if options else "out ") in ended.errors


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_output_that_is_no_utf8(ixy, encoding):
    """What the encoding lacks is replaced: the summary's arrow."""
    variables = {"PYTHONIOENCODING": encoding}
    ended = ixy("forward", "sim:a,gen=60,count=5", "sim:b,sink=a", *COUNT, variables=variables)
    assert (ended.code, ended.errors) == (0, "")
    arrow = "→" if encoding == "utf-16" else "?"
    assert f"sim:a {arrow} sim:b: sent 5, received 5" in ended.bytes.decode(encoding)
