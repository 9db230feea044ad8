"""The report of `ixy evaluate`: tables, charts, the page, and what it says of the machine."""

from __future__ import annotations

import csv
import errno
import io
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import ixy
from ixy.bench import code, counters, lockstep
from ixy.bench.lockstep import Cost, Lanes
from ixy.errors import Error
from ixy.evaluate import costs, cpufreq, machine, published
from ixy.evaluate.cpufreq import Frequency
from ixy.evaluate.effort import Effort
from ixy.evaluate.sections import unsafe
from ixy.reporting import chart, page
from ixy.reporting.parts import Chart, Missing, Spread, Table, per, shown, times
from ixy.reporting.report import Chapter, Report, markdown_table

SVG = "{http://www.w3.org/2000/svg}"

FIGURES = Table(
    "figures",
    "Some <figures> & more",
    ["batch", "ours", "C, theirs"],
    [[1, Spread(8.0, 7.5, 9.25), 4.0], [32, Spread(120.0, 110.0, 130.0), None]],
    "As measured.",
    repeats=3,
    chart=Chart("Mpps"),
)
REPORT = Report(
    "evaluation",
    "A title",
    "With *emphasis*.",
    {"machine": "one of ours"},
    [Chapter("One", [FIGURES, Missing("Two", "there is none")])],
)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        (7, "7"),
        ("word", "word"),
        (0.0, "0"),
        (0.0831, "0.083"),
        (7.456, "7.46"),
        (74.56, "74.6"),
        (745.6, "746"),
        (Spread(8.0, 7.5, 9.25), "8.00 (7.50–9.25)"),
    ],
)
def test_cells_for_people(cell: object, text: str) -> None:
    """Three digits or so, and the range in brackets."""
    assert shown(cell) == text  # pyright: ignore[reportArgumentType]


def test_a_rate_made_of_a_cost_turns_the_range_around() -> None:
    """At 2400 million ticks a second, 24 to 48 ticks a packet are 100 to 50 Mpps."""
    assert per(2400.0, Spread(30.0, 24.0, 48.0)) == Spread(80.0, 50.0, 100.0)
    assert times(0.5, Spread(30.0, 24.0, 48.0)) == Spread(15.0, 12.0, 24.0)


def test_markdown_aligns_figures_to_the_right() -> None:
    """Columns of words go to the left, those with a figure to the right."""
    table = Table("t", "T", ["what", "Mpps"], [["a", 1.0], ["b", None]], "")
    assert markdown_table(table).splitlines() == [
        "| what | Mpps |",
        "| --- | --: |",
        "| a | 1.00 |",
        "| b | – |",
    ]


def test_csv_has_median_and_range_and_says_where_and_how_often() -> None:
    """A column that has a spread anywhere becomes three; an absent figure is empty."""
    one, other = csv.DictReader(io.StringIO(REPORT.comma_separated(FIGURES)))
    assert one == {
        "batch": "1",
        "ours": "8.0",
        "ours min": "7.5",
        "ours max": "9.25",
        "C, theirs": "4.0",
        "repeats": "3",
        "machine": "one of ours",
    }
    assert (other["ours max"], other["C, theirs"]) == ("130.0", "")


def test_a_chart_has_a_curve_a_column() -> None:
    """Points of figures that are there, higher for more, with a line for each range; whatever the title has in it."""
    root = ElementTree.fromstring(chart.draw(FIGURES))
    assert root.findtext(f"{SVG}title") == "Some <figures> & more"
    ours, theirs = root.findall(f"{SVG}g")
    first, second = ours.findall(f"{SVG}circle")
    assert float(first.attrib["cy"]) > float(second.attrib["cy"])
    assert float(first.attrib["cx"]) < float(second.attrib["cx"])
    assert len(ours.findall(f"{SVG}polyline")) == 3  # the curve and two ranges
    assert len(theirs.findall(f"{SVG}circle")) == 1
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"ours", "C, theirs", "Mpps", "batch", "1", "32"} <= set(texts)


def test_a_logarithmic_chart_gives_each_decade_the_same_height() -> None:
    """1, 10 and 100 µs lie evenly."""
    table = Table("t", "T", ["", "a"], [["x", 1.0], ["y", 10.0], ["z", 100.0]], "", chart=Chart("µs", logarithmic=True))
    low, middle, high = (
        float(point.attrib["cy"]) for point in ElementTree.fromstring(chart.draw(table)).iter(f"{SVG}circle")
    )
    assert low - middle == pytest.approx(middle - high, abs=0.2)
    assert low > middle


def test_only_the_column_in_the_charts_unit_is_drawn_if_there_is_one() -> None:
    """Of ticks and Mpps, a chart of Mpps shows these."""
    table = Table("t", "T", ["size", "ticks", "Mpps"], [[64, 20.0, 100.0]], "", chart=Chart("Mpps"))
    assert len(ElementTree.fromstring(chart.draw(table)).findall(f"{SVG}g")) == 1


class Elements(HTMLParser):
    """What a page has: the tags that are open at its end, and all that it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_in_itself() -> None:
    """Every element is closed, nothing is fetched; tables, chart, caption and what is missing are there."""
    elements = Elements()
    elements.feed(page.make(REPORT))
    assert elements.open == []
    assert elements.references == []
    text = " ".join(elements.text)
    assert "Some <figures> & more" in text
    assert "As measured. Median and range of 3 repetitions. one of ours." in text
    assert "Two: there is none." in text
    assert "<em>emphasis</em>" in page.make(REPORT)
    assert page.make(REPORT).count("<svg") == 1


def test_files_replace_those_of_before(tmp_path: Path) -> None:
    """Markdown, page, a CSV file and a chart a table; nothing else stays, and a second report takes their places."""
    for _ in range(2):
        REPORT.write(tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["evaluation.html", "evaluation.md", "evaluation/figures.csv", "evaluation/figures.svg"]
    assert "](evaluation/figures.svg)" in (tmp_path / "evaluation.md").read_text()


def test_a_full_disk_leaves_the_report_of_before(tmp_path: Path) -> None:
    """What cannot be written whole is not put in place; the message names the directory."""
    (tmp_path / "evaluation.md").write_text("before")
    (tmp_path / "evaluation.md.part").symlink_to("/dev/full")
    with pytest.raises(Error, match=f"cannot be written into {tmp_path}: No space left on device"):
        REPORT.write(tmp_path)
    assert (tmp_path / "evaluation.md").read_text() == "before"
    assert not (tmp_path / "evaluation.md.part").is_symlink()


# ---------------------------------------------------------------------------------------------------------------------
# Costs


def test_columns_of_a_cost_come_by_themselves() -> None:
    """What a cost has is shown, known names first and in order; members that nobody knows come last, as they are."""
    cost = {
        "batch": 32,
        "new_cycles_per_packet": 3.0,
        "reference_cycles_per_packet": 9.0,
        "cycles_per_packet": 4.0,
        "cycles_per_packet_min": 3.5,
        "cycles_per_packet_max": 5.0,
        "scalar_limit_cycles_per_packet": None,
        "ratio": 0.44,
        "ratio_to_scalar_limit": None,
        "unit": "TSC ticks",
    }
    assert list(costs.spreads(cost).items()) == [
        ("ixy for Python", Spread(4.0, 3.5, 5.0)),
        ("C, scalar limit", None),
        ("C, as published", Spread(9.0, 9.0, 9.0)),
        ("new", Spread(3.0, 3.0, 3.0)),
    ]
    assert costs.ratios(cost) == {"C, scalar limit": None, "C, as published": 0.44}


def test_batch_sizes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two batch sizes and three repetitions: each repetition measures both, and the spread is over all three."""
    asked: list[int] = []

    def measure(_lanes: Lanes, batch: int, rounds: int, repeat: int) -> Cost:
        assert (rounds, repeat) == (-(-64 // batch), 1)
        asked.append(batch)
        return Cost(batch, np.full((1, 2), 10.0 * len(asked)), None, np.full((1, 2), 100.0))

    monkeypatch.setattr(lockstep, "measure", measure)
    effort = Effort(repeat=3, packets=64, window=1.0, batches=(), starts=1)
    one, other = costs.measure(Lanes(NotImplemented), (8, 32), effort, lambda *_: None)
    assert asked == [8, 32, 8, 32, 8, 32]
    assert costs.spreads(one)["ixy for Python"] == (30.0, 10.0, 50.0)
    assert costs.spreads(other)["ixy for Python"] == (40.0, 20.0, 60.0)
    assert costs.spreads(other)["C, our layout"] is None
    assert costs.ratios(other)["C, as published"] == 0.4


def test_all_members_of_a_real_cost_have_names() -> None:
    """Whatever the benchmark measures beside the driver is called by a name, not by its member."""
    figures = np.full((1, 1), 10.0)
    cost = Cost(32, figures, figures, figures, figures).as_json()
    assert all(" " in name for name in (*costs.spreads(cost), *costs.ratios(cost)))


# ---------------------------------------------------------------------------------------------------------------------
# Unsafe code


PROGRAM = '''"""Doc."""

import os  # why


def f():
    """Doc

    more."""
    # comment
    x = """a
    b"""
    return x
'''


def test_lines_of_code_are_counted_without_comments_and_docstrings(tmp_path: Path) -> None:
    """Of a file with five lines of code, one of which is a string that is used."""
    file = tmp_path / "module.py"
    file.write_text(PROGRAM)
    assert code.code_lines(file) == {3, 6, 11, 12, 13}


@pytest.mark.once
def test_unsafe_code_is_a_small_part_and_stands_beside_the_thesis() -> None:
    """The shares are those of the counts; Redox's drivers are the thesis's 35.62 % and 39.78 %."""
    lines = code.count()
    modules = list(Path(ixy.__file__).parent.rglob("*.py"))
    assert 0 < lines.unsafe < lines.kernels < lines.total < sum(len(path.read_text().splitlines()) for path in modules)
    ours, *others = unsafe.table().rows
    assert ours[2:5] == [lines.total, lines.unsafe, f"{100 * lines.unsafe / lines.total:.2f}%"]
    assert [row[4] for row in others] == ["9.57%", "35.62%", "39.78%"]


def test_published_figures_are_complete() -> None:
    """A figure for each batch size and percentile."""
    assert {len(rates) for rates in published.MPPS.values()} == {len(published.BATCHES)}
    assert {len(values) for values in published.LATENCY.values()} == {len(published.PERCENTILES)}


# ---------------------------------------------------------------------------------------------------------------------
# The machine


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a core whose frequency can be set from 800 to 3300 MHz, and is free to vary."""
    directory = tmp_path / "cpu3" / "cpufreq"
    directory.mkdir(parents=True)
    for name, value in {
        "cpuinfo_min": 800_000,
        "cpuinfo_max": 3_300_000,
        "scaling_min": 800_000,
        "scaling_max": 3_300_000,
    }.items():
        (directory / f"{name}_freq").write_text(f"{value}\n")
    monkeypatch.setattr(cpufreq, "SYSTEM", tmp_path)
    return directory


def bounds(core: Path) -> tuple[int, int]:
    return tuple(int((core / f"scaling_{end}_freq").read_text()) for end in ("min", "max"))  # pyright: ignore[reportReturnType]


def test_frequencies_are_set_and_restored(core: Path) -> None:
    """Both bounds are the frequency within the block, even if an exception ends it, and what they were after it."""
    frequency = Frequency(3)
    with suppress(RuntimeError), frequency.restored():
        for step in (800_000, 3_300_000, 1_300_000):
            frequency.set(step)
            assert bounds(core) == (step, step)
        raise RuntimeError
    assert bounds(core) == (800_000, 3_300_000)


def test_frequencies_are_those_that_the_kernel_names_or_even_steps(core: Path) -> None:
    """Six from the lowest to the highest, or what scaling_available_frequencies lists."""
    assert Frequency(3).available() == [800_000, 1_300_000, 1_800_000, 2_300_000, 2_800_000, 3_300_000]
    (core / "scaling_available_frequencies").write_text("3300000 1600000 \n")
    assert Frequency(3).available() == [1_600_000, 3_300_000]


def test_lower_bound_never_exceeds_the_upper_one_meanwhile(core: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would refuse it: each write is looked at."""
    write_text: Callable[..., int] = Path.write_text

    def checked(path: Path, text: str) -> int:
        written = write_text(path, text)
        low, high = bounds(core)
        assert low <= high
        return written

    monkeypatch.setattr(Path, "write_text", checked)
    frequency = Frequency(3)
    with frequency.restored():
        for step in (800_000, 3_300_000, 1_300_000):
            frequency.set(step)


@pytest.mark.usefixtures("core")
def test_a_frequency_that_cannot_be_set_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that has none, and one whose files may not be written."""
    with pytest.raises(Error, match="no frequency of core 4 to set"):
        Frequency(4)

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(Error, match="core 3 cannot be set to 800000 kHz: Permission denied; run as root"):
        Frequency(3).set(800_000)


def test_a_counter_counts_what_the_thread_does() -> None:
    """Page faults, which every kernel counts in software: a megabyte that is touched for the first time has 256."""
    memory = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    with memory, counters.counter(*counters.PAGE_FAULTS) as faults:
        before = counters.read_counter(faults)
        memory[::4096] = bytes(256)
        assert counters.read_counter(faults) - before >= 256


def test_a_counter_that_is_not_there_says_so() -> None:
    """No kernel has a counter of kind 2^31."""
    with pytest.raises(Error, match="perf_event_open: "), counters.counter(1 << 31, 0):
        pass


def test_more_cores_than_there_are_is_an_error() -> None:
    """It says how many there are."""
    available = len(os.sched_getaffinity(0))
    machine.need_cores(available)
    with pytest.raises(Error, match=f"{available + 1} cores are needed, and this process may use {available}"):
        machine.need_cores(available + 1)


def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time-stamp counter, and other programs that run; on a quiet machine with a counter, nothing."""
    monkeypatch.setattr(machine, "tick_unit", lambda: "ns")
    monkeypatch.setattr(os, "getloadavg", lambda: (3.2, 1.0, 1.0))
    assert [lack.what for lack in machine.lacks()] == ["A time-stamp counter", "A quiet machine"]
    cpuinfo = Path(os.devnull)
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "tick_unit", lambda: "TSC ticks")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 1.0, 1.0))
    assert [lack.what for lack in machine.lacks()] == ["A constant time-stamp counter"]
