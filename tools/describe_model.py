"""Write docs/model.md: what the simulated 82599 does and does not do, register by register.

Run it with the package importable: `python tools/describe_model.py`. The table comes from the declaration of the
registers and from the model's own rules; only the text before it is written here.
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

from ixy.registers import LOWER, Register, Reset
from ixy.registers import i82599 as reg
from ixy.sim import pause, switch
from ixy.sim.card import (
    classify,
    coalesce,
    dma,
    driver_rules,
    filters,
    flow_director,
    formats,
    frame,
    offload,
    pools,
    rate,
    receive,
    timestamps,
    transmit,
    write_back,
)
from ixy.sim.card import registers as card
from ixy.sim.machine import Machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model.md"

HEAD = """# The simulated 82599

One model stands behind `sim:` addresses and behind `ixy sim qemu`. This page is made by `tools/describe_model.py` from
the declaration of the registers (`ixy.registers.i82599`) and from the model's rules. Sections are those of the Intel
82599 datasheet, revision 3.3.

## What it does

- Receive: filters by address (exact, multicast and unicast hash, promiscuous) and by VLAN, size limits, jumbo frames
  over several buffers, VLAN stripping, RSS over up to 16 queues (Toeplitz hash, redirection table), packet type, also
  behind IPv4 options and IPv6 extension headers, checksums of IPv4, TCP, UDP and SCTP and of UDP in fragments,
  `DROP_EN`. The tags are those of VLNCTRL.VET, behind one of EXVET where double VLAN is enabled. The frame check
  sequence is kept if neither HLREG0.RXCRCSTRP nor RDRXCTL.CRC_STRIP is set.
- Receive descriptors: legacy, and advanced ones of one buffer, with headers split off by PSRTYPE[0], or with a header
  buffer always used. A queue with another type loses what it is sent. Receive-side coalescing (RSC) of TCP segments
  over IPv4 and IPv6, 32 connections at a time; what is not complete by PSH or by what follows is so at the end of the
  card's turn, as EITR's timer would see to it.
- Filters that choose a queue, in the card's order: by Ethertype (ETQF, whose number the descriptor tells), by five
  fields (FTQF and its tables, by priority and masks) and SYN, the flow director with perfect match (IPv4) or signatures
  (IPv6 too), its masks, flexible bytes, drop queue, reports and counters. Its table has the room that PBALLOC says, and
  is of the buckets that software names; adding, updating, removing and asking do what FDIRCMD says, and fill FDIRFREE,
  FDIRLEN, FDIRUSTAT and FDIRFSTAT; EICR's bit 16 is raised when FULL_THRESH is reached, and when there is no room. It
  is made anew by FDIRCTRL after a reset or CLEARHT only. Then RSS.
- Pools (VMDq): by MPSAR, PFUTA, MTA and PFVML2FLT, VLANs by PFVLVF, the default pool, an Ethertype filter's pool,
  PFVFRE; broadcasts and multicasts are replicated. In a pool the queue is the first, or RSS's as far as RQPL says, or
  that of the traffic class. Without pools, queues by traffic class (RTRUP2TC), each with RSS or not.
- Virtual functions, see below: their registers, mailboxes, interrupts and resets; what pools send goes to other pools
  and to the wire (PFDTXGSWC, PFVMTXSW), with the tag of its pool (PFVMVIR), if it has an address and a VLAN of its
  pool's (PFVFSPOOF, counted in SSVPC).
- Transmit: legacy, advanced and null descriptors, context descriptors, packets of several buffers, IPv4, TCP, UDP and
  SCTP checksums, TCP segmentation over IPv4 and IPv6 with the flags of DTXTCPFLGL and DTXTCPFLGH, insertion of VLAN
  tags (DMATXCTL.VT, behind an outer one with GDV), padding, MAC loopback. Status is written back where RS asks for it:
  at once, with WTHRESH beyond 1 several at a time, or at the end of the card's turn; or the head is (TDWBAL).
- Interrupts: MSI-X with EIAC, EIAM and EITR, causes of queues and of a link change; in QEMU MSI and INTx, too. Vital
  product data.
- DMA: refused outside the memory that is shown to the card, while it is no bus master, and under master disable.
- Statistics: of the port, of sizes and of queues; they clear on read and stick at their largest value.
- EEPROM by EERD, with a right checksum; an SFP+ module on the I2C bus; semaphores; a link, which is up while
  somebody is at the other end of the wire, and LSC when that changes.
- Pause frames: with MFLCN.RFCE they are obeyed, and with DPF they end there; MFLCN.PMCF lets other MAC control frames
  pass. With FCCFG.TFCE and FCRTH.FCEN the card sends them itself, see below.
- IEEE 1588: a clock that TIMINCA drives and TIMADJ adjusts; stamps of PTP messages of versions 1 and 2, over Ethernet
  by an Ethertype filter and over UDP, and of packets whose transmit descriptors ask for one. A stamp is taken when a
  frame begins to leave, and when it has arrived.
- Rates of transmit queues by RTTDQSEL and RTTBCNRC: a fraction of the link's, of frames with their check sequences,
  preamble and gap aside. Where frames take no time, the link is one of 10 Gbit/s. RTTBCNRM says how much is made up
  for.
- 128 receive and 128 transmit queues; RSS names 16 of them.
- Resets: CTRL.RST, CTRL.LRST, which takes the link's mode along, and that of the function. What survives them is in
  the table. "Anything" is what a register holds after power-on if it then has no value: something else for each card,
  or for each `seed=`, so that a driver that forgets to clear a table is found.
- Bits that software waits for take their time: CTRL.RST and LRST clear, EEC.AUTO_RD, RDRXCTL.DMAIDONE and
  LINKS.LINK_UP set after a reset; RXDCTL.ENABLE, TXDCTL.ENABLE and SECRXSTAT.SECRX_RDY follow what is asked for, and
  EERD.DONE, with the word. They do so after three reads of registers, or as many as `ready=` says, the EEPROM and DMA
  after twice as many. What is behind a bit has happened at once. This driver looks once a millisecond, and gives up
  after a second: with `ready=1000` it says for which bit it waited.
- Wires with times (`rate=`, `timing=original`) begin with a frame. Their clock stands still until software that polls
  has taken that from its queue; from then on the card drops what it has no room for. Other wires wait for the card.

## What it does not do

- Receive-side coalescing into descriptors with split headers: there each packet comes by itself. RSCDBU changes
  nothing: segments without a payload are never coalesced.
- Flow director: IPv6 with perfect match. Drivers do not ask for it.
- Virtualisation: mirroring between pools. Frames for pools do not wait in the packet buffer, and nothing is coalesced
  in the queues of virtual functions. PFQDE is memory: a wire that waits for the card waits until some function has
  room, and what is for one that has none is lost.
- The SR-IOV capability: a virtual machine sees 256 bytes of configuration space, and so virtual functions only as
  functions of their own, whose driver is not to be told from one that was handed through.
- DCB but for the choice of a receive queue, in which all of RSS's four bits count in a class, whatever RQTC says; pause
  frames by priority (IEEE 802.1Qbb).
- FCoE, IPsec, low-latency interrupts, the TCP timer, wake-up, management, writing the EEPROM or flash.
- IEEE 1588: target times, the clock's output and auxiliary stamps.
- Timing: EITR's interval is kept by the host's clock, as is all other time, unless that is virtual.
- Tunnels: what they carry is not looked at.
- Errors on the wire: a frame that would arrive with a wrong check sequence arrives nowhere, and is counted nowhere.
- Other kinds of cards than an 82599ES with an SFP+ module and an X540.
- A driver in the same process, as this one, is told packet types and checksums once it has set RXCSUM or MRQC; one in a
  virtual machine always, as by a card.

## Rules for drivers

What the datasheet asks of a driver, and what becomes of one that does not do it. A rule is punished where a source says
what a card does then: the model does the same, for there is one card, and it is strict. Other rules are reported only,
as cards bear it. What a driver that works on cards does, such as Linux's, DPDK's, iPXE's, FreeBSD's, Snabb's, TinyNF's
or ixy's, is punished by none. The first time that a rule is broken, the log says so, by a sentence that says what to do
(`-v` for what is reported only). `ixy sim report`, the end of `ixy sim qemu`, and `ixy.sim.report("a")` in a program
that opens simulated cards itself tell all of them with their counts, beside a check-list of the datasheet's
initialisation.

A driver that works otherwise than any that was looked at may meet these: an enabled queue is there after three reads of
registers, or as `ready=` says, but 10 ms at the latest; and a reset is over after 1 ms, or once CTRL has been read.
With `clock=virtual` no access comes too early, as the pauses of drivers take no time then.

{rules}
## Time on the wire

Frames take no time, unless an address says `wire=10G`, `1G`, `100M` or another number of bits a second, 1M to 400G.
Then a frame of n bytes, its check sequence included, takes as long as n + 20 bytes do, in either direction; the queues
of a card send a packet each in turn, while the wire is free. Cards that were held up make up for a millisecond at once.
A cable is as fast as the slower of its ends. LINKS tells of 100 Mbit/s and 1 Gbit/s; else it says 10.

With `clock=virtual`, for all cards of a process, time is a number that starts at 1 s. A receive, a send or a turn of a
path takes 1 µs; a wait takes until it ends; nothing else takes time. Nothing is held up then, nothing is to be made up
for, and wires with times start at once.

## Pause frames

A wire that delivers frames by itself, such as a TAP device or a generator without a rate, waits for the card, as a link
partner that obeys pause frames would. From a cable, at a line's rate, or from a wire with times, frames come whether
there is a descriptor or not. If software has switched pause frames on, those of queues without DROP_EN then wait in the
packet buffer, of RXPBSIZE, and all others behind them; one for a queue that hangs, or for which the whole ring would
be too small, is lost. Above FCRTH.RTH the card sends XOFF, which it repeats FCRTV quanta before the time in FCTTV is
over, and after a quantum at the earliest; at FCRTL.RTL it sends XON, if XONE says so. The card at the other end, or
what the wire delivers frames from, sends nothing more meanwhile, but for the segments of a packet that it has begun.
Where software has not switched them on, frames without a descriptor are lost at once. A quantum is as long as 512 bits;
where frames take no time, as at 10 Gbit/s. A sink gets no pause frames. Pause frames that are sent count among all that
are, as Linux and DPDK take them out of the port's counters.

## Kinds of cards

`card=x540` makes a card an X540: device id 0x1528, packet buffers of 384 KiB, EEC.FLUDONE, a semaphore in
SW_FW_SYNC.REGSMP that the read takes which finds 0, and TIMINCA with an increment of 31 bits in each cycle. A copper
PHY answers at address 0 of the management bus: its link is the fastest of 10 Gbit/s, 1 Gbit/s and 100 Mbit/s that it
advertises and the wire has, negotiated anew when software restarts that. What is written to its other registers does
nothing. All else is as on an 82599.

## Virtual functions

`sim:a.vf0` is virtual function 0 of card a, a PCI function of its own: 8086:10ed, of an X540 8086:1515, with 16 KiB of
registers and three vectors of MSI-X. `vfs=` says how many there are, 1 to 63; if nothing is said, 8, or more if the
number is higher. Up to 31 have four queues each way, more have two. What the first one to be opened says is plugged
into the card is there for all, others are opened as `sim:a.vf1`. A card without a wire has no link, and without a link
no frame goes from function to function.

Registers of queues are those of the function's pool, seen at their places in its own BAR. Its mailbox is 16 words: VFU
and PFU exclude each other; REQ, ACK and STS are interrupts for the other side, which PFMBICR keeps until it is cleared,
and VFMAILBOX until it is read. RSTI says that the physical function is being reset, until it sets CTRL_EXT.PFRSTD. A
function-level reset stops the function's queues, clears its bits in PFVFRE and PFVFTE, and is told by PFVFLRE;
VFCTRL.RST stops the queues and clears what belongs to interrupts. Statistics of functions neither clear nor stick.

Each function does DMA by its own right to master the bus, and behind an IOMMU as a requester of its own. What is
refused is counted for it.

Whoever opens `sim:a,vfs=2` is the driver of the physical function. If nobody does, that is ours (`ixy.sim.physical`):
it brings the card up through its registers, and answers the mailboxes as Linux's ixgbe does, versions 1.0 to 1.4 of
that interface: RESET with the address, SET_MAC_ADDR, SET_MACVLAN, SET_MULTICAST, SET_VLAN, SET_LPE, API_NEGOTIATE,
GET_QUEUES, GET_RETA, GET_RSS_KEY, UPDATE_XCAST_MODE and GET_LINK_STATE. IPsec is refused. What a function may is said
in its address:

- `mac=02:00:00:00:00:01`: its address, which it then keeps. Else it has one by the card's and its number, and may have
  another one, though none that another function has.
- `vlan=7`: it is in this VLAN without knowing (PFVMVIR), and in no other.
- `spoof=off`: it may send with any address and VLAN.
- `trust=on`: it may change an address that it was given, add others, take all groups, and ask for the redirection table
  and the key, which are all functions'. All packets nobody gets from an 82599.

A packet whose end is not in its function's ring when the card gets there is dropped, so that no other one waits for it.
A function that sends more than 512 messages at once, and then one a millisecond, has the others refused. One that does
not let go of its mailbox is made to (RVFU). `ixy sim report` and the end of `ixy sim qemu` count for each function
requests, those that were refused, packets, those that were kept from being sent, and DMA that was refused.

## Cables that impair

`cable=b,delay=50us,jitter=5us,loss=0.01,duplicate=0.01,reorder=0.01,corrupt=0.01,seed=1` impairs both directions alike,
as long as the card is open whose address says so. What is under way when that card is closed is lost; commands wait
until what they sent has arrived. Where the other card's address names the cable with impairments too, each card's hold
for what that card sends. The words mean what they mean to `tc netem`. Each is decided for each frame by itself: from
the seed (0 if none is given), the direction and the frame's number follows what becomes of it, on any computer.

- `loss`: the probability that a frame never arrives. Nothing else becomes of it.
- `delay`: so long after it was sent a frame arrives; at most 10 s.
- `jitter`: or as much earlier or later, each moment alike. Frames that follow each other more closely may overtake.
- `reorder`: the probability that a frame is not delayed, and so overtakes those under way. It needs a delay.
- `corrupt`: the probability that one bit of a frame is inverted, each alike. As netem does it before the frame check
  sequence is made, the card at which it arrives takes it, if its address still fits.
- `duplicate`: the probability that a copy of a frame arrives besides, delayed by itself, neither corrupted nor
  reordered.

In each direction 16,384 frames can be under way, of at most 16 KiB. Others are lost, which is recorded as `OVERFLOWED`.
`ixy.sim.impairments("a")` has an element for each frame that card a sent, and one for each copy: its number, from 0;
when it was `sent` and when it `arrives`, in nanoseconds of the clock; `what` became of it, a sum of
`ixy.sim.Fate`s; its length without the frame check sequence; and the number of the bit that was inverted, or -1. The
last 1,048,576 are kept. With `arriving=True` it tells of those that were sent to the card.

## Registers

A register that is not in this table is memory: it keeps what is written and does nothing. The first time that a driver
uses one, the log says so. Beyond 128 KiB a read gives ones. Values after reset are the datasheet's, but where "value"
says what else was followed.

| register | offset | mode | section | after reset | in the model |
|---|---|---|---|---|---|
"""

# What no rule shows: registers that software sets and another rule or part of the model looks at
OTHERS = {
    **dict.fromkeys(("EIAC", "EIAM", "EIAM_EX", "EITR", "EITR_HIGH", "GPIE", "IVAR", "IVAR_MISC"), "interrupt logic"),
    **dict.fromkeys(("RQSMR", "TQSM"), "statistics of queues"),
    **dict.fromkeys(("CRCERRS", "ILLERRC", "ERRBC", "RLEC", "RFC", "RJC"), "0: no frame with such an error arrives"),
    **dict.fromkeys(("MSPDC", "MLFC", "MRFC", "XEC"), "0: nothing of that kind happens on the wire"),
    **dict.fromkeys(("MNGPRC", "MNGPDC", "MNGPTC"), "0: there is no management"),
    **dict.fromkeys(("PXONTXC", "PXOFFTXC", "PXONRXCNT", "PXOFFRXCNT"), "0: no pause frames by priority"),
    "RAH": "receive looks at it",
    "RTTDQSEL": "selects the queue of RTTBCNRC",
    "ERETA": "memory: only an X550 has it",
    "RXMEMWRAP": "packet buffers read as empty, also while frames wait there",
    **dict.fromkeys(("FDIRIPSA", "FDIRIPDA", "FDIRPORT", "FDIRVLAN", "FDIRHASH"), "of a filter, for a command"),
    "FDIRSIPV6": "memory: no packet matches IPv6 addresses of a filter",
    **dict.fromkeys(("FDIRLEN", "FDIRUSTAT", "FDIRFSTAT"), "counts since it was last read"),
    "FDIRFREE": "the flow director counts here",
    "PFMAILBOX": "STS and ACK tell a virtual function, PFU takes its mailbox, RVFU takes it from the function",
    "PFMBMEM": "the words of the mailboxes, 16 a function",
    "PFMBICR": "requests of virtual functions, and what they have acknowledged",
    "PFMBIMR": "which of them interrupt",
    "PFVFLRE": "virtual functions that were reset",
    "MTQC": "memory: GCR_EXT.VT_MODE divides the queues of both directions",
    "PFQDE": "memory",
    "GCR_EXT": "VT_MODE divides the queues among virtual functions",
}
RESETS = {
    Reset.SOFTWARE: "survives CTRL.RST",
    Reset.LINK: "survives CTRL.RST and CTRL.LRST",
    Reset.FUNCTION: "survives all resets while there is power",
}


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The page's text."""
    machine = Machine(stepped=True)
    plugged = machine.plug_in("sim:described,ready=0")
    head = HEAD.replace("{rules}", rules_table())
    rows = sorted((row for row in vars(reg).values() if isinstance(row, Register)), key=lambda row: row.offset)
    lines = [line(plugged, row) for row in rows]
    machine.unplug(plugged)
    return head + "".join(lines)


def rules_table() -> str:
    """The rules for drivers."""
    head = "| rule | of | section | broken when | what the card does | who says so |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {rule.name} | {rule.subject} | {rule.section} | {rule.broken} | {rule.then.value} | {rule.source} |\n"
        for rule in driver_rules.RULES
    )


def line(plugged: card.Card, row: Register) -> str:
    return (
        f"| {row.name} | {places(row)} | {row.mode.value} | {row.section} | {after_reset(plugged, row)} |"
        f" {'; '.join(behaviour(plugged, row))} |\n"
    )


def places(row: Register) -> str:
    """Offsets, those of aliases included."""
    text = f"{row.offset:#07x}" + (f" + {row.stride:#x} × {row.count}" if row.count > 1 else "")
    if row.stride < 0:
        text = ", ".join(f"{offset:#07x}" for offset in row.offsets)
    if row.upper:
        text += f", from number {LOWER} on {row.offsets[LOWER]:#07x}"
    return text + "".join(
        f", {alias:#07x}" + (f" + {stride:#x} × {count}" if count > 1 else "")
        for aliased, alias, stride, count in reg.ALIASES
        if aliased is row
    )


def after_reset(plugged: card.Card, row: Register) -> str:
    """The value of all of them, or of the first and of the others."""
    if row.undefined:
        return "anything" if row.undefined == 0xFFFFFFFF else f"anything in {row.undefined:#x}"
    value = f"{plugged.read32(row.offset):#x}"
    return value if row.first is None else f"{value}, the others {row.reset:#x}"


def behaviour(plugged: card.Card, row: Register) -> list[str]:
    """What reading and writing does, and who looks at the register."""
    found: list[str] = []
    for behaving in plugged.rules():
        rule = behaving.get(row.offset)
        method = rule.func if isinstance(rule, partial) else rule
        text = inspect.getdoc(method) if inspect.ismethod(method) else None
        if text and method.__name__ != "_take":
            found.append(text.splitlines()[0].rstrip("."))
    if row.offset in plugged.statistics.rules():
        found.append("counts since it was last read")
    if any(row.offset in found_rules for found_rules in plugged.interrupts.rules()):
        found.append("interrupt logic")
    lookers = [
        module.__name__.rpartition(".")[2]
        for module in (
            *(dma, frame, receive, classify, filters, flow_director, pools, formats, coalesce),
            *(transmit, write_back, offload, pause, timestamps, rate, switch),
        )
        if vars(module).get(f"_{row.name}") == row.offset // 4
    ]
    if lookers:
        found.append(f"{', '.join(lookers)} look{'s' if len(lookers) == 1 else ''} at it")
    found += [text for name, text in OTHERS.items() if name == row.name]
    return [*(list(dict.fromkeys(found)) or ["memory"]), *rules_of(row)]


def rules_of(row: Register) -> list[str]:
    """What the row says of writing and resets."""
    found: list[str] = []
    if row.writable not in (0, 0xFFFFFFFF):
        found.append(f"only {row.writable:#x} can be written")
    if row.survives is not None:
        bits = "" if row.kept == 0xFFFFFFFF else f"{row.kept:#x} "
        found.append(bits + RESETS[row.survives])
    if row.source:
        found.append(f"value: {row.source}")
    return found


if __name__ == "__main__":
    main()
