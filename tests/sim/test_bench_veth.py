"""Measuring on a veth pair: packets are counted right, programs that are missing are named, rates fall into groups."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from namespaces import needs, wait_until

from ixy import cli
from ixy.bench import contest, slices, veth
from ixy.bench.contenders import TOOLS, recorded
from ixy.bench.contest import Task, lines, measure, rows
from ixy.bench.tally import new_tally, open_tally
from ixy.cli.bench import bench
from ixy.errors import Error, PermissionDenied
from ixy.formats.frames import udp_frame

two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


def marked(function: Any) -> Any:
    """A test that needs the namespace. What it starts is the same in either mode."""
    for mark in (*needs("unshare", "setpriv", "taskset"), two_cores, pytest.mark.once):
        function = mark(function)
    return function


@marked
def test_the_far_end_counts_each_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 frames are sent to it by a socket, and it sends some itself: each is counted, at both ends. In the namespace
    there is nothing else, and nothing of it is left.
    """
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))
    (found,) = veth.started_there("counted_there", {"count": 300})
    assert (found["arrived"], found["sent_before"], found["thread"]) == (300, 0, 0)
    assert found["received"] == found["sent"] > 300
    assert bytes.fromhex(found["frame"]) == udp_frame(60)
    assert found["interfaces"] == ["ixy0", "ixy1", "lo"]
    assert "ixy0" not in Path("/proc/net/dev").read_text()


@marked
@pytest.mark.parametrize(
    ("task", "ours", "missing"),
    [
        (Task("drivers", 1, ("forward",), (32,), 0.1), {"ixy xdp:", "ixy packet:"}, {"net_af_xdp", "net_af_packet"}),
        (Task("tools", 1, ("capture",), (), 0.1), {"ixy capture xdp:", "ixy capture packet:"}, {"tcpdump -w"}),
    ],
)
def test_no_more_is_received_than_was_sent(
    task: Task,
    ours: set[str],
    missing: set[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For a short time, on a system that has no other tools than Scapy: those are named, and each that is there has
    received, or returned, some of the packets, but for Scapy, to which a moment is short. Who counts more than there
    were is no row.
    """
    for program in ("setpriv", "unshare", "taskset", "ip", "mount"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(measure(task))
    measured = {row["contender"]: row for row in found if "missing" not in row}
    reasons = {row["missing"]: row["why"] for row in found if "missing" in row}
    assert ours <= measured.keys()
    assert missing <= reasons.keys()
    assert all("is not installed; run: apt-get install" in why for why in reasons.values())
    for row in measured.values():
        assert row["mpps"]["of"] == len(row["starts"]) == task.starts
        assert row["mpps"]["min"] > 0 or row["contender"].startswith("Scapy")
        assert 0 <= row.get("share", 0) <= 1
        assert ("share" in row) == (task.works == ("capture",))
    assert "start 1 of 1, 1 of" in capsys.readouterr().err


@marked
def test_a_helper_ends_with_who_started_it() -> None:
    """A process that is killed while it measures leaves no process behind, and no interface."""
    script = (
        "from ixy.bench import contest, veth; task = contest.Task('drivers', 100, ('receive',), (32,), 0.1)._asdict()\n"
        "for found in veth.started_there('ixy.bench.contest', task): print('measured', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "measured\n"
        helpers = descendants(process.pid)
        assert len(helpers) > 1
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in helpers), "a helper lives on")


def descendants(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    children = [int(word) for word in text.split()]
    return [*children, *(each for child in children for each in descendants(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.once
def test_groups_are_compared_with_groups() -> None:
    """Ours starts fast three times and slowly twice, the other four times and once: medians 0.90 by 0.88, 0.65 by 0.60.
    Two packets of three were received.
    """
    ours, theirs = [0.90, 0.65, 0.91, 0.65, 0.88], [0.88, 0.88, 0.60, 0.89, 0.86]
    found = [
        {"work": "receive", "batch": 32, "contender": name, "mpps": speed, "share": 2 / 3, "calm": 0.5}
        for pair in zip(ours, theirs, strict=True)
        for name, speed in zip(("ixy xdp:", "net_af_xdp"), pair, strict=True)
    ]
    first, second = rows(found)
    assert first["mpps"] == {"median": 0.88, "min": 0.65, "max": 0.91, "of": 5}
    assert first["fast"] == {"median": 0.90, "min": 0.88, "max": 0.91, "of": 3}
    assert first["slow"] == {"median": 0.65, "min": 0.65, "max": 0.65, "of": 2}
    assert first["beside"] == {"rival": "net_af_xdp", "fast": 1.023, "slow": 1.083}
    assert (first["share"], first["calm"], first["starts"]) == (0.6667, 0.5, ours)
    assert "beside" not in second
    heading, line, _ = lines(iter([first, second]))
    assert heading.startswith("receive, batch 32: Mpps")
    assert "0.88 (0.65–0.91), fast 0.9 × 3, slow 0.65 × 2, 66.7% of what came, 1.02 (fast) and 1.08 (slow)" in line


@pytest.mark.once
def test_a_file_tells_how_many_packets_it_holds(tmp_path: Path) -> None:
    """A pcap of 60-byte frames: 24 bytes, and 16 before each."""
    path = tmp_path / "a.pcap"
    assert recorded(path) == 0
    path.write_bytes(bytes(24 + 7 * 76 + 75))
    assert recorded(path) == 7


@pytest.mark.once
def test_a_tally_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "tally"
    seen = new_tally(path)
    assert seen[0] == -1
    written = open_tally(str(path))
    assert seen[0] == 0
    written[0] += 5
    assert seen[0] == 5


@pytest.mark.once
def test_slices_in_which_a_program_stood_still_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six slices of 50 ms, in which the counter moves 1,000, 0, 10, 1,100, 1,203 and 1: the program runs, waits for its
    core, and still does; then only one of its threads waits, then it waits for packets; and in the last slice it waits
    for its core, which it tells one later. Such a wait can have begun in the slice before, which does not count either.
    """
    ms = 1_000_000
    run, waited = [50, 0, 10, 50, 10, 0, 10], [0, 0, 90, 50, 0, 0, 90]
    schedules = iter([(sum(run[:i]) * ms, sum(waited[:i]) * ms) for i in range(8)])
    counts, moments = iter([0, 1000, 1000, 1010, 2110, 3313, 3314, 3315]), iter(range(0, 1000 * ms, 50 * ms))
    monkeypatch.setattr(slices, "_schedule", lambda _: next(schedules))
    monkeypatch.setattr(slices.time, "monotonic_ns", lambda: next(moments))
    monkeypatch.setattr(slices.time, "sleep", lambda _: None)
    found = slices.rates(lambda: next(counts), ["1/task/*"], 0.3)
    assert found == (pytest.approx(1100 / 0.05), 1, 6)


@pytest.mark.once
def test_without_roots_rights_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command for that alone ends with exit code 2; among the tools' others, it is one line."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionDenied):
        next(veth.started_there("ixy.bench.contest", {}))
    assert cli.run(["bench", "xdp"]) == 2
    assert "run as root (sudo)" in capsys.readouterr().err
    done = CliRunner().invoke(bench, ["traffic", "beside"])
    assert done.exit_code == 0
    assert done.stdout.startswith("not measured: the tools beside others: a veth pair")


@pytest.mark.once
def test_what_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", "xdp", "juggle"]) == 2
    assert "no work 'juggle': there is receive, transmit, forward" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(Error, match="2 cores are needed"):
        next(veth.started_there("ixy.bench.contest", {}))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "tcpdump" else name)
    (missing,) = [each.missing() for each in TOOLS if each.name == "tcpdump -w"]
    assert missing == "tcpdump is not installed; run: apt-get install tcpdump"
    assert json.loads(json.dumps(contest.Task("tools", 1)._asdict()))["seconds"] == contest.SECONDS
