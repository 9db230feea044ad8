"""Addresses of simulated cards."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.errors import AddressError
from ixy.sim.spec import Spec, parse_spec


@pytest.mark.parametrize(
    ("address", "spec"),
    [
        ("sim:a", Spec("a")),
        ("sim:Card-1.2_x", Spec("Card-1.2_x")),
        ("sim:a,cable=b", Spec("a", cable="b")),
        ("sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap", Spec("a", rx_pcap="in.pcap", tx_pcap="out.pcap")),
        ("sim:a,rx_pcap=in.pcap,timing=original", Spec("a", rx_pcap="in.pcap", original_timing=True)),
        ("sim:a,rx_pcap=in.pcap,timing=fast", Spec("a", rx_pcap="in.pcap")),
        ("sim:a,tx_pcap=a=b.pcap", Spec("a", tx_pcap="a=b.pcap")),
        ("sim:a,tap=ixy0", Spec("a", tap="ixy0")),
        ("sim:a,gen=60", Spec("a", gen=60, sink="a")),
        ("sim:a,gen=1514,rate=1e6,count=1000", Spec("a", gen=1514, rate=1_000_000, count=1000, sink="a")),
        ("sim:a,gen=60,tx_pcap=o.pcap", Spec("a", gen=60, tx_pcap="o.pcap")),
        ("sim:a,gen=60,sink=b", Spec("a", gen=60, sink="b")),
        ("sim:b,sink=a,touch=48", Spec("b", sink="a", touch=48)),
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
        ("sim:a,gen", "'gen' is no option"),
        ("sim:a,gen=", "'gen=' is no option"),
        ("sim:a,speed=9", "possible are cable, rx_pcap, tx_pcap, timing, tap, gen, rate, count, sink, touch"),
        ("sim:a,gen=60,gen=61", "gen is given twice"),
        ("sim:a,cable=b,tap=c", "cable and tap cannot be plugged in together"),
        ("sim:a,gen=60,rx_pcap=f", "gen and rx_pcap cannot"),
        ("sim:a,cable=b,tx_pcap=f", "cable and tx_pcap cannot"),
        ("sim:a,tx_pcap=f,sink=b", "sink and tx_pcap cannot"),
        ("sim:a,tap=c,gen=60", "gen and tap cannot"),
        ("sim:a,timing=original", "timing goes with rx_pcap"),
        ("sim:a,rate=5", "rate goes with gen"),
        ("sim:a,rx_pcap=f,count=5", "count goes with gen"),
        ("sim:a,touch=48", "touch goes with gen or sink"),
        ("sim:a,rx_pcap=f,timing=slow", "timing=slow: possible are fast and original"),
        ("sim:a,gen=59", "gen=59: 60 to 1514 are possible"),
        ("sim:a,gen=1515", "gen=1515: 60 to 1514"),
        ("sim:a,gen=big", "gen=big is no number"),
        ("sim:a,gen=inf", "gen=inf is no number"),
        ("sim:a,gen=nan", "gen=nan is no number"),
        ("sim:a,gen=60,rate=0", "rate=0: 1 to 1000000000"),
        ("sim:a,gen=60,rate=-5", "rate=-5: 1 to"),
        ("sim:a,gen=60,count=0", "count=0: 1 to"),
        ("sim:a,gen=60,touch=11", "touch=11: 12 to 55"),
        ("sim:a,gen=60,touch=56", "touch=56: 12 to 55"),
        ("sim:a,gen=1514,touch=1510", "touch=1510: 12 to 1509"),
        ("sim:b,sink=a,touch=1510", "touch=1510: 12 to 1509"),
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
