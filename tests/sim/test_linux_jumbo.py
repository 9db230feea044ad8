"""Frames longer than a buffer through the kernel's interfaces: they come as packets in parts, and are sent as such."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from namespaces import needs, run, wait_until
from veth import OURS, THEIRS, frame, listener, veth_pair

import ixy
from ixy.drivers.xdp import device as xdp
from ixy.errors import ConfigurationError, UnsupportedDevice

pytestmark = needs()

BOTH = pytest.mark.parametrize("scheme", ["packet", "xdp"])
SIZES = [60, 2047, 2048, 2049, 4095, 4096, 4097, 6145, 9013, 9014]
_ROOM = 1 << 16


@contextmanager
def in_parts(address: str) -> Iterator[ixy.Device]:
    """A device of which all buffers are free again, but those that its rings hold, once nothing is under way."""
    with ixy.open(address, ring_size=64, pool_size=256, metadata=("parts",)) as device:
        pool = device.rx[0].pool
        before = pool.available
        yield device
        wait_until(lambda: device.sent() >= 0 and pool.available == before, "buffers are lost")


@BOTH
def test_an_echo_of_long_frames(scheme: str) -> None:
    """Of all sizes about those of buffers, many times as many as there are buffers: they go back as they came, byte for
    byte, and every byte is counted."""
    frames = [frame(i, size) for i, size in enumerate(SIZES)]
    with veth_pair(mtu=9000), in_parts(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer:
        path = ixy.Path(device.rx[0], device.tx[0])
        for _ in range(30):
            for data in frames:
                peer.send(data)
            wanted = path.counts.received + len(frames)
            wait_until(lambda wanted=wanted: path.run(10) >= 0 and path.counts.received == wanted, "frames are lost")
            assert [peer.recv(_ROOM) for _ in frames] == frames
        stats = device.stats()
        assert (stats.rx_packets, stats.tx_packets, stats.rx_dropped, stats.rx_refused) == (300, 300, 0, 0)
        assert stats.rx_bytes == stats.tx_bytes == 30 * sum(size + 4 for size in SIZES)
        assert device.sent() == 300


@BOTH
def test_long_frames_go_on_by_the_other_driver(scheme: str) -> None:
    """What one driver has received in parts the other one sends; and a tag that the kernel takes out of a frame is put
    back, where a part begins with it or not."""
    (other,) = {"packet", "xdp"} - {scheme}
    plain = frame(7, 9014 if scheme == "xdp" else 9010)
    tagged = plain[:12] + bytes.fromhex("8100602a") + plain[12:]
    with (
        veth_pair(mtu=9000),
        listener(THEIRS) as peer,
        in_parts(f"{scheme}:{OURS}") as source,
        in_parts(f"{other}:{THEIRS}") as target,
    ):
        assert peer
        back = ixy.Path(target.rx[0], target.tx[0])
        with source.rx[0].pool.allocate(1, len(tagged), metadata=("parts",)) as batch:
            batch[0][:] = tagged
            assert source.tx[0].send(batch) == 1
        wait_until(lambda: back.run(10) >= 0 and back.counts.forwarded == 1, "it does not arrive")
        with source.rx[0].receive(timeout=10) as batch:
            assert [bytes(packet) for packet in batch] == [tagged]


@BOTH
def test_a_frame_of_more_parts_than_there_may_be(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """The MTU is raised once the device is open: AF_XDP expects frames of two parts then. Longer ones are refused, each
    once, and all of its buffers go back; AF_PACKET takes them."""
    with veth_pair(), in_parts(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer:
        for end in (OURS, THEIRS):
            run("ip", "link", "set", end, "mtu", "9000")
        frames = [frame(i, size) for i, size in enumerate([4096, 4097, 9014, 100])]
        taken = [data for data in frames if scheme == "packet" or len(data) <= 4096]
        for _ in range(50):
            for data in frames:
                peer.send(data)
            found: list[bytes] = []
            while len(found) < len(taken):
                with device.rx[0].receive(timeout=10) as batch:
                    assert len(batch)
                    found += [bytes(packet) for packet in batch]
            assert found == taken
        assert device.stats().rx_refused == 50 * (len(frames) - len(taken))
    if scheme == "xdp":
        assert "100 frames were refused, as longer than 4096 bytes" in caplog.text


@BOTH
@pytest.mark.once
def test_what_is_refused(scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An MTU that the interface has not; one for which packets need parts; and by kernels that have no frames in parts,
    which take what fits a buffer as before."""
    bind: Callable[..., None] = xdp.bind_xdp

    def older(fd: int, flags: int, interface: int, queue: int) -> None:
        if flags & 16:  # XDP_USE_SG, which Linux knows from 6.6 on
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        bind(fd, flags, interface, queue)

    address = f"{scheme}:{OURS}"
    with veth_pair(mtu=4000):
        with pytest.raises(ConfigurationError, match=f"mtu=4001: its own is 4000: ip link set {OURS} mtu 4001"):
            ixy.open(address, mtu=4001, metadata=("parts",))
        with pytest.raises(ConfigurationError, match=r"mtu=4000 needs metadata=\('parts',\) too"):
            ixy.open(address, mtu=4000)
        ixy.open(address, mtu=4000, metadata=("parts",)).close()
        ixy.open(address, mtu=1500).close()
        if scheme == "xdp":
            monkeypatch.setattr(xdp, "bind_xdp", older)
            with pytest.raises(UnsupportedDevice, match=r"no frames in parts, as Linux 6\.6 has them: leave out"):
                ixy.open(address, metadata=("parts",))
            with caplog.at_level(logging.WARNING, "ixy"):
                ixy.open(f"{address},mode=generic").close()
            assert "frames of more than 2048 bytes are dropped" in caplog.text
