"""Does the judge of the course find what students do wrong, and nothing else?

    python tools/course_mistakes.py            all of it, a row a line
    python tools/course_mistakes.py lab5 rss   of these labs

A mistake is a solution in which a few words are others. It is found if the check of its lab names the field or register
and the section of the row. Solutions, and other right ways to write them (`course_ways.py`), must pass.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from course_ways import WAYS

from ixy.course.findings import Result
from ixy.course.judging import judge
from ixy.course.material import LABS, SOLUTIONS, lab_of

ENOUGH = 0.95  # of the mistakes
DEADLINE = 20.0  # seconds


class Mistake(NamedTuple):
    """A row.

    Attributes:
        lab: whose check is to find it.
        name: what the student did.
        old, new: the words in the solution, which stand there once, and what he wrote.
        field: of a register or a descriptor that a finding must name, or a function of the student's,
        section: and where it says to look; "" for a function.
        file: of the lab that is changed; by default that which is checked.
    """

    lab: str
    name: str
    old: str
    new: str
    field: str
    section: str
    file: str = ""


MISTAKES = (
    # -- lab 1
    Mistake("lab1", "only the device's number is compared", "vendor == INTEL and ", "", "Vendor ID", "PCI 6.2.1"),
    Mistake("lab1", "only the vendor is compared", " and device == DEVICE_82599", "", "Device ID", "PCI 6.2.1"),
    Mistake("lab1", "the first card only", "            found.append(where)", "            return [where]", "Vendor ID", "PCI 6.2.1"),
    Mistake("lab1", "vendor and device swapped", "VENDOR = 0x00", "VENDOR = 0x02", "Vendor ID", "PCI 6.2.1"),
    Mistake("lab1", "bus mastering forgotten", " | MEMORY_SPACE | BUS_MASTER", " | MEMORY_SPACE", "COMMAND", "PCI 6.2.2"),
    Mistake("lab1", "memory space forgotten", " | MEMORY_SPACE | BUS_MASTER", " | BUS_MASTER", "COMMAND", "PCI 6.2.2"),
    Mistake("lab1", "other bits of COMMAND lost", "2, command | MEMORY_SPACE", "2, MEMORY_SPACE", "COMMAND", "PCI 6.2.2"),
    Mistake("lab1", "the bit's number instead of the bit", "BUS_MASTER = 1 << 2", "BUS_MASTER = 1 << 3", "COMMAND", "PCI 6.2.2"),
    # -- lab 2
    Mistake("lab2", "upper half forgotten", "return high << 32 | low", "return low", "BAR 0", "PCI 6.2.5.1"),
    Mistake("lab2", "halves swapped", "return high << 32 | low", "return low << 32 | high", "BAR 0", "PCI 6.2.5.1"),
    Mistake("lab2", "kind taken for address", "low = bus.config_read(where, BAR_0, 4) & ~BAR_KIND", "low = bus.config_read(where, BAR_0, 4)", "BAR 0", "PCI 6.2.5.1"),
    Mistake("lab2", "BAR not restored", "    bus.config_write(where, BAR_0, 4, before)\n", "", "BAR 0", "PCI 6.2.5.1"),
    Mistake("lab2", "size one too small", "(~kept & 0xFFFFFFFF) + 1", "~kept & 0xFFFFFFFF", "BAR 0", "PCI 6.2.5.1"),
    Mistake("lab2", "size with the kind's bits", "4) & ~BAR_KIND\n    bus.config_write(where, BAR_0, 4, before)", "4)\n    bus.config_write(where, BAR_0, 4, before)", "BAR 0", "PCI 6.2.5.1"),
    Mistake("lab2", "RAL big-endian", 'low.to_bytes(4, "little")', 'low.to_bytes(4, "big")', "RAL", "8.2.3.7.8"),
    Mistake("lab2", "RAH big-endian", '(high & 0xFFFF).to_bytes(2, "little")', '(high & 0xFFFF).to_bytes(2, "big")', "RAL", "8.2.3.7.8"),
    Mistake("lab2", "upper half of RAH", "(high & 0xFFFF)", "(high >> 16)", "RAH", "8.2.3.7.9"),
    # -- lab 3
    Mistake("lab3", "CTRL.RST not waited for", "    time.sleep(0.001)\n    wait_for(bar, CTRL, CTRL_RST | CTRL_LRST, 0)\n    time.sleep(0.01)\n", "", "CTRL.RST", "8.2.3.1.1"),
    Mistake("lab3", "no pause after the reset", "    time.sleep(0.001)\n    wait_for(bar, CTRL, CTRL_RST | CTRL_LRST, 0)\n    time.sleep(0.01)\n", "    wait_for(bar, CTRL, CTRL_RST | CTRL_LRST, 0)\n", "CTRL.RST", "8.2.3.1.1"),
    Mistake("lab3", "a pause instead of a look at CTRL", "    wait_for(bar, CTRL, CTRL_RST | CTRL_LRST, 0)\n    time.sleep(0.01)\n", "", "CTRL", "4.6.3.2"),
    Mistake("lab3", "no reset at all", "    bar.write32(CTRL, CTRL_RST | CTRL_LRST)\n", "", "CTRL", "4.6.3.2"),
    Mistake("lab3", "the link is not reset", "bar.write32(CTRL, CTRL_RST | CTRL_LRST)", "bar.write32(CTRL, CTRL_RST)", "CTRL", "4.6.3.2"),
    Mistake("lab3", "interrupts on before the reset", "    bar.write32(EIMC, ALL_INTERRUPTS)\n    bar.write32(CTRL, bar", "    bar.write32(CTRL, bar", "EIMC", "4.6.3.1"),
    Mistake("lab3", "interrupts on after the reset", "    time.sleep(0.01)\n    bar.write32(EIMC, ALL_INTERRUPTS)\n", "    time.sleep(0.01)\n", "EIMC", "4.6.3.1"),
    Mistake("lab3", "DMA goes on during the reset", "    bar.write32(CTRL, bar.read32(CTRL) | CTRL_MASTER_DISABLE)\n    wait_for(bar, STATUS, STATUS_MASTER_ENABLE, 0)\n", "", "CTRL", "5.2.5.3.2"),
    Mistake("lab3", "pending requests not waited for", "    wait_for(bar, STATUS, STATUS_MASTER_ENABLE, 0)\n", "", "STATUS", "5.2.5.3.2"),
    Mistake("lab3", "EEPROM not waited for", "    wait_for(bar, EEC, EEC_AUTO_RD, EEC_AUTO_RD)\n", "", "EEC", "4.6.3"),
    Mistake("lab3", "one look at the EEPROM's bit", "    wait_for(bar, EEC, EEC_AUTO_RD, EEC_AUTO_RD)\n", "    bar.read32(EEC)\n", "EEC", "4.6.3"),
    Mistake("lab3", "DMA engine not waited for", "    wait_for(bar, RDRXCTL, RDRXCTL_DMAIDONE, RDRXCTL_DMAIDONE)\n", "", "RDRXCTL", "4.6.3"),
    Mistake("lab3", "EERD.DONE not waited for", "wait_for(bar, EERD, EERD_DONE, EERD_DONE)", "bar.read32(EERD)", "EERD", "8.2.3.2.2"),
    Mistake("lab3", "EERD.START forgotten", "word << EERD_ADDR_SHIFT | EERD_START", "word << EERD_ADDR_SHIFT", "EERD", "8.2.3.2.2"),
    Mistake("lab3", "EERD.ADDR at the wrong place", "EERD_ADDR_SHIFT = 2", "EERD_ADDR_SHIFT = 8", "EERD", "8.2.3.2.2"),
    Mistake("lab3", "EERD.DATA not shifted", " >> EERD_DATA_SHIFT", " & 0xFFFF", "EERD", "8.2.3.2.2"),
    # -- lab 4
    Mistake("lab4", "halves swapped", "return address & 0xFFFFFFFF, address >> 32", "return address >> 32, address & 0xFFFFFFFF", "RDBAL", "8.2.3.8.1"),
    Mistake("lab4", "lower half not cut off", "return address & 0xFFFFFFFF, address >> 32", "return address, address >> 32", "RDBAL", "8.2.3.8.1"),
    Mistake("lab4", "ring not aligned", "size * DESCRIPTOR, RING_ALIGNMENT)", "size * DESCRIPTOR)", "RDBAL", "8.2.3.8.1"),
    Mistake("lab4", "ring aligned to a descriptor", "size * DESCRIPTOR, RING_ALIGNMENT)", "size * DESCRIPTOR, DESCRIPTOR)", "RDBAL", "8.2.3.8.1"),
    Mistake("lab4", "ring not cleared", "    memory.write(0, bytes(size * DESCRIPTOR))\n", "", "DD", "7.1.6.2"),
    Mistake("lab4", "half of the ring cleared", "bytes(size * DESCRIPTOR)", "bytes(size * 8)", "DD", "7.1.6.2"),
    Mistake("lab4", "a descriptor has 8 bytes", "DESCRIPTOR = 16", "DESCRIPTOR = 8", "RDLEN", "8.2.3.8.3"),
    Mistake("lab4", "a buffer is lent twice", "buffer = self.free.pop()", "buffer = self.free[-1]", "Pool.take", ""),
    Mistake("lab4", "a buffer may be given twice", '        if buffer not in self.used:\n            raise ValueError(f"buffer {buffer} is free already, or is none")\n        self.used.remove(buffer)\n', "        self.used.discard(buffer)\n", "Pool.give", ""),
    Mistake("lab4", "a buffer never comes back", "        self.free.append(buffer)\n", "", "Pool.give", ""),
    Mistake("lab4", "buffers by the pointer", "return self.memory.address + buffer", "return self.memory.pointer + buffer", "Packet Buffer Address", "7.1.6.1"),
    Mistake("lab4", "buffers of 1 KiB", "BUFFER = 2048", "BUFFER = 1024", "Pool", ""),
    # -- lab 5
    Mistake("lab5", "halves of the ring's address swapped", "low, high = halves(", "high, low = halves(", "RDBAL", "8.2.3.8.1"),
    Mistake("lab5", "RDBAH forgotten", "    bar.write32(RDBAH + at, high)\n", "", "RDBAL", "8.2.3.8.1"),
    Mistake("lab5", "RDBAL and RDBAH confused", "bar.write32(RDBAL + at, low)\n    bar.write32(RDBAH + at, high)", "bar.write32(RDBAL + at, high)\n    bar.write32(RDBAH + at, low)", "RDBAL", "8.2.3.8.1"),
    Mistake("lab5", "the ring by its pointer", "halves(ring.memory.address)", "halves(ring.memory.pointer)", "RDBAL", "8.2.3.8.1"),
    Mistake("lab5", "RDLEN in descriptors", "bar.write32(RDLEN + at, ring.size * DESCRIPTOR)", "bar.write32(RDLEN + at, ring.size)", "RDLEN", "8.2.3.8.3"),
    Mistake("lab5", "RDLEN one descriptor short", "bar.write32(RDLEN + at, ring.size * DESCRIPTOR)", "bar.write32(RDLEN + at, (ring.size - 1) * DESCRIPTOR)", "RDLEN", "8.2.3.8.3"),
    Mistake("lab5", "RDLEN twice as long", "bar.write32(RDLEN + at, ring.size * DESCRIPTOR)", "bar.write32(RDLEN + at, 2 * ring.size * DESCRIPTOR)", "RDLEN", "8.2.3.8.3"),
    Mistake("lab5", "RDLEN half as long", "bar.write32(RDLEN + at, ring.size * DESCRIPTOR)", "bar.write32(RDLEN + at, ring.size * 8)", "RDLEN", "8.2.3.8.3"),
    Mistake("lab5", "RDLEN forgotten", "    bar.write32(RDLEN + at, ring.size * DESCRIPTOR)\n", "", "RDLEN", "8.2.3.8.3"),
    Mistake("lab5", "BSIZEPACKET in bytes", "SRRCTL_BSIZEPACKET = 2 ", "SRRCTL_BSIZEPACKET = 2048 ", "SRRCTL", "8.2.3.8.7"),
    Mistake("lab5", "BSIZEPACKET 0", " | SRRCTL_BSIZEPACKET)", ")", "SRRCTL", "8.2.3.8.7"),
    Mistake("lab5", "buffers too large for the pool", "SRRCTL_BSIZEPACKET = 2 ", "SRRCTL_BSIZEPACKET = 4 ", "SRRCTL", "8.2.3.8.7"),
    Mistake("lab5", "RXDCTL.ENABLE forgotten", "    bar.write32(RXDCTL + at, bar.read32(RXDCTL + at) | RXDCTL_ENABLE)\n    wait_for(bar, RXDCTL + at, RXDCTL_ENABLE, RXDCTL_ENABLE)\n", "", "RXDCTL", "4.6.7"),
    Mistake("lab5", "RXDCTL.ENABLE not waited for", "    wait_for(bar, RXDCTL + at, RXDCTL_ENABLE, RXDCTL_ENABLE)\n", "", "RDT", "4.6.7"),
    Mistake("lab5", "tail before the queue is enabled", "    bar.write32(RDT + at, 0)\n", "    bar.write32(RDT + at, ring.size - 1)\n", "RDT", "4.6.7"),
    Mistake("lab5", "no tail at all", "    bar.write32(RDT + at, ring.size - 1)\n", "", "RDT", "4.6.7"),
    Mistake("lab5", "tail one too far", "bar.write32(RDT + at, ring.size - 1)", "bar.write32(RDT + at, ring.size)", "RDT", "7.1.9"),
    Mistake("lab5", "head and tail swapped", "bar.write32(RDT + at, ring.size - 1)", "bar.write32(RDH + at, ring.size - 1)", "RDH", "8.2.3.8.4"),
    Mistake("lab5", "DD not looked at", "    if not status & DD:\n        return None\n", "", "DD", "7.1.6.2"),
    Mistake("lab5", "DD in the wrong word", '    _, status = struct.unpack("<QQ", ring.memory', '    status, _ = struct.unpack("<QQ", ring.memory', "DD", "7.1.6.2"),
    Mistake("lab5", "descriptors big-endian", 'struct.pack("<QQ", ring.pool.address(buffer), 0)', 'struct.pack(">QQ", ring.pool.address(buffer), 0)', "Packet Buffer Address", "7.1.6.1"),
    Mistake("lab5", "descriptors read big-endian", 'struct.unpack("<QQ", ring.memory', 'struct.unpack(">QQ", ring.memory', "DD", "7.1.6.2"),
    Mistake("lab5", "the words of the descriptor swapped", 'struct.pack("<QQ", ring.pool.address(buffer), 0)', 'struct.pack("<QQ", 0, ring.pool.address(buffer))', "Packet Buffer Address", "7.1.6.1"),
    Mistake("lab5", "the buffer's number instead of its address", "ring.pool.address(buffer), 0", "buffer, 0", "Packet Buffer Address", "7.1.6.1"),
    Mistake("lab5", "the length from the wrong bits", "LENGTH_SHIFT = 32", "LENGTH_SHIFT = 16", "PKT_LEN", "7.1.6.2"),
    Mistake("lab5", "the length with the VLAN", "status >> LENGTH_SHIFT & 0xFFFF)", "(status >> LENGTH_SHIFT & 0xFFFF) + 4)", "PKT_LEN", "7.1.6.2"),
    Mistake("lab5", "descriptor not armed again", "    arm(ring, slot, buffer)\n    ring.next", "    ring.next", "Packet Buffer Address", "7.1.6.1"),
    Mistake("lab5", "tail is not moved on", "    ring.bar.write32(RDT + ring.registers, slot)\n", "", "RDT", "7.1.9"),
    Mistake("lab5", "tail is the next descriptor", "RDT + ring.registers, slot)", "RDT + ring.registers, ring.next)", "RDT", "7.1.9"),
    Mistake("lab5", "next does not wrap", "ring.next = (slot + 1) % ring.size", "ring.next = slot + 1", "RDT", "7.1.9"),
    Mistake("lab5", "next wraps one early", "ring.next = (slot + 1) % ring.size", "ring.next = (slot + 1) % (ring.size - 1)", "DD", "7.1.6.2"),
    Mistake("lab5", "all descriptors have one buffer", "        buffer = ring.pool.take()\n", "        buffer = ring.pool.take() if slot == 0 else ring.buffers[0]\n", "Packet Buffer Address", "7.1.9"),
    Mistake("lab5", "buffer back to the pool while it lies in the ring", "    arm(ring, slot, buffer)\n    ring.next", "    arm(ring, slot, buffer)\n    ring.pool.give(buffer)\n    ring.next", "Packet Buffer Address", "7.1.9"),
    Mistake("lab5", "RXEN before the ring", "    ring = RxRing(bus, bar, pool, size)\n    start(ring)\n    allow_snooping(ring)\n    open_receive_path(bar)\n", "    open_receive_path(bar)\n    ring = RxRing(bus, bar, pool, size)\n    start(ring)\n    allow_snooping(ring)\n", "RXCTRL", "4.6.7"),
    Mistake("lab5", "RXEN forgotten", "    bar.write32(RXCTRL, bar.read32(RXCTRL) | RXCTRL_RXEN)\n", "", "RXCTRL", "4.6.7"),
    Mistake("lab5", "RXEN while the path is open", "    bar.write32(SECRXCTRL, bar.read32(SECRXCTRL) | SECRXCTRL_RX_DIS)\n    wait_for(bar, SECRXSTAT, SECRXSTAT_RDY, SECRXSTAT_RDY)\n", "", "SECRX", "4.6.7"),
    Mistake("lab5", "SECRX_RDY not waited for", "    wait_for(bar, SECRXSTAT, SECRXSTAT_RDY, SECRXSTAT_RDY)\n", "", "SECRX", "4.6.7"),
    Mistake("lab5", "the path stays halted", "    bar.write32(SECRXCTRL, bar.read32(SECRXCTRL) & ~SECRXCTRL_RX_DIS)\n", "", "SECRXCTRL", "4.6.7"),
    Mistake("lab5", "NS_DIS forgotten", "    bar.write32(CTRL_EXT, bar.read32(CTRL_EXT) | CTRL_EXT_NS_DIS)\n", "", "CTRL_EXT", "4.6.7"),
    Mistake("lab5", "check sequences are not cut off", "    bar.write32(HLREG0, bar.read32(HLREG0) | HLREG0_RXCRCSTRP)\n", "    bar.write32(HLREG0, bar.read32(HLREG0) & ~HLREG0_RXCRCSTRP)\n", "CRC_STRIP", "8.2.3.8.8"),
    Mistake("lab5", "packets for others are filtered out", "FCTRL_BAM | FCTRL_UPE | FCTRL_MPE", "FCTRL_BAM", "FCTRL", "8.2.3.7.1"),
    Mistake("lab5", "no packet buffer", "bar.write32(RXPBSIZE, RX_BUFFER)", "bar.write32(RXPBSIZE, 0)", "RXPBSIZE", "8.2.3.8.9"),
    Mistake("lab5", "multicast table not cleared", "    for number in range(128):\n        bar.write32(MTA + 4 * number, 0)\n", "", "MTA", "4.6.7"),
    # -- lab 6
    Mistake("lab6", "halves of the ring's address swapped", "low, high = halves(", "high, low = halves(", "TDBAL", "8.2.3.9.5"),
    Mistake("lab6", "TDLEN in descriptors", "bar.write32(TDLEN, ring.size * DESCRIPTOR)", "bar.write32(TDLEN, ring.size)", "TDLEN", "8.2.3.9.7"),
    Mistake("lab6", "TDLEN half as long", "bar.write32(TDLEN, ring.size * DESCRIPTOR)", "bar.write32(TDLEN, ring.size * 8)", "TDLEN", "8.2.3.9.7"),
    Mistake("lab6", "TE forgotten", "    bar.write32(DMATXCTL, bar.read32(DMATXCTL) | DMATXCTL_TE)\n", "", "DMATXCTL", "8.2.3.9.2"),
    Mistake("lab6", "queue before the engine", "    bar.write32(DMATXCTL, bar.read32(DMATXCTL) | DMATXCTL_TE)\n    bar.write32(TXDCTL, TXDCTL_PREFETCH | TXDCTL_ENABLE)\n", "    bar.write32(TXDCTL, TXDCTL_PREFETCH | TXDCTL_ENABLE)\n    bar.write32(DMATXCTL, bar.read32(DMATXCTL) | DMATXCTL_TE)\n", "TXDCTL", "4.6.8"),
    Mistake("lab6", "TXDCTL.ENABLE not waited for", "    wait_for(bar, TXDCTL, TXDCTL_ENABLE, TXDCTL_ENABLE)\n", "", "TXDCTL", "4.6.8.1"),
    Mistake("lab6", "EOP missing", " | IFCS | EOP |", " | IFCS |", "EOP", "7.2.3.2.4"),
    Mistake("lab6", "IFCS missing", " | IFCS | EOP |", " | EOP |", "IFCS", "7.2.3.2.4"),
    Mistake("lab6", "RS never set", "DEXT | RS | IFCS", "DEXT | IFCS", "RS", "7.2.3.2.4"),
    Mistake("lab6", "DEXT missing", "PAYLEN_SHIFT | DEXT |", "PAYLEN_SHIFT |", "DEXT", "7.2.3.2.4"),
    Mistake("lab6", "DTYP missing", " | DTYP_DATA | length", " | length", "DTYP", "7.2.3.2.4"),
    Mistake("lab6", "PAYLEN missing", "length << PAYLEN_SHIFT | DEXT", "DEXT", "PAYLEN", "7.2.3.2.4"),
    Mistake("lab6", "DTALEN missing", " | DTYP_DATA | length", " | DTYP_DATA", "DTALEN", "7.2.3.2.4"),
    Mistake("lab6", "length in the wrong word", "struct.pack(\"<QQ\", ring.pool.address(buffer), command)", "struct.pack(\"<QQ\", ring.pool.address(buffer) | length, command & ~0xFFFF)", "DTALEN", "7.2.3.2.4"),
    Mistake("lab6", "the words of the descriptor swapped", "ring.pool.address(buffer), command)", "command, ring.pool.address(buffer))", "Address", "7.2.3.2.2"),
    Mistake("lab6", "descriptors big-endian", 'struct.pack("<QQ"', 'struct.pack(">QQ"', "Address", "7.2.3.2"),
    Mistake("lab6", "the buffer's number instead of its address", "ring.pool.address(buffer), command", "buffer, command", "Address", "7.2.3.2.4"),
    Mistake("lab6", "tail one short", "ring.bar.write32(TDT, following)", "ring.bar.write32(TDT, slot)", "TDT", "7.2.3.3"),
    Mistake("lab6", "tail one too far", "ring.bar.write32(TDT, following)", "ring.bar.write32(TDT, (following + 1) % ring.size)", "TDT", "7.2.3.3"),
    Mistake("lab6", "head and tail swapped", "ring.bar.write32(TDT, following)", "ring.bar.write32(TDH, following)", "TDH", "8.2.3.9.8"),
    Mistake("lab6", "tail does not wrap", "following = (slot + 1) % ring.size", "following = slot + 1", "TDT", "7.2.3.3"),
    Mistake("lab6", "tail before the descriptor", "    ring.memory.write(slot * DESCRIPTOR, struct", "    ring.bar.write32(TDT, following)\n    ring.memory.write(slot * DESCRIPTOR, struct", "TDT", "7.2.3.3"),
    Mistake("lab6", "a full ring is not noticed", "    if following == ring.clean:\n        return False\n", "", "TDT", "7.2.3.3"),
    Mistake("lab6", "buffer back before it is sent", "    ring.next = following\n", "    ring.next = following\n    ring.pool.give(buffer)\n", "DD", "7.2.3.5"),
    Mistake("lab6", "DD not looked at", "        if not status & DD:\n            break\n", "", "DD", "7.2.3.5"),
    Mistake("lab6", "DD of receive descriptors", "DD = 1 << 32", "DD = 1 << 0", "DD", "7.2.3.5"),
    Mistake("lab6", "buffers leak", "        ring.pool.give(ring.buffers[ring.clean])\n", "", "DD", "7.2.3.5"),
    Mistake("lab6", "one buffer for all packets", "    buffer = ring.pool.take()\n", "    buffer = 0\n", "DD", "7.2.3.5"),
    Mistake("lab6", "cleaning goes beyond next", "    while ring.clean != ring.next:\n", "    while True:\n", "DD", "7.2.3.5"),
    Mistake("lab6", "the card does not append check sequences", " | HLREG0_TXCRCEN | HLREG0_TXPADEN", " & ~HLREG0_TXCRCEN | HLREG0_TXPADEN", "HLREG0", "8.2.3.22.8"),
    Mistake("lab6", "the card does not pad", " | HLREG0_TXCRCEN | HLREG0_TXPADEN", " & ~HLREG0_TXPADEN | HLREG0_TXCRCEN", "HLREG0", "8.2.3.22.8"),
    Mistake("lab6", "the arbiter works while packet buffers are set", "    bar.write32(RTTDCS, bar.read32(RTTDCS) | RTTDCS_ARBDIS)\n", "", "RTTDCS", "4.6.8"),
    Mistake("lab6", "no packet buffer", "TX_BUFFER << 10 if number == 0 else 0)", "0)", "TXPBSIZE", "8.2.3.9.13"),
    Mistake("lab6", "no requests allowed", "bar.write32(DTXMXSZRQ, 0xFFF)", "bar.write32(DTXMXSZRQ, 0)", "DTXMXSZRQ", "8.2.3.9.1"),
    # -- lab 7
    Mistake("lab7", "a tail for each packet", "        ring.next = (slot + 1) % ring.size\n    if packets:\n", "        ring.next = (slot + 1) % ring.size\n        ring.bar.write32(RDT + ring.registers, slot)\n    if packets:\n", "RDT", "7.1.9"),
    Mistake("lab7", "the tail is the next descriptor", "(ring.next - 1) % ring.size)\n    return packets", "ring.next)\n    return packets", "RDT", "7.1.9"),
    Mistake("lab7", "the buffer stays in the ring", "arm(ring, slot, fresh)", "arm(ring, slot, ring.buffers[slot])", "Packet Buffer Address", "7.1.9"),
    Mistake("lab7", "the fresh buffer is handed out", "packets.append((ring.buffers[slot],", "packets.append((fresh,", "Packet Buffer Address", "7.1"),
    Mistake("lab7", "a packet is lost when no buffer is free", "        if fresh is None:\n            break\n", "        if fresh is None:\n            ring.next = (slot + 1) % ring.size\n            break\n", "DD", "7.1.6.2"),
    Mistake("lab7", "a register is read for each batch", "    packets: list[Packet] = []\n", "    packets: list[Packet] = []\n    ring.bar.read32(0x01010)\n", "DD", "7.1.6.2"),
    Mistake("lab7", "a report for each packet", "        if slot % GROUP == GROUP - 1:\n            command |= RS\n", "        command |= RS\n", "RS", "7.2.3.5.1"),
    Mistake("lab7", "RS never set", "        if slot % GROUP == GROUP - 1:\n            command |= RS\n", "", "RS", "7.2.3.2.4"),
    Mistake("lab7", "RS in the first of a group", "if slot % GROUP == GROUP - 1:", "if slot % GROUP == 0:", "DD", "7.2.3.5"),
    Mistake("lab7", "the first of a group is looked at", "last = ring.clean + GROUP - 1", "last = ring.clean", "DD", "7.2.3.5"),
    Mistake("lab7", "DD not looked at", "        if not status & TX_DD:\n            break\n", "", "DD", "7.2.3.5"),
    Mistake("lab7", "one buffer of each group leaks", "range(ring.clean, ring.clean + GROUP)", "range(ring.clean, ring.clean + GROUP - 1)", "DD", "7.2.3.5"),
    Mistake("lab7", "a full ring is not noticed", "        if (slot + 1) % ring.size == ring.clean:\n            break\n", "", "TDT", "7.2.3.3"),
    Mistake("lab7", "not cleaned", "    clean_batch(ring)\n    sent = 0", "    sent = 0", "DD", "7.2.3.5"),
    Mistake("lab7", "the tail before the descriptors", "    clean_batch(ring)\n    sent = 0", "    clean_batch(ring)\n    ring.bar.write32(TDT, (ring.next + len(packets)) % ring.size)\n    sent = 0", "TDT", "7.2.3.3"),
    Mistake("lab7", "bus mastering forgotten", " | MEMORY_SPACE | BUS_MASTER", " | MEMORY_SPACE", "command register", "9.3.3.3", "lab1"),
    # -- lab 8
    Mistake("lab8", "counters are not added up", 'totals["rx_packets"] += bar', 'totals["rx_packets"] = bar', "GPRC", "8.2.3.23"),
    Mistake("lab8", "receive and transmit counters swapped", "GPRC = 0x04074\nGPTC = 0x04080", "GPTC = 0x04074\nGPRC = 0x04080", "GPRC", "8.2.3.23"),
    Mistake("lab8", "upper register first", '    low = bar.read32(GORCL)\n    totals["rx_bytes"] += bar.read32(GORCH) << 32 | low\n', '    high = bar.read32(GORCH)\n    totals["rx_bytes"] += high << 32 | bar.read32(GORCL)\n', "GORCL", "8.2.3.23"),
    Mistake("lab8", "upper register forgotten", "bar.read32(GOTCH) << 32 | low", "low", "GOTCL", "8.2.3.23"),
    Mistake("lab8", "upper register shifted by 16", "bar.read32(GOTCH) << 32", "bar.read32(GOTCH) << 16", "GOTCL", "8.2.3.23"),
    Mistake("lab8", "LINK_UP not looked at", " if links & LINKS_UP else 0", "", "LINKS", "8.2.3.22.20"),
    Mistake("lab8", "LINK_SPEED from the wrong bits", "LINKS_SPEED_SHIFT = 28", "LINKS_SPEED_SHIFT = 26", "LINKS", "8.2.3.22.20"),
    Mistake("lab8", "buffers of dropped packets leak", "            for buffer, _ in packets[sent:]:\n                source.rx.pool.give(buffer)\n", "", "DD", "7.2.3.5"),
    Mistake("lab8", "buffers of sent packets go back, too", "in packets[sent:]:", "in packets:", "DD", "7.2.3.5"),
    Mistake("lab8", "the last packet of each batch leaks", "in packets[sent:]:", "in packets[sent + 1 :]:", "DD", "7.2.3.5"),
    Mistake("lab8", "one way only", "((first, second), (second, first))", "((first, second),)", "forward", ""),
    Mistake("lab8", "packets go back where they came from", "target.tx, packets", "source.tx, packets", "forward", ""),
    Mistake("lab8", "RXEN stays set", "    bar.write32(RXCTRL, bar.read32(RXCTRL) & ~RXCTRL_RXEN)\n", "", "RXCTRL", "4.6.7.1.2"),
    Mistake("lab8", "queues stay enabled", "        bar.write32(control, bar.read32(control) & ~enable)\n        wait_for(bar, control, enable, 0)\n", "        pass\n", "RXDCTL", "4.6.7.1.2"),
    Mistake("lab8", "queues' end not waited for", "        wait_for(bar, control, enable, 0)\n", "", "RXDCTL", "4.6.7.1.2"),
    Mistake("lab8", "only the receive queue is stopped", "((RXDCTL, RXDCTL_ENABLE), (TXDCTL, TXDCTL_ENABLE))", "((RXDCTL, RXDCTL_ENABLE),)", "TXDCTL", "4.6.8.1"),
    Mistake("lab8", "requests go on", "    bar.write32(CTRL, bar.read32(CTRL) | CTRL_MASTER_DISABLE)\n    wait_for(bar, STATUS, STATUS_MASTER_ENABLE, 0)\n", "", "CTRL", "5.2.5.3.2"),
    Mistake("lab8", "pending requests not waited for", "    wait_for(bar, STATUS, STATUS_MASTER_ENABLE, 0)\n", "", "STATUS", "5.2.5.3.2"),
    # -- extras
    Mistake("interrupts", "IVAR's valid bit forgotten", "IVAR_VALID | 0)", "0)", "IVAR", "8.2.3.5.16"),
    Mistake("interrupts", "IVAR of the transmit queue", "bar.read32(IVAR) & ~0xFF | IVAR_VALID | 0", "bar.read32(IVAR) & ~0xFF00 | IVAR_VALID << 8", "IVAR", "8.2.3.5.16"),
    Mistake("interrupts", "another vector", "IVAR_VALID | 0)", "IVAR_VALID | 1)", "IVAR", "8.2.3.5.16"),
    Mistake("interrupts", "EIAC forgotten", "    bar.write32(EIAC, 1 << 0)\n", "", "EIAC", "8.2.3.5.5"),
    Mistake("interrupts", "EIAM_EX forgotten", "    bar.write32(EIAM_EX, 1 << 0)\n", "", "EIAM_EX", "8.2.3.5.10"),
    Mistake("interrupts", "EIAME forgotten", " | GPIE_EIAME", "", "EIAM_EX", "8.2.3.5.10"),
    Mistake("interrupts", "never unmasked", "    ring.bar.write32(EIMS, 1 << 0)\n", "", "EIMS", "8.2.3.5.3"),
    Mistake("interrupts", "unmasked once", "    ring.bar.write32(EIMS, 1 << 0)\n", "    if not hasattr(ring, 'armed'):\n        ring.bar.write32(EIMS, 1 << 0)\n        ring.armed = True\n", "EIMS", "8.2.3.5.3"),
    Mistake("interrupts", "sleeps without a look", "    if packet is not None:\n        return packet\n    ring", "    interrupt.wait(timeout)\n    ring", "DD", "7.1.6.2"),
    Mistake("interrupts", "no sleep", " and interrupt.wait(timeout)", "", "EIMS", "7.3.1"),
    Mistake("rss", "key big-endian", 'struct.unpack("<10I", key)', 'struct.unpack(">10I", key)', "RSSRK", "8.2.3.7.15"),
    Mistake("rss", "table big-endian", 'struct.unpack("<32I", bytes(table))', 'struct.unpack(">32I", bytes(table))', "RETA", "8.2.3.7.14"),
    Mistake("rss", "half of the table", "enumerate(struct.unpack(\"<32I\", bytes(table)))", "enumerate(struct.unpack(\"<16I\", bytes(table[:64])))", "RETA", "8.2.3.7.14"),
    Mistake("rss", "not switched on", "MRQC_RSS | MRQC_TCP_IPV4", "MRQC_TCP_IPV4", "MRQC", "8.2.3.7.12"),
    Mistake("rss", "UDP left out", " | MRQC_UDP_IPV4)", ")", "MRQC", "8.2.3.7.12"),
    Mistake("rss", "PCSD forgotten", "    bar.write32(RXCSUM, bar.read32(RXCSUM) | RXCSUM_PCSD)\n", "", "RXCSUM", "8.2.3.7.5"),
    Mistake("rss", "hash from the lower half", "kind >> HASH_SHIFT if", "kind & 0xFFFFFFFF if", "RSS Hash", "7.1.6.2"),
    Mistake("rss", "DD not looked at", " if status & DD else None", " if status is not None else None", "DD", "7.1.6.2"),
)  # fmt: skip


@contextmanager
def handed_in(*changes: tuple[str, str, str]) -> Iterator[Path]:
    """A directory with the solutions, of which (file, old, new) are changed."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for lab in LABS:
            shutil.copy(lab.solution, directory)
        for file, old, new in changes:
            path = directory / f"{file}.py"
            text = path.read_text()
            assert text.count(old) == 1, f"{file}: {old!r} stands there {text.count(old)} times"
            path.write_text(text.replace(old, new))
        yield directory


def tried(mistake: Mistake) -> Result:
    """What the check finds."""
    with handed_in((mistake.file or mistake.lab, mistake.old, mistake.new)) as directory:
        return judge(lab_of(mistake.lab), directory, DEADLINE, quiet=True)


def found(mistake: Mistake, result: Result) -> bool:
    """Whether a finding names what the row wants."""
    return not result.passed and any(
        mistake.field in finding.subject + finding.sentence and finding.section.startswith(mistake.section)
        for finding in result.findings
    )


def main(names: Sequence[str]) -> int:
    """Try all, or those of some labs; whether too many were missed, or there was a false alarm."""
    labs = [lab for lab in LABS if not names or lab.name in names or lab.number in names]
    missed = alarms = tries = 0
    for lab in labs:
        begun = time.monotonic()
        ways = {"the solution": (), **WAYS[lab.name]}
        for name, changes in ways.items():
            with handed_in(*changes) as directory:
                result = judge(lab, directory, DEADLINE, quiet=True)
            alarms += not result.passed
            print(f"{'right' if result.passed else 'FALSE ALARM'}: {lab.name}, {name}", *result.findings, sep="\n  ")
        for mistake in (mistake for mistake in MISTAKES if mistake.lab == lab.name):
            result = tried(mistake)
            tries += 1
            caught = found(mistake, result)
            missed += not caught
            print(f"{'found' if caught else 'MISSED'}: {lab.name}, {mistake.name}")
            print(
                *([f"  {result.findings[0]}"] if caught else [f"  {finding}" for finding in result.findings]), sep="\n"
            )
        print(f"{lab.name}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{tries - missed} of {tries} mistakes were found; {alarms} false alarms")
    return int(alarms > 0 or missed > (1 - ENOUGH) * tries)


assert SOLUTIONS.is_dir()

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
