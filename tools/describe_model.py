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
from ixy.sim.card import classify, nic, rules
from ixy.sim.card import registers as card
from ixy.sim.machine import Machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model.md"

HEAD = """# The simulated 82599

One model stands behind `sim:` addresses and behind `ixy sim qemu`. This page is made by `tools/describe_model.py` from
the declaration of the registers (`ixy.registers.i82599`) and from the model's rules. Sections are those of the Intel
82599 datasheet, revision 3.3.

## What it does

- Receive: filters by address (exact, multicast hash, promiscuous) and by VLAN, size limits, jumbo frames over several
  buffers, VLAN stripping, RSS over up to 16 queues (Toeplitz hash, redirection table), packet type, IPv4, TCP and UDP
  checksums, `DROP_EN`. Checksums and types are reported once RXCSUM or MRQC is set.
- Transmit: legacy and advanced descriptors, context descriptors, packets of several buffers, IPv4, TCP and UDP
  checksums, TCP segmentation over IPv4 and IPv6, VLAN insertion, padding, MAC loopback.
- Interrupts: MSI-X with EIAC, EIAM and EITR, causes of queues and of a link change; in QEMU MSI and INTx, too. Vital
  product data.
- DMA: refused outside the memory that is shown to the card, while it is no bus master, and under master disable.
- Statistics: of the port, of sizes and of queues; they clear on read and stick at their largest value.
- EEPROM by EERD, with a right checksum; an SFP+ module on the I2C bus; semaphores; a link, which is up while
  somebody is at the other end of the wire, and LSC when that changes.
- 128 receive and 128 transmit queues; RSS names 16 of them.
- Resets: CTRL.RST, CTRL.LRST, which takes the link's mode along, and that of the function. What survives them is in
  the table. "Anything" is what a register holds after power-on if it then has no value: something else for each card,
  or for each `seed=`, so that a driver that forgets to clear a table is found.
- Bits that software waits for take their time: CTRL.RST and LRST clear, EEC.AUTO_RD, RDRXCTL.DMAIDONE and
  LINKS.LINK_UP set after a reset; RXDCTL.ENABLE, TXDCTL.ENABLE and SECRXSTAT.SECRX_RDY follow what is asked for. They
  do so after three reads of registers, or as many as `ready=` says, the EEPROM and DMA after twice as many. What is
  behind a bit has happened at once. This driver looks once a millisecond, and gives up after a second: with
  `ready=1000` it says for which bit it waited.
- Wires with times (`rate=`, `timing=original`) begin with a frame. Their clock stands still until software that polls
  has taken that from its queue; from then on the card drops what it has no room for. Other wires wait for the card.

## What it does not do

- Receive-side coalescing (RSC) and header split: enabled or not, each packet comes by itself, in whole buffers.
- Flow director: its tables take filters, and no packet matches one.
- Virtualisation (pools, VFs), DCB and pause frames, FCoE, IPsec, SCTP checksums, IEEE 1588 time stamps, head
  write-back, low-latency interrupts, the TCP timer, wake-up, management, writing the EEPROM or flash.
- Timing: EITR's interval is kept by the host's clock, as is all other time.
- IPv6 extension headers and tunnels: such a packet counts as IPv6 without TCP or UDP.

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

{rules}
## Time on the wire

Frames take no time, unless an address says `wire=10G`, `1G`, `100M` or another number of bits a second, 1M to 400G.
Then a frame of n bytes, its check sequence included, takes as long as n + 20 bytes do, in either direction; the queues
of a card send a packet each in turn, while the wire is free. Cards that were held up make up for a millisecond at once.
A cable is as fast as the slower of its ends. LINKS tells of 100 Mbit/s and 1 Gbit/s; else it says 10.

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
when it was `sent` and when it `arrives`, in nanoseconds of the monotonic clock; `what` became of it, a sum of
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
    **dict.fromkeys(("CRCERRS", "ILLERRC", "ERRBC", "RLEC", "RFC", "RJC"), "0: the model's wires make no such error"),
    "RAH": "nic looks at it",
    "ERETA": "memory: only an X550 has it",
    "RXMEMWRAP": "packet buffers are always empty",
    "FDIRCMD": "a command is done at once, and does nothing",
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
    plugged = Machine(stepped=True).plug_in("sim:described,ready=0")
    head = HEAD.replace("{rules}", rules_table())
    rows = sorted((row for row in vars(reg).values() if isinstance(row, Register)), key=lambda row: row.offset)
    return head + "".join(line(plugged, row) for row in rows)


def rules_table() -> str:
    """The rules for drivers."""
    head = "| rule | of | section | broken when | what the card does | who says so |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {rule.name} | {rule.subject} | {rule.section} | {rule.broken} | {rule.then.value} | {rule.source} |\n"
        for rule in rules.RULES
    )


def line(plugged: card.Card, row: Register) -> str:
    return (
        f"| {row.name} | {places(row)} | {row.mode.value} | {row.section} | {after_reset(plugged, row)} |"
        f" {'; '.join(behaviour(plugged, row))} |\n"
    )


def places(row: Register) -> str:
    """Offsets, those of aliases included."""
    text = f"{row.offset:#07x}" + (f" + {row.stride:#x} × {row.count}" if row.count > 1 else "")
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
    found += [
        f"{module.__name__.rpartition('.')[2]} looks at it"
        for module in (nic, classify)
        if vars(module).get(f"_{row.name}") == row.offset // 4
    ]
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
