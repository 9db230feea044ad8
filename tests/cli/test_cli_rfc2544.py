"""`ixy test throughput` and the other tests of RFC 2544, between simulated cards with a virtual clock."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser

import pytest

pytestmark = pytest.mark.once

PAIR = ("sim:a,cable=b,wire=10G,clock=virtual", "sim:b,clock=virtual")
LOSSY = ("sim:a,cable=b,wire=10G,loss=0.5,seed=1,clock=virtual", "sim:b,clock=virtual")
SHORT = ("--seconds", "0.001", "--settle", "0.001")
INTERPRETED = {"IXY_JIT": "0"}  # a few hundred packets
LINE = {64: 14_880_952, 1518: 812_743}  # 10^10 by 8 times the size and 20 bytes


class Page(HTMLParser):
    """Which elements are open at the end of a page, how many there are, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_cable_has_the_throughput_of_the_line(ixy, tmp_path):
    """Exactly, in one trial a size; report, CSV and JSON say the same."""
    ended = ixy(
        *("test", "throughput", *PAIR, *SHORT, "--sizes", "64,1518", "--json", "--output", "out"), variables=INTERPRETED
    )
    assert ended.code == 0, ended.errors
    *trials, summary = map(json.loads, ended.output.splitlines())
    assert [(trial["type"], trial["offered"], trial["lost"]) for trial in trials] == [
        ("trial", rate, 0) for rate in LINE.values()
    ]
    assert {row["frame"]: row["pps"] for row in summary["results"]} == {str(size): rate for size, rate in LINE.items()}
    with (tmp_path / "out" / "throughput" / "throughput.csv").open() as file:
        assert [int(row["pps"]) for row in csv.DictReader(file)] == list(LINE.values())
    with (tmp_path / "out" / "throughput" / "trials.csv").open() as file:
        assert [int(row["sent"]) for row in csv.DictReader(file)] == [trial["sent"] for trial in trials]
    page = Page((tmp_path / "out" / "throughput.html").read_text())
    assert (page.open, page.references, page.tags.count("svg")) == ([], [], 1)
    assert "14880952" in (tmp_path / "out" / "throughput.md").read_text()


def test_a_cable_that_loses_has_no_throughput(ixy):
    """Half of all, at any rate: exit code 1, and a table that says so."""
    ended = ixy("test", "throughput", *LOSSY, *SHORT, "--sizes", "1518", "--resolution", "10", variables=INTERPRETED)
    assert ended.code == 1, ended.errors
    assert "loss at any rate" in ended.output


def test_latency_of_a_cable_is_its_delay(ixy):
    """5 µs, and 67.2 ns on the wire before the packet has arrived: least, mean and most, at both loads."""
    pair = ("sim:a,cable=b,delay=5us,wire=10G,clock=virtual", PAIR[1])
    ended = ixy(
        *("test", "latency", *pair, *SHORT, "--sizes", "64", "--rate", "100kpps", "--loads", "100,50", "--json"),
        variables=INTERPRETED,
    )
    assert ended.code == 0, ended.errors
    rows = ended.summary["results"]
    assert [row["load, %"] for row in rows] == [100, 50]
    for row in rows:
        assert (row["lost"], row["min"], row["max"]) == (0, pytest.approx(5.067, abs=0.002), row["min"])


def test_frame_loss_of_a_cable_that_loses_half(ixy):
    """At every load, of which there are ten."""
    ended = ixy("test", "frame-loss", *LOSSY, *SHORT, "--sizes", "1518", "--json", variables=INTERPRETED)
    assert ended.code == 0, ended.errors
    *trials, summary = map(json.loads, ended.output.splitlines())
    assert len(trials) == 10
    assert summary["results"][0]["1518"] == pytest.approx(100 * trials[0]["lost"] / trials[0]["sent"])
    assert 40 < 100 * sum(trial["lost"] for trial in trials) / sum(trial["sent"] for trial in trials) < 60


def test_bursts_in_ipv6_within_a_vlan_both_ways(ixy):
    """A cable takes all: as many as can be sent in a trial's time, in each direction; compiled."""
    ended = ixy(
        "test", "back-to-back", *PAIR, *SHORT, "--sizes", "88", "--ipv6", "--vlan", "5", "--both-ways", "--json"
    )
    assert ended.code == 0, ended.errors
    trial, summary = map(json.loads, ended.output.splitlines())
    assert trial["received"] == trial["sent"] > 0
    (row,) = summary["results"]
    assert row["packets"] == row["least"] == row["most"] == trial["sent"] // 2


def test_streams_of_a_file_behind_routers(ixy, tmp_path):
    """All of them at once are one row, by the file's name: as many packets a second as the line takes of 110
    bytes and 130 with all that goes between, on average. Flows make no difference to a cable."""
    (tmp_path / "mix.yaml").write_text("streams:\n  - {size: 76}\n  - {size: 136, packet: {ipv6: {}, udp: {}}}\n")
    ended = ixy(
        *("test", "throughput", *PAIR, *SHORT, "--streams", "mix.yaml", "--routed", "--both-ways", "--json"),
        variables=INTERPRETED,
    )
    assert ended.code == 0, ended.errors
    assert [(row["frame"], row["pps"]) for row in ended.summary["results"]] == [("mix.yaml", 10**10 // (8 * 130))]
    ended = ixy(
        *("test", "frame-loss", *PAIR, *SHORT, "--sizes", "1518", "--flows", "7", "--routed", "--json"),
        variables=INTERPRETED,
    )
    assert ended.code == 0, ended.errors
    assert [row["1518"] for row in ended.summary["results"]][:2] == [0, 0]


def test_a_rate_above_the_line_of_a_larger_size(ixy):
    """Is refused before the first trial, of which there is no line."""
    ended = ixy(
        *("test", "latency", *PAIR, *SHORT, "--rate", "1Mpps", "--sizes", "64,1518", "--json"), variables=INTERPRETED
    )
    assert (ended.output, ended.complaint()) == (
        "",
        "ixy: --rate 1000000 packets per second: of the packets 1518 the line takes 812743 a second",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--streams", "no.yaml", "--vlan", "0"], "--streams says all of its packets"),
        (["--sizes", "10"], "--sizes 10: 64 to 1518 are possible"),
        (["--sizes", "64", "--ipv6"], "--sizes 64: 84 to 1518 are possible"),
        (["--sizes", "64,128,64"], "--sizes 64,128,64: 64 is there twice"),
        (["--resolution", "0"], "--resolution 0.0: 1e-06 to 10 are possible"),
        (["--seconds", "0"], "--seconds 0.0: 0.001 to 1e+09 are possible"),
        (["--streams", "no.yaml", "--ipv6"], "--streams says all of its packets"),
        (["--output", "file/report"], "the report cannot be written into file/report: Not a directory"),
    ],
)
def test_bad_input(ixy, tmp_path, options, words):
    """One line, before anything is sent."""
    (tmp_path / "file").touch()
    assert words in ixy("test", "throughput", *PAIR, *options, variables=INTERPRETED).complaint()


def test_a_rate_of_nothing(ixy):
    """Is refused as by other commands."""
    assert "--rate 0" in ixy("test", "latency", *PAIR, "--rate", "0", variables=INTERPRETED).complaint()


def test_nothing_that_arrives(ixy):
    """Both cards have nobody at the other end: that is said, and no search is made."""
    complaint = ixy(
        *("test", "throughput", "sim:a,clock=virtual", "sim:b,clock=virtual", *SHORT, "--link-timeout", "0"),
        variables=INTERPRETED,
    )
    assert complaint.code == 2
    assert "no packet comes from sim:a to sim:b" in complaint.errors


def test_through_a_forwarder_of_another_process(ixy, start):
    """The device under test is `ixy forward`, between cables that are sockets: at 100 packets a second all arrive."""
    forwarder = start("forward", "sim:a,cable=unix:near", "sim:b,cable=unix:far", variables=INTERPRETED)
    try:
        ended = ixy(
            *("test", "latency", "sim:c,cable=unix:near", "sim:d,cable=unix:far", "--sizes", "64", "--json"),
            *("--rate", "100", "--loads", "100", "--seconds", "0.3", "--link-timeout", "60"),
            variables=INTERPRETED,
        )
    finally:
        forwarder.terminate()
        forwarder.communicate(timeout=60)
    assert ended.code == 0, ended.errors
    trial, summary = map(json.loads, ended.output.splitlines())
    assert (trial["sent"], trial["received"], trial["lost"]) == (30, 30, 0)
    assert summary["results"][0]["min"] > 0


def test_a_search_that_is_interrupted_reports_what_it_has(start):
    """The signal comes when the first of ten trials has been told: exit code and summary say so."""
    pair = ("sim:a,cable=b,loss=0.5", "sim:b")
    process = start(
        *("test", "frame-loss", *pair, "--sizes", "1518", "--seconds", "0.5", "--settle", "0.05", "--json"),
        variables=INTERPRETED,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    summary = json.loads(output.splitlines()[-1])
    assert (first["type"], summary["type"], summary["stopped"], summary["results"]) == ("trial", "summary", True, [])
