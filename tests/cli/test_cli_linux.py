"""Commands on the kernel's interfaces: one end of a veth pair is theirs, or two pairs join namespaces through them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dpkt
import pytest
from namespaces import Namespace, needs, run, wait_until
from scapy.layers.inet import IP, UDP
from veth import OURS, THEIRS, frame, has_program, listener, veth_pair

import ixy.errors

pytestmark = [*needs("ethtool", "iperf3", "ping", "setpriv", "tcpdump"), pytest.mark.once]

BOTH = pytest.mark.parametrize("scheme", ["packet", "xdp"])
NOBODY = "65534"
COMMAND = [sys.executable, "-m", "ixy"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ixy.errors.__file__).parents[1])}


@pytest.fixture
def pair():
    with veth_pair():
        yield


def running(process):
    """The process, once it has told of its first second, or of its first packet: its run has begun then."""
    begun = ("Mbit/s", "rx_mbits", "UDP, length")
    assert any(word in line for line in process.stdout for word in begun), process.stderr.read()
    return process


def ended(process, code: int = 0) -> str:
    """What a process, which ends now, has said on standard error."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return errors


# ---------------------------------------------------------------------------------------------------------------------
# Dump


DATAGRAMS = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("10.9.0.1", 4000))
    for _ in range(2):
        sock.sendto(b"checksum", ("10.9.0.2", 9))
"""


@BOTH
@pytest.mark.usefixtures("pair")
def test_dump_tells_of_unfinished_checksums(start, scheme):
    """The kernel at the other end leaves them to its interface, and a veth makes none; with that switched off, the
    kernel makes them."""
    # IPv4's pseudo-header by hand (RFC 768): addresses, protocol, and the length, of 8 bytes of header and 8 of data
    pseudo = 0x0A09 + 0x0001 + 0x0A09 + 0x0002 + 17 + 16
    right = UDP(bytes(IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=4000, dport=9) / b"checksum")[20:]).chksum
    with ExitStack() as stack:
        other = Namespace(f"{OURS}-other")
        stack.callback(other.close)
        other.take(THEIRS, ["10.9.0.1/24"])
        other.run("ip", "neighbour", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "net")
        for printed, told in (
            (f"[bad udp cksum 0x{pseudo:04x} -> 0x{right:04x}!]", True),
            ("[udp sum ok]", False),
        ):
            process = start("dump", f"{scheme}:{OURS}", "-vvt", "-c", "2", "udp port 9")
            assert any("listening on" in line for line in process.stderr)
            other.run(sys.executable, "-c", DATAGRAMS)
            output, errors = process.communicate(timeout=60)
            assert (process.returncode, output.count(printed)) == (0, 2), output + errors
            assert ("2 packets with unfinished checksums: the kernel that sent them" in errors) == told
            assert ("ethtool -K PEER tx off" in errors) == told
            other.run("ethtool", "-K", "net", "tx", "off")


# ---------------------------------------------------------------------------------------------------------------------
# Capture


def recorded(path) -> list[tuple[float, bytes]]:
    with path.open("rb") as file:
        return [(time, bytes(data)) for time, data in dpkt.pcap.Reader(file)]


@contextmanager
def tcpdump(path):
    """tcpdump at the other end."""
    command = ["tcpdump", "-i", THEIRS, "-U", "-s", "0", "-B", "16384", "-w", str(path), "udp port 9"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("listening on" in line for line in process.stderr)
        yield
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize(("scheme", "queues", "count"), [("packet", 1, 10_000), ("xdp", 1, 10_000), ("xdp", 4, 2000)])
def test_a_capture_is_equal_to_tcpdumps(start, tmp_path, scheme, queues, count):
    """Ten thousand frames of all sizes, never more at a time than a ring holds: the same bytes in the same order, with
    stamps that never go back. From several queues, that holds of each flow, which stays on its queue."""
    frames = [frame(i, 60 + i * 97 % 1455, source=1000 + i % 16) for i in range(count)]
    ours, theirs = tmp_path / "ours.pcap", tmp_path / "theirs.pcap"
    with veth_pair(queues=queues), tcpdump(theirs), listener(THEIRS) as peer:
        options = ["--count", str(count), "--queues", str(queues), "--ring", "4096", "--json"]
        process = running(start("capture", f"{scheme}:{OURS}", str(ours), *options, "udp port 9"))
        expected = 24  # bytes of the file's header (pcap-savefile(5)); a packet's has 16
        for first in range(0, len(frames), 500):
            for data in frames[first : first + 500]:
                peer.send(data)
                expected += 16 + len(data)
            wait_until(lambda size=expected: ours.stat().st_size == size, f"not all of {first + 500} frames come")
        ended(process)
        wait_until(lambda: theirs.stat().st_size == expected, "tcpdump does not write all")
    found, sent = recorded(ours), [data for _, data in recorded(theirs)]
    assert sent == frames
    assert [time for time, _ in found] == sorted(time for time, _ in found)
    if queues == 1:
        assert [data for _, data in found] == sent
    for port in range(1000, 1016):
        flow = port.to_bytes(2, "big")
        assert [data for _, data in found if data[34:36] == flow] == [data for data in sent if data[34:36] == flow]


@BOTH
def test_a_capture_of_long_frames_is_equal_to_tcpdumps(start, tmp_path, scheme):
    """Of all sizes that an MTU of 9000 allows, by -s as much of them as it says."""
    frames = [frame(i, 60 + i * 997 % 8955) for i in range(500)]
    ours, theirs = tmp_path / "ours.pcap", tmp_path / "theirs.pcap"
    with veth_pair(mtu=9000), tcpdump(theirs), listener(THEIRS) as peer:
        options = ["--count", "500", "--mtu", "9000", "-s", "5000", "--json"]
        process = running(start("capture", f"{scheme}:{OURS}", str(ours), *options, "udp port 9"))
        for number, data in enumerate(frames, 1):
            peer.send(data)
            if number % 50 == 0:
                expected = 24 + sum(16 + min(len(each), 5000) for each in frames[:number])
                wait_until(lambda size=expected: ours.stat().st_size == size, f"not all of {number} frames come")
        ended(process)
        wait_until(lambda: len(recorded(theirs)) == 500, "tcpdump does not write all")
    assert [data for _, data in recorded(theirs)] == frames
    assert [data for _, data in recorded(ours)] == [data[:5000] for data in frames]


# ---------------------------------------------------------------------------------------------------------------------
# Forward


@contextmanager
def joined(queues: int = 1, mtu: int = 1500):
    """Two namespaces, and the interfaces whose other ends are in them."""
    with ExitStack() as stack:
        namespaces = []
        for host, name in enumerate((f"{OURS}1", f"{OURS}2"), 1):
            stack.callback(subprocess.run, ["ip", "link", "del", name], capture_output=True, check=False)
            shape = ["numrxqueues", str(queues), "numtxqueues", str(queues), "mtu", str(mtu)]
            run("ip", "link", "add", name, *shape, "type", "veth", "peer", "name", f"{name}p", *shape)
            namespaces.append(Namespace(f"{OURS}-{host}"))
            stack.callback(namespaces[-1].close)
            namespaces[-1].take(f"{name}p", [f"10.9.0.{host}/24"], offloads=False)
            run("ip", "link", "set", name, "addrgenmode", "none")
            run("ip", "link", "set", name, "up")
            run("ethtool", "-K", name, "gro", "off")
        yield namespaces


@pytest.mark.parametrize(("scheme", "queues"), [("packet", 1), ("xdp", 2)])
def test_two_stacks_through_the_forwarder(start, scheme, queues):
    """Pings are answered, TCP flows, and the forwarder has carried it all; with two queues, by two workers."""
    with joined(queues) as (one, two):
        options = ["--json", "--ring", "4096", *(["--queues", "2"] if queues == 2 else ["--wait"])]
        process = running(start("forward", f"{scheme}:{OURS}1", f"{scheme}:{OURS}2", *options))
        one.run("ping", "-c", "1", "-w", "30", "10.9.0.2")
        assert "100 received" in one.run("ping", "-q", "-c", "100", "-i", "0.002", "-W", "10", "10.9.0.2")
        with two.running("iperf3", "-s", "--forceflush", ready="Server listening"):
            report = json.loads(one.run("iperf3", "-c", "10.9.0.2", "-n", "2M", "-P", "4", "-J"))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        summary = json.loads(output.splitlines()[-1])
        assert (process.returncode, errors) == (0, ""), errors
        received = report["end"]["sum_received"]["bytes"]
        assert received > 500_000
        assert summary["received"] == summary["forwarded"] > 2 * 101 + received / 1500
        assert [device["rx_refused"] for device in summary["devices"]] == [0, 0]
        if queues == 2:
            assert all(worker["received"] > 0 for worker in summary["workers"])


@BOTH
def test_long_frames_through_the_forwarder(start, scheme):
    """Pings as long as an MTU of 9000 allows, which nobody may divide, are answered; TCP sends frames as long."""
    with joined(mtu=9000) as (one, two):
        addresses = [f"{scheme}:{OURS}{number}" for number in (1, 2)]
        process = running(start("forward", *addresses, "--json", "--mtu", "9000", "--wait"))
        one.run("ping", "-c", "1", "-w", "30", "10.9.0.2")
        long = one.run("ping", "-q", "-c", "50", "-i", "0.002", "-W", "10", "-M", "do", "-s", "8972", "10.9.0.2")
        assert "50 received" in long
        with two.running("iperf3", "-s", "--forceflush", ready="Server listening"):
            report = json.loads(one.run("iperf3", "-c", "10.9.0.2", "-n", "2M", "-J"))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        summary = json.loads(output.splitlines()[-1])
        assert (process.returncode, errors) == (0, ""), errors
        received = report["end"]["sum_received"]["bytes"]
        sizes = [device["rx_bytes"] for device in summary["devices"]]
        assert min(sizes) > 50 * (9014 + 4)
        assert max(sizes) > received
        assert [device["rx_refused"] for device in summary["devices"]] == [0, 0]


# ---------------------------------------------------------------------------------------------------------------------
# Interfaces that go, processes that are killed


@contextmanager
def traffic():
    """Frames that arrive all the time."""
    script = (
        "import socket, sys, time\n"
        "sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
        f"sock.bind(({THEIRS!r}, 0))\n"
        "while True:\n"
        "    try:\n"
        "        sock.send(bytes.fromhex(sys.argv[1]))\n"
        "    except OSError:\n"
        "        pass\n"
        "    time.sleep(0.001)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, frame(1, 100).hex()], stderr=subprocess.DEVNULL) as sender:
        try:
            yield
        finally:
            sender.kill()


@pytest.mark.parametrize(
    "command",
    [
        ["capture", f"xdp:{OURS}", "out.pcap"],
        ["dump", f"packet:{OURS}"],
        ["generate", f"packet:{OURS}", "--rate", "1000"],
        ["echo", f"xdp:{OURS}", "--wait"],
        ["forward", f"xdp:{OURS}", "sim:a,gen=60,rate=1000", "--queues", "1"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("pair")
def test_an_interface_that_vanishes_under_load(start, command):
    """Renamed, and down and up again, the command goes on; removed, it ends with one line."""
    with traffic():
        process = running(start(*command))
        run("ip", "link", "set", OURS, "name", f"{OURS}x")
        run("ip", "link", "set", f"{OURS}x", "down")
        run("ip", "link", "set", f"{OURS}x", "up")
        assert process.poll() is None
        run("ip", "link", "del", THEIRS)
        errors = ended(process, 2)
    assert errors.splitlines()[-1] == (
        f"ixy: {command[1]}: the interface is gone: it was removed, or moved to another namespace"
    )


@pytest.mark.usefixtures("pair")
def test_killed_and_started_again(start):
    """Under load, twice: the program goes with the process, and the next one has the interface at once."""
    with traffic():
        for _ in range(2):
            process = running(start("echo", f"xdp:{OURS}"))
            assert has_program()
            process.kill()
            process.communicate(timeout=60)
            wait_until(lambda: not has_program(), "the program stays")
        assert ended(start("capture", f"xdp:{OURS}", "out.pcap", "--count", "10")) == ""
        assert not has_program()


@pytest.mark.usefixtures("pair")
def test_the_program_goes_with_a_command_that_is_stopped(start):
    process = running(start("echo", f"xdp:{OURS}"))
    assert has_program()
    process.send_signal(signal.SIGTERM)
    ended(process)
    assert not has_program()


# ---------------------------------------------------------------------------------------------------------------------
# What is missing


@pytest.mark.usefixtures("pair")
def test_a_queue_that_does_not_exist(ixy):
    assert f"the interface has no queue 1: ethtool -l {OURS} shows" in (
        ixy("capture", f"xdp:{OURS}", "out.pcap", "--queues", "2").complaint()
    )


@pytest.mark.usefixtures("pair")
def test_a_share_of_no_line(ixy):
    """A veth has no wire, whatever speed the kernel says."""
    assert f"packet:{OURS}: it has no line of which 50% could be: say so many pps or Mbps" in (
        ixy("generate", f"packet:{OURS}", "--rate", "50%").complaint()
    )


@BOTH
@pytest.mark.usefixtures("pair")
def test_without_rights_the_line_that_is_told_works(scheme):
    """An ordinary user is refused; what the message says, as root would run it, receives."""
    as_nobody = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    command = [*COMMAND, "dump", f"{scheme}:{OURS}", "-c", "1"]
    environment = ENVIRONMENT | {"HOME": "/nonexistent"}
    refused = subprocess.run([*as_nobody, *command], env=environment, capture_output=True, text=True, check=False)
    if "ixy: " not in refused.stderr:
        pytest.skip("nobody may not read the package")
    assert refused.returncode == 2
    line = refused.stderr.splitlines()[-1]
    assert line.startswith(f"ixy: {scheme}:{OURS}: no permission to open ")
    told = shlex.split(line.partition(": sudo ")[2])
    assert told[0] == "setpriv"
    with traffic():
        done = subprocess.run(told, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "10.0.0.1.4000 > 10.0.0.2.9: UDP" in done.stdout


REFUSE = """
import ctypes, errno, struct, sys
from ixy.cli import main

FAMILY = int(sys.argv.pop(1))
program = b"".join(
    struct.pack("=HBBI", *row)
    for row in (
        (0x20, 0, 0, 0),  # the system call's number
        (0x15, 0, 3, {"x86_64": 41, "aarch64": 198}[__import__("platform").machine()]),  # socket(2)
        (0x20, 0, 0, 16),  # its first argument
        (0x15, 0, 1, FAMILY),
        (0x06, 0, 0, 0x00050000 | errno.EAFNOSUPPORT),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
)
room = ctypes.create_string_buffer(program, len(program))
filter = ctypes.create_string_buffer(struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(room)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, filter, 0, 0) == 0  # PR_SET_SECCOMP
main()
"""


@pytest.mark.usefixtures("pair")
def test_a_kernel_without_af_xdp():
    """One that knows the family of sockets not, as a filter of system calls can have it."""
    command = [sys.executable, "-c", REFUSE, "44", "dump", f"xdp:{OURS}"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (f"ixy: xdp:{OURS}: this kernel has no AF_XDP: packet:{OURS} works without")


@pytest.mark.usefixtures("pair")
def test_generate_and_replay(ixy, tmp_path):
    """A thousand packets each, at a rate: all arrive, and the report says that all have gone."""
    with listener(THEIRS) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        done = ixy("generate", f"xdp:{OURS}", "--count", "1000", "--rate", "20000", "--json")
        assert (done.code, done.summary["generated"], done.summary["devices"][0]["tx_packets"]) == (0, 1000, 1000)
        sent = [peer.recv(2048) for _ in range(1000)]
        with (tmp_path / "sent.pcap").open("wb") as file:
            writer = dpkt.pcap.Writer(file)
            for number, data in enumerate(sent):
                writer.writepkt(data, ts=number / 10_000)
        done = ixy("replay", "sent.pcap", f"packet:{OURS}", "--json")
        assert done.code == 0, done.errors
        assert [peer.recv(2048) for _ in sent] == sent
