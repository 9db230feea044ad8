"""The benchmarks, on small counts: that they measure what they say they measure. Figures are nobody's promise here."""

from __future__ import annotations

import json
import os
from pathlib import Path as FilePath

import pytest
from click.testing import CliRunner

from ixy.bench import lockstep, rates, virtio_peer
from ixy.bench.lockstep import Cost, Lane
from ixy.bench.reference import NoReference, build
from ixy.cli.bench import bench
from ixy.device import open_device
from ixy.errors import Error, MemoryUnavailable
from ixy.path import Path, unchanged
from ixy.sim.machine import Machine

COST_MEMBERS = [
    "batch",
    "cycles_per_packet",
    "cycles_per_packet_min",
    "cycles_per_packet_max",
    "reference_cycles_per_packet",
    "reference_cycles_per_packet_min",
    "reference_cycles_per_packet_max",
    "ratio",
    "unit",
]


def run(*arguments: str) -> list[dict[str, object]]:
    """What `ixy bench … --json` prints, an object a line."""
    result = CliRunner().invoke(bench, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> None:
    """A machine without a C compiler, on which nothing was compiled before."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_forward_prints_one_object_per_batch() -> None:
    """Two batch sizes are measured beside C: two objects with all members, and positive figures."""
    costs = run("forward", "--batch", "1,32", "--rounds", "4", "--repeat", "2")
    assert [cost["batch"] for cost in costs] == [1, 32]
    for cost in costs:
        assert list(cost) == COST_MEMBERS
        assert isinstance(cost["reference_cycles_per_packet"], float)
        assert isinstance(cost["ratio"], float)


def test_forward_prints_a_table() -> None:
    """Without --json people get a table with a row per batch, and the machine that it was measured on."""
    result = CliRunner().invoke(bench, ["forward", "--batch", "8", "--rounds", "2", "--repeat", "1"])
    assert result.exit_code == 0
    assert "C reference" in result.stdout
    assert "Python 3." in " ".join(result.stdout.split())  # a narrow terminal wraps the line


def test_driver_and_reference_forward_the_right_bytes() -> None:
    """Both lanes forward every batch size that fits: sinks find each packet, in order, byte 48 raised by one."""
    with lockstep.lanes() as (driver, reference, missing):
        assert reference is not None, missing
        for batch in (1, 7, 32, lockstep.MAX_BATCH):
            for lane in (driver, reference):
                lane.measure(batch, 3)
                lane.check()


def test_a_forwarder_that_is_wrong_is_found_out() -> None:
    """A forwarder that does not change byte 48 has no figures: the check says that packets came out wrong."""
    host = Machine(stepped=True)
    with (
        open_device("sim:a,gen=60", ring_size=lockstep.RING_SIZE, sim=host) as one,
        open_device("sim:b,sink=a,touch=48", ring_size=lockstep.RING_SIZE, sim=host) as two,
    ):
        path = Path(one.rx[0], two.tx[0], unchanged, 32)
        lane = Lane(host, "a", "b", lambda _: (path.poll, path.state))
        with pytest.raises(Error, match="did not arrive as they should"):
            lockstep.measure(lane, None, 32, 2, 1)


@pytest.mark.usefixtures("no_compiler")
def test_forward_without_a_compiler() -> None:
    """No C compiler: the driver is measured all the same, the reference's members are null, and a note says why."""
    result = CliRunner().invoke(bench, ["forward", "--batch", "8", "--rounds", "2", "--repeat", "1", "--json"])
    assert result.exit_code == 0
    cost = json.loads(result.stdout)
    assert cost["cycles_per_packet"] is not None
    assert [cost[name] for name in COST_MEMBERS[4:8]] == [None] * 4
    assert "no C compiler" in result.stderr


def test_the_reference_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> None:
    """What was compiled is found again, and nothing else is left in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = build()
    made = library.stat().st_mtime_ns
    assert build() == library
    assert library.stat().st_mtime_ns == made
    assert list(tmp_path.rglob("*")) == [tmp_path / "ixy", library]


def test_a_compiler_that_fails_is_no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> None:
    """A compiler that ends with an error: its first line is the reason."""
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\necho 'no such processor' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(NoReference, match="no such processor"):
        build()


def test_ratio_compares_what_was_measured_together() -> None:
    """Three repetitions, the second disturbed on both sides: the ratio is the median of the pairs' ratios."""
    assert Cost(32, driver=[10.0, 90.0, 12.0], reference=[20.0, 180.0, 20.0]).ratio == 0.5
    assert Cost(32, driver=[10.0], reference=[]).ratio is None


def test_a_comparison_with_dpdk_without_huge_pages_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three huge pages are free, and two processes of DPDK with 256 MiB each need more: nothing is started."""
    monkeypatch.setattr(virtio_peer, "free_huge_pages", lambda: 3)
    with pytest.raises(MemoryUnavailable, match="272 huge pages, 3 are free; run: sudo ixy setup --pages 272"):
        virtio_peer.compare(1, ("split",), print)


@pytest.mark.parametrize("batch", ["0", "257", "8,", "many", "-1"])
def test_impossible_batches_are_refused(batch: str) -> None:
    """A batch that does not fit the rings, or is no number, is an error of usage that names what is possible."""
    result = CliRunner().invoke(bench, ["forward", "--batch", batch])
    assert result.exit_code == 2
    assert "1 to 256 packets are possible" in result.stderr


@pytest.mark.parametrize(("command", "kinds"), [("rate", ["compiled"]), ("python", ["numpy", "packets"])])
def test_rates(command: str, kinds: list[str]) -> None:
    """Each way to forward packets gives an object with its rate in two windows."""
    measured = run(command, "--batch", "32", "--seconds", "0.5", "--repeat", "2")
    assert [rate["what"] for rate in measured] == kinds
    for rate in measured:
        assert rate["batch"] == 32
        assert 0 <= float(str(rate["mpps_min"])) <= float(str(rate["mpps"])) <= float(str(rate["mpps_max"]))


def test_rates_keep_the_process_on_its_cores() -> None:
    """Pinning threads to cores is undone when the measurement is over."""
    cores = os.sched_getaffinity(0)
    rates.measure("compiled", 32, 0.1, 1)
    assert os.sched_getaffinity(0) == cores
