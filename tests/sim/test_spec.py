"""Addresses of simulated cards."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.errors import AddressError
from ixy.sim.spec import Spec, parse_spec
from ixy.sim.wires.cable import Cable
from ixy.sim.wires.generator import Generator
from ixy.sim.wires.impair import Impairments
from ixy.sim.wires.record import Record
from ixy.sim.wires.replay import Replay
from ixy.sim.wires.sink import Sink
from ixy.sim.wires.stream import Stream
from ixy.sim.wires.tap import Tap


@pytest.mark.parametrize(
    ("address", "spec"),
    [
        ("sim:a", Spec("a")),
        ("sim:Card-1.2_x", Spec("Card-1.2_x")),
        ("sim:a,cable=b", Spec("a", (Cable("b"),))),
        (
            "sim:a,cable=b,delay=50us,jitter=1.5us,seed=7",
            Spec("a", (Cable("b", Impairments(50_000, 1500, seed=7)),), seed=7),
        ),
        ("sim:a,cable=b,seed=7,ready=0", Spec("a", (Cable("b"),), ready=0, seed=7)),
        ("sim:a,cable=b,delay=2s,reorder=0.5", Spec("a", (Cable("b", Impairments(2 * 10**9, reorder=1 << 31)),))),
        (
            "sim:a,loss=0.25,duplicate=1,corrupt=1e-3,cable=b",
            Spec("a", (Cable("b", Impairments(loss=1 << 30, duplicate=1 << 32, corrupt=4_294_967)),)),
        ),
        ("sim:a,cable=b,loss=.25,delay=1E+1us", Spec("a", (Cable("b", Impairments(10_000, loss=1 << 30)),))),
        ("sim:a,cable=unix:/run/x=y", Spec("a", (Stream("/run/x=y"),))),
        ("sim:a,cable=unix:b", Spec("a", (Stream("b"),))),
        ("sim:a,cable=unix:/c,loss=1", Spec("a", (Stream("/c", Impairments(loss=1 << 32)),))),
        ("sim:a,wire=10G", Spec("a", speed=10**10)),
        ("sim:a,wire=2.5G,cable=b", Spec("a", (Cable("b"),), 2_500_000_000)),
        ("sim:a,wire=100M", Spec("a", speed=10**8)),
        ("sim:a,wire=1e9", Spec("a", speed=10**9)),
        ("sim:a,cable=b,delay=0ns", Spec("a", (Cable("b", Impairments()),))),
        ("sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap", Spec("a", (Replay("in.pcap"), Record("out.pcap")))),
        ("sim:a,tx_pcap=out.pcap,rx_pcap=in.pcap", Spec("a", (Replay("in.pcap"), Record("out.pcap")))),
        ("sim:a,rx_pcap=in.pcap,timing=original", Spec("a", (Replay("in.pcap", original_timing=True),))),
        ("sim:a,rx_pcap=in.pcap,timing=fast", Spec("a", (Replay("in.pcap"),))),
        ("sim:a,tx_pcap=a=b.pcap", Spec("a", (Record("a=b.pcap"),))),
        ("sim:a,tap=ixy0", Spec("a", (Tap("ixy0"),))),
        ("sim:a,gen=60", Spec("a", (Generator(60), Sink("a")))),
        ("sim:a,gen=1514,rate=1e6,count=1000", Spec("a", (Generator(1514, 1_000_000, 1000), Sink("a")))),
        ("sim:a,gen=60,touch=48", Spec("a", (Generator(60), Sink("a", 48)))),
        ("sim:a,gen=60,tx_pcap=o.pcap", Spec("a", (Record("o.pcap"), Generator(60)))),
        ("sim:a,gen=60,sink=b", Spec("a", (Generator(60), Sink("b")))),
        ("sim:b,sink=a,touch=48", Spec("b", (Sink("a", 48),))),
    ],
)
def test_addresses(address: str, spec: Spec) -> None:
    """What each way to write an address means."""
    assert parse_spec(address) == spec


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sim:", "not a simulated card"),
        ("sim", "not a simulated card"),
        ("a", "not a simulated card"),
        ("sim:,gen=60", "not a simulated card"),
        ("sim:a b", "not a simulated card"),
        ("sim:a,", "'' is no option"),
        ("sim:a,gen", "gen needs a value: write gen=VALUE"),
        ("sim:a,gen=", "gen needs a value: write gen=VALUE"),
        (
            "sim:a,speed=9",
            "possible are cable, delay, jitter, loss, duplicate, reorder, corrupt, seed, rx_pcap, timing, tx_pcap, "
            "tap, gen, rate, count, sink, touch, wire, clock, card, ready",
        ),
        ("sim:a,gen=60,gen=61", "gen is given twice"),
        ("sim:a,cable=b,tap=c", "cable and tap cannot be plugged in together"),
        ("sim:a,gen=60,rx_pcap=f", "gen and rx_pcap cannot"),
        ("sim:a,cable=b,tx_pcap=f", "cable and tx_pcap cannot"),
        ("sim:a,tx_pcap=f,sink=b", "sink and tx_pcap cannot"),
        ("sim:a,tap=c,gen=60", "gen and tap cannot"),
        ("sim:a,timing=original", "timing goes with rx_pcap"),
        ("sim:a,rate=5", "rate goes with gen"),
        ("sim:a,rx_pcap=f,count=5", "count goes with gen"),
        ("sim:a,touch=48", "touch goes with sink"),
        ("sim:a,rx_pcap=f,timing=slow", "timing=slow: possible are fast and original"),
        ("sim:a,gen=60,tx_pcap=f,touch=48", "touch goes with sink"),
        ("sim:a,gen=59", "gen 59: 60 to 1514 are possible"),
        ("sim:a,gen=1515", "gen 1515: 60 to 1514"),
        ("sim:a,gen=60.5", "gen 60.5 is no whole number"),
        ("sim:a,gen=big", "gen 'big' is no number"),
        ("sim:a,gen=inf", "gen inf: 60 to 1514"),
        ("sim:a,gen=nan", "gen nan: 60 to 1514"),
        ("sim:a,gen=60,rate=0", "rate 0: 1 to 1000000000"),
        ("sim:a,gen=60,rate=1000000001", "rate 1000000001: 1 to 1000000000"),
        ("sim:a,gen=60,rate=-5", "rate -5: 1 to"),
        ("sim:a,gen=60,rate=1.9", "rate 1.9 is no whole number"),
        ("sim:a,gen=60,rate=1e400", "rate 1e400: 1 to"),
        ("sim:a,gen=60,count=0", "count 0: 1 to"),
        ("sim:a,gen=60,count=3.7", "count 3.7 is no whole number"),
        ("sim:a,gen=60,touch=11", "touch 11: 12 to 1509"),
        ("sim:a,gen=60,touch=48.5", "touch 48.5 is no whole number"),
        ("sim:b,sink=a,touch=1510", "touch 1510: 12 to 1509"),
        ("sim:a,cable=sim:b", "no card can be named 'sim:b': write cable=NAME or cable=unix:/path/to/socket"),
        ("sim:a,cable=/tmp/socket", "no card can be named '/tmp/socket': write cable=NAME or cable=unix:"),
        ("sim:a,cable=b c", "no card can be named 'b c'"),
        ("sim:a,cable=unix:", "the path of a socket has 1 to 107 bytes"),
        ("sim:a,cable=unix:" + 108 * "x", "the path of a socket has 1 to 107 bytes"),
        ("sim:a,cable=unix:" + 54 * "é", "the path of a socket has 1 to 107 bytes"),
        ("sim:a,cable=unix:a\0b", "the path of a socket has 1 to 107 bytes"),
        ("sim:a,cable=unix:x,gen=60", "cable and gen cannot be plugged in together"),
        ("sim:a,cable=unix:x,jitter=1us", "jitter goes up to the delay"),
        ("sim:a,wire=fast", "wire 'fast': write a number and one of k, M, G"),
        ("sim:a,wire=10g", "wire '10g': write a number and one of k, M, G"),
        ("sim:a,wire=0", "wire 0: 1M to 400G are possible"),
        ("sim:a,wire=-1G", "wire -1G: 1M to 400G are possible"),
        ("sim:a,wire=1T", "wire '1T': write a number and one of"),
        ("sim:a,wire=500G", "wire 500G: 1M to 400G are possible"),
        ("sim:a,loss=0.5", "loss goes with cable"),
        ("sim:a,tap=t,delay=5us", "delay goes with cable"),
        ("sim:a,cable=b,delay=50", "delay '50': write a number and one of ns, us, ms, s, such as 10s"),
        ("sim:a,cable=b,delay=.us", "delay '.us': write a number and one of"),
        ("sim:a,cable=b,delay=us", "delay 'us': write a number and one of"),
        ("sim:a,cable=b,delay=5 us", "delay '5 us': write a number and one of"),
        ("sim:a,cable=b,delay=5min", "delay '5min': write a number and one of"),
        ("sim:a,cable=b,delay=infs", "delay 'infs': write a number and one of"),
        ("sim:a,cable=b,delay=٥us", "delay '٥us': write a number and one of"),
        ("sim:a,cable=b,delay=-1us", "delay -1us: 0ns to 10s are possible"),
        ("sim:a,cable=b,delay=11s", "delay 11s: 0ns to 10s are possible"),
        ("sim:a,cable=b,delay=1e99s", "delay 1e99s: 0ns to 10s are possible"),
        ("sim:a,cable=b,delay=1us,jitter=2us", "jitter goes up to the delay"),
        ("sim:a,cable=b,jitter=2us", "jitter goes up to the delay: no frame arrives before it is sent"),
        ("sim:a,cable=b,reorder=0.5", "reorder needs a delay"),
        ("sim:a,cable=b,loss=1.5", "loss 1.5: 0 to 1 are possible"),
        ("sim:a,cable=b,loss=-0.1", "loss -0.1: 0 to 1 are possible"),
        ("sim:a,cable=b,loss=1%", "loss '1%': write a number"),
        ("sim:a,cable=b,duplicate=much", "duplicate 'much': write a number"),
        ("sim:a,cable=b,corrupt=nan", "corrupt 'nan': write a number"),
        ("sim:a,cable=b,loss=0.1,seed=-1", "seed -1: 0 to 9223372036854775807 are possible"),
        ("sim:a,cable=b,loss=0.1,seed=x", "seed 'x' is no number"),
        ("sim:a,tap=much-too-long-name", "tap=much-too-long-name: an interface's name has 1 to 15 characters"),
        ("sim:a,tap=a/b", "tap=a/b: an interface's name"),
        ("sim:a,tap=ixy%d", "tap=ixy%d: an interface's name"),
    ],
)
def test_addresses_that_are_refused(address: str, message: str) -> None:
    """One line that begins with the address as it was written and says what is possible."""
    with pytest.raises(AddressError) as caught:
        parse_spec(address)
    assert str(caught.value).startswith(address)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text(text: str) -> None:
    """Whatever is written, it is a card of the name before the first comma, or an AddressError, and nothing else."""
    with suppress(AddressError):
        assert parse_spec(f"sim:{text}").name == text.split(",")[0]
