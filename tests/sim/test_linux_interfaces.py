"""The kernel's interfaces by AF_PACKET and AF_XDP: one end of a veth pair is the driver's, at the other a socket is."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from namespaces import Namespace, needs, run, wait_until
from veth import LONGEST, OURS, SHORTEST, THEIRS, frame, has_program, listener, veth_pair

import ixy
from ixy.errors import AddressError, ConfigurationError, DeviceBusy, FilterError, UnsupportedDevice

pytestmark = [*needs("ip"), pytest.mark.usefixtures("pair")]

BOTH = pytest.mark.parametrize("scheme", ["packet", "xdp"])


@pytest.fixture
def pair() -> Iterator[None]:
    with veth_pair():
        yield


def received(device: ixy.Device, count: int) -> list[bytes]:
    """So many frames, as they come."""
    frames: list[bytes] = []
    while len(frames) < count:
        with device.rx[0].receive(timeout=10) as batch:
            assert len(batch), f"{len(frames)} of {count} frames came"
            frames += [bytes(packet) for packet in batch]
    return frames


@BOTH
def test_frames_both_ways(scheme: str) -> None:
    """Frames of all sizes come as they were sent, in their order; and so do those that are sent, of any pool."""
    frames = [frame(i, SHORTEST + i * (LONGEST - SHORTEST) // 299) for i in range(300)]
    with ixy.open(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer:
        for data in frames:
            peer.send(data)
        assert received(device, len(frames)) == frames
        with ixy.Mempool(64) as pool:
            for data in frames[:100]:
                with pool.allocate(1, len(data)) as batch:
                    batch[0][:] = data
                    assert device.tx[0].send(batch) == 1
        assert [peer.recv(2048) for _ in range(100)] == frames[:100]
        stats = device.stats()
        assert (stats.rx_packets, stats.tx_packets, stats.rx_dropped) == (300, 100, 0)
        assert stats.rx_bytes == sum(len(data) + 4 for data in frames)
        assert device.sent() == 100


@BOTH
def test_a_look_inside(scheme: str) -> None:
    """What the interface is; and what rings, sockets and the kernel count, each by itself."""
    with ixy.open(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer:
        for number in range(3):
            peer.send(frame(number, 100))
        assert len(received(device, 3)) == 3
        counted = device.xstats()
        assert (counted["rx_q0_packets"], counted["rx_q0_bytes"], counted["tx_q0_packets"]) == (3, 312, 0)
        assert counted["interface_rx_packets"] == 3
        sockets = {"packet": {"rx_q0_socket_packets": 3}, "xdp": {}}[scheme]
        assert {name: count for name, count in counted.items() if "socket" in name and count} == sockets
        info = device.info
        assert (info.address, info.driver, info.model) == (f"{scheme}:{OURS}", scheme, "veth")
        assert info.bus.startswith({"packet": "AF_PACKET", "xdp": "AF_XDP, driver mode"}[scheme])
        assert (info.mtu, info.mac, info.link_up, info.rx_ring) == (1500, device.mac.hex(":"), True, 512)
        with pytest.raises(UnsupportedDevice, match=f"ethtool -d {OURS}"):
            device.registers()


@BOTH
def test_echo_over_many_rings(scheme: str) -> None:
    """Packets go back in the buffers in which they came, many times as many as there are buffers, and none is lost."""
    with ixy.open(f"{scheme}:{OURS}", ring_size=64, pool_size=128) as device, listener(THEIRS) as peer:
        for first in range(0, 1000, 25):
            sent = [frame(i, SHORTEST) for i in range(first, first + 25)]
            for data in sent:
                peer.send(data)
            count = 0
            while count < 25:
                with device.rx[0].receive(timeout=10) as batch:
                    count += device.tx[0].send(batch)
            assert [peer.recv(2048) for _ in sent] == sent
        assert device.sent() == 1000


def test_vlan_tag_is_put_back() -> None:
    """The kernel takes tags out of what it hands to packet sockets; here the frame is as it was on the wire, or the tag
    is metadata."""
    data = frame(1, 100)
    tagged = data[:12] + bytes.fromhex("8100602a") + data[12:]
    with ixy.open(f"packet:{OURS}") as device, listener(THEIRS) as peer:
        peer.send(tagged)
        assert received(device, 1) == [tagged]
    with ixy.open(f"packet:{OURS}", metadata=("vlan", "flags")) as device, listener(THEIRS) as peer:
        peer.send(tagged)
        with device.rx[0].receive(timeout=10) as batch:
            assert (batch.vlans.tolist(), bytes(batch[0])) == ([0x602A], data)


@pytest.mark.parametrize(
    ("expression", "taken"),
    [("udp port 4789", [2]), ("udp[8:4] > 1 and not port 7", [2]), ("len < 90 or ip[2:2] >= 0x80", [0, 2])],
)
def test_filter_leaves_the_rest_to_the_kernel(expression: str, taken: list[int]) -> None:
    """The sizes are 80, 100 and 142 bytes, the ports 9, 7 and 4789."""
    frames = [frame(0, 80), frame(1, 100, 7), frame(2, 142, 4789)]
    with listener(OURS) as kernel, ixy.open(f"xdp:{OURS},filter={expression}") as device, listener(THEIRS) as peer:
        for data in frames:
            peer.send(data)
        assert received(device, len(taken)) == [frames[i] for i in taken]
        rest = [i for i in range(3) if i not in taken]
        assert [kernel.recv(2048) for _ in rest] == [frames[i] for i in rest]


@pytest.mark.once
def test_refusals() -> None:
    """Each in one line that says what is wrong."""
    refused = {
        "xdp:ixynone0": (AddressError, "no interface ixynone0"),
        "packet:ixynone0": (AddressError, "no interface ixynone0"),
        "xdp:lo": (UnsupportedDevice, "loopback"),
        "xdp:": (AddressError, "no interface's name"),
        f"xdp:{OURS},mode=fast": (AddressError, "mode=driver|generic|zerocopy"),
        f"xdp:{OURS},mode=zerocopy": (UnsupportedDevice, "no zero-copy"),
        f"xdp:{OURS},filter=udp prot 9": (FilterError, "syntax error"),
        f"xdp:{OURS},filter=ip6 protochain 6": (FilterError, "the kernel does not take filter='ip6 protochain 6': "),
        f"packet:{OURS},all": (AddressError, "outgoing is possible"),
    }
    for address, (error, words) in refused.items():
        with pytest.raises(error) as caught:
            ixy.open(address)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"no queue \d+: ethtool -l"):
        ixy.open(f"xdp:{OURS}", rx_queues=64)


@pytest.mark.once
def test_an_interface_in_use_is_taken_by_force_alone() -> None:
    run("ip", "address", "add", "198.51.100.1/24", "dev", OURS)
    with pytest.raises(DeviceBusy, match=rf"interface {OURS} is up with address 198\.51\.100\.1: .*--force"):
        ixy.open(f"xdp:{OURS}")
    ixy.open(f"xdp:{OURS}", force=True).close()
    ixy.open(f"packet:{OURS}").close()


@pytest.mark.once
def test_a_second_program_is_named_and_closing_removes_it() -> None:
    with ixy.open(f"xdp:{OURS}"):
        assert has_program()
        with pytest.raises(DeviceBusy, match="queue 0 is in use"):
            ixy.open(f"xdp:{OURS}")
    assert not has_program()
    for _ in range(3):  # the queue is to be had again at once
        ixy.open(f"xdp:{OURS}").close()


@pytest.mark.once
def test_a_killed_process_leaves_nothing() -> None:
    script = f"import ixy, time\ndevice = ixy.open('xdp:{OURS}')\nprint('open', flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        assert has_program()
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not has_program(), "the program stays")
    ixy.open(f"xdp:{OURS}").close()


@BOTH
def test_in_a_sandbox(scheme: str) -> None:
    """Link, addresses, statistics and all that `ixy info` asks are told, packets pass, and it is closed; the program
    goes. Kernels of the end are there before, as nothing is kept of what is compiled in a sandbox."""
    script = f"""
        import ixy
        from ixy.jitcache import Store
        late, load = [], Store.load
        with ixy.open("{scheme}:{OURS}") as device:
            ixy.sandbox()
            device.tx[0].send(device.rx[0].pool.allocate(1))
            with device.rx[0].receive(timeout=0.01):
                print(device.link.up, len(device.mac), device.stats().tx_packets)
            print(device.info.model, device.info.mtu, device.xstats()["interface_tx_packets"] > 0)
            Store.load = lambda store, name, key: late.append(name) or load(store, name, key)
            device.sent()
        print(late)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert ended.stdout == "True 6 1\nveth 1500 True\n[]\n", ended.stderr
    assert not has_program()


def passes(peer: socket.socket, device: ixy.Device) -> bool:
    """Whether a frame arrives; the kernel drops some until it has noticed that the link is up."""
    peer.send(frame(1, 60))
    with device.rx[0].receive(timeout=0.1) as batch:
        return [bytes(packet) for packet in batch][:1] == [frame(1, 60)]


@BOTH
def test_an_interface_that_vanishes(scheme: str) -> None:
    """Down and up again it goes on; removed, the link says so, nothing hangs, and all buffers come back."""
    with ixy.open(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer:
        run("ip", "link", "set", OURS, "down")
        assert not device.link.up
        run("ip", "link", "set", OURS, "up")
        assert device.wait_for_link(10).up
        wait_until(lambda: passes(peer, device), "nothing comes any more")
        run("ip", "link", "del", OURS)
        with pytest.raises(ixy.Error, match=f"{OURS}: the interface is gone"):
            _ = device.link
        with ixy.Mempool(8) as pool, pool.allocate(4) as batch:
            device.tx[0].send(batch)
            assert len(device.rx[0].receive(timeout=0.01)) == 0
            assert device.stats().rx_packets > 0


@BOTH
@pytest.mark.parametrize("gone", ["moved", "renamed"])
@pytest.mark.once
def test_an_interface_that_goes_elsewhere(scheme: str, gone: str) -> None:
    """Under another name it is the same; in another namespace it is gone, and closing takes the program from it."""
    with ExitStack() as stack, ixy.open(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer:
        assert passes(peer, device)
        if gone == "renamed":
            run("ip", "link", "set", OURS, "name", f"{OURS}x")
            assert passes(peer, device)
            assert device.link.up
            return
        away = Namespace(f"{OURS}-away")
        stack.callback(away.close)
        run("ip", "link", "set", OURS, "netns", away.name)
        with pytest.raises(ixy.Error, match=f"{OURS}: the interface is gone"):
            _ = device.link
        device.close()
        assert "prog/xdp" not in away.run("ip", "link", "show", OURS)
