"""The rules for drivers: what the datasheet asks of software, and what a card does when that is not done.

A rule is a row. Some are punished: what a card does then, its `source` says, and the model does the same. Others are
reported only: the datasheet forbids it, and cards are known to bear it. What a driver that works on cards does is never
punished. There is no mode that forgives.

`supervision.py` looks at those about registers when these are accessed. Kernels find those about descriptors broken
(`judge.py`), and are called only then. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ixy.sim.card import state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("ixy.sim")


class Then(Enum):
    """What the card does."""

    BEARS = "nothing: cards bear it"
    IGNORES = "the write has no effect"
    STAYS = "the write has no effect, and the reset is never over: RDRXCTL.DMAIDONE stays 0, there is no DMA"
    HANGS = "the queue hangs until a reset: nothing is fetched or written back, though it reads as enabled"
    DROPS = "each packet that arrives is dropped, and counted in RXMPC"
    KEEPS = "nothing leaves"
    REFUSES = "the access does not take place"
    UNREPORTED = "the descriptor is not written back"
    UNCHECKED = "the frame leaves without a check sequence, and whoever receives it drops it"
    SHORT = "the frame leaves too short, and whoever receives it drops it"
    SPOILS = "a byte in each cache line of the payload is wrong"
    FORGETS = "the flow director's filters match nothing: packets lie where they should be"


@dataclass(frozen=True)
class Rule:
    """One row.

    Attributes:
        subject: the register, or the field of a descriptor.
        section: of the datasheet.
        broken: when it is, in words.
        then: what the card does.
        sentence: for the driver's author.
        source: who says that a card does so; empty for a rule that is reported only.
    """

    name: str
    subject: str
    section: str
    broken: str
    then: Then
    sentence: str
    source: str = ""

    @property
    def punished(self) -> bool:
        return self.then is not Then.BEARS


_KLINT = "klint, whose proof needs it"
_DATASHEET = "the datasheet"

RULES = [
    # 4.6.3 Reset
    Rule(
        "early-access",
        "all registers but CTRL, STATUS and semaphores",
        "8.2.3.1.1",
        "written within 1 ms of CTRL.RST or LRST, before these have been read as 0",
        Then.STAYS,
        "after setting CTRL.RST or LRST wait 1 ms, and until they read 0, before accessing any other register",
        "the datasheet: so is ensured that the reset has completed; Linux and DPDK look at STATUS and CTRL before",
    ),
    # 4.6.7 Receive
    Rule(
        "rx-ring-base",
        "RDBAL",
        "8.2.3.8.1",
        "written with an address that is no multiple of 128",
        Then.HANGS,
        "align the receive ring to 128 bytes: RDBAL has no bits for less",
        "the datasheet, by which it must be: what is fetched are no descriptors of the driver's",
    ),
    Rule(
        "rx-ring-length",
        "RDLEN",
        "8.2.3.8.3",
        "written with a length that is no multiple of 128",
        Then.HANGS,
        "make RDLEN a multiple of 128: a receive ring has a multiple of 8 descriptors",
        f"the datasheet, by which the length must be one; {_KLINT}",
    ),
    Rule(
        "rx-buffer-size",
        "SRRCTL",
        "8.2.3.8.7",
        "BSIZEPACKET is 0 while packets are let in",
        Then.DROPS,
        "set SRRCTL.BSIZEPACKET to the size of your receive buffers in KiB, 1 to 16: with 0 nothing fits in",
        f"the datasheet, by which it is 1 to 16; {_KLINT}",
    ),
    Rule(
        "rx-tail-early",
        "RDT",
        "4.6.7",
        "bumped before RXDCTL.ENABLE reads 1",
        Then.IGNORES,
        "set RXDCTL.ENABLE and wait until it reads 1 before bumping RDT: what is written before is lost",
        "the datasheet, by which the tail should not be bumped before",
    ),
    Rule(
        "rx-head",
        "RDH",
        "8.2.3.8.4",
        "changed while the queue is enabled",
        Then.HANGS,
        "write RDH only before the receive queue is enabled",
        "the datasheet: descriptors on the chip may become invalid; DPDK and ixy write 0 where it is 0",
    ),
    Rule(
        "rx-packet-buffer",
        "RXPBSIZE",
        "8.2.3.8.9",
        "that of packet buffer 0 is 0 while packets are let in",
        Then.DROPS,
        "give packet buffer 0 a size in RXPBSIZE[0], such as 512 KiB: with 0 there is no room for any packet",
        "klint: 512 KiB without DCB and virtualisation",
    ),
    Rule(
        "flow-table-room",
        "FDIRCTRL",
        "7.1.2.7.5",
        "PBALLOC takes memory that RXPBSIZE gives to packet buffers, of all eight, while packets are let in",
        Then.FORGETS,
        "make room for the flow director's table in RXPBSIZE[0], and set the seven other packet buffers to 0",
        "DPDK and FreeBSD: the filters would run into packet buffer 0",
    ),
    Rule(
        "no-snoop",
        "DCA_RXCTRL",
        "4.6.7",
        "bit 12 is 1 and CTRL_EXT.NS_DIS is 0 when a packet is received",
        Then.SPOILS,
        "set CTRL_EXT.NS_DIS, and clear bit 12 of DCA_RXCTRL, as the end of section 4.6.7 asks",
        "iPXE: else received packets contain garbage",
    ),
    Rule(
        "rx-tail-beyond",
        "RDT",
        "7.1.9",
        "it, or RDH, lies beyond the ring",
        Then.DROPS,
        "keep RDT below the number of receive descriptors, RDLEN / 16",
        "the datasheet, by which they are indices of descriptors of the ring",
    ),
    # 4.6.8 Transmit
    Rule(
        "tx-ring-base",
        "TDBAL",
        "8.2.3.9.5",
        "written with an address that is no multiple of 128",
        Then.HANGS,
        "align the transmit ring to 128 bytes: TDBAL has no bits for less",
        "the datasheet, by which it must be: what is fetched are no descriptors of the driver's",
    ),
    Rule(
        "tx-ring-length",
        "TDLEN",
        "8.2.3.9.7",
        "written with a length that is no multiple of 128",
        Then.HANGS,
        "make TDLEN a multiple of 128: a transmit ring has a multiple of 8 descriptors",
        f"the datasheet, by which the length must be one; {_KLINT}",
    ),
    Rule(
        "tx-tail-early",
        "TDT",
        "4.6.8.1",
        "bumped before TXDCTL.ENABLE is set",
        Then.IGNORES,
        "set TXDCTL.ENABLE and wait until it reads 1 before bumping TDT: what is written before is lost",
        f"the datasheet, by which the bit is polled first; {_KLINT}",
    ),
    Rule(
        "tx-head",
        "TDH",
        "8.2.3.9.8",
        "changed while the queue is enabled",
        Then.HANGS,
        "write TDH only before the transmit queue is enabled",
        "the datasheet: descriptors on the chip may become invalid",
    ),
    Rule(
        "tx-disabled",
        "DMATXCTL",
        "8.2.3.9.2",
        "TE is 0 while a queue that is enabled has descriptors",
        Then.KEEPS,
        "set DMATXCTL.TE: without it no transmit queue works, whatever TXDCTL.ENABLE says",
        _DATASHEET,
    ),
    Rule(
        "tx-packet-buffer",
        "TXPBSIZE",
        "8.2.3.9.13",
        "that of packet buffer 0 is 0 while DMATXCTL.TE is 1",
        Then.KEEPS,
        "give packet buffer 0 a size in TXPBSIZE[0], such as 160 KiB: with 0 no packet is fetched",
        "the datasheet: 160 KiB without DCB and virtualisation",
    ),
    Rule(
        "tx-requests",
        "DTXMXSZRQ",
        "8.2.3.9.1",
        "MAX_BYTES_NUM_REQ is 0 while DMATXCTL.TE is 1",
        Then.KEEPS,
        "set DTXMXSZRQ, to 0xFFF without DCB: with 0 no byte may be requested",
        "the datasheet: so many are outstanding at most",
    ),
    Rule(
        "tx-tail-beyond",
        "TDT",
        "7.2.3.3",
        "it, or TDH, lies beyond the ring",
        Then.HANGS,
        "keep TDT below the number of transmit descriptors, TDLEN / 16",
        "the datasheet, by which they are indices of descriptors of the ring",
    ),
    # 7.2.3 Transmit descriptors
    Rule(
        "payload-length",
        "PAYLEN",
        "7.2.3.2.4",
        "that of the packet's first descriptor is not the sum of its DTALENs; where TSE is set, without the headers",
        Then.HANGS,
        "set PAYLEN in an advanced data descriptor to the length of the whole packet, its headers only without TSE",
        "the datasheet: so much is fetched; only an 82598 looks at it with TSE alone",
    ),
    Rule(
        "descriptor-extension",
        "DEXT",
        "7.2.3.2.4",
        "it is 0 in a descriptor whose DTYP and PAYLEN are set",
        Then.HANGS,
        "set DEXT in advanced descriptors: without it the card reads a legacy one, PAYLEN as CSS and VLAN",
        "the datasheet, by which it must be 1",
    ),
    Rule(
        "descriptor-type",
        "DTYP",
        "7.2.3.2.4",
        "neither 0010b (context) nor 0011b (data) where DEXT is 1",
        Then.HANGS,
        "set DTYP to 0011b in data descriptors, and to 0010b in context descriptors",
        "the datasheet, which has no other type",
    ),
    Rule(
        "segmentation",
        "MSS, L4LEN, MACLEN, IPLEN",
        "7.2.3.2.3",
        "TSE is set and MSS is 0, or the headers are no TCP headers or leave no payload",
        Then.HANGS,
        "before a packet with TSE give its queue a context descriptor with MSS, MACLEN, IPLEN and L4LEN",
        "the datasheet: segments are made of these",
    ),
    Rule(
        "report-without-end",
        "RS",
        "7.2.3.2.4",
        "set in a data descriptor without EOP",
        Then.UNREPORTED,
        "set RS in the last descriptor of a packet, the one with EOP",
        "the datasheet: status is reported of packets",
    ),
    Rule(
        "no-check-sequence",
        "IFCS",
        "7.2.3.2.4",
        "it is 0",
        Then.UNCHECKED,
        "set IFCS in each data descriptor, so that the card appends the frame check sequence",
        "the datasheet: then software has to",
    ),
    # 8.2.3.22.8 MAC
    Rule(
        "check-sequence-off",
        "HLREG0",
        "8.2.3.22.8",
        "TXCRCEN is 0 when a packet is sent",
        Then.UNCHECKED,
        "set HLREG0.TXCRCEN, so that the card appends the frame check sequence",
        _DATASHEET,
    ),
    Rule(
        "padding-off",
        "HLREG0",
        "8.2.3.22.8",
        "TXPADEN is 0 when a packet of less than 60 bytes is sent",
        Then.SHORT,
        "set HLREG0.TXPADEN, so that the card pads short packets, or pad them to 60 bytes",
        _DATASHEET,
    ),
    # DMA
    Rule(
        "master-disabled",
        "CTRL",
        "5.2.5.3.2",
        "a queue is enabled while PCIE_MASTER_DISABLE is 1",
        Then.REFUSES,
        "clear CTRL.PCIE_MASTER_DISABLE, or reset the card, before enabling queues: until then it does no DMA",
        _DATASHEET,
    ),
    Rule(
        "not-bus-master",
        "command register of the configuration space",
        "9.3.3.3",
        "bit 2 is 0 while a queue works",
        Then.REFUSES,
        "set the bus master bit in the PCI command register: without it the card does no DMA",
        "PCI Local Bus 3.0, 6.2.2",
    ),
    Rule(
        "dma-refused",
        "addresses of rings and buffers",
        "7.1.5, 7.2.3",
        "outside the memory that is shown to the card",
        Then.REFUSES,
        "give the card addresses as it sees them, of memory that is mapped for it, not pointers",
        "PCI Express Base 3.0, 2.3.1: unsupported request",
    ),
    # 7.10 Virtual functions
    Rule(
        "function-disabled",
        "PFVFTE",
        "8.2.3.27.8",
        "the bit of a function is 0 while it has descriptors to send",
        Then.KEEPS,
        "of a virtual function: ask for a reset by the mailbox, and wait for the answer, before you send; of the"
        " physical one: set its bit in PFVFTE when you answer",
        _DATASHEET,
    ),
    # What cards bear
    Rule(
        "hurried-access",
        "all registers but CTRL, STATUS and semaphores",
        "8.2.3.1.1",
        "read within 1 ms of CTRL.RST or LRST, or written once these have been read as 0",
        Then.BEARS,
        "wait 1 ms after setting CTRL.RST or LRST, even if they read 0 before",
    ),
    Rule(
        "receive-path-open",
        "RXCTRL",
        "4.6.7",
        "RXEN is set while the path is not halted by SECRXCTRL.RX_DIS",
        Then.BEARS,
        "halt the receive path before setting RXCTRL.RXEN: set SECRXCTRL.RX_DIS, wait for SECRXSTAT.SECRX_RDY",
    ),
    Rule(
        "enable-not-awaited",
        "RXDCTL, TXDCTL",
        "4.6.7, 4.6.8.1",
        "RDT or TDT is bumped though nobody has read ENABLE as 1",
        Then.BEARS,
        "read RXDCTL or TXDCTL until ENABLE is 1 before bumping the tail: that it is by then is luck",
    ),
    Rule(
        "strip-unequal",
        "RDRXCTL",
        "8.2.3.8.8",
        "CRC_STRIP is not HLREG0.RXCRCSTRP when RXEN is set",
        Then.BEARS,
        "set RDRXCTL.CRC_STRIP and HLREG0.RXCRCSTRP to the same value",
    ),
    Rule(
        "coalescing-defaults",
        "RDRXCTL",
        "8.2.3.8.8",
        "RSCFRSTSIZE is not 0, or RSCACKC or FCOE_WRFIX is 0, when RXEN is set",
        Then.BEARS,
        "set RDRXCTL.RSCFRSTSIZE to 0, RSCACKC and FCOE_WRFIX to 1: the values after reset are not to stay",
    ),
    Rule(
        "high-water",
        "FCRTH",
        "4.6.3.2",
        "RTH of packet buffer 0 is 0, or beyond RXPBSIZE[0], when RXEN is set",
        Then.BEARS,
        "set FCRTH[0].RTH to RXPBSIZE[0] - 24 KiB, also without flow control",
    ),
    Rule(
        "queue-before-engine",
        "TXDCTL",
        "4.6.8",
        "ENABLE is set before DMATXCTL.TE",
        Then.BEARS,
        "set DMATXCTL.TE before you enable transmit queues",
    ),
    Rule(
        "arbiter-active",
        "TXPBSIZE, TXPBTHRESH, DTXMXSZRQ",
        "4.6.8",
        "written while RTTDCS.ARBDIS is 0",
        Then.BEARS,
        "set RTTDCS.ARBDIS before you set the transmit packet buffers, and clear it afterwards",
    ),
    Rule(
        "mailbox-not-taken",
        "VFMBMEM, PFMBMEM",
        "8.2.3.27.2",
        "written by who has not taken the mailbox: VFU or PFU is 0",
        Then.BEARS,
        "take the mailbox first: set VFU, or PFU, and go on only if it reads 1",
    ),
    Rule(
        "mailbox-during-reset",
        "VFMAILBOX",
        "8.3",
        "REQ is set while RSTI is 1",
        Then.BEARS,
        "wait until VFMAILBOX.RSTI is 0 before you ask anything: the physical function is not up yet",
    ),
    Rule(
        "pools-unequal",
        "GCR_EXT, MRQC",
        "7.10.2.7",
        "VT_MODE and MRQE divide the queues into pools of different sizes when RXEN is set",
        Then.BEARS,
        "let GCR_EXT.VT_MODE and MRQC.MRQE agree on how many pools there are",
    ),
    Rule(
        "vlan-check-alone",
        "PFVFSPOOF",
        "8.2.3.27.11",
        "a pool's bit in VLANAS is set without that in MACAS",
        Then.BEARS,
        "set MACAS, too, for each pool for which VLANAS is set",
    ),
]
BY_NAME = {rule.name: rule for rule in RULES}

# Those that kernels find broken
OF_KERNELS = {
    state.PAYLEN: "payload-length",
    state.DEXT: "descriptor-extension",
    state.DTYP: "descriptor-type",
    state.MSS: "segmentation",
    state.RS: "report-without-end",
    state.IFCS: "no-check-sequence",
    state.TXCRCEN: "check-sequence-off",
    state.TXPADEN: "padding-off",
    state.TX_TAIL: "tx-tail-beyond",
    state.RX_TAIL: "rx-tail-beyond",
    state.NO_SNOOP: "no-snoop",
}


@dataclass
class Breach:
    """A rule that a driver broke.

    Attributes:
        count: how often.
        first: where the first time.
    """

    rule: Rule
    first: str
    count: int = 0


class Breaches:
    """The rules that the driver of one card has broken.

    Args:
        card: its name, for messages.
        counters: the card's row of the rack's.
    """

    def __init__(self, card: str, counters: NDArray[np.int64]) -> None:
        self._card = card
        self._counters = counters
        self._found: dict[str, Breach] = {}

    def note(self, name: str, where: str) -> None:
        """A rule is broken; the first time, the log says so."""
        self._breach(name, where).count += 1

    def collect(self) -> dict[str, Breach]:
        """All of them by the rule's name, what kernels have found included."""
        for number, name in OF_KERNELS.items():
            count, first = (int(word) for word in self._counters[state.BREACHES + 2 * number :][:2])
            if count:
                queue, slot = first >> 32, first & 0xFFFFFFFF
                side = "receive" if name.startswith("rx") or number == state.NO_SNOOP else "transmit"
                self._breach(name, f"descriptor {slot} of {side} queue {queue}").count = count
        if refused := int(self._counters[state.DMA_REFUSED]):
            address = int(self._counters[state.DMA_ADDRESS]) & (1 << 64) - 1
            self._breach("dma-refused", f"the last at address {address:#x}").count = refused
        return self._found

    def _breach(self, name: str, where: str) -> Breach:
        if name not in self._found:
            rule = BY_NAME[name]
            self._found[name] = Breach(rule, where)
            level = logging.WARNING if rule.punished else logging.INFO
            log.log(level, "sim:%s: %s (%s; datasheet section %s)", self._card, rule.sentence, where, rule.section)
        return self._found[name]
