"""The judge of the course: solutions pass, and of each kind of mistake one is found by the field and section that the
table names. `make course-mistakes` tries all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ixy
from ixy.course.bench import Bench
from ixy.course.judging import judge
from ixy.course.material import LABS, Lab, lab_of
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from course_mistakes import MISTAKES, Mistake, found, handed_in, tried
from course_ways import WAYS

pytestmark = pytest.mark.once

CHOSEN = {  # by lab: names of rows
    "lab1": "bus mastering forgotten",
    "lab2": "halves swapped",
    "lab3": "CTRL.RST not waited for",
    "lab4": "ring not cleared",
    "lab5": "descriptor not armed again",
    "lab6": "buffer back before it is sent",
    "lab7": "the buffer stays in the ring",
    "interrupts": "EIAM_EX forgotten",
    "rss": "key big-endian",
}
ROWS = [row for row in MISTAKES if CHOSEN.get(row.lab) == row.name]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_solutions_pass(lab: Lab) -> None:
    with handed_in() as directory:
        result = judge(lab, directory, quiet=True)
    assert result.passed, result.findings


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.lab} {row.name}")
def test_mistakes_are_found(row: Mistake) -> None:
    result = tried(row)
    assert found(row, result), result.findings


@pytest.mark.parametrize(("lab", "way"), [("lab5", "legacy descriptors"), ("lab6", "the head is read instead of DD")])
def test_other_ways_pass(lab: str, way: str) -> None:
    with handed_in(*WAYS[lab][way]) as directory:
        result = judge(lab_of(lab), directory, quiet=True)
    assert result.passed, result.findings


def test_the_table() -> None:
    """60 mistakes at least, in all labs, and for each lab three other ways; each names what stands there once."""
    assert len(ROWS) == len(CHOSEN)
    assert len(MISTAKES) >= 60
    assert {row.lab for row in MISTAKES} == {lab.name for lab in LABS} == set(WAYS)
    assert all(len(ways) >= 3 for ways in WAYS.values())
    for row in MISTAKES:
        with handed_in((row.file or row.lab, row.old, row.new)):
            pass
    for ways in WAYS.values():
        for changes in ways.values():
            with handed_in(*changes):
                pass


def test_lines_are_those_of_the_students_files_alone() -> None:
    """And not of packages that lie beneath them, as in a virtual environment: here, this one's."""
    for directory, line in ((Path(ixy.__file__).parents[1], ""), (Path(__file__).parent, "test_course.py:")):
        bench = Bench(directory)
        try:
            assert bench.line().rstrip("0123456789") == line
        finally:
            bench.close()


def test_a_word_of_the_eeprom_takes_its_time(machine: Machine) -> None:
    """8.2.3.2.2: until DONE reads 1 there is no data. Three reads pass, and word 0 begins with the address."""
    card = machine.plug_in("sim:a")
    card.write32(reg.EERD.offset, reg.EERD.value(START=1, ADDR=0))
    read = [reg.EERD.decode(card.read32(reg.EERD.offset)) for _ in range(4)]
    assert [(fields["DONE"], fields["DATA"]) for fields in read] == [(0, 0)] * 3 + [(1, 0x6902)]
    machine.unplug(card)


def test_pauses_by_a_clock_of_ones_own() -> None:
    """8.2.3.1.1: a write 800 µs after a reset is lost, one after 1 ms is not, by the clock that a machine is given."""
    moments = [0]
    machine = Machine(stepped=True, now=lambda: moments[0])
    card = machine.plug_in("sim:a")
    for late, kept in ((800_000, 0), (1_000_000, 1)):
        card.write32(reg.CTRL.offset, reg.CTRL.value(RST=1))
        moments[0] += late
        card.write32(reg.SRRCTL[0].offset, reg.SRRCTL.value(BSIZEPACKET=1))
        assert reg.SRRCTL.decode(card.read32(reg.SRRCTL[0].offset))["BSIZEPACKET"] == (1 if kept else 2)
    machine.unplug(card)
