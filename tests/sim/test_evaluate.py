"""The sections of `ixy evaluate`, with as little effort as can be: what they yield, and what they say is missing."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ixy.bench import latency, packet_socket, profile, virtio, virtio_peer
from ixy.bench.counters import no_counter, read_ticks
from ixy.errors import Error
from ixy.evaluate import machine, run, sections
from ixy.evaluate.effort import Effort
from ixy.reporting.parts import Missing, Part, Spread, Table

LITTLE = Effort(repeat=2, packets=256, window=0.05, batches=(1, 32), starts=1)


def measured(name: str) -> tuple[dict[str, Table], list[Missing]]:
    """The tables of a section by name, and what was missing; its progress goes from 0 to 1."""
    module = import_module(f"{sections.__name__}.{name}")
    shares: list[float] = []
    parts = list(run._parts(module.TITLE, module.measure(LITTLE, lambda share, _: shares.append(share))))
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert module.seconds(LITTLE) > 0
    return {part.name: part for part in parts if isinstance(part, Table)}, [
        part for part in parts if isinstance(part, Missing)
    ]


def column(table: Table, name: str) -> list[Any]:
    at = list(table.columns).index(name)
    return [row[at] for row in table.rows]


@pytest.fixture
def one_core() -> Iterator[None]:
    """A process that may use one core only."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def test_every_section_has_what_the_report_asks_of_it() -> None:
    """Each name is a module beside the list, with a heading, a guess of its time, and what measures."""
    directory = Path(sections.__file__).parent
    assert {path.stem for path in directory.glob("*.py")} - {"__init__"} == set(sections.NAMES)
    for name in sections.NAMES:
        module = import_module(f"{sections.__name__}.{name}")
        assert module.TITLE
        assert callable(module.seconds)
        assert callable(module.measure)


def test_throughput_stands_beside_c_and_the_published_curves() -> None:
    """Rates and costs belong together, and the ratio to C is turned around where rates are compared."""
    tables, missing = measured("throughput")
    assert {part.what for part in missing} <= {"C, SIMD limit"}  # not every processor has the instructions
    costs, rates = tables["cost_by_batch"], tables["throughput_by_batch"]
    assert column(costs, "batch") == column(rates, "batch") == [1, 32]
    for cost, rate in zip(column(costs, "ixy for Python"), column(rates, "ixy for Python"), strict=True):
        assert cost.median * rate.median * 1e6 == pytest.approx(machine.tick_rate())
        assert rate.least <= rate.median <= rate.most
    assert column(rates, "C, our layout")[0].median > 0
    assert column(tables["published_throughput"], "Rust") == [5.9, 23.4, 27.6, 27.4]
    relative = tables["relative_to_c"]
    assert column(relative, "batch") == [1, 8, 32, 256]
    (first, second) = column(costs, "ratio to C, as published")
    assert column(relative, "ixy for Python") == [pytest.approx(1 / first), None, pytest.approx(1 / second), None]
    assert column(relative, "Rust")[0] == pytest.approx(5.9 / 8.33)


def test_throughput_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The driver's own figures are there; what is missing, and why, is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tables, missing = measured("throughput")
    assert list(tables["cost_by_batch"].columns) == ["batch", "ixy for Python"]
    assert "relative_to_c" not in tables
    assert [part.why.split(":")[0] for part in missing] == ["no C compiler (gcc, cc, clang) found"]


def test_a_reference_that_the_processor_cannot_run_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its members are null: it has no column, and that is said."""
    cost = {"batch": 1, "cycles_per_packet": 30.0, "simd_limit_cycles_per_packet": None, "ratio_to_simd_limit": None}
    monkeypatch.setattr("ixy.evaluate.costs.measure", lambda *_: [cost])
    tables, missing = measured("throughput")
    assert list(tables["cost_by_batch"].columns) == ["batch", "ixy for Python"]
    assert [part.what for part in missing] == ["C, SIMD limit"]


def test_sizes_of_rings_and_frames() -> None:
    """A row each; bits on the wire are those of the frame and of 24 bytes more."""
    tables, missing = measured("sizes")
    assert missing == []
    assert column(tables["by_ring_size"], "descriptors") == [64, 128, 256, 512, 1024, 2048, 4096]
    frames = tables["by_frame_size"]
    assert column(frames, "bytes") == [60, 124, 252, 508, 1020, 1514]
    for size, rate, bits in zip(*(column(frames, name) for name in ("bytes", "Mpps", "Gbit/s")), strict=True):
        assert bits.median == pytest.approx(rate.median * 8 * (size + 24) / 1e3)


def test_frequencies_that_cannot_be_set_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A virtual machine's kernel has no such files."""
    monkeypatch.setattr("ixy.evaluate.cpufreq.SYSTEM", tmp_path)
    tables, missing = measured("frequency")
    assert tables == {}
    assert "the kernel has no frequency of core" in missing[0].why


def test_a_frequency_that_is_set_makes_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A core with two frequencies: a row each, and cycles that are ticks at the frequency that was set."""
    directory = tmp_path / f"cpu{min(os.sched_getaffinity(0))}" / "cpufreq"
    directory.mkdir(parents=True)
    for name in ("scaling_min_freq", "scaling_max_freq"):
        (directory / name).write_text("1600000")
    (directory / "scaling_available_frequencies").write_text("3300000 1600000")
    monkeypatch.setattr("ixy.evaluate.cpufreq.SYSTEM", tmp_path)
    tables, missing = measured("frequency")
    assert missing == []
    rates, cycles = tables["throughput_by_frequency"], tables["cycles_by_frequency"]
    assert column(rates, "GHz") == [1.6, 3.3]
    for step, rate, cost in zip(
        (1.6, 3.3), column(rates, "ixy for Python"), column(cycles, "ixy for Python"), strict=True
    ):
        assert rate.median * cost.median == pytest.approx(step * 1e3)
    assert (directory / "scaling_max_freq").read_text() == "1600000"
    assert column(tables["throughput_by_batch_at_1600_mhz"], "batch") == [1, 32]
    assert column(tables["throughput_by_batch_at_3300_mhz"], "ixy for Python")[0].median > 0


def test_the_parts_of_the_profile_are_positive_and_add_up() -> None:
    """Each part of forwarding costs something; the sum is that of the parts. Counters may be missing here, and it is
    said then."""
    tables, missing = measured("profile")
    ours = tables["profile"].rows[0]
    parts, total, undivided = ours[1:5], ours[5], ours[6]
    assert isinstance(total, Spread)
    assert isinstance(undivided, Spread)
    assert undivided.median > 0
    assert column(tables["profile"], "sum")[1:] == [105.6, 99.7]
    assert len(tables) + len(missing) == 2
    assert all(isinstance(part, Spread) for part in parts)


def test_the_profile_measures_each_kernel() -> None:
    """Interpreted or compiled, none of the parts takes no time, and no packet is lost on the way."""
    found = profile.measure(32, 2048, 2, read_ticks, no_counter())
    assert found.shape == (2, len(profile.PARTS))
    assert np.all(found > 0)


def test_latencies_are_those_of_all_frames() -> None:
    """At a rate that anything keeps up with no frame is lost; percentiles rise; frames come at that rate."""
    passage = latency.measure(32, 1000, 100)
    assert passage.lost == 0
    assert passage.latencies.size == 90  # without the first tenth
    values = list(passage.percentiles().values())
    assert list(passage.percentiles()) == ["p50", "p99", "p99.9", "p99.99", "max"]
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] == passage.latencies.max() / 1e3
    assert passage.rate < 2000


def test_a_path_that_waits_has_latencies_too() -> None:
    """Each frame comes long after the one before it, to a path that sleeps, and none is lost."""
    passage = latency.measure(32, 200, 50, waits=True)
    assert passage.lost == 0
    assert passage.latencies.size == 45


def passage_of(nanoseconds: Sequence[int], calm: int = 0) -> latency.Passage:
    """Of frames with these latencies, of which the first so many set out in calm slices."""
    return latency.Passage(2e6, 0, np.array(nanoseconds), np.arange(len(nanoseconds)) < calm, 0.25)


def test_frames_of_slices_in_which_a_thread_stood_still_are_told_apart() -> None:
    """Eight frames, half a millisecond apart; the thread stood still in the second millisecond.

    The next one counts too, as what had gathered is worked off in it.
    """
    record = latency._record(8)
    record.departures[:] = 1_000_000_000 + 500_000 * np.arange(8)
    record.latencies[:] = 600
    latency._disturb(record, 1_001_200_000, 1_001_700_000)
    passage = latency._passage(record, waits=False)
    assert passage.calm.tolist() == [True, True, False, False, False, False, True, True]
    assert passage.calm_share == 0.5
    assert passage.only_calm().latencies.tolist() == [600] * 4  # type: ignore[union-attr]
    assert latency._passage(record, waits=True).only_calm() is None


def test_a_histogram_counts_by_powers_of_two() -> None:
    nanoseconds = [0, 999, 1000, 1999, 2000, 3999, 4000, 7999, 8000, 1_023_999, 1_024_000]
    passage = passage_of(nanoseconds)
    assert passage.histogram() == {0: 2, 1: 2, 2: 2, 4: 2, 8: 1, 512: 1, 1024: 1}


def test_an_interrupted_path_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path runs on the first core, the cards on the last; an exception that ends the path ends both."""
    cores = sorted(os.sched_getaffinity(0))
    seen: dict[str, set[int]] = {}

    def run_path(path: Path, polls: int, wait: float | None = None) -> int:
        if polls > 1:
            seen.update({thread.name: os.sched_getaffinity(thread.native_id or 0) for thread in threading.enumerate()})
            raise InterruptedError
        return original(path, polls, wait)

    original: Any = latency.Path.run
    monkeypatch.setattr(latency.Path, "run", run_path)
    before = set(threading.enumerate())
    with pytest.raises(InterruptedError):
        latency.measure(32, 1000, 100_000)
    assert set(threading.enumerate()) == before
    assert seen.pop(threading.current_thread().name) == {cores[0]}
    assert {cores[-1]} in seen.values()
    assert os.sched_getaffinity(0) == set(cores)


def test_latency_is_measured_at_shares_of_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    """10, 50 and 90 % of the median of what the path reached."""
    asked: list[int] = []

    def fake(_batch: int, rate: int, _frames: int) -> latency.Passage:
        asked.append(rate)
        return passage_of(range(1000, 2001), calm=500)

    monkeypatch.setattr(latency, "measure", fake)
    monkeypatch.setattr("ixy.evaluate.sections.latency.need_cores", lambda _: None)
    tables, missing = measured("latency")
    assert not missing
    assert asked == [0, 0, 200_000, 200_000, 1_000_000, 1_000_000, 1_800_000, 1_800_000]
    table = tables["latency"]
    assert column(table, "") == ["p50", "p99", "p99.9", "p99.99", "max"]
    assert [value.median for value in column(table, "50% of the maximum")] == [1.5, 1.99, 1.999, 2.0, 2.0]
    assert column(table, "Rust, 1 Mpps") == [3.7, 4.0, None, 5.7, 24.0]
    calm = column(tables["latency_calm"], "50% of the maximum")
    assert [value.median for value in calm] == [25.0, 1.249, 1.494, 1.499, 1.499, 1.499]


@pytest.mark.usefixtures("one_core")
def test_on_one_core_what_needs_two_is_missing() -> None:
    """Latency is, and rates are; the interpreter's figure, which needs one, is there."""
    tables, missing = measured("latency")
    assert tables == {}
    assert "2 cores are needed, and this process may use 1" in missing[0].why
    tables, missing = measured("python")
    assert "2 cores are needed" in missing[0].why
    (row,) = tables["ways_to_write_it"].rows
    assert isinstance(row[2], Spread)
    assert row[2].median > 0


def test_sockets_of_the_kernel() -> None:
    """Sending, receiving and forwarding in a namespace of its own, which needs no root; nothing of it is left."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        with pytest.raises(Error, match="is not installed"):
            packet_socket.measure(0.05, 2)
        return
    found = packet_socket.measure(0.05, 2)
    assert list(found) == list(packet_socket.WORKS)
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found.values())
    assert "in0" not in Path("/proc/net/dev").read_text()


def test_sockets_without_a_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that refuses one, or lacks the programs, is one line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Error, match="unshare is not installed"):
        packet_socket.measure(0.05, 1)
    for name, script in {"unshare": "echo 'unshare failed: not permitted' >&2; exit 1", "ip": "exit 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(Error, match="of its own: unshare failed: not permitted"):
        packet_socket.measure(0.05, 1)


@pytest.fixture
def short_virtio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock step on VirtIO has its own tests."""
    figure = {"median": 16.0, "min": 15.0, "max": 17.0}
    monkeypatch.setattr(virtio, "lock_step", lambda *_: figure)
    monkeypatch.setattr("ixy.evaluate.sections.virtio.need_cores", lambda _: None)


@pytest.mark.usefixtures("short_virtio")
def test_virtio_without_dpdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the huge pages that DPDK needs, the rest is there and the message says how to get them."""
    monkeypatch.setattr(virtio_peer, "free_huge_pages", lambda: 3)
    tables, missing = measured("virtio")
    assert column(tables["virtio_cost"], "packed ring") == [Spread(16.0, 15.0, 17.0)] * len(virtio.BATCHES)
    assert "run: sudo ixy setup --pages 272" in missing[0].why


@pytest.mark.usefixtures("short_virtio")
def test_virtio_beside_dpdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders are columns, in Mpps; one that does not take part in a row leaves it empty."""
    figure = {"median": 24e6, "min": 20e6, "max": 30e6}
    rows = [
        {"ring": "split", "work": "receive", "batch": 32, "ixy": figure, "dpdk default": figure, "ratio": 1.0},
        {"ring": "packed", "work": "receive", "batch": 32, "ixy": figure, "ratio": None},
    ]

    def compare(_starts: int, _rings: tuple[str, ...], report: Any) -> dict[str, Any]:
        for contender in ("ixy", "dpdk default"):
            report(virtio_peer.Rate(contender, "split", "receive", 32, 24e6))
        return {"results": rows}

    monkeypatch.setattr(virtio_peer, "compare", compare)
    tables, missing = measured("virtio")
    assert missing == []
    table = tables["virtio_beside_dpdk"]
    assert column(table, "ixy") == [pytest.approx((24.0, 20.0, 30.0))] * 2
    assert column(table, "dpdk default")[1] is None
    assert column(table, "ratio") == [1.0, None]


# ---------------------------------------------------------------------------------------------------------------------
# All of it


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A section of the test's own, the only one."""
    module: Any = types.ModuleType(f"{sections.__name__}.own")
    module.TITLE = "Own"
    module.seconds = lambda _: 1.0
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sections, "NAMES", ("own",))
    return module


def yielding(*parts: Part | BaseException) -> Any:
    """What measures by yielding parts, or raising exceptions."""

    def measure(_effort: Effort, _told: Any) -> Iterator[Part]:
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            yield part

    return measure


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Error("the card is gone."), "Own: the card is gone."),
        (OSError(28, "No space left on device", "/tmp/x"), "Own: /tmp/x: No space left on device."),
    ],
)
def test_a_section_that_fails_keeps_what_it_has(section: Any, tmp_path: Path, reason: Exception, words: str) -> None:
    """What it yielded before is in the report, and after it why there is no more."""
    section.measure = yielding("A paragraph.", reason)
    run.evaluate(tmp_path)
    text = (tmp_path / "evaluation.md").read_text()
    assert text.index("A paragraph.") < text.index(f"**Missing.** {words}")


def test_an_interruption_keeps_what_was_measured(section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second section is ended by Ctrl-C: the report of the first is there."""
    section.measure = yielding("A paragraph.")
    second: Any = types.ModuleType(f"{sections.__name__}.second")
    second.TITLE, second.seconds, second.measure = "Second", section.seconds, yielding(SystemExit(130))
    monkeypatch.setitem(sys.modules, second.__name__, second)
    monkeypatch.setattr(sections, "NAMES", ("own", "second"))
    with pytest.raises(SystemExit):
        run.evaluate(tmp_path)
    assert "A paragraph." in (tmp_path / "evaluation.md").read_text()


def test_a_report_that_cannot_be_written_at_the_end_is_printed(
    section: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it measures, its directory becomes a file: what was measured is on standard output."""
    directory = tmp_path / "out"

    def measure(_effort: Effort, _told: Any) -> Iterator[Part]:
        shutil.rmtree(directory)
        directory.touch()
        yield "A paragraph."

    section.measure = measure
    with pytest.raises(Error, match=f"the report cannot be written into {directory}"):
        run.evaluate(directory)
    assert "A paragraph." in capsys.readouterr().out
