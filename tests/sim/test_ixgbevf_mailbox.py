"""A virtual function and a physical one that says what the test wants: what is asked, and what becomes of lies."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from physical_side import (
    ACK,
    CTS,
    KEY,
    LINK,
    LPE,
    MAC,
    MACVLAN,
    MULTICAST,
    NACK,
    NEGOTIATE,
    PING,
    QUEUES,
    RESET,
    RETA,
    SAYS_NOTHING,
    SET_MAC,
    V10,
    V11,
    V12,
    V13,
    V14,
    VLAN,
    XCAST,
    PhysicalSide,
)

import ixy
from ixy.bus.simulated import SimulatedVirtualFunction
from ixy.device import Device
from ixy.drivers.ixgbevf import IxgbeVf, mailbox
from ixy.errors import ConfigurationError, DeviceTimeout, Error, UnsupportedDevice
from ixy.registers import i82599 as reg
from ixy.registers import i82599_vf as vf
from ixy.sim.machine import Machine

STATION = bytes.fromhex("021122334455")
GROUPS = [bytes.fromhex(address) for address in ("01005e000001", "01005e7ffffa", "3333ff123456", "0180c200000e")]


@pytest.fixture
def physical(machine: Machine) -> Iterator[PhysicalSide]:
    side = PhysicalSide(machine)
    yield side
    side.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in vain does so for a moment."""
    monkeypatch.setattr(mailbox, "PATIENCE", 0.02)


def open_function(machine: Machine, **options: object) -> Device:
    return ixy.open("sim:a.vf0", sim=machine, link_timeout=0, **options)  # type: ignore[arg-type]


def one_line(error: BaseException) -> str:
    """What it says, which names the device and is one line."""
    text = str(error)
    assert text.startswith("sim:a.vf0: ")
    assert "\n" not in text
    return text


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def test_what_is_asked_to_come_up(machine: Machine, physical: PhysicalSide) -> None:
    """A reset first, then versions, then how many queues there are; frames of the usual size; all packets; the link."""
    with open_function(machine) as device:
        assert device.mac == MAC
        assert (device.info.mtu, device.info.max_rx_queues, device.info.max_tx_queues) == (1500, 2, 2)
    assert [(kind, words[0]) for kind, _, words in physical.asked[1:]] == [
        (NEGOTIATE, V14),
        (QUEUES, 0),
        (LPE, 1518),
        (XCAST, 3),
        (LINK, 0),
    ]
    assert physical.asked[0][0] == RESET


@pytest.mark.parametrize(
    ("newest", "tried", "version"),
    [
        (V13, [V14, V13], "1.3"),
        (V12, [V14, V13, V12], "1.2"),
        (V11, [V14, V13, V12, V11], "1.1"),
        (V10, [V14, V13, V12, V11, V10], "1.0"),
        (-1, [V14, V13, V12, V11, V10], "1.0"),  # one of before there were versions
    ],
)
def test_versions_from_the_newest_down(
    machine: Machine, physical: PhysicalSide, newest: int, tried: list[int], version: str
) -> None:
    """What a version does not have is not asked for: before 1.1 there is one queue, before 1.2 no mode."""
    physical.version = newest
    with open_function(machine) as device:
        assert f"mailbox {version}" in device.info.features
        assert device.info.max_rx_queues == (2 if newest >= V11 else 1)
    assert [words[0] for kind, _, words in physical.asked if kind == NEGOTIATE] == tried
    assert (QUEUES in physical.kinds()) == (newest >= V11)
    assert (XCAST in physical.kinds()) == (newest >= V12)
    modes = [words[0] for kind, _, words in physical.asked if kind == XCAST]
    assert modes == ([] if newest < V12 else [2] if newest == V12 else [3])


def test_no_address_of_its_own(machine: Machine, physical: PhysicalSide) -> None:
    """The answer to a reset says no where nobody has set an address: the function takes one, and says so."""
    physical.answers[RESET] = lambda _info, _words: [RESET | NACK, 0, 0, 0]
    with open_function(machine) as device:
        mac = device.mac
    assert mac[0] & 3 == 2  # locally administered, of one station
    (told,) = [words for kind, _, words in physical.asked if kind == SET_MAC]
    assert told[0].to_bytes(4, "little") + told[1].to_bytes(4, "little") == mac + bytes(2)


def test_groups_without_an_address_of_its_own(machine: Machine, physical: PhysicalSide) -> None:
    """Who was told no address was told no kind of filter: it is that of a card after its reset, bits 47 to 36."""
    physical.answers[RESET] = lambda _info, _words: [RESET | NACK, 0, 0, 0]
    with open_function(machine) as device:
        device.set_mac_filter([bytes.fromhex("01005e00abcd")])
    ((_, info, words),) = [each for each in physical.asked if each[0] == MULTICAST]
    assert (info, words[0]) == (1, 0xCDA)


def test_another_address(machine: Machine, physical: PhysicalSide) -> None:
    with open_function(machine) as device:
        device.mac = STATION
        assert device.mac == STATION
        assert physical.asked[-1] == (SET_MAC, 0, physical.asked[-1][2])
        assert physical.asked[-1][2][:2] == [0x33221102, 0x5544]
        physical.answers[SET_MAC] = lambda _info, _words: [SET_MAC | NACK | CTS]
        with pytest.raises(ConfigurationError) as caught:
            device.mac = MAC
        assert one_line(caught.value).endswith("refuses the address 02:aa:bb:cc:00:01")
        assert device.mac == STATION


@pytest.mark.parametrize("kind", range(4))
def test_filters(machine: Machine, physical: PhysicalSide, kind: int) -> None:
    """8.2.3.7.2, MO: of a group's address 12 bits count: 47 to 36, 46 to 35, 45 to 34, or 43 to 32."""
    shift = {0: 36, 1: 35, 2: 34, 3: 32}[kind]
    physical.answers[RESET] = lambda _info, _words: [RESET | ACK, 0x02, 0x0100, kind]
    with open_function(machine) as device:
        device.set_mac_filter([*GROUPS, STATION, MAC])
        ((_, info, words),) = [each for each in physical.asked if each[0] == MULTICAST]
        hashes = [word >> 16 * half & 0xFFFF for word in words for half in range(2)][:info]
        assert sorted(hashes) == sorted({int.from_bytes(mac, "little") >> shift & 0xFFF for mac in GROUPS})
        stations = [(info, words[:2]) for kind, info, words in physical.asked if kind == MACVLAN]
        assert stations == [(1, [0x33221102, 0x5544]), (2, [0xCCBBAA02, 0x0100])]
        device.set_mac_filter([])
        assert [(kind, info) for kind, info, _ in physical.asked[-2:]] == [(MULTICAST, 0), (MACVLAN, 0)]


def test_too_many_groups(machine: Machine, physical: PhysicalSide) -> None:  # noqa: ARG001
    with open_function(machine) as device:
        groups = [bytes([1, 0, 0x5E, 0, number, number]) for number in range(31)]
        with pytest.raises(ConfigurationError, match="31 groups: 30 are possible"):
            device.set_mac_filter(groups)
        device.set_mac_filter(groups[:30])


def test_vlans(machine: Machine, physical: PhysicalSide) -> None:
    with open_function(machine) as device:
        device.set_vlan_filter(7, True)
        assert (physical.asked[-1][:2], physical.asked[-1][2][0]) == ((VLAN, 1), 7)
        device.set_vlan_filter(7, False)
        assert (physical.asked[-1][:2], physical.asked[-1][2][0]) == ((VLAN, 0), 7)
        physical.answers[VLAN] = lambda _info, _words: [VLAN | NACK | CTS]
        with pytest.raises(ConfigurationError, match="refuses VLAN 9"):
            device.set_vlan_filter(9, True)


def test_all_packets(machine: Machine, physical: PhysicalSide) -> None:
    """It is asked for as much as there is; less is told; who asks again, and does not get it, is refused by name."""
    with open_function(machine) as device:
        with pytest.raises(UnsupportedDevice, match="does not let it receive all packets, but its own packets"):
            device.set_promiscuous(True)
        device.set_promiscuous(False)
        assert physical.asked[-1][2][0] == 1
        physical.answers[XCAST] = lambda info, words: [XCAST | info << 16 | ACK | CTS, *words]
        device.set_promiscuous(True)
        assert "receives all packets" in device.info.features
        # An 82599's says no, and then is asked for less
        physical.answers[XCAST] = lambda _info, words: [XCAST | (NACK if words[0] == 3 else ACK) | CTS, words[0]]
        with pytest.raises(UnsupportedDevice, match="but its own packets, broadcasts and all groups"):
            device.set_promiscuous(True)


def test_hash_of_all_functions(machine: Machine, physical: PhysicalSide) -> None:
    """Where the physical function tells key and table, they are shown: two bits an entry, of which one counts here."""
    key, entries = random.Random(1).randbytes(40), [random.Random(2).randrange(4) for _ in range(128)]
    table = [sum(entries[16 * word + place] << 2 * place for place in range(16)) for word in range(8)]
    words = [int.from_bytes(key[4 * word : 4 * word + 4], "little") for word in range(10)]
    physical.answers[RETA] = lambda _info, _words: [RETA | ACK | CTS, *table]
    physical.answers[KEY] = lambda _info, _words: [KEY | ACK | CTS, *words]
    with open_function(machine, rx_queues=2) as device:
        assert device.rss is not None
        assert device.rss.key == key
        assert device.rss.table == tuple(entry % 2 for entry in entries)
        with pytest.raises(ConfigurationError, match="the redirection table is its physical function's"):
            device.set_rss_table([1])
    with open_function(machine, rx_queues=2, rss_key=key) as device:
        assert device.rss is not None
    with pytest.raises(ConfigurationError, match="the key is its physical function's"):
        open_function(machine, rx_queues=2, rss_key="symmetric")


def test_queues(machine: Machine, physical: PhysicalSide) -> None:
    with open_function(machine, rx_queues=2, tx_queues=2) as device:
        assert device.spread == "the device spreads packets over 2 queues by itself"
        # 8.2.3.7.4: RQPL, one bit of the index
        assert device.registers()["VFPSRTYPE"].value >> 29 == 1
    for options, words in (
        ({"rx_queues": 4}, "4 receive queues: its physical function grants it 2"),
        ({"tx_queues": 3}, "3 transmit queues: its physical function grants it 2"),
        ({"rx_queues": 9}, "9 receive queues: 1 to 8 are possible"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            open_function(machine, **options)
    physical.answers[QUEUES] = lambda info, _words: [QUEUES | info << 16 | ACK | CTS, 4, 4, 0, 0]
    with pytest.raises(ConfigurationError, match="3 receive queues: a virtual function spreads packets over 1, 2 or 4"):
        open_function(machine, rx_queues=3)


def test_what_is_refused_by_name(machine: Machine, physical: PhysicalSide) -> None:  # noqa: ARG001
    with open_function(machine) as device:
        with pytest.raises(ConfigurationError, match="tcp dport 80 → queue 0 cannot be had"):
            device.rules.add(protocol="tcp", dport=80, queue=0)
        assert device.rss is None
    with pytest.raises(ConfigurationError, match="the device does not do 'coalescing'"):
        open_function(machine, metadata=("segments", "parts"), offloads=("coalescing",))


def test_port_vlan_is_taken_out(machine: Machine, physical: PhysicalSide) -> None:
    """Where the port has a VLAN, the function does not see its tags: they are stripped (7.4.3)."""
    physical.answers[QUEUES] = lambda info, _words: [QUEUES | info << 16 | ACK | CTS, 2, 2, 1, 0]
    with open_function(machine) as device:
        assert "a VLAN of its port" in device.info.features
        assert "VLAN_STRIP" in device.info.rx_offloads
        assert device.registers()["VFRXDCTL[0]"].value >> 30 & 1


# ---------------------------------------------------------------------------------------------------------------------
# One that answers nothing, or nonsense


def test_nobody_drives_the_physical_function(machine: Machine, physical: PhysicalSide, hasty: None) -> None:  # noqa: ARG001
    """It is in reset, as functions are told by RSTI (7.10.2.9.1)."""
    physical.card.write32(reg.CTRL.offset, 1 << 26)
    with pytest.raises(DeviceTimeout) as caught:
        open_function(machine)
    assert "its physical function is in reset, no driver has it up: VFMAILBOX reads 0x0000004" in one_line(caught.value)


def test_one_that_takes_no_note(machine: Machine, physical: PhysicalSide, hasty: None) -> None:  # noqa: ARG001
    physical.takes_note = False
    physical.answers[RESET] = lambda _info, _words: SAYS_NOTHING
    with pytest.raises(DeviceTimeout) as caught:
        open_function(machine)
    assert "its physical function does not take note of its reset within 0.02 s" in one_line(caught.value)


@pytest.mark.parametrize("kind", [RESET, NEGOTIATE, QUEUES, LPE, XCAST, LINK])
def test_one_that_does_not_answer(machine: Machine, physical: PhysicalSide, hasty: None, kind: int) -> None:  # noqa: ARG001
    physical.answers[kind] = lambda _info, _words: SAYS_NOTHING
    with pytest.raises(DeviceTimeout) as caught:
        open_function(machine)
    assert "its physical function does not answer " in one_line(caught.value)
    physical.answers.clear()
    open_function(machine).close()


def test_one_that_speaks_of_other_things_without_end(machine: Machine, physical: PhysicalSide, hasty: None) -> None:  # noqa: ARG001
    """Instead of an answer there is news, and with each that was read more of it."""
    serve = physical.signal

    def signal(vector: int) -> None:
        serve(vector)
        physical.say([PING | CTS])

    with open_function(machine) as device:
        physical.answers[VLAN] = lambda _info, _words: SAYS_NOTHING
        physical.signal = signal
        with pytest.raises(DeviceTimeout) as caught:
            device.set_vlan_filter(7, True)
        assert "speaks of other things and does not answer VLAN 7 within 0.02 s" in one_line(caught.value)
        physical.signal = serve
        physical.answers.clear()
        device.set_vlan_filter(7, True)


def test_one_that_keeps_the_mailbox(machine: Machine, physical: PhysicalSide, hasty: None) -> None:  # noqa: ARG001
    with open_function(machine) as device:
        physical.card.write32(reg.PFMAILBOX[0].offset, 1 << 3)
        with pytest.raises(DeviceTimeout) as caught:
            device.set_vlan_filter(7, True)
        assert "keeps the mailbox, which VLAN 7 is to go through" in one_line(caught.value)
        physical.card.write32(reg.PFMAILBOX[0].offset, 0)
        device.set_vlan_filter(7, True)


def test_one_that_refuses_all(machine: Machine, physical: PhysicalSide) -> None:
    for kind in (RESET, SET_MAC, LPE, NEGOTIATE, QUEUES, XCAST, LINK):
        physical.answers[kind] = lambda _info, _words, kind=kind: [kind | NACK | CTS]
    with pytest.raises(ConfigurationError) as caught:
        open_function(machine)
    assert "its physical function refuses the address " in one_line(caught.value)
    physical.answers.pop(SET_MAC)
    with pytest.raises(ConfigurationError) as caught:
        open_function(machine)
    assert "its physical function refuses frames of 1518 bytes" in one_line(caught.value)


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        (RESET, [RESET | ACK, 0x01, 0, 0], "with the address 01:00:00:00:00:00: no sense"),  # a group's
        (RESET, [RESET | ACK, 0, 0, 0], "with the address 00:00:00:00:00:00: no sense"),
        (RESET, [RESET | ACK, 2, 0, 4], "with the kind 0x4 of filter: no sense"),
        (RESET, [RESET | ACK | NACK, 2, 0, 0], "answers its reset with 0xc0000001: no sense"),
        (RESET, [RESET, 2, 0, 0], "answers its reset with 0x00000001: no sense"),
        (NEGOTIATE, [0xFFFFFFFF], "with 0xffffffff: no sense"),
        (NEGOTIATE, [QUEUES | ACK | CTS], "with 0xa0000009: no sense"),
        (QUEUES, [QUEUES | ACK | CTS, 2, 0, 0, 0], "with 0 to receive, 2 to send: no sense"),
        (QUEUES, [QUEUES | ACK | CTS, 2, 9, 0, 0], "with 9 to receive, 2 to send: no sense"),
        (QUEUES, [QUEUES | ACK | CTS, 0xFFFFFFFF, 2, 0, 0], "with 2 to receive, 4294967295 to send: no sense"),
        (QUEUES, [QUEUES | ACK | CTS, 2, 2, 4, 0], "divides queues by priority (DCB)"),
        (XCAST, [XCAST | ACK | CTS, 4], "with mode 4: no sense"),
    ],
)
def test_answers_of_nonsense(
    machine: Machine, physical: PhysicalSide, kind: int, answer: list[int], words: str
) -> None:
    physical.answers[kind] = lambda _info, _words: answer
    with pytest.raises(Error) as caught:
        open_function(machine)
    assert one_line(caught.value).endswith(words) or words in one_line(caught.value)
    physical.answers.clear()
    open_function(machine).close()


kinds = st.sampled_from([RESET, NEGOTIATE, QUEUES, LPE, XCAST, LINK, RETA, KEY, SET_MAC])
verdicts = st.sampled_from([ACK, NACK, ACK | CTS, NACK | CTS, ACK | NACK, 0])
words = st.integers(0, 2**32 - 1) | st.integers(0, 8)
firsts = st.builds(lambda kind, verdict: kind | verdict, kinds, verdicts) | words


@given(st.dictionaries(kinds, st.tuples(st.none() | firsts, verdicts, st.lists(words, max_size=15))))
def test_random_answers(said: dict[int, tuple[int | None, int, list[int]]]) -> None:
    """Whatever is answered, the function comes up or one line says why not; then an honest answer brings it up."""
    machine = Machine(stepped=True)
    physical = PhysicalSide(machine)
    for kind, (first, verdict, others) in said.items():
        answer = [kind | verdict if first is None else first, *others]
        physical.answers[kind] = lambda _info, _words, answer=answer: answer
    with patch.object(mailbox, "PATIENCE", 0.01):
        try:
            open_function(machine, metadata=("hash",)).close()
        except Error as error:
            one_line(error)
    physical.answers.clear()
    open_function(machine).close()
    physical.close()


# ---------------------------------------------------------------------------------------------------------------------
# One that resets


def gone(device: Device, log: pytest.LogCaptureFixture, words: str) -> None:
    """The link reads down, and that is said once; what is asked for is refused in one line; closing works."""
    log.set_level(logging.WARNING, "ixy.ixgbevf")
    for _ in range(3):
        assert not device.link.up
        device.stats()
    said = [record.getMessage() for record in log.records if record.name == "ixy.ixgbevf"]
    assert said == [f"sim:a.vf0: {words}: it receives and sends nothing more: open it again"]
    with pytest.raises(Error) as caught:
        device.set_vlan_filter(7, True)
    assert one_line(caught.value) == f"sim:a.vf0: {words}: open it again"
    device.close()


def reset(physical: PhysicalSide) -> None:
    physical.card.write32(reg.CTRL.offset, 1 << 26)


def reset_and_come_up(physical: PhysicalSide) -> None:
    reset(physical)
    physical.card.write32(reg.CTRL_EXT.offset, 1 << 14)


def ping_without_knowing(physical: PhysicalSide) -> None:
    physical.say([PING])


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (reset, "its physical function was reset"),
        (reset_and_come_up, "its physical function was reset"),
        (ping_without_knowing, "its physical function wants it to begin anew"),
    ],
)
def test_reset_of_the_physical_function(
    machine: Machine,
    physical: PhysicalSide,
    caplog: pytest.LogCaptureFixture,
    does: Callable[[PhysicalSide], None],
    words: str,
) -> None:
    device = open_function(machine)
    does(physical)
    gone(device, caplog, words)


def test_reset_while_it_is_asked(machine: Machine, physical: PhysicalSide, caplog: pytest.LogCaptureFixture) -> None:
    """Instead of an answer the physical function resets."""
    device = open_function(machine)
    physical.answers[VLAN] = lambda _info, _words: reset(physical) or SAYS_NOTHING
    with pytest.raises(Error) as caught:
        device.set_vlan_filter(7, True)
    assert one_line(caught.value) == "sim:a.vf0: its physical function was reset: open it again"
    gone(device, caplog, "its physical function was reset")


def test_refusal_of_one_that_is_not_known(
    machine: Machine, physical: PhysicalSide, caplog: pytest.LogCaptureFixture
) -> None:
    """No, and without the bit that says that the function is known: as after its link was switched off and on."""
    device = open_function(machine)
    physical.answers[VLAN] = lambda _info, _words: [VLAN | NACK]
    with pytest.raises(Error, match="wants it to begin anew: open it again"):
        device.set_vlan_filter(7, True)
    gone(device, caplog, "its physical function wants it to begin anew")


def test_news_do_no_harm(machine: Machine, physical: PhysicalSide) -> None:
    """What the physical function says unasked, before and while it is asked, is no answer."""
    with open_function(machine) as device:
        physical.say([PING | CTS])
        device.set_vlan_filter(7, True)
        physical.say([PING | CTS])
        assert device.link.up == physical.card.linked

        def news_first(info: int, words: list[int]) -> list[int]:
            physical.say([PING | CTS])
            return [VLAN | info << 16 | ACK | CTS, *words]

        physical.answers[VLAN] = news_first
        device.set_vlan_filter(8, True)
        assert physical.asked[-1][2][0] == 8


def test_link_that_is_forbidden(machine: Machine, physical: PhysicalSide) -> None:
    """Whoever runs the physical function has switched the function's link off, whatever the cable says."""
    physical.answers[LINK] = lambda _info, _words: [LINK | ACK | CTS, 0]
    with open_function(machine) as device, ixy.open("sim:b,cable=a", sim=machine, link_timeout=0):
        assert physical.card.linked
        assert not device.link.up
    physical.answers.clear()
    with open_function(machine) as device, ixy.open("sim:b,cable=a", sim=machine, link_timeout=0):
        assert device.link.up


# ---------------------------------------------------------------------------------------------------------------------
# A card that is gone


class Pulled(SimulatedVirtualFunction):
    """A function whose card can be pulled out: then all registers read ones."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("sim:a.vf0", machine)
        self.out = False

    def bar(self, index: int) -> object:  # type: ignore[override]
        bar = super().bar(index)
        read = bar.read32
        bar.read32 = lambda offset: 0xFFFFFFFF if self.out else read(offset)  # type: ignore[method-assign]
        return bar


def test_registers_all_ones(
    machine: Machine,
    physical: PhysicalSide,  # noqa: ARG001
    caplog: pytest.LogCaptureFixture,
    hasty: None,  # noqa: ARG001
) -> None:
    function = Pulled(machine)
    device = Device(IxgbeVf(function))
    before = device.stats()
    function.out = True
    assert device.stats() == before
    gone(device, caplog, "its registers read all ones: the card is gone")
    function = Pulled(machine)
    function.out = True
    with pytest.raises(DeviceTimeout) as caught:
        IxgbeVf(function)
    assert "is in reset, the card is gone: VFMAILBOX reads 0xffffffff" in one_line(caught.value)


def test_counters_that_begin_anew(machine: Machine, physical: PhysicalSide) -> None:
    """8.3: 32 bits, of bytes 36, and no read clears them: what is counted goes on across the last bit."""
    with open_function(machine) as device:
        function = physical.card.functions[0]
        counts = {"VFGPRC": 0, "VFGORC": 0}
        function._reads[vf.VFGPRC.offset] = lambda: counts["VFGPRC"] & 0xFFFFFFFF
        function._reads[vf.VFGORC_LSB.offset] = lambda: counts["VFGORC"] & 0xFFFFFFFF
        function._reads[vf.VFGORC_MSB.offset] = lambda: counts["VFGORC"] >> 32 & 15
        for packets, data in ((2**32 - 5, 2**36 - 100), (2**32 + 7, 2**36 + 60)):
            counts.update(VFGPRC=packets, VFGORC=data)
            found = device.xstats()
            assert (found["VFGPRC"], found["VFGORC"]) == (packets, data)
