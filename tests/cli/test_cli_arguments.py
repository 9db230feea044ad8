"""Bounds of options and of the arguments of the functions behind the commands: checked before anything is opened."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from ixy.apps.capture import capture
from ixy.apps.demo import demo
from ixy.apps.generate import Pacing, generate
from ixy.apps.rate import Rate
from ixy.apps.settings import MAX_COUNT, MAX_RATE, Settings
from ixy.apps.streams import Stream
from ixy.apps.streamtable import table_of
from ixy.apps.templates import Templates
from ixy.cli import run
from ixy.errors import ConfigurationError
from ixy.formats.frames import udp_frame
from ixy.formats.words import MAX_LENGTH
from ixy.packets.hugepages import setup

NOWHERE = "no-such-device"  # opening it would be refused with other words


@pytest.mark.parametrize("value", ["-1", "1e19", "1e400", "nan", "inf", "many", ""])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["generate", NOWHERE], "--count"),
        (["generate", NOWHERE], "--rate"),
        (["generate", NOWHERE], "--size"),
        (["capture", NOWHERE, "out.pcap"], "--snaplen"),
        (["echo", NOWHERE], "--seconds"),
        (["echo", NOWHERE], "--batch"),
        (["echo", NOWHERE], "--ring"),
        (["echo", NOWHERE], "--pool"),
        (["forward", NOWHERE, NOWHERE], "--link-timeout"),
        (["setup"], "--pages"),
        (["demo"], "--count"),
        (["demo"], "--size"),
        (["bench", "forward"], "--batch"),
        (["bench", "forward"], "--rounds"),
        (["bench", "forward"], "--repeat"),
        (["bench", "rate"], "--seconds"),
        (["bench", "python"], "--batch"),
    ],
)
def test_numbers_out_of_bounds(capsys, command, option, value):
    """One line names option, value and bounds, and no device is opened: there is none of this name."""
    assert run([*command, option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ixy: {option} ")
    assert line.endswith((" are possible", " is no number", " at random, or imix"))


@pytest.mark.parametrize("option", ["--count", "--rate", "--batch", "--ring", "--pool", "--size"])
def test_fractions_are_refused(capsys, option):
    """A thousandth more than a possible number is none."""
    assert run(["generate", NOWHERE, option, "1024.001"]) == 2
    assert capsys.readouterr().err == f"ixy: {option} 1024.001 is no whole number\n"


@pytest.mark.parametrize("value", ["1000", "1e3", "1_000"])
def test_numbers_are_written_in_several_ways(capsys, value):
    """They are taken, so that it is the device that is refused."""
    assert run(["generate", NOWHERE, "--count", value]) == 2
    assert "no device address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ring": 32}, "ring 32: 64 to 4096 are possible"),
        ({"ring": 1000}, "ring 1000: powers of two from 64 to 4096 are possible"),
        ({"ring": 64, "batch": 65}, "batch 65: 1 to 64 are possible"),
        ({"batch": 0}, "batch 0: 1 to 512 are possible"),
        ({"pool": 543}, "pool 543: 544 to 64000 are possible"),
        ({"count": 0}, "count 0: 1 to 1000000000000000 are possible"),
        ({"count": 10**19}, "count 10000000000000000000: 1 to"),
        ({"seconds": float("nan")}, "seconds nan: 0 to 1e\\+09 are possible"),
        ({"seconds": -0.5}, "seconds -0.5: 0 to"),
        ({"link_timeout": float("inf")}, "link_timeout inf: 0 to"),
    ],
)
def test_settings_have_bounds(values, words):
    """The message names attribute, value and bounds."""
    with pytest.raises(ConfigurationError, match=words):
        Settings(**values)


@pytest.mark.parametrize("values", [{"ring": 512.0}, {"batch": "32"}, {"count": 1.5}, {"seconds": "1"}, {"pool": b"8"}])
def test_settings_have_types(values):
    """Text and fractions are no integers."""
    with pytest.raises(TypeError, match=f"{next(iter(values))} must be "):
        Settings(**values)


def test_numpy_integers_are_integers():
    """They become Python's, so that nothing is compiled anew for them."""
    settings = Settings(ring=np.int64(256), batch=np.uint8(64), count=np.int32(5), pool=np.uint16(600))
    assert settings == Settings(ring=256, batch=64, count=5, pool=600)
    assert {type(value) for value in (settings.ring, settings.batch, settings.count, settings.pool)} == {int}


def test_functions_check_before_they_open():
    """A rate, a length or a size out of bounds is refused, and not the address, which is none."""
    table = table_of([Stream("test", [udp_frame()])])
    with pytest.raises(ConfigurationError, match="rate: more than 0 and up to 1000000000 pps are possible"):
        generate(NOWHERE, table, Settings(), pacing=Pacing(Rate(Decimal(MAX_RATE + 1))))
    with pytest.raises(ConfigurationError, match="rate: write whole packets per second"):
        generate(NOWHERE, table, Settings(), pacing=Pacing(Rate(Decimal("0.5"))))
    with pytest.raises(ConfigurationError, match=f"snaplen {MAX_LENGTH + 1}: 0 to {MAX_LENGTH} are possible"):
        capture([NOWHERE], "out.pcap", Settings(), snaplen=MAX_LENGTH + 1)
    with pytest.raises(ConfigurationError, match="count 1000000000000001: 1 to"):
        demo(Settings(), count=MAX_COUNT + 1, size=60)
    with pytest.raises(ConfigurationError, match="size 1515: 60 to 1514 are possible"):
        demo(Settings(), count=1, size=1515)
    with pytest.raises(ConfigurationError, match="pages 1048577: 0 to 1048576 are possible"):
        setup((1 << 20) + 1)


def test_the_highest_rate_holds_for_years():
    """Seconds times rate, and nanoseconds of a second times rate, are 64-bit numbers for a hundred years."""
    assert 100 * 366 * 86400 * MAX_RATE < 2**63
    assert 10**9 * MAX_RATE < 2**63


def test_frames_without_a_header_are_left_out(caplog):
    """Of 13, 14 and 2049 bytes, the second is sent; both others are counted and told of."""
    templates = Templates.of([bytes(13), bytes(14), bytes(2049)], "test")
    assert (len(templates), templates.left_out, templates.sizes.tolist()) == (1, 2, [14])
    assert [record.getMessage() for record in caplog.records] == [
        "test: left out frames without a whole Ethernet header: 1",
        "test: left out frames longer than a buffer of 2048 bytes: 1",
    ]


def test_frames_are_bytes():
    """Text is none."""
    with pytest.raises(TypeError):
        Templates.of(["text"], "test")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("arguments", [["bench"], ["sim"], []])
def test_a_group_without_a_command_prints_its_help(capsys, arguments):
    """The help as `--help` prints it, in lines for people."""
    assert run([*arguments, "--help"]) == 0
    expected = capsys.readouterr().out
    assert run(arguments) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (expected, "")
    assert len(expected.splitlines()) > 5
    assert max(map(len, expected.splitlines())) <= 120
