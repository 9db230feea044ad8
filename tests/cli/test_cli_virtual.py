"""Commands by a virtual clock: `--seconds`, rates and captures go by it, and a run is like any other."""

from __future__ import annotations

import dpkt
import pytest

A, B = "sim:a,gen=60,rate=1000,wire=10G,clock=virtual", "sim:b,wire=1G,tx_pcap=out.pcap,clock=virtual"


def stamps(path) -> list[int]:
    """When frames were recorded, in ns after the clock's start at one second."""
    with path.open("rb") as file:
        return [int(moment * 10**9) - 10**9 for moment, _ in dpkt.pcap.Reader(file)]


def test_generate_at_the_line_s_rate(ixy, tmp_path):
    """A batch of 32 a microsecond would be more than the wire takes: 67.2 ns a frame, without a gap."""
    address = "sim:a,wire=10G,tx_pcap=out.pcap,clock=virtual"
    ended = ixy("generate", address, "--size", "60", "--count", "500", "--json")
    assert ended.code == 0, ended.errors
    assert stamps(tmp_path / "out.pcap") == [1000 + n * 672 // 10 for n in range(500)]


def test_generate_at_a_rate_for_some_seconds(ixy, tmp_path):
    """Packet n is sent n / 300 s after the first, in the first nanosecond then; the first after the first poll."""
    address = "sim:a,tx_pcap=out.pcap,clock=virtual"
    ended = ixy("generate", address, "--rate", "300", "--seconds", "2", "--json")
    assert ended.code == 0, ended.errors
    assert ended.summary["seconds"] == 2.0
    assert ended.summary["generated"] == 600
    assert stamps(tmp_path / "out.pcap") == [1000 + -(-n * 10**7 // 3) for n in range(600)]


def test_generate_at_a_rate_in_bits(ixy, tmp_path):
    """Frames of 60 and 1514 bytes, 84 and 1538 on the wire, at 30 % of 1 Gbit/s: each leaves when the bits before it
    have had their time, in the first nanosecond then."""
    address = "sim:a,wire=1G,tx_pcap=out.pcap,clock=virtual"
    ended = ixy("generate", address, "--size", "60,1514", "--rate", "30%", "--count", "300", "--json")
    assert (ended.code, ended.errors) == (0, "")
    before = [n // 2 * (84 + 1538) + n % 2 * 84 for n in range(300)]
    assert stamps(tmp_path / "out.pcap") == [1000 + -(-octets * 80 // 3) for octets in before]
    assert ended.summary["bit_rate"] == 300_000_000


def test_generate_in_bursts(ixy, tmp_path):
    """Bursts of 8 at 1000 packets a second: 8 at once, at what the wire takes, every 8 milliseconds."""
    address = "sim:a,wire=10G,tx_pcap=out.pcap,clock=virtual"
    ended = ixy("generate", address, "--rate", "1kpps", "--burst", "8", "--count", "80")
    assert (ended.code, ended.errors) == (0, "")
    expected = [1000 + n // 8 * 8_000_000 + n % 8 * 672 // 10 for n in range(80)]
    assert stamps(tmp_path / "out.pcap") == expected


def test_generate_at_random_moments(ixy, tmp_path):
    """10,000 packets a second for a second: as many, give or take four standard deviations, and twice the same; gaps
    as long as e says."""
    found = []
    for _ in range(2):
        address = "sim:a,tx_pcap=out.pcap,clock=virtual"
        ended = ixy("generate", address, "--rate", "10kpps", "--poisson", "--seconds", "1", "--json")
        assert ended.code == 0, ended.errors
        found.append(stamps(tmp_path / "out.pcap"))
    assert found[0] == found[1]
    assert abs(len(found[0]) - 10_000) < 400
    gaps = [after - before for before, after in zip(found[0], found[0][1:], strict=False)]
    assert abs(sum(gap > 100_000 for gap in gaps) / len(gaps) - 0.3679) < 0.03


def test_few_packets_a_second_are_seen(ixy):
    """The line of each second says 1.0 kpps, not 0.001 Mpps."""
    ended = ixy("generate", "sim:a,tx_pcap=/dev/null,clock=virtual", "--rate", "1e3", "--seconds", "2.5")
    assert "out     1.0 kpps       0.7 Mbit/s" in ended.output


@pytest.mark.parametrize("waits", [[], ["--wait"]])
def test_forward_for_some_seconds(ixy, tmp_path, waits):
    """A frame a millisecond, seen by the next poll, or by who wakes for it; twice the same."""
    found = []
    for _ in range(2):
        ended = ixy("forward", A, B, "--one-way", "--seconds", "0.5", "--json", *waits)
        assert ended.code == 0, ended.errors
        found.append((ended.output, (tmp_path / "out.pcap").read_bytes()))
    assert found[0] == found[1]
    assert ended.summary["received"] == ended.summary["forwarded"] == 500
    times = stamps(tmp_path / "out.pcap")
    arrived = [n * 1_000_000 + 67 for n in range(500)]
    if waits:
        assert all(moment < time <= moment + 700_000 for moment, time in zip(arrived, times, strict=True))
    else:
        assert times == [-(-moment // 1000) * 1000 for moment in arrived]


def test_capture_and_echo(ixy, tmp_path):
    ended = ixy("capture", A, "seen.pcap", "--count", "5", "--json")
    assert ended.code == 0, ended.errors
    assert stamps(tmp_path / "seen.pcap") == [max(n * 1_000_000 + 1000, 1000) for n in range(5)]
    ended = ixy("echo", A, "--count", "50", "--json")
    assert ended.code == 0, ended.errors
    (sink,) = ended.summary["sinks"]
    assert sink | {"generator": "", "sink": ""} == {
        "generator": "",
        "sink": "",
        "sent": 50,
        "received": 50,
        "lost": 0,
        "duplicated": 0,
        "reordered": 0,
        "wrong": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forward", A, "sim:b"], "all simulated cards of a process share a clock"),
        (["forward", A, B, "--queues", "1"], "clock=virtual: one thread does all; leave it out, or --queues"),
        (["generate", "sim:a,tap=ixy0,clock=virtual"], "tap=ixy0 leads out of this process"),
        (["generate", "sim:a,clock=slow"], "clock=slow: possible are real and virtual"),
        (["sim", "qemu", "--card", "sim:a,clock=virtual"], "a virtual machine goes by the system's clock"),
    ],
)
def test_what_is_refused(ixy, arguments, said):
    assert said in ixy(*arguments).complaint()


def test_help_names_the_options(ixy):
    said = ixy("--help").output
    for option in ("clock=virtual", "ready=", "seed=", "wire="):
        assert option in said
