"""Tables and curves in text and as PNG, and the bar that says how far work is."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from xml.etree import ElementTree

import pytest
from rich.console import Console

from ixy.reporting import chart, picture, terminal
from ixy.reporting.parts import Chart, Spread, Table
from ixy.reporting.progress import progress

pytestmark = pytest.mark.once

RATES = Table(
    "rates",
    "Rates",
    ["frame", "Mpps", "line, Mpps", "limited by"],
    [["64", 5.0, 15.0, "loss"], ["1518", None, 0.8, "the line"], ["9000", 0.1, 0.1, "the line"]],
    "As measured.",
    chart=Chart("Mpps", curves=("Mpps", "line, Mpps")),
)


def printed(renderable: object) -> list[str]:
    """What a terminal of 100 columns shows."""
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_table_on_the_terminal_has_its_figures_to_the_right() -> None:
    """And words to the left."""
    _, headings, _, first, second, *_ = (line.rstrip() for line in printed(terminal.grid(RATES)))
    assert headings.split() == ["frame", "Mpps", "line,", "Mpps", "limited", "by"]
    assert first.index("15.0") + 4 == second.index("0.800") + 5
    assert first.index("loss") == second.index("the line")


def test_curves_in_text_stand_where_their_figures_are() -> None:
    """The axis goes to 15, in 12 rows above 0: 15 is at the top, 5 a third up, and what is not there has no mark."""
    unit, *rows, legend = printed(terminal.plot(RATES))
    assert unit == "Mpps"
    assert legend.split() == ["●", "Mpps", "▲", "line,", "Mpps"]
    above, (_, names) = rows[:13], rows[13:]
    places = [names.index(name) + len(name) // 2 for name in ("64", "1518", "9000")]
    first, second, third = (["".join(row[place : place + 1]) for row in above] for place in places)
    assert (first.index("▲"), first.index("●")) == (0, 8)
    assert (second.index("▲"), "●" in second) == (11, False)
    assert third.index("●") == 12  # on top of the other one
    assert [row.split("│")[0].strip() for row in above] == ["15", "", "", "", "10", "", "", "", "5", "", "", "", "0"]


def test_a_logarithmic_axis_in_text() -> None:
    """1, 10 and 100 lie evenly, and of repetitions the median counts."""
    table = Table("t", "T", ["", "a"], [["x", 1], ["y", Spread(10, 1, 99)], ["z", 100]], "", chart=Chart("µs", True))
    rows = [row.index("●") for row in printed(terminal.plot(table)) if "●" in row and "│" in row]
    assert len(set(rows)) == 3
    assert [at for at, row in enumerate(printed(terminal.plot(table))) if "●" in row and "│" in row] == [1, 7, 13]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_curves_without_any_figure(logarithmic: bool) -> None:
    """As of trials in which nothing came: axes without marks."""
    table = Table("t", "T", ["", "a"], [["x", None], ["y", 0.0]], "", chart=Chart("µs", logarithmic))
    assert len(ElementTree.fromstring(chart.draw(table)).findall(".//{*}circle")) == 1
    assert "●" in "".join(printed(terminal.plot(table)))


def test_a_chart_has_the_curves_that_are_asked_for() -> None:
    """By their headings, whatever the unit."""
    assert list(chart.curves(RATES)) == ["Mpps", "line, Mpps"]


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the lines of an image of 8 bits a channel, as they are filtered (PNG, section 5)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, width, height = 8, b"", 0, 0
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        chunk = png[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + chunk) == struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0]
        if kind == b"IHDR":
            width, height, depth = struct.unpack(">IIB", chunk[:9])
            assert depth == 8
        if kind == b"IDAT":
            data += chunk
        at += 12 + size
    return width, height, zlib.decompress(data)


def test_a_drawing_becomes_a_png() -> None:
    """Twice as large as the drawing says, with curves and with letters."""
    pytest.importorskip("resvg_py")
    assert picture.why_not() is None
    drawn = chart.draw(RATES)
    width, height, lines = pixels(picture.png(drawn))
    assert (width, height) == (1520, 760)
    assert len(lines) == height * (1 + 4 * width)
    unnamed = ElementTree.fromstring(drawn)
    for text in unnamed.iter("{http://www.w3.org/2000/svg}text"):
        text.text = ""
    assert pixels(picture.png(ElementTree.tostring(unnamed, encoding="unicode")))[2] != lines


def test_without_the_library_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert picture.why_not.__wrapped__() == 'no PNG files are written without resvg: pip install "ixy[png]"'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_the_bar_says_what_is_done_and_leaves_output_alone(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal, while standard output goes elsewhere: half of the second of two is three quarters of all."""
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress({"one": 1.0, "two": 1.0}, quiet=quiet) as begin:
        begin("one")(0.0, "this")
        begin("two")(0.5, "that")
        print("a line")
    assert capsys.readouterr().out == "a line\n"
    assert ("75 %" in screen.getvalue() and "two: that" in screen.getvalue()) != quiet
