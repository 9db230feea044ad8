"""What several checks need: frames, pools that are looked at, and why nothing arrives or leaves."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, Any

from ixy.course.findings import Finding, Wrong
from ixy.course.lending import Lent
from ixy.registers import i82599 as reg
from ixy.sim.checklist import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.course.bench import Bench
    from ixy.course.watch import Ring
    from ixy.registers import Register

_SENDER = bytes.fromhex("02aabbccddee")
_DESTINATIONS = (b"\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("021122334455"))  # all, a group, another
_SIZES = (60, 61, 64, 127, 128, 590, 1024, 1513, 1514)
# The registers by which the steps of the check-list are done
_STEP_REGISTERS = {
    "interrupts disabled before the reset": "EIMC",
    "DMA stopped before the reset": "CTRL",
    "reset": "CTRL",
    "interrupts disabled after the reset": "EIMC",
    "EEPROM auto-read done": "EEC",
    "DMA initialisation done": "RDRXCTL",
    "multicast table cleared": "MTA",
    "receive buffers' size and descriptors' type set": "SRRCTL",
    "no snoop disabled": "CTRL_EXT",
    "receive queues enabled": "RXDCTL",
    "receive path halted": "SECRXCTRL",
    "transmit arbiter disabled to set packet buffers": "RTTDCS",
    "transmit queues enabled": "TXDCTL",
}


def frames(count: int, seed: int = 0) -> list[bytes]:
    """Frames of all lengths, for all kinds of destinations, no two alike."""
    chance = random.Random(seed)
    return [
        _DESTINATIONS[number % 3] + _SENDER + b"\x88\xb5" + number.to_bytes(4, "big") + chance.randbytes(size - 18)
        for number, size in ((number, _SIZES[number % len(_SIZES)]) for number in range(count))
    ]


def card_of(bench: Bench, labs: Any, number: int = 0) -> str:
    """Where a card is, by lab 1."""
    found = labs.lab1.find_cards(bench.bus)
    if found != bench.bus.cards:
        raise Wrong(Finding(f"lab 1 finds {found}, and there is {bench.bus.cards}: `ixy course check 1`"))
    return found[number]


def note_steps(bench: Bench, *titles: str) -> None:
    """Note the steps of the datasheet's initialisation that were not done as they are to be."""
    for title, section, status in bench.report().steps:
        if title in titles and status is not Status.DONE:
            bench.note(f"{title}: {status.value}", _STEP_REGISTERS[title], section, placed=False)


def lend(bench: Bench, labs: Any, count: int) -> tuple[Any, Lent]:
    """A pool of the student's, and who has its buffers."""
    pool = labs.lab4.Pool(bench.bus, count)
    lent = Lent(bench, pool)
    bench.pools.append(lent)
    return pool, lent


# ---------------------------------------------------------------------------------------------------------------------
# Receiving


def compare_received(got: Sequence[bytes], wanted: Sequence[bytes], ring: Ring | None = None) -> None:
    """Raise `Wrong` at the first packet that is not as it arrived, in a card's ring."""
    for number, (packet, frame) in enumerate(zip(got, wanted, strict=False)):
        if packet != frame:
            raise Wrong(_difference(number, packet, list(wanted), ring))


def _difference(number: int, packet: Any, wanted: list[bytes], ring: Ring | None) -> Finding:
    """How packet `number` differs from the one that arrived."""
    frame = wanted[number]
    if not isinstance(packet, bytes):
        return Finding(f"packet {number} is {packet!r}, and not bytes")
    if packet in wanted[number + 1 :]:
        lost = _filtered(ring) if ring is not None else None
        return lost or Finding(
            f"packet {number} is missing, {wanted.index(packet)} is there: take descriptors in their order, each one",
            "DD",
            "7.1.6.2",
        )
    if packet in wanted:
        return Finding(
            f"packet {number} is the one that arrived as number {wanted.index(packet)}: look for DD before you take a "
            "descriptor, and take the buffer that lies in it",
            "DD",
            "7.1.6.2",
        )
    if packet == frame + zlib.crc32(frame).to_bytes(4, "little"):
        return Finding(
            "packets have their check sequence, 4 bytes, at their end: set HLREG0.RXCRCSTRP and RDRXCTL.CRC_STRIP",
            "HLREG0",
            "8.2.3.22.8",
        )
    if len(packet) != len(frame):
        return Finding(
            f"packet {number} has {len(packet)} bytes, and {len(frame)} arrived: the length is in bits 32 to 47 of the "
            "second word, PKT_LEN, which is valid once DD is set",
            "PKT_LEN",
            "7.1.6.2",
        )
    return Finding(
        f"packet {number} does not have the bytes that arrived: they are in the buffer whose address the descriptor "
        "had, once DD is set",
        "Packet Buffer Address",
        "7.1.6.1",
    )


def _filtered(ring: Ring) -> Finding | None:
    """Whether the card filters packets out."""
    wanted = reg.FCTRL.mask("BAM", "UPE", "MPE")
    if ring.get(reg.FCTRL) & wanted == wanted:
        return None
    return Finding(
        "packets for others, for groups or for all are filtered out: set FCTRL.UPE, MPE and BAM", "FCTRL", "8.2.3.7.1"
    )


def nothing_received(bench: Bench, ring: Ring, number: int = 0) -> Finding:
    """Why packets do not arrive in a ring."""
    card = bench.ports[number].card
    get = ring.get
    queue = ring.queue
    if not card.masters_bus:
        return Finding("the card may not use the bus: set bit 2 of the command register", "COMMAND", "PCI 6.2.2")
    if not get(reg.RXCTRL) & reg.RXCTRL.mask("RXEN"):
        return Finding("RXCTRL.RXEN is not set: the card takes no packets from the wire", "RXCTRL", "4.6.7")
    if not ring.enabled:
        return Finding(f"{ring.name} is not enabled: set RXDCTL.ENABLE", "RXDCTL", "4.6.7")
    if ring.size == 0:
        return Finding("RDLEN is 0: the ring has no descriptors", "RDLEN", "8.2.3.8.3")
    if get(reg.SECRXCTRL) & reg.SECRXCTRL.mask("RX_DIS"):
        return Finding("SECRXCTRL.RX_DIS is still set: the receive path is halted", "SECRXCTRL", "4.6.7")
    if get(ring.head) == get(ring.tail):
        return Finding(
            f"the card has no descriptor left: RDH and RDT are both {get(ring.head)}. Each that you have emptied is to "
            "be handed over again, and RDT is to stay one behind the next that you look at",
            "RDT",
            "7.1.9",
        )
    if (filtered := _filtered(ring)) is not None:
        return filtered
    if not get(reg.SRRCTL[queue]) & reg.SRRCTL.mask("BSIZEPACKET"):
        return Finding("SRRCTL.BSIZEPACKET is 0: no packet fits into a buffer", "SRRCTL", "8.2.3.8.7")
    return Finding(
        f"the card has written descriptors back up to {get(ring.head)} that were not taken: look for DD in the one "
        "that is next",
        "DD",
        "7.1.6.2",
    )


# ---------------------------------------------------------------------------------------------------------------------
# Sending


def compare_sent(got: Sequence[bytes], wanted: Sequence[bytes]) -> None:
    """Raise `Wrong` at the first packet that has not left as it was given; the card pads to 60 bytes."""
    for number, (left, packet) in enumerate(zip(got, wanted, strict=False)):
        padded = packet.ljust(60, b"\0")
        if left == padded:
            continue
        if len(left) != len(padded):
            raise Wrong(
                Finding(
                    f"packet {number} has left with {len(left)} bytes instead of {len(padded)}: DTALEN is the length "
                    "of the buffer's part that is sent",
                    "DTALEN",
                    "7.2.3.2.4",
                )
            )
        raise Wrong(
            Finding(
                f"packet {number} has left with other bytes than it was given: with another's, if its buffer was used "
                "again before DD was set, or its descriptor names another buffer",
                "Address",
                "7.2.3.2.4",
            )
        )


def nothing_sent(bench: Bench, ring: Ring, number: int = 0) -> Finding:
    """Why packets do not leave."""
    get = ring.get
    if not bench.ports[number].card.masters_bus:
        return Finding("the card may not use the bus: set bit 2 of the command register", "COMMAND", "PCI 6.2.2")
    if not get(reg.DMATXCTL) & reg.DMATXCTL.mask("TE"):
        return Finding("DMATXCTL.TE is not set: without it no queue sends", "DMATXCTL", "8.2.3.9.2")
    if not ring.enabled:
        return Finding(f"{ring.name} is not enabled: set TXDCTL.ENABLE", "TXDCTL", "4.6.8.1")
    if ring.size == 0:
        return Finding("TDLEN is 0: the ring has no descriptors", "TDLEN", "8.2.3.9.7")
    if get(ring.head) == get(ring.tail):
        return Finding(
            f"the card knows of no more descriptors: TDH and TDT are both {get(ring.head)}. TDT is the number of the "
            "descriptor behind the last that you have written",
            "TDT",
            "7.2.3.3",
        )
    return Finding(
        f"the card does not go on: TDH is {get(ring.head)}, TDT {get(ring.tail)}; look at the descriptor there",
        "Address",
        "7.2.3.2.4",
    )


def nothing_cleaned(ring: Ring) -> Finding:
    """Why sent packets' buffers do not come back."""
    reports = [slot for slot in range(ring.size) if (words := ring.descriptor(slot)) and words[1] & reg.TX_DD]
    if not reports:
        return Finding(
            "the card reports no descriptor as done: set RS where you want DD, or write back heads",
            "RS",
            "7.2.3.2.4",
        )
    return Finding(
        f"buffers of packets that were sent do not come back: descriptor {reports[0]} has DD, bit 32 of word 1",
        "DD",
        "7.2.3.5",
    )


def note_register(bench: Bench, ring: Ring, register: Register, wanted: int, sentence: str) -> None:
    """Note a register that does not hold what it should."""
    held = ring.get(register)
    if held != wanted:
        subject = register.name.removesuffix("[0]")
        bench.note(f"{subject} is {held:#x}, not {wanted:#x}: {sentence}", subject, register.section, placed=False)
