"""The benchmarks, on small counts: that they measure what they say they measure. Figures are nobody's promise here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from ixy import cli
from ixy.bench import lockstep, rates, turns, virtio, virtio_peer
from ixy.bench.lockstep import Cost, Lane, Lanes
from ixy.bench.reference import OURS, PUBLISHED, Algorithm, Limit, NoReference, Reference, build
from ixy.cli.bench import bench
from ixy.device import open_device
from ixy.errors import Error, MemoryUnavailable
from ixy.path import Path, entered, touch, unchanged
from ixy.sim.machine import Machine

if TYPE_CHECKING:
    from ixy.device import RxQueue, TxQueue

SIDES = ["", "reference_", "layout_", "scalar_limit_", "simd_limit_"]
COSTS = [f"{side}cycles_per_packet{end}" for side in SIDES for end in ("", "_min", "_max")]
RATIOS = ["ratio", "ratio_to_layout", "ratio_to_scalar_limit", "ratio_to_simd_limit"]
COST_MEMBERS = ["batch", *COSTS, *RATIOS, "unit"]


def has_avx512() -> bool:
    return "avx512f" in FilePath("/proc/cpuinfo").read_text()


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
        for name in (*COSTS, *RATIOS):
            assert isinstance(cost[name], float) if "simd" not in name or has_avx512() else cost[name] is None


def test_forward_tells_what_metadata_costs() -> None:
    """Asked for, it is measured beside: three more members, and positive figures."""
    (cost,) = run("forward", "--batch", "8", "--rounds", "4", "--repeat", "1", "--metadata", "flags,hash,vlan")
    members = [f"metadata_cycles_per_packet{end}" for end in ("", "_min", "_max")]
    assert list(cost) == [*COST_MEMBERS[:-1], *members, COST_MEMBERS[-1]]
    assert all(isinstance(cost[name], float) for name in members)


def test_forward_prints_a_table() -> None:
    """Without --json people get a table with a row per batch, and the machine that it was measured on."""
    wide = {"COLUMNS": "200"}  # a narrow terminal wraps lines
    result = CliRunner(env=wide).invoke(bench, ["forward", "--batch", "8", "--rounds", "2", "--repeat", "1"])
    assert result.exit_code == 0
    table = result.stdout
    assert "Python 3." in table
    assert table.index("our layout") < table.index("published")


def test_driver_and_references_forward_the_right_bytes() -> None:
    """All lanes forward every batch size that fits: sinks find each packet, in order, byte 48 raised by one."""
    with lockstep.lanes(["hash"]) as (lanes, missing):
        for name, lane in lanes._asdict().items():
            if (name == "simd_limit" and not has_avx512()) or name == "offloads":  # which nobody has asked for
                assert lane is None
                continue
            assert lane is not None, missing
            for batch in (1, 7, 32, lockstep.MAX_BATCH):
                lane.measure(batch, 3)
                lane.check()


def driver_forwarder(rx: RxQueue, tx: TxQueue, _host: Machine) -> tuple[Any, Any, Callable[[], None]]:
    path = Path(rx, tx, touch, batch=32)
    block = entered(path)
    block.__enter__()
    return path.kernels.poll, path.state, lambda: block.__exit__(None, None, None)


def reference_forwarder(
    take_over: Callable[..., Reference], rx: RxQueue, tx: TxQueue, host: Machine
) -> tuple[Any, Any, Callable[[], None]]:
    reference = take_over(build(), rx, tx, host)
    reference.set_batch(32)
    return reference.poll, reference.handle, reference.close


@pytest.mark.parametrize(
    ("forwarder", "stride", "reported"),
    [
        (driver_forwarder, 2112, range(31, 512, 32)),
        (partial(reference_forwarder, partial(Algorithm, layout=OURS)), 2112, range(31, 512, 32)),
        (partial(reference_forwarder, partial(Algorithm, layout=PUBLISHED)), 2048, range(512)),
        (partial(reference_forwarder, partial(Limit, simd=False)), 2112, range(31, 512, 32)),
    ],
    ids=["driver", "layout", "reference", "limit"],
)
def test_layouts_are_what_they_are_called(forwarder: Any, stride: int, reported: range) -> None:
    """What lies in the rings: buffers so far apart, and transmit descriptors in which the card reported a status.

    Of 512 descriptors the card has written to each, or to the last of each 32; the driver and C with the driver's
    layout agree.
    """
    host = Machine(stepped=True)
    with (
        ExitStack() as behind,
        open_device("sim:a,gen=60", ring_size=lockstep.RING_SIZE, sim=host) as one,
        open_device("sim:b,sink=a,touch=48", ring_size=lockstep.RING_SIZE, sim=host) as two,
    ):
        receive, transmit = (ring.state.descriptors for ring in (one.rx[0].ring, two.tx[0].ring))
        poll, state, close = forwarder(one.rx[0], two.tx[0], host)
        behind.callback(close)  # only when the devices are closed
        assert abs(np.median(np.diff(receive[0::2]))) == stride
        Lane(host, "a", "b", lambda _: nullcontext((poll, state))).measure(32, 32)
        assert np.flatnonzero(transmit[1::2] >> 32 & 1).tolist() == list(reported)


def test_a_forwarder_that_is_wrong_is_found_out() -> None:
    """A forwarder that does not change byte 48 has no figures: the check says that packets came out wrong."""
    host = Machine(stepped=True)
    with (
        open_device("sim:a,gen=60", ring_size=lockstep.RING_SIZE, sim=host) as one,
        open_device("sim:b,sink=a,touch=48", ring_size=lockstep.RING_SIZE, sim=host) as two,
    ):
        path = Path(one.rx[0], two.tx[0], unchanged, batch=32)
        lane = Lane(host, "a", "b", lambda _: nullcontext((path.kernels.poll, path.state)))
        with pytest.raises(Error, match="did not arrive as they should"):
            lockstep.measure(Lanes(lane), 32, 2, 1)


@pytest.mark.usefixtures("no_compiler")
def test_forward_without_a_compiler() -> None:
    """No C compiler: the driver is measured all the same, the references' members are null, and a note says why."""
    result = CliRunner().invoke(bench, ["forward", "--batch", "8", "--rounds", "2", "--repeat", "1", "--json"])
    assert result.exit_code == 0
    cost = json.loads(result.stdout)
    assert cost["cycles_per_packet"] is not None
    assert [cost[name] for name in COST_MEMBERS[4:12]] == [None] * 8
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


def test_ratios_compare_what_was_measured_together() -> None:
    """Two repetitions of three turns, some of them on a slower processor: a ratio is the median of the turns' ratios.

    The driver's repetitions have the medians 12 and 13.
    """
    driver = np.array([[10.0, 90.0, 12.0], [11.0, 13.0, 80.0]])
    cost = Cost(32, driver, driver / 0.75, np.array([[20.0, 180.0, 20.0], [22.0, 20.0, 160.0]])).as_json()
    assert (cost["ratio_to_layout"], cost["ratio"]) == (0.75, 0.5)
    assert [cost[name] for name in COST_MEMBERS[1:4]] == [12.5, 12.0, 13.0]


@pytest.mark.parametrize("end", virtio_peer.ENDS)
def test_a_comparison_with_dpdk_without_huge_pages_says_what_to_do(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three huge pages are free, and two processes of DPDK with 256 MiB each need more: nothing is started."""
    monkeypatch.setattr(virtio_peer, "free_huge_pages", lambda: 3)
    with pytest.raises(MemoryUnavailable, match="272 huge pages, 3 are free; run: sudo ixy setup --pages 272"):
        virtio_peer.compare(1, ("split",), print, end)


@pytest.mark.once
@pytest.mark.parametrize("ring", virtio.RINGS)
def test_the_back_end_in_lock_step(ring: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All packets that our driver sends come back to it, else it were an error; that takes time."""
    monkeypatch.setattr(virtio, "_STRETCH", 64)
    monkeypatch.setattr(virtio, "_STRETCHES", 2)
    cost = virtio.back_end_lock_step(ring, 8, 1)
    assert (cost["ring"], cost["batch"]) == (ring, 8)
    assert cost["median"] > 0


@pytest.mark.parametrize("batch", ["0", "257", "8,", "many", "-1"])
def test_impossible_batches_are_refused(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch that does not fit the rings, or is no number, is an error of usage that names the option."""
    assert cli.run(["bench", "forward", "--batch", batch]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ixy: --batch")
    assert "1 to 256 are possible" in said or "is no number" in said


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


@pytest.mark.parametrize("section", ["generate", "judge"])
def test_traffic_that_is_made_and_judged(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure is of packets that all were sent, or found right, else there is none."""
    monkeypatch.setattr(turns, "PACKETS", 1)
    done = CliRunner().invoke(bench, ["traffic", section, "--repeat=1", "--json"], catch_exceptions=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) >= 3
    assert all(each["section"] == section and each["median"] > 0 for each in found)


def test_cores_measures_and_computes() -> None:
    """An object a figure: what two paths cost with a ring between them, on one core and on two, and two queues at once;
    more queues follow from that by multiplication.
    """
    results = {str(result.pop("what")): result for result in run("cores", "--rounds", "4", "--repeat", "1")}
    assert list(results) == [
        "forward, one queue on one core",
        "through a ring, one core",
        "handed on, one core",
        "through a ring, two cores",
        "handed on, two cores",
        "two queues on two cores, each",
        "two queues by one",
        *(f"{queues} queue{'s' * (queues > 1)}, computed" for queues in (1, 2, 4, 8, 16)),
    ]
    median: Any = {what: result.get("median") for what, result in results.items()}
    for cores in ("one core", "two cores"):
        handed = median[f"through a ring, {cores}"] - median["forward, one queue on one core"]
        assert median[f"handed on, {cores}"] == pytest.approx(handed, abs=0.02)
    assert results["two queues by one"]["by_least_costs"] == median["two queues by one"]  # there was one measurement
    gain = 2 * median["forward, one queue on one core"] / median["two queues on two cores, each"]
    assert median["two queues by one"] == pytest.approx(gain, rel=0.01, abs=0.005)  # it is rounded
    rates: Any = {queues: results[f"{queues} queues, computed"]["mpps"] for queues in (4, 8, 16)}
    assert rates[16] == pytest.approx(2 * rates[8], rel=0.02)


def test_cores_needs_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(Error, match="core 0 is the only one for this process: two are compared"):
        run("cores")
