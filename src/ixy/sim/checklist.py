"""A report of what a driver did to a simulated card: the datasheet's initialisation as a check-list, rules, registers.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ixy.sim.card.registers import Card
    from ixy.sim.card.virtual_function import VirtualFunction


class Status(Enum):
    """What became of a step."""

    DONE = "done"
    LEFT_OUT = "left out"
    WRONG_ORDER = "wrong order"
    NOT_AWAITED = "not waited for"
    NOT_USED = "not used"


@dataclass(frozen=True)
class Step:
    """A step of the initialisation, in terms of the events of `ixy.sim.card.history`.

    Attributes:
        did: all these make it done.
        awaited: … if this was seen, too.
        before, after: of what it must come before and after, if that is done at all.
        optional: to leave it out is not to use something.
    """

    title: str
    section: str
    did: tuple[str, ...]
    awaited: str = ""
    before: str = ""
    after: str = ""
    optional: bool = False

    def status(self, events: dict[str, int]) -> Status:
        """What became of it, by the events' places."""
        if not all(name in events for name in self.did):
            return Status.NOT_USED if self.optional else Status.LEFT_OUT
        places = [events[name] for name in self.did]
        if max(places) > events.get(self.before, max(places)) or min(places) < events.get(self.after, -1):
            return Status.WRONG_ORDER
        if self.awaited and events.get(self.awaited, len(events)) > events.get(self.before, len(events) - 1):
            return Status.NOT_AWAITED
        return Status.DONE


STEPS = (
    Step("interrupts disabled before the reset", "4.6.3.1", ("interrupts off before",)),
    Step("DMA stopped before the reset", "5.2.5.3.2", ("master off before",)),
    Step("reset", "4.6.3.2", ("reset",), awaited="reset over"),
    Step("interrupts disabled after the reset", "4.6.3.1", ("interrupts off",), after="reset"),
    Step("EEPROM auto-read done", "4.6.3", ("EEPROM looked at",), awaited="EEPROM read"),
    Step("DMA initialisation done", "4.6.3", ("DMA looked at",), awaited="DMA ready"),
    Step("link set up or looked at", "4.6.4", ("link",)),
    Step("statistics cleared", "4.6.5", ("statistics of receive", "statistics of transmit"), before="receive on"),
    Step("station address read or set", "4.6.7", ("address",)),
    Step("multicast table cleared", "4.6.7", ("multicast table",), before="receive on"),
    Step("receive rings set", "4.6.7", ("receive ring", "receive ring length"), before="receive queue on"),
    Step("receive buffers' size and descriptors' type set", "4.6.7", ("receive buffers",), before="receive on"),
    Step("no snoop disabled", "4.6.7", ("no snoop",)),
    Step("receive queues enabled", "4.6.7", ("receive queue on",), awaited="receive queue is on"),
    Step("receive path halted", "4.6.7", ("receive halts",), awaited="receive has halted", before="receive on"),
    Step("receive enabled", "4.6.7", ("receive on",)),
    Step("transmit arbiter disabled to set packet buffers", "4.6.8", ("arbiter off",), before="transmit on"),
    Step("transmit rings set", "4.6.8", ("transmit ring", "transmit ring length"), before="transmit queue on"),
    Step("transmit enabled", "4.6.8", ("transmit on",), before="transmit queue on"),
    Step("transmit queues enabled", "4.6.8.1", ("transmit queue on",), awaited="transmit queue is on"),
    Step("interrupts mapped and enabled", "4.6.6", ("interrupt causes", "interrupts on"), optional=True),
)


@dataclass(frozen=True)
class BrokenRule:
    """A rule for drivers that was broken (`ixy.sim.card.driver_rules`).

    Attributes:
        punished: whether the card did what a card does then, or only tells.
        then: what that is.
        first: where the first time.
    """

    rule: str
    punished: bool
    count: int
    sentence: str
    first: str
    then: str
    subject: str
    section: str


@dataclass(frozen=True)
class UnmodelledRegister:
    """A register that the driver used and the model does not have."""

    register: str
    offset: int
    reads: int
    writes: int


@dataclass(frozen=True)
class FunctionUse:
    """What became of a virtual function.

    Attributes:
        mac: its address; empty if the driver of the physical function is not ours.
        requests: messages that it has sent by the mailbox,
        refused: those that our driver refused, since the function was opened,
        flooded: and of these, those that were too many.
        received, sent: packets.
        spoofed: those that were not sent, as they had an address or a VLAN of others.
        dma_refused: accesses to memory that it may not reach.
    """

    function: str
    mac: str
    requests: int
    refused: int
    flooded: int
    received: int
    sent: int
    spoofed: int
    dma_refused: int


@dataclass(frozen=True)
class Report:
    """What a driver did to one card.

    Attributes:
        steps: of each step of the datasheet's initialisation its title, its section, and what became of it, the last
            time that the card was brought up; none where our own driver did for the sake of virtual functions.
        broken: the rules that the driver has broken since it has the card.
        unmodelled: the registers it has used that are not modelled.
        functions: what became of virtual functions, of those that were used.
    """

    card: str
    steps: list[tuple[str, str, Status]]
    broken: list[BrokenRule]
    unmodelled: list[UnmodelledRegister]
    functions: list[FunctionUse]

    def as_dict(self) -> dict[str, Any]:
        """The same in what JSON knows."""
        return {
            "card": self.card,
            "steps": [
                {"step": title, "section": section, "status": status.value} for title, section, status in self.steps
            ],
            "broken": [vars(rule) for rule in self.broken],
            "unmodelled": [vars(register) for register in self.unmodelled],
            "functions": [vars(function) for function in self.functions],
        }

    def __str__(self) -> str:
        return text(self.as_dict())


def report_of(card: Card) -> Report:
    """The report of a card as things stand."""
    card.look()
    events = card.history.events()
    broken = sorted(card.breaches.collect().values(), key=lambda breach: not breach.rule.punished)
    return Report(
        card.name,
        [(step.title, step.section, step.status(events)) for step in STEPS if card.driver is None],
        [
            BrokenRule(
                rule=breach.rule.name,
                punished=breach.rule.punished,
                count=breach.count,
                sentence=breach.rule.sentence,
                first=breach.first,
                then=breach.rule.then.value,
                subject=breach.rule.subject,
                section=breach.rule.section,
            )
            for breach in broken
        ],
        [
            UnmodelledRegister(name, use.offset, use.reads, use.writes)
            for name, use in sorted(card.unmodelled.uses.items(), key=lambda item: item[1].offset)
        ],
        [_use_of(card, function) for function in card.functions if function.mailbox_requests],
    )


def _use_of(card: Card, function: VirtualFunction) -> FunctionUse:
    served = card.driver.functions[function.number] if card.driver is not None else None
    return FunctionUse(
        function.name,
        mac=served.mac.hex(":") if served else "",
        requests=function.mailbox_requests,
        refused=served.refused if served else 0,
        flooded=served.flooded if served else 0,
        received=function.received,
        sent=function.sent,
        spoofed=function.spoofed,
        dma_refused=function.dma_refused,
    )


def text(report: dict[str, Any]) -> str:
    """A report for people, made of what `Report.as_dict` gives."""
    ours = "the driver of its physical function is ours"
    theirs = "how its driver brought it up, beside the datasheet of the 82599"
    lines = [f"sim:{report['card']}: {theirs if report['steps'] else ours}"]
    lines += [f"  {step['status']:15} {step['step']} ({step['section']})" for step in report["steps"]]
    lines.append("rules broken:" if report["broken"] else "no rule is broken")
    for rule in report["broken"]:
        verdict = "punished" if rule["punished"] else "reported"
        times = "once" if rule["count"] == 1 else f"{rule['count']} times"
        lines.append(f"  {verdict}, {times}: {rule['sentence']}")
        lines.append(f"    {rule['subject']}, section {rule['section']}; first: {rule['first']}")
        if rule["punished"]:
            lines.append(f"    what the card does: {rule['then']}")
    for used in report["functions"]:
        lines.append(f"sim:{used['function']} {used['mac']}: {used['received']} packets received, {used['sent']} sent")
        lines.append(f"  by the mailbox {used['requests']} requests, {used['refused']} refused")
        if used["flooded"]:
            lines.append(f"  {used['flooded']} of them as it sent too many")
        if used["spoofed"]:
            lines.append(f"  {used['spoofed']} packets were not sent: they had an address or a VLAN of others")
        if used["dma_refused"]:
            lines.append(f"  {used['dma_refused']} DMA accesses were refused: they were outside of its memory")
    if report["unmodelled"]:
        lines.append("registers used that are not modelled:")
        lines += [
            f"  {used['register']} ({used['offset']:#07x}): read {used['reads']}, written {used['writes']} times"
            for used in report["unmodelled"]
        ]
    return "\n".join(lines)
