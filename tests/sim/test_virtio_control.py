"""The control plane of the VirtIO driver against a model that carries out its commands in a thread."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from toeplitz import KEY

from ixy.device import Device
from ixy.drivers.virtio import control
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError, DeviceTimeout, Error
from ixy.packets.mempool import Mempool
from ixy.registers import virtio as reg
from ixy.sim.virtio import NEXT, BackEnd, dma, next_descriptor, use

CONTROL = 1 << reg.CTRL_VQ | 1 << reg.CTRL_RX | 1 << reg.CTRL_VLAN | 1 << reg.CTRL_MAC_ADDR
SPLIT = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS | 1 << reg.MQ | CONTROL
PACKED = SPLIT | 1 << reg.RING_PACKED
RSS = 1 << reg.RSS
SIX_HASHES = 0b111111  # 5.1.6.4.3.1: IPv4 and IPv6, each alone, with TCP and with UDP
OK, REFUSES = 0, 1  # 5.1.6.5
both_kinds = pytest.mark.parametrize("features", [SPLIT, PACKED], ids=["split", "packed"])


class Commanded(BackEnd):
    """A device with a control queue behind its pairs of queues.

    Attributes:
        commands: what came: class, command and data.
        answer: to each; None to write none.
        deaf: commands are left alone.
    """

    def __init__(self, features: int, pairs: int = 1) -> None:
        super().__init__("model", features, pairs)
        self.commands: list[bytes] = []
        self.answer: int | None = OK
        self.deaf = False
        self._control = 2 * pairs
        self._turn = threading.Lock()  # once it is reset, the rings' memory goes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def ring_limit(self, index: int) -> int:
        return 16 if index == self._control else super().ring_limit(index)

    def reset(self) -> None:
        with self._turn:
            super().reset()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stop.wait(0.0001):
            with self._turn:
                queue = self.queues.get(self._control)
                if queue is not None and not self.deaf and (place := next_descriptor(queue)) >= 0:
                    self._carry_out(place)

    def _carry_out(self, place: int) -> None:
        """A chain of two descriptors: the request, and a byte for the answer."""
        queue = self.queues[self._control]
        first, second = queue.descriptors >> 3, int(queue.words[place + 1]) >> reg.SPLIT_NEXT_SHIFT & 0xFFFF
        following = place + 2 if queue.packed else first + 2 * second
        request, answer = (self._bytes_at(word) for word in (place, following))
        self.commands.append(request.tobytes())
        if self.answer is not None:
            answer[0] = self.answer
        use(queue, place, 1)
        if queue.packed:
            queue.state[NEXT] += 1

    def _bytes_at(self, word: int) -> memoryview:
        queue = self.queues[self._control]
        size = int(queue.words[word + 1]) & 0xFFFFFFFF
        offset = dma(queue, queue.words[word], size)
        assert offset >= 0
        return memoryview(queue.memory[offset : offset + size])


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """What the model's thread calls, before a command waits for it."""
    model = BackEnd("model", 1 << reg.VERSION_1)
    with Device(VirtioNet(InProcess(model), ring_size=16, pool_size=64)):
        queue = model.queues[0]
        place = next_descriptor(queue)
        assert dma(queue, queue.words[place], 1) >= 0
        use(queue, place, 1)


@contextmanager
def opened(
    features: int, pairs: int = 1, hashes: int = SIX_HASHES, **options: Any
) -> Iterator[tuple[Device, Commanded]]:
    """A device that could hash so, with its driver."""
    model = Commanded(features, pairs)
    model.config[17:] = struct.pack("<BHI", 40, 128, hashes)  # 5.1.4
    options = {"rx_queues": pairs, "tx_queues": pairs, "ring_size": 16, "pool_size": 64} | options
    try:
        driver = VirtioNet(InProcess(model), **options)
        with Device(driver) as device:
            yield device, model
    finally:
        model.end()


@both_kinds
def test_commands_as_the_device_gets_them(features: int) -> None:
    """Class, command and data of each (5.1.6.5), over several rounds of the ring. At first all packets are let in."""
    station, group = bytes.fromhex("02000000000a"), bytes.fromhex("01005e000001")
    with opened(features) as (device, model):
        assert model.commands == [bytes([0, 0, 1])]
        for _ in range(8):
            model.commands.clear()
            device.set_promiscuous(False)
            device.set_mac_filter([group, station])
            device.set_vlan_filter(100, True)
            device.set_vlan_filter(100, False)
            device.mac = station
            assert model.commands == [
                bytes([0, 0, 0]),
                bytes([1, 0, 1, 0, 0, 0]) + station + bytes([1, 0, 0, 0]) + group,
                bytes([2, 0, 100, 0]),
                bytes([2, 1, 100, 0]),
                bytes([1, 1]) + station,
            ]


@both_kinds
def test_the_device_is_told_of_its_pairs_of_queues(features: int) -> None:
    with opened(features, pairs=3) as (_, model):
        assert model.commands == [bytes([4, 0, 3, 0]), bytes([0, 0, 1])]


def rss_config(table: list[int], pairs: int, key: bytes = KEY) -> bytes:
    """5.1.6.5.7.1: hash types, mask, queue of what is not hashed; table, transmit queues, the key with its length."""
    head, tail = struct.pack("<IHH", SIX_HASHES, 127, 0), struct.pack("<HB", pairs, len(key)) + key
    return bytes([4, 1]) + head + b"".join(number.to_bytes(2, "little") for number in table) + tail


@both_kinds
@pytest.mark.parametrize("offered", [RSS, RSS | 1 << reg.MQ])
def test_a_device_with_rss_is_told_where_packets_go(features: int, offered: int) -> None:
    """Instead of the number of pairs; whether it could also spread packets by itself makes no difference."""
    with opened(features & ~(1 << reg.MQ) | offered, pairs=3, rss_key=b"k" * 40) as (device, model):
        turns = [number % 3 for number in range(128)]
        assert model.commands == [rss_config(turns, 3, b"k" * 40), bytes([0, 0, 1])]
        assert device.spread == "Toeplitz over IPv4, IPv6, TCP and UDP, 3 queues, own key"
        assert device.rss is not None
        assert list(device.rss.table) == turns
        device.set_rss_table([2, 2, 0, 1])
        assert model.commands[2:] == [rss_config([2, 2, 0, 1] * 32, 3, b"k" * 40)]
        assert device.rss.table == (2, 2, 0, 1) * 32
        model.answer = REFUSES
        with pytest.raises(ConfigurationError, match=r"^model: the device refuses control command 4\.1$"):
            device.set_rss_table([0])
        assert device.rss.table == (2, 2, 0, 1) * 32


def test_with_rss_there_may_be_fewer_queues_to_receive(caplog: pytest.LogCaptureFixture) -> None:
    """The table names but those. With one pair nothing is to be said."""
    with opened(SPLIT | RSS, pairs=3, rx_queues=1) as (device, model):
        assert model.commands[0] == rss_config([0] * 128, 3)
        assert device.spread == "Toeplitz over IPv4, IPv6, TCP and UDP, 1 queue, default key"
    with opened(SPLIT | RSS, pairs=3, rx_queues=1, tx_queues=1) as (device, model):
        assert model.commands == [bytes([0, 0, 1])]
        assert device.spread == "all packets come to one queue"
    assert caplog.messages == []


@pytest.mark.parametrize(("offered", "hashes"), [(0, SIX_HASHES), (RSS, SIX_HASHES & ~(1 << 5)), (RSS, 0)])
def test_a_device_that_spreads_packets_by_itself(offered: int, hashes: int) -> None:
    """Without RSS, or with one that does not know UDP over IPv6, or nothing at all: it says so, and has no table. What
    it cannot do is refused: another key, and receive queues that nobody asked for.
    """
    with opened(SPLIT | offered, 3, hashes) as (device, model):
        assert model.commands == [bytes([4, 0, 3, 0]), bytes([0, 0, 1])]
        assert device.rss is None
        assert device.spread == "the device spreads packets over 3 queues by itself"
        with pytest.raises(ConfigurationError, match="no redirection table: the device spreads packets over 3"):
            device.set_rss_table([0])
    refused = "^model: the device spreads packets by itself, and takes no rss_key$"
    with pytest.raises(ConfigurationError, match=refused), opened(SPLIT | offered, 2, hashes, rss_key=b"k" * 40):
        pass
    refused = "^model: 3 transmit queues with 2 to receive: .* rx_queues must be 3 at least$"
    with pytest.raises(ConfigurationError, match=refused), opened(SPLIT | offered, 3, hashes, rx_queues=2):
        pass
    with opened(SPLIT | offered, 3, hashes, rx_queues=1, tx_queues=1, rss_key=b"k" * 40) as (device, _):
        assert device.spread == "all packets come to one queue"


@both_kinds
@pytest.mark.parametrize("answer", [REFUSES, 2, 0xFE, None])
def test_a_refused_command_is_an_error(features: int, answer: int | None) -> None:
    """Whatever the device answers but 0, or nothing. The next one, which it carries out, is none."""
    with opened(features) as (device, model):
        model.answer = answer
        with pytest.raises(ConfigurationError, match=r"^model: the device refuses control command 2\.0$"):
            device.set_vlan_filter(5, True)
        model.answer = OK
        device.set_vlan_filter(5, True)
        assert model.commands[1:] == [bytes([2, 0, 5, 0])] * 2


@both_kinds
def test_a_device_that_does_not_answer(features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(features) as (device, model):
        model.deaf = True
        monkeypatch.setattr(control, "TIMEOUT", 0.05)
        with pytest.raises(DeviceTimeout, match=r"^model: no answer to control command 2\.0 within 0\.05 s$"):
            device.set_vlan_filter(5, True)


# ---------------------------------------------------------------------------------------------------------------------
# Several threads


def together(*works: Callable[[], None]) -> None:
    """Do all of it at the same time, each in a thread of its own; what one raises is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def work_of(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                start.wait()
                work()
            except BaseException as error:
                errors.append(error)

        return run

    threads = [threading.Thread(target=work_of(work)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@both_kinds
def test_commands_of_four_threads_do_not_mix(features: int) -> None:
    """Each thread enables VLANs of its own, one after the other: each command arrives once, whole, and in order."""
    with opened(features) as (device, model):

        def enable(first: int) -> Callable[[], None]:
            return lambda: [device.set_vlan_filter(vlan, True) for vlan in range(first, first + 25)] and None

        together(*(enable(1000 * thread) for thread in range(4)))
        got = [int.from_bytes(command[2:4], "little") for command in model.commands[1:]]
        assert all(command[:2] == bytes([2, 0]) and len(command) == 4 for command in model.commands[1:])
        for thread in range(4):
            assert [vlan for vlan in got if vlan // 1000 == thread] == list(range(1000 * thread, 1000 * thread + 25))


class SlowConfiguration(InProcess):
    """A configuration that is written byte by byte, and of whose address another thread may see a part."""

    mac_writable = True

    def __init__(self, back_end: BackEnd) -> None:
        super().__init__(back_end)
        self.in_the_middle: Callable[[], None] = lambda: None

    def config_read(self, offset: int, size: int) -> int:
        if offset == reg.CONFIG_MAC + 3:
            self.in_the_middle()
        return super().config_read(offset, size)

    def config_write(self, offset: int, data: bytes) -> None:
        for place in range(len(data)):
            if place == 3:
                self.in_the_middle()
            super().config_write(offset + place, data[place : place + 1])


@pytest.mark.parametrize("writes_first", [False, True])
def test_an_address_is_never_half_of_one_and_half_of_another(writes_first: bool) -> None:
    """One thread is in the middle of reading or writing the address when another one writes or reads it: that one is
    let in when the first is done.
    """
    old, new = bytes.fromhex("020000000001"), bytes.fromhex("02ffffffffff")
    transport = SlowConfiguration(BackEnd("model", 1 << reg.VERSION_1 | 1 << reg.MAC))
    with Device(VirtioNet(transport, ring_size=16, pool_size=64)) as device:
        seen: list[bytes] = []

        def read() -> None:
            seen.append(device.mac)

        def write() -> None:
            device.mac = new

        first, second = (write, read) if writes_first else (read, write)
        other = threading.Thread(target=second)

        def let_the_other_try() -> None:
            transport.in_the_middle = lambda: None
            other.start()
            other.join(0.2)  # it waits for its turn, or would be done by now

        transport.in_the_middle = let_the_other_try
        first()
        other.join()
        assert seen == [new if writes_first else old]
        assert device.mac == new


def test_after_closing_nothing_reaches_the_device() -> None:
    """A thread that comes too late finds the device closed, and a pool is not attached to it."""
    model = BackEnd("model", 1 << reg.VERSION_1 | 1 << reg.MAC)
    driver = VirtioNet(InProcess(model), ring_size=16, pool_size=64)
    together(driver.close, driver.close)
    pool = Mempool(16)
    for late in (driver.mac, driver.link, driver.counters, lambda: driver.attach(pool)):
        with pytest.raises(Error, match="model is closed"):
            late()
    pool.release()
    assert pool.closed
