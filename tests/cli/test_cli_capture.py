"""`ixy capture`: a file that others can read, also when its end came early."""

from __future__ import annotations

import io
import re
import resource
import signal
import time

import dpkt
from captures import frames, read_pcap, write_pcap
from messages import complaints, report

PACKETS = 200


def test_packets_and_times(ixy, tmp_path):
    """What the card receives is in the file, in order, with times of today that do not go back."""
    write_pcap(tmp_path / "in.pcap", frames(PACKETS))
    before = time.time()
    ended = ixy("capture", "sim:a,rx_pcap=in.pcap", "out.pcap", "--count", str(PACKETS))
    after = time.time()
    assert ended.code == 0, ended.errors
    assert f"captured {PACKETS}" in ended.output
    assert read_pcap(tmp_path / "out.pcap") == frames(PACKETS)
    with (tmp_path / "out.pcap").open("rb") as file:
        times = [float(stamp) for stamp, _ in dpkt.pcap.Reader(file)]
    assert before <= times[0] <= times[-1] <= after
    assert times == sorted(times)


def test_count_is_exact(ixy, tmp_path):
    """`--count` ends the capture after so many packets of an endless stream, all buffers being used many times."""
    ended = ixy("capture", "sim:a,gen=60", "out.pcap", "--count", "10001", "--json")
    assert ended.code == 0, ended.errors
    numbers = [int.from_bytes(packet[-4:], "big") for packet in read_pcap(tmp_path / "out.pcap")]
    assert numbers == list(range(10001))
    assert ended.summary["captured"] == 10001
    assert ended.summary["devices"][0]["rx_starved"] == 0


def test_snaplen_cuts_packets(ixy, tmp_path):
    """`--snaplen` keeps the first bytes, and the records say how long the packets were."""
    write_pcap(tmp_path / "in.pcap", frames(3))
    ended = ixy("capture", "sim:a,rx_pcap=in.pcap", "out.pcap", "--count", "3", "--snaplen", "64")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == [packet[:64] for packet in frames(3)]
    records = (tmp_path / "out.pcap").read_bytes()[24:]
    lengths = [len(packet) for packet in frames(3)]
    assert int.from_bytes(records[8:12], "little") == min(lengths[0], 64)
    assert int.from_bytes(records[12:16], "little") == lengths[0]


def test_standard_output(ixy, tmp_path):
    """With - for a file the packets go to standard output, and the report to standard error."""
    write_pcap(tmp_path / "in.pcap", frames(PACKETS))
    ended = ixy("capture", "sim:a,rx_pcap=in.pcap", "-", "--count", str(PACKETS))
    assert ended.code == 0
    assert [bytes(packet) for _, packet in dpkt.pcap.Reader(io.BytesIO(ended.bytes))] == frames(PACKETS)
    assert f"captured {PACKETS}" in ended.errors


def test_interrupted(start, tmp_path):
    """Ctrl-C after the first report: the file holds as many packets as the summary says."""
    process = start("capture", "sim:a,gen=60,rate=1000", "out.pcap")
    next(report(process.stdout))
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, complaints(errors)) == (0, "")
    assert f"captured {len(read_pcap(tmp_path / 'out.pcap'))}, lost" in output


def test_disk_full(ixy):
    """Nothing can be written: one line says so."""
    assert ixy("capture", "sim:a,gen=60", "/dev/full").complaint().startswith("ixy: /dev/full: disk full")


def test_disk_full_amid_the_capture(ixy, tmp_path):
    """The file may not grow beyond 32 MiB: it ends with a whole packet, and the message counts them."""
    limit = 32 << 20  # more than the memory of a device, which is made of files too

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = ixy("capture", "sim:a,gen=1514", "out.pcap", preexec_fn=limit_files)
    assert ended.code == 2
    (line,) = ended.errors.splitlines()
    # A header of 24 bytes, then 16 + 1514 bytes a packet
    whole = (limit - 24) // 1530
    assert re.fullmatch(rf"ixy: out\.pcap: .*; packets written whole: {whole}", line)
    assert len(read_pcap(tmp_path / "out.pcap")) == whole
    assert f"captured {whole}, lost by card" in ended.output


def test_closed_pipe(start):
    """The reader of the packets goes away: the message says so and counts what was written."""
    process = start("capture", "sim:a,gen=60", "-")
    process.stdout.buffer.read(24)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 2
    assert re.fullmatch(r"ixy: standard output: pipe closed; packets written whole: \d+", errors.splitlines()[-1])
    assert "Traceback" not in errors
