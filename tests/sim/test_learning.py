"""What lies between a tester's ports learns where packets are to go before any is counted: switches and routers of the
kernel, which lose packets for whom they do not know."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from namespaces import needs, run

import ixy
from ixy.apps import tester as apps
from ixy.apps.compose import compose
from ixy.apps.rate import parse_rate
from ixy.apps.streams import Choice, Stream
from ixy.apps.tester import Trial

SPACE = f"ixyn{os.getpid() % 100_000}"
PORTS = tuple(f"ixyn{os.getpid() % 100_000}{end}" for end in "ab")
COUNT = 200
RATE = parse_rate("rate", "2kpps")


def needs_namespaces(test):
    for mark in [*needs("ip", "bridge", "sysctl"), pytest.mark.once, pytest.mark.usefixtures("between")]:
        test = mark(test)
    return test


def inside(*command: str) -> str:
    return run("ip", "netns", "exec", SPACE, *command)


@pytest.fixture
def between() -> Iterator[None]:
    """A namespace with interfaces a and b, whose other ends are the tester's ports."""
    run("ip", "netns", "add", SPACE)
    try:
        inside("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")  # else who has an address waits before using it
        for port, end in zip(PORTS, "ab", strict=True):
            run("ip", "link", "add", port, "type", "veth", "peer", "name", end, "netns", SPACE)
            run("ip", "link", "set", port, "addrgenmode", "none")
            run("ip", "link", "set", port, "up")
            inside("ip", "link", "set", "dev", end, "up")
        yield
    finally:
        for port in PORTS:
            subprocess.run(["ip", "link", "del", port], capture_output=True, check=False)
        run("ip", "netns", "del", SPACE)


def test_what_is_announced_counts_for_nothing() -> None:
    """It is under way for longer than the ports wait, and arrives amid the trial."""
    cable = "sim:learn-a,cable=learn-b,wire=10G,delay=5ms,clock=virtual"
    with ixy.open(cable, link_timeout=0) as a, ixy.open("sim:learn-b,clock=virtual", link_timeout=0) as b:
        for both_ways, routed in ((False, False), (True, False), (True, True)):
            stream = Stream("udp", compose({"vlan": {"id": 9}, "ipv4": {}, "udp": {}}, b"ixy", [64]))
            tester = apps.Tester([a, b], [stream], both_ways=both_ways, routed=routed, settle=0.001)
            before = [port.stats().tx_packets for port in (a, b)]
            tester.learn()
            after = [port.stats().tx_packets for port in (a, b)]
            assert [new - old for old, new in zip(before, after, strict=True)] == [int(both_ways), 1]
            tester._settle = 0.01
            result = tester.run(Trial(parse_rate("rate", "10kpps"), count=100))
            assert (result.ok, result.others) == (True, {"sim:learn-a": 0, "sim:learn-b": 0})


@needs_namespaces
def test_a_switch_knows_both_ends() -> None:
    """One that floods nothing: before it has heard of the receiver all is lost, after that nothing, of each of the
    addresses to which packets go."""
    inside("ip", "link", "add", "switch", "type", "bridge")
    for end in "ab":
        inside("ip", "link", "set", "dev", end, "master", "switch")
        inside("bridge", "link", "set", "dev", end, "flood", "off")
    inside("ip", "link", "set", "switch", "up")
    streams = [
        Stream("one", compose({"ipv6": {}, "udp": {}}, b"ixy", [80])),
        Stream(
            "many",
            compose({"ipv4": {}, "udp": {}}, b"ixy", [60]),
            {"eth.dst": Choice(range(0x0200_0000_0100, 0x0200_0000_0110))},
        ),
    ]
    with ExitStack() as stack:
        ports = [stack.enter_context(ixy.open(f"packet:{port}")) for port in PORTS]
        tester = apps.Tester(ports, streams, settle=0.1)
        assert tester.run(Trial(RATE, count=COUNT)).received == 0
        tester.learn()
        result = tester.run(Trial(RATE, count=COUNT))
        assert [stream.received for stream in result.streams] == [COUNT // 2] * 2


@needs_namespaces
def test_a_router_is_answered(tmp_path: Path) -> None:
    """By the command, for IPv4 and IPv6: the kernel asks for the receivers, and loses nothing either way."""
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        inside("sysctl", "-qw", f"{setting}=1")
    for end, net in (("a", 1), ("b", 2)):
        inside("ip", "address", "add", f"10.{net}.0.254/16", "dev", end)
        inside("ip", "address", "add", f"fd00:{net}::254/32", "dev", end, "nodad")
    near, far = (inside("cat", f"/sys/class/net/{end}/address").strip() for end in "ab")
    ends = f'eth: {{src: "{far}", dst: "{near}"}}'
    (tmp_path / "streams.yaml").write_text(f"""streams:
  - size: 60
    flows: 4 in turn
    packet: {{{ends}, ipv4: {{src: 10.1.0.1, dst: {{count: 10.2.0.1-10.2.0.4}}}}, udp: {{}}}}
  - size: 80
    packet: {{{ends}, ipv6: {{src: "fd00:1::1", dst: "fd00:2::1"}}, udp: {{}}}}
""")
    command = ["test", *(f"packet:{port}" for port in PORTS), "--routed", "--both-ways", "--streams", "streams.yaml"]
    ended = subprocess.run(
        [sys.executable, "-m", "ixy", *command, "--rate", "1kpps", "--count", str(COUNT)],
        cwd=tmp_path,
        env=os.environ | {"IXY_JIT": "0", "PYTHONPATH": str(Path(ixy.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"sent {2 * COUNT}, received {2 * COUNT}, lost 0" in ended.stdout
