"""The report of what a driver did to a card: the check-list, the rules that it broke, registers that are not modelled.

The drivers here are sequences of accesses, each right but for what a test leaves out, or does too early or too late.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from lab import open_card

import ixy.sim
from ixy.apps.sim_report import print_reports
from ixy.errors import ConfigurationError, Error
from ixy.sim.card.registers import Card
from ixy.sim.checklist import Status, report_of
from ixy.sim.machine import Machine
from ixy.sim.qemu import reporting
from ixy.sim.qemu.reporting import ReportSocket

ENABLE = 1 << 25
# Steps of a driver as (name, accesses), a write as (offset, value), a read as (offset,)
BRING_UP: dict[str, list[tuple[int, ...]]] = {
    "mask": [(0x888, 0x7FFFFFFF)],
    "stop": [(0x0, 1 << 2), (0x8,)],
    "reset": [(0x0, 1 << 26)],
    "await reset": [(0x0,)] * 4,
    "mask again": [(0x888, 0x7FFFFFFF)],
    "await EEPROM": [(0x10010,)] * 7,
    "await DMA": [(0x2F00,)] * 7,
    "address": [(0xA200,), (0xA204,)],
    "link": [(0x42A4,)],
    "statistics": [(0x4074,), (0x4080,)],
    "multicast": [(0x5200 + 4 * n, 0) for n in range(128)],
    "receive ring": [(0x1000, 0x1000), (0x1004, 0), (0x1008, 1024), (0x1010, 0), (0x1018, 0)],
    "buffers": [(0x1014, 0x2000002)],
    "no snoop": [(0x18, 1 << 16)],
    "receive queue": [(0x1028, ENABLE)],
    "await receive queue": [(0x1028,)] * 4,
    "halt": [(0x8D00, 2)],
    "await halt": [(0x8D04,)] * 4,
    "receive": [(0x3000, 1), (0x8D00, 0)],
    "arbiter": [(0x4900, 1 << 6), (0x8100, 0xFFF), (0x4900, 0)],
    "transmit ring": [(0x6000, 0x2000), (0x6004, 0), (0x6008, 1024)],
    "transmit": [(0x4A80, 1)],
    "transmit queue": [(0x6028, ENABLE)],
    "await transmit queue": [(0x6028,)] * 4,
}


@pytest.fixture
def card(machine: Machine) -> Iterator[Card]:
    card = machine.plug_in("sim:a")
    yield card
    machine.unplug(card)


def drive(card: Card, steps: list[str]) -> None:
    for access in (access for step in steps for access in BRING_UP[step]):
        if len(access) == 2:
            card.write32(*access)
        else:
            card.read32(*access)


def became(card: Card) -> dict[str, Status]:
    return {step: status for step, _, status in report_of(card).steps}


def without(*names: str) -> list[str]:
    return [step for step in BRING_UP if step not in names]


def moved(name: str, behind: str) -> list[str]:
    """The steps, one of them in another place."""
    steps = without(name)
    return [*steps[: steps.index(behind) + 1], name, *steps[steps.index(behind) + 1 :]]


def test_all_is_done(card: Card) -> None:
    drive(card, list(BRING_UP))
    assert {step for step, status in became(card).items() if status is not Status.DONE} == {
        "interrupts mapped and enabled"
    }


@pytest.mark.parametrize(
    ("step", "steps", "status"),
    [
        ("interrupts disabled before the reset", without("mask"), Status.LEFT_OUT),
        ("DMA stopped before the reset", without("stop"), Status.LEFT_OUT),
        ("interrupts disabled after the reset", without("mask again"), Status.LEFT_OUT),
        ("EEPROM auto-read done", without("await EEPROM"), Status.LEFT_OUT),
        ("DMA initialisation done", without("await DMA"), Status.LEFT_OUT),
        ("statistics cleared", without("statistics"), Status.LEFT_OUT),
        ("statistics cleared", moved("statistics", "transmit"), Status.WRONG_ORDER),
        ("station address read or set", without("address"), Status.LEFT_OUT),
        ("multicast table cleared", without("multicast"), Status.LEFT_OUT),
        ("multicast table cleared", moved("multicast", "receive"), Status.WRONG_ORDER),
        ("receive rings set", moved("receive ring", "receive queue"), Status.WRONG_ORDER),
        ("no snoop disabled", without("no snoop"), Status.LEFT_OUT),
        ("receive queues enabled", without("await receive queue"), Status.NOT_AWAITED),
        ("receive queues enabled", without("receive queue"), Status.LEFT_OUT),
        ("receive path halted", without("halt"), Status.LEFT_OUT),
        ("receive path halted", without("await halt"), Status.NOT_AWAITED),
        ("receive path halted", moved("await halt", "receive"), Status.NOT_AWAITED),
        ("receive enabled", without("receive"), Status.LEFT_OUT),
        ("transmit arbiter disabled to set packet buffers", without("arbiter"), Status.LEFT_OUT),
        ("transmit enabled", moved("transmit", "transmit queue"), Status.WRONG_ORDER),
        ("transmit queues enabled", without("await transmit queue"), Status.NOT_AWAITED),
    ],
)
def test_what_is_not(card: Card, step: str, steps: list[str], status: Status) -> None:
    """That step alone is told, and in no other way."""
    drive(card, steps)
    others = {name for name, found in became(card).items() if found not in (Status.DONE, Status.NOT_USED)}
    assert became(card)[step] is status
    assert others == {step}


def test_a_look_that_comes_too_early_is_not_waiting(card: Card) -> None:
    """The EEPROM was looked at, but not until it was read."""
    drive(card, without("await EEPROM", "await DMA"))
    card.write32(0x0, 1 << 26)
    for offset in (0x0, 0x0, 0x0, 0x0, 0x10010):
        card.read32(offset)
    drive(card, [step for step in without("await EEPROM") if step not in ("mask", "stop", "reset", "await reset")])
    assert became(card)["EEPROM auto-read done"] is Status.NOT_AWAITED


def test_a_reset_at_the_end_is_no_new_bring_up(card: Card) -> None:
    """What a driver does when it stops the card leaves the report as it was; one that begins anew is reported anew."""
    drive(card, without("multicast"))
    drive(card, ["mask", "stop", "reset", "await reset", "mask again"])
    assert became(card)["receive enabled"] is Status.DONE
    assert became(card)["multicast table cleared"] is Status.LEFT_OUT
    drive(card, list(BRING_UP))
    assert became(card)["multicast table cleared"] is Status.DONE


def test_rules_and_registers(card: Card) -> None:
    """Punished rules come first, with count, first place and sentence; an unmodelled register has its name."""
    drive(card, list(BRING_UP))
    for _ in range(2):
        card.write32(0x1010, 5)  # RDH
    card.write32(0x5F00, 7)
    card.read32(0x5F00)
    report = report_of(card)
    first = report.broken[0]
    assert (first.rule, first.punished, first.count, first.first) == ("rx-head", True, 2, "receive queue 0")
    assert all(not rule.punished for rule in report.broken[1:])
    assert [(used.offset, used.reads, used.writes) for used in report.unmodelled] == [(0x5F00, 1, 1)]
    said = str(report)
    assert f"punished, 2 times: {first.sentence}" in said
    assert report.as_dict() == json.loads(json.dumps(report.as_dict()))


def test_a_card_that_was_closed(machine: Machine) -> None:
    """The report stays; of a card that never was there is none."""
    with open_card(machine):
        during = machine.report("a")
    assert machine.report("a").steps == during.steps
    assert machine.report("a").broken == []
    with pytest.raises(ConfigurationError, match="sim:z was never open"):
        machine.report("z")
    with pytest.raises(TypeError):
        ixy.sim.report(1)  # type: ignore[arg-type]


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs of this user are not asked."""
    monkeypatch.setattr(reporting, "directory", lambda: tmp_path / "sockets")


@pytest.mark.usefixtures("own_directory")
def test_asking_another_process(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    """`ixy sim report` prints what the process says that has the cards, for people and for programs."""
    drive(card, list(BRING_UP))
    answering = ReportSocket([card])
    answer: Callable[[], object] = lambda: [answering.handle() for _ in range(3)]  # noqa: E731
    answering._socket.setblocking(True)
    server = threading.Thread(target=answer)
    server.start()
    print_reports(["sim:a"], as_json=True)
    assert json.loads(capsys.readouterr().out) == [report_of(card).as_dict()]
    print_reports([], as_json=False)
    assert capsys.readouterr().out == f"{report_of(card)}\n"
    with pytest.raises(Error, match=r"sim:b: no such card .* there are: a"):
        print_reports(["b"], as_json=False)
    server.join()
    answering.close()
    assert not answering.path.exists()


@pytest.mark.usefixtures("own_directory")
def test_who_does_not_read(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    """What a socket does not hold is dropped: the guest, which is served by the same thread, goes on."""
    monkeypatch.setattr(reporting, "report_of", lambda _: SimpleNamespace(as_dict=lambda: "x" * (1 << 24)))
    answering = ReportSocket([card])
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(answering.path))
        assert answering.handle()
    answering.close()


@pytest.mark.usefixtures("own_directory")
def test_nobody_to_ask() -> None:
    with pytest.raises(Error, match="no `ixy sim qemu` of this user is running"):
        print_reports([], as_json=False)
