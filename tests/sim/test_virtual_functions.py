"""Virtual functions of a simulated 82599: their mailboxes, what they may, and where their packets go (7.10, 8.3)."""

from __future__ import annotations

import gc
import os
import select
from collections.abc import Iterator, Sequence

import pytest
from functions_by_hand import (
    API_10,
    API_11,
    API_12,
    API_13,
    API_14,
    CTS,
    ENABLE,
    GET_KEY,
    GET_LINK,
    GET_QUEUES,
    GET_RETA,
    NEGOTIATE,
    NO,
    PFACK,
    PFSTS,
    PFU,
    RDT,
    REQ,
    RESET,
    RSTD,
    RSTI,
    RXDCTL,
    SET_LPE,
    SET_MAC,
    SET_MACVLAN,
    SET_MODE,
    SET_MULTICAST,
    SET_VLAN,
    TDH,
    TDLEN,
    TDT,
    TXDCTL,
    VFGORC,
    VFGPRC,
    VFGPTC,
    VFLINKS,
    VFMAILBOX,
    VFMBMEM,
    VFMPRC,
    VFU,
    VTEIAC,
    VTEICR,
    VTEIMS,
    VTIVAR,
    VTIVAR_MISC,
    YES,
    Function,
    functions,
    mac_of,
    words_of,
)
from lab import BROADCAST, arrive, open_card, receive_all

from ixy.bus import Irq
from ixy.bus.simulated import SimulatedFunction, SimulatedVirtualFunction
from ixy.device import Device
from ixy.errors import AddressError, DeviceBusy, UnsupportedDevice
from ixy.sim.card import supervision
from ixy.sim.checklist import report_of
from ixy.sim.machine import Machine

CTRL_EXT, EICR, RXCTRL, SSVPC, GCR_EXT = 0x18, 0x800, 0x3000, 0x8780, 0x11050
PFVFLRE, PFVFLREC, PFMBICR, PFMAILBOX, PFMBMEM, PFVFTE = 0x600, 0x700, 0x710, 0x4B00, 0x13000, 0x8110
MAILBOX_CAUSE = 1 << 19
STRANGER, GROUP = bytes.fromhex("02000000000b"), bytes.fromhex("01005e000001")
FIRST, SECOND = bytes.fromhex("026978798001"), bytes.fromhex("026978798101")


def frame(destination: bytes, source: bytes, number: int = 0, tag: int | None = None, size: int = 60) -> bytes:
    tagged = b"" if tag is None else b"\x81\x00" + tag.to_bytes(2, "big")
    return (destination + source + tagged + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(size, b"\0")


# ---------------------------------------------------------------------------------------------------------------------
# Addresses


def test_a_function_of_pci(machine: Machine) -> None:
    """8086:10ed with 16 KiB of registers, three vectors of MSI-X, and nothing beyond; of an X540 it is 8086:1515."""
    with functions(machine, "sim:a.vf1,vfs=2") as (function,):
        assert function.bus.config_read(0, 4) == 0x10ED8086
        assert function.bus.interrupt_vectors(Irq.MSIX) == 3
        assert function.bus.interrupt_vectors(Irq.INTX) == 0
        assert function.read(0x4000) == 0xFFFFFFFF
        with pytest.raises(UnsupportedDevice, match=r"sim:a\.vf1: 4 MSI-X interrupts: it has 3"):
            function.bus.interrupts(Irq.MSIX, 4)
        space = function.card.config
        for bar, size in ((0x10, 16 << 10), (0x1C, 16 << 10)):
            space.write(bar, 4, 0xFFFFFFFF)
            assert space.read(bar, 4) == 2**32 - size | 0xC
    with functions(machine, "sim:a.vf0,card=x540") as (function,):
        assert function.bus.config_read(0, 4) == 0x15158086


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sim:a.vf2,vfs=2", "there is no virtual function 2: with vfs=2 the last is 1"),
        ("sim:a.vf63", "there is no virtual function 63: with vfs=63 the last is 62"),
        ("sim:a.vf100", "there is no virtual function 100: with vfs=63 the last is 62"),
        ("sim:a.vf0,vfs=64", "vfs"),
        ("sim:a.vf0,vlan=4095", "vlan=4095: possible are 1 to 4094, and 0 for none"),
        ("sim:a.vf0,mac=01:00:00:00:00:01", "write the address of a station"),
        ("sim:a.vf0,mac=00:00:00:00:00:00", "write the address of a station"),
        ("sim:a.vf0,spoof=no", "spoof=no: possible are on and off"),
        ("sim:a,trust=on", "'trust=on' is no option"),
    ],
)
def test_addresses_that_are_refused(machine: Machine, address: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        SimulatedVirtualFunction(address, machine)


def test_who_has_what(machine: Machine) -> None:
    """The card belongs to its functions, until the last is closed; each is opened once, without options of the card."""
    with functions(machine, "sim:a.vf0,vfs=2"):
        with pytest.raises(DeviceBusy, match="sim:a is in use by its virtual functions"):
            SimulatedFunction("sim:a", machine)
        with pytest.raises(DeviceBusy, match=r"sim:a\.vf0 is open already"):
            SimulatedVirtualFunction("sim:a.vf0", machine)
        with pytest.raises(AddressError, match=r"open it as sim:a\.vf1"):
            SimulatedVirtualFunction("sim:a.vf1,vfs=2", machine)
        with pytest.raises(AddressError, match="sim:a was opened with vfs=2"):
            SimulatedVirtualFunction("sim:a.vf2", machine)
        with functions(machine, "sim:a.vf1"):
            pass
    assert not machine.cards
    with pytest.raises(AddressError, match="is the address of another function"):
        SimulatedVirtualFunction("sim:a.vf0,mac=02:69:78:79:00:01", machine)  # the card's own
    assert not machine.cards
    SimulatedFunction("sim:a", machine).close()


def test_functions_that_nobody_closed(machine: Machine) -> None:
    """Who has a function and goes without a word leaves it to the next."""
    first = SimulatedVirtualFunction("sim:a.vf0,vfs=2", machine)
    del first.address  # as if the exception had come before it knew
    del first
    gc.collect()
    with functions(machine, "sim:a.vf0,vfs=4") as (function,):
        assert function.reset() == FIRST


# ---------------------------------------------------------------------------------------------------------------------
# The mailbox, with the test as the physical function's driver


@pytest.fixture
def pair(machine: Machine) -> Iterator[tuple[SimulatedFunction, Function]]:
    physical = SimulatedFunction("sim:a,vfs=2,ready=0", machine)
    with functions(machine, "sim:a.vf1") as (function,):
        yield physical, function
    physical.close()


def test_mailbox(pair: tuple[SimulatedFunction, Function]) -> None:
    """One takes the words at a time; requests and acknowledgements stay until they are read, or cleared."""
    bar, function = pair[0].bar(0), pair[1]
    assert function.read(VFMAILBOX) == RSTI
    bar.write32(CTRL_EXT, 1 << 14)
    assert function.read(VFMAILBOX) == RSTD
    assert function.read(VFMAILBOX) == 0
    function.write(VFMAILBOX, VFU)
    bar.write32(PFMAILBOX + 4, 1 << 3)
    assert (function.read(VFMAILBOX), bar.read32(PFMAILBOX + 4)) == (VFU, 1 << 2)
    function.write(VFMBMEM + 4 * 15, 0xABCD)
    assert bar.read32(PFMBMEM + 64 + 4 * 15) == 0xABCD
    function.write(VFMAILBOX, REQ)
    assert bar.read32(PFMBICR) == 1 << 1
    assert bar.read32(EICR) & MAILBOX_CAUSE
    bar.write32(PFMBICR, 1 << 1)
    assert bar.read32(PFMBICR) == 0
    bar.write32(PFMAILBOX + 4, 1 << 3)
    function.write(VFMAILBOX, VFU)
    assert (function.read(VFMAILBOX), bar.read32(PFMAILBOX + 4)) == (PFU, 1 << 3)
    bar.write32(PFMAILBOX + 4, 1 << 0 | 1 << 1)
    assert function.read(VFMAILBOX) == PFSTS | PFACK
    assert function.read(VFMAILBOX) == 0
    function.write(VFMAILBOX, 1 << 1 | VFU)
    assert bar.read32(PFMBICR) == 1 << 17
    bar.write32(PFMAILBOX + 4, 1 << 4)  # the function is stuck
    assert (function.read(VFMAILBOX), bar.read32(PFMBICR)) == (0, 0)


def test_nobody_answers(pair: tuple[SimulatedFunction, Function]) -> None:
    """Where another driver has the physical function, it is that one's to answer."""
    function = pair[1]
    function.write(VFMAILBOX, VFU)
    function.write(VFMBMEM, RESET)
    function.write(VFMAILBOX, REQ)
    assert function.read(VFMAILBOX) & (PFSTS | PFACK) == 0
    with pytest.raises(AddressError, match="another driver has the physical function"):
        SimulatedVirtualFunction("sim:a.vf0,vlan=7", pair[0].machine)


def test_function_level_reset(pair: tuple[SimulatedFunction, Function]) -> None:
    """Queues stop, the function may not send, and the physical one is told until it says that it knows."""
    bar, function = pair[0].bar(0), pair[1]
    bar.write32(GCR_EXT, 3)  # 64 pools
    bar.write32(PFVFTE, 3)
    function.write(TXDCTL + 0x40, ENABLE)
    assert bar.read32(0x6028 + 0x40 * 3) & ENABLE
    function.bus.reset()
    assert bar.read32(0x6028 + 0x40 * 3) & ENABLE == 0
    assert (bar.read32(PFVFLRE), bar.read32(PFVFTE)) == (1 << 1, 1)
    bar.write32(PFVFLREC, 1 << 1)
    assert bar.read32(PFVFLRE) == 0


def test_rules_for_drivers(pair: tuple[SimulatedFunction, Function]) -> None:
    """What drivers of functions, physical and virtual, do wrong is told, and by what is told nothing leaves."""
    bar, function = pair[0].bar(0), pair[1]
    function.write(VFMBMEM, 1)
    function.write(VFMAILBOX, REQ)
    bar.write32(0x8200, 1 << 8)
    bar.write32(GCR_EXT, 3)
    bar.write32(RXCTRL, 1)
    bar.write32(0x4A80, 1)
    function.write(TDLEN, 128)
    function.write(TXDCTL, ENABLE)
    function.write(TDT, 1)
    function.machine.step()
    assert function.read(TDH) == 0
    broken = {rule.rule: rule.punished for rule in report_of(function.card.card).broken}
    assert {name for name, punished in broken.items() if punished} == {"function-disabled", "not-bus-master"}
    assert broken.keys() >= {"mailbox-not-taken", "mailbox-during-reset", "pools-unequal", "vlan-check-alone"}


# ---------------------------------------------------------------------------------------------------------------------
# Messages, with the driver of the physical function that is ours


@pytest.mark.parametrize("api", [API_10, API_11, API_12, API_13, API_14])
def test_versions(machine: Machine, api: int) -> None:
    """What there is from which version on: queues 1.1, the rest 1.2. The table and the key are for who is trusted."""
    with functions(machine, "sim:a.vf0,vfs=3,trust=on") as (function,):
        assert function.reset(api) == FIRST
        answer = function.ask(GET_QUEUES)
        assert answer[0] == GET_QUEUES | CTS | (YES if api >= API_11 else NO)
        assert api < API_11 or answer[1:5] == [4, 4, 0, 0]
        for message in (GET_LINK, GET_RETA, GET_KEY):
            assert function.agrees(message) == (api >= API_12)
        assert function.agrees(SET_MODE, 2) == (api >= API_12)
        assert function.agrees(SET_LPE, 9018) == (api >= API_11)
        assert function.agrees(SET_LPE, 1518)
        assert not function.agrees(SET_LPE, 9729)
        assert not function.agrees(NEGOTIATE, 1)
        assert not function.agrees(0x77)


def test_table_and_key(machine: Machine) -> None:
    """They are those by which the card spreads packets."""
    with functions(machine, "sim:a.vf0,vfs=3,trust=on") as (function,):
        function.reset()
        card = function.card.card
        table = [card.read32(0xEB00 + 4 * (i // 4)) >> 8 * (i % 4) & 3 for i in range(128)]
        words = function.ask(GET_RETA)[1:9]
        assert [words[i // 16] >> 2 * (i % 16) & 3 for i in range(128)] == table
        assert function.ask(GET_KEY)[1:11] == [card.read32(0xEB80 + 4 * i) for i in range(10)]


def test_nothing_before_a_reset(machine: Machine) -> None:
    with functions(machine, "sim:a.vf0,vfs=3") as (function,):
        assert function.ask(GET_QUEUES)[0] == GET_QUEUES | NO
        function.reset()
        function.bus.reset()
        assert function.ask(NEGOTIATE, API_13)[0] == NEGOTIATE | NO


def test_what_an_untrusted_function_is_refused(machine: Machine) -> None:
    """It keeps the address that it was given and its VLAN, and takes the groups that it names."""
    address = "sim:a.vf0,vfs=2,mac=02:00:00:00:00:77,vlan=9"
    with functions(machine, address) as (function,):
        given = function.reset()
        assert given == bytes.fromhex("020000000077")
        assert not function.agrees(SET_MAC, *words_of(STRANGER))
        assert function.agrees(SET_MAC, *words_of(given))
        assert not function.agrees(SET_MACVLAN | 1 << 16, *words_of(STRANGER))
        assert not function.agrees(SET_VLAN | 1 << 16, 7)
        assert not function.agrees(GET_KEY)
        assert function.ask(SET_MODE, 2)[:2] == [SET_MODE | YES | CTS, 1]
        assert function.ask(GET_QUEUES)[3] == 1
        (told,) = report_of(function.card.card).functions
        assert told.requests == 9
        assert told.refused == 4
        assert "sim:a.vf0 02:00:00:00:00:77: 0 packets received, 0 sent" in str(machine.report("a.vf0"))


def test_addresses_are_one_functions(machine: Machine) -> None:
    """Without one that was given, it may be changed, but to no other function's, a group's or none."""
    with functions(machine, "sim:a.vf0,vfs=2", "sim:a.vf1") as (first, second):
        first.reset()
        assert not first.agrees(SET_MAC, *words_of(SECOND))
        assert second.reset() == SECOND
        for mac in (SECOND, GROUP, bytes(6)):
            assert not first.agrees(SET_MAC, *words_of(mac))
        assert first.agrees(SET_MAC, *words_of(STRANGER))
        assert not second.agrees(SET_MACVLAN | 1 << 16, *words_of(STRANGER))
        assert second.agrees(SET_MAC, *words_of(FIRST))
        assert mac_of(first.ask(RESET)) == STRANGER
        second.close()
        with pytest.raises(AddressError, match="mac=02:00:00:00:00:0b is the address of another function"):
            SimulatedVirtualFunction("sim:a.vf1,mac=02:00:00:00:00:0b", machine)


def test_tables_are_finite(machine: Machine) -> None:
    """64 VLANs, one of which is that of frames without: the 64th of a function is refused, and room comes again."""
    with functions(machine, "sim:a.vf0,vfs=2", "sim:a.vf1") as (first, second):
        first.reset()
        second.reset()
        joined = [first.agrees(SET_VLAN | 1 << 16, vlan) for vlan in range(1, 66)]
        assert joined == [True] * 63 + [False] * 2
        assert second.agrees(SET_VLAN | 1 << 16, 5)
        assert not second.agrees(SET_VLAN | 1 << 16, 100)
        assert first.agrees(SET_VLAN, 1)
        assert second.agrees(SET_VLAN | 1 << 16, 100)
        addresses = [first.agrees(SET_MACVLAN | min(i, 2) << 16, 0x02, i) for i in range(1, 127)]
        assert addresses == [True] * 125 + [False]
        assert first.agrees(SET_MACVLAN)
        assert second.agrees(SET_MACVLAN | 1 << 16, 0x02, 1)


def test_a_flood_of_messages(machine: Machine) -> None:
    """Some are refused, which is counted; the other function is answered as ever."""
    with functions(machine, "sim:a.vf0,vfs=2,clock=virtual", "sim:a.vf1") as (first, second):
        first.reset()
        second.reset()
        agreed = sum(first.agrees(GET_LINK) for _ in range(700))
        assert 400 < agreed < 600
        assert second.agrees(GET_LINK)
        told = report_of(first.card.card).functions
        assert [function.flooded > 0 for function in told] == [True, False]


# ---------------------------------------------------------------------------------------------------------------------
# Packets


class Wire:
    """The card at the other end of the wire."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def take(self) -> list[bytes]:
        """What it has received."""
        return receive_all(self.device)


Three = tuple[Function, Function, Wire]


@pytest.fixture
def three(machine: Machine) -> Iterator[Three]:
    """Two functions, and what a card at the other end of the wire has received."""
    with (
        functions(machine, "sim:a.vf0,vfs=3,cable=b,ready=0", "sim:a.vf1") as (first, second),
        open_card(machine, "sim:b") as wire,
    ):
        first.set_up()
        second.set_up()
        yield first, second, Wire(wire)


def test_from_function_to_function(three: Three) -> None:
    """What is for another function does not leave; what is for nobody here does; a broadcast does both.

    It does not come back to who has sent it.
    """
    first, second, wire = three
    sent = [frame(SECOND, FIRST, 1), frame(STRANGER, FIRST, 2), frame(BROADCAST, FIRST, 3), frame(FIRST, FIRST, 4)]
    first.send(*sent)
    assert second.take() == [sent[0], sent[2]]
    assert wire.take() == [sent[1], sent[2]]
    assert first.take() == []
    assert [word for _, word in first.tx[:4].tolist()] == [1 << 32] * 4
    assert (first.read(VFGPTC), second.read(VFGPRC), second.read(VFGORC)) == (4, 2, 120)


def test_from_the_wire(three: Three) -> None:
    """By address, and for all; groups for those that have named them."""
    first, second, _ = three
    machine = first.machine
    frames = [frame(FIRST, STRANGER, 1), frame(SECOND, STRANGER, 2), frame(BROADCAST, STRANGER, 3)]
    for data in (*frames, frame(STRANGER, STRANGER), frame(GROUP, STRANGER)):
        arrive(machine, data)
    assert (first.take(), second.take()) == ([frames[0], frames[2]], [frames[1], frames[2]])
    hashed = int.from_bytes(GROUP[4:], "little") >> 4
    assert second.agrees(SET_MULTICAST | 1 << 16, hashed)
    arrive(machine, frame(GROUP, STRANGER))
    assert (first.take(), second.take()) == ([], [frame(GROUP, STRANGER)])
    assert (first.read(VFMPRC), second.read(VFMPRC)) == (0, 1)
    assert second.agrees(SET_MULTICAST)
    arrive(machine, frame(GROUP, STRANGER))
    assert second.take() == []


def test_a_loop_is_told(three: Three) -> None:
    """The descriptor of what another function has sent says so (LB), and has its checksums as others."""
    first, second, _ = three
    first.send(frame(SECOND, FIRST))
    assert int(second.rx[0, 1]) >> 18 & 1 == 1
    arrive(first.machine, frame(SECOND, STRANGER))
    assert int(second.rx[1, 1]) >> 18 & 1 == 0


def test_another_ones_address(three: Three) -> None:
    """What a function sends with it goes nowhere, and is counted; and a VLAN in which it is not is no better."""
    first, second, wire = three
    first.send(frame(SECOND, STRANGER), frame(BROADCAST, SECOND), frame(SECOND, FIRST, tag=7), frame(SECOND, FIRST, 9))
    assert second.take() == [frame(SECOND, FIRST, 9)]
    assert wire.take() == []
    assert first.card.spoofed == 3
    assert first.card.card.read32(SSVPC) == 3
    assert first.card.card.read32(SSVPC) == 0
    assert first.read(VFGPTC) == 1
    for function in (first, second):
        assert function.agrees(SET_VLAN | 1 << 16, 7)
    first.send(frame(SECOND, FIRST, tag=7))
    assert second.take() == [frame(SECOND, FIRST, tag=7)]
    assert first.card.spoofed == 3


def test_who_may_send_with_any_address(machine: Machine) -> None:
    with (
        functions(machine, "sim:a.vf0,cable=b,spoof=off") as (function,),
        open_card(machine, "sim:b") as wire,
    ):
        function.set_up()
        function.send(frame(BROADCAST, STRANGER))
        assert receive_all(wire) == [frame(BROADCAST, STRANGER)]


def test_a_vlan_without_knowing(machine: Machine) -> None:
    """On the wire it is tagged, whatever the function sends; and it hears its VLAN alone."""
    addresses = "sim:a.vf0,cable=b,vfs=3,vlan=9", "sim:a.vf1,vlan=9", "sim:a.vf2"
    with functions(machine, *addresses) as opened, open_card(machine, "sim:b") as wire:
        for function in opened:
            function.set_up()
        first, second, third = opened
        first.send(frame(BROADCAST, FIRST))
        tagged = frame(BROADCAST, FIRST, tag=9, size=64)
        assert receive_all(wire) == [tagged]
        assert (second.take(), third.take()) == ([tagged], [])
        arrive(machine, tagged)
        arrive(machine, frame(BROADCAST, STRANGER))
        assert [len(function.take()) for function in opened] == [1, 1, 1]


def test_memory_that_is_not_shown(three: Three) -> None:
    """A function that names such is refused the access, which is counted for it; others go on."""
    first, second, wire = three
    first.post(frame(BROADCAST, FIRST), address=0x1234_0000)
    second.send(frame(BROADCAST, SECOND))
    assert (first.card.dma_refused, second.card.dma_refused) == (1, 0)
    assert wire.take() == [frame(BROADCAST, SECOND)]


def test_a_packet_without_an_end(three: Three) -> None:
    """It is dropped, and what others send goes on; so does the function itself."""
    first, second, wire = three
    machine = first.machine
    for number in range(3):
        first.post(frame(BROADCAST, FIRST), command=0)
        first.tx[first.tx_next - 1, 1] &= ~(1 << 24 | 1 << 27)
        second.post(frame(BROADCAST, SECOND, number))
        machine.step(3)
        assert wire.take() == [frame(BROADCAST, SECOND, number)]
    first.send(frame(BROADCAST, FIRST, 9))
    assert wire.take() == [frame(BROADCAST, FIRST, 9)]


def test_each_function_masters_the_bus_by_itself(three: Three) -> None:
    first, second, wire = three
    first.bus.config_write(4, 2, 0)
    first.send(frame(BROADCAST, FIRST))
    second.send(frame(BROADCAST, SECOND))
    assert (wire.take(), first.take()) == ([frame(BROADCAST, SECOND)], [])
    arrive(first.machine, frame(BROADCAST, STRANGER))
    assert second.take() == [frame(BROADCAST, STRANGER)]


def test_who_takes_nothing_holds_up_nobody(machine: Machine) -> None:
    """A wire without times waits for a function; not for one that has no buffers, while another one has."""
    with functions(machine, "sim:a.vf0,vfs=2,gen=60,ready=0", "sim:a.vf1") as (first, second):
        first.set_up(given=3)
        second.set_up()
        generated = bytes(machine.rack.tape[machine.cards["a"].index * (8 << 30) + (1 << 30) :][:6])
        assert second.agrees(SET_MAC, *words_of(generated))
        for _ in range(10):
            machine.step(3)
            assert len(second.take()) > 0


def test_reset_in_the_middle(three: Three) -> None:
    """A function that is reset hears nothing and sends nothing until it asks again; the other one goes on."""
    first, second, wire = three
    first.bus.reset()
    first.post(frame(BROADCAST, FIRST))
    second.send(frame(BROADCAST, SECOND))
    arrive(first.machine, frame(BROADCAST, STRANGER))
    assert (first.take(), second.take()) == ([], [frame(BROADCAST, STRANGER)])
    assert wire.take() == [frame(BROADCAST, SECOND)]
    first.set_up()
    first.send(frame(BROADCAST, FIRST, 5))
    assert (second.take(), wire.take()) == ([frame(BROADCAST, FIRST, 5)],) * 2


def test_no_queue_of_others(three: Three) -> None:
    """A function has four queues here: registers of a fifth lead nowhere, and so do doorbells."""
    first, second, _ = three
    before = second.read(RDT)
    first.write(RXDCTL + 4 * 0x40, 0)
    first.bar.doorbell(RDT + 4 * 0x40)[0] = 5
    first.write(RDT + 4 * 0x40, 5)
    assert first.read(RXDCTL + 4 * 0x40) == 0
    assert (second.read(RXDCTL) & ENABLE, second.read(RDT)) == (ENABLE, before)


def test_as_many_functions_as_there_are(machine: Machine) -> None:
    """With more than 31 each has two queues; the last one's are 124 and 125 of the card's 128."""
    with functions(machine, "sim:a.vf62,vfs=63,cable=b,ready=0") as (function,), open_card(machine, "sim:b") as wire:
        mac = function.set_up()
        assert function.ask(GET_QUEUES)[1:3] == [2, 2]
        assert function.card.card.read32(0xD000 + 0x40 * (124 - 64) + 0x28) & ENABLE
        arrive(machine, frame(mac, STRANGER))
        function.send(frame(STRANGER, mac))
        assert (function.take(), receive_all(wire)) == ([frame(mac, STRANGER)], [frame(STRANGER, mac)])
        function.write(RXDCTL + 2 * 0x40, ENABLE)
        assert function.read(RXDCTL + 2 * 0x40) == 0


def test_a_tail_that_comes_too_early(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fault if it stays so, and none in a test of registers, as Linux makes one, while others receive."""
    with functions(machine, "sim:a.vf0,vfs=2") as (function,):
        monkeypatch.setattr(supervision, "monotonic_ns", lambda: 1 << 62)  # as if no time passed
        function.bus.config_write(4, 2, 1 << 2)
        function.reset()
        function.write(RXDCTL, ENABLE)
        for value in (0x5A5A, 0):
            function.write(RDT, value)
        function.write(RXDCTL, 0)
        assert report_of(function.card.card).broken == []
        function.write(RXDCTL, ENABLE)
        function.write(RDT, 5)
        assert [rule.rule for rule in report_of(function.card.card).broken] == ["rx-tail-early"]


def test_link(three: Three) -> None:
    """The functions see the card's, and are told when it changes."""
    first, _, wire = three
    assert first.read(VFLINKS) == 1 << 30 | 3 << 28
    wire.device.close()
    assert first.read(VFLINKS) == 0
    assert first.read(VFMAILBOX) & PFSTS
    assert first.message()[0] == 0x100 | CTS


def test_interrupts(three: Three) -> None:
    """Vectors of queues and of the mailbox, by their own tables; VTEIAC clears the cause with the message."""
    first, second, _ = three
    interrupts = first.bus.interrupts(Irq.MSIX, 3)
    first.write(VTIVAR, 0x80 | 0x81 << 8)
    first.write(VTIVAR_MISC, 0x82)
    first.write(VTEIAC, 3)
    first.write(VTEIMS, 7)
    second.send(frame(FIRST, SECOND))
    first.machine.answer()
    assert rung(interrupts.events) == [0]
    first.send(frame(SECOND, FIRST))
    first.machine.answer()
    assert rung(interrupts.events) == [1]
    assert first.read(VTEICR) == 0
    first.write(VFMAILBOX, VFU)
    first.write(VFMBMEM, GET_LINK)
    first.write(VFMAILBOX, REQ)
    assert rung(interrupts.events) == [2]
    assert first.read(VTEICR) == 1 << 2
    interrupts.close()


def rung(events: Sequence[int]) -> list[int]:
    """Which of the files are readable, and read them."""
    ready, _, _ = select.select(events, [], [], 0)
    for file in ready:
        os.eventfd_read(file)
    return [events.index(file) for file in ready]
