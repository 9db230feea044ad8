"""Register rows, the view that reads and writes them, and the trace that explains it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.errors import DeviceTimeout
from ixy.registers import Field, Mode, Register, RegisterFile, explain, register
from ixy.registers import i82599 as reg
from ixy.registers.i82599_names import name_of

GAUGE = register("GAUGE", 0x40, Mode.RW, "9.1", LOW=(0, 3), FLAG=4, HIGH=(8, 31))
QUEUE = register("QUEUE", 0x100, Mode.RW, "9.2", stride=0x40, count=4, ENABLE=25)


class FakeBar:
    """A device whose registers are plain memory, but that the reads of one offset follow a script."""

    def __init__(self, script: Iterable[int] = ()) -> None:
        self.memory: dict[int, int] = {}
        self.script = iter(script)
        self.log: list[tuple[str, int, int]] = []

    def read32(self, offset: int) -> int:
        value = next(self.script, self.memory.get(offset, 0))
        self.log.append(("read", offset, value))
        return value

    def write32(self, offset: int, value: int) -> None:
        self.log.append(("write", offset, value))
        self.memory[offset] = value


def view(bar: FakeBar, owner: str = "card") -> RegisterFile:
    return RegisterFile(bar, owner, threading.RLock())


@st.composite
def fields(draw: st.DrawFn) -> Field:
    low = draw(st.integers(0, 31))
    return Field(low, draw(st.integers(low, 31)))


@given(fields(), st.integers(0, (1 << 32) - 1))
def test_field_round_trip(field: Field, value: int) -> None:
    """What is taken from a register and put back is the register's bits in the mask, and no others."""
    taken = field.of(value)
    assert 0 <= taken < 1 << (field.high - field.low + 1)
    assert field.put(taken) == value & field.mask
    assert field.of(field.put(taken) | ~field.mask & 0xFFFFFFFF) == taken


@given(fields(), st.integers())
def test_field_takes_what_fits_only(field: Field, value: int) -> None:
    """A value that needs more bits than the field has, or is negative, raises."""
    if 0 <= value < 2 ** (field.high - field.low + 1):
        assert field.of(field.put(value)) == value
    else:
        with pytest.raises(ValueError, match=f"does not fit into bits {field.low} to {field.high}"):
            field.put(value)


def test_value_mask_and_decode() -> None:
    """GAUGE: LOW in bits 0 to 3, FLAG in bit 4, HIGH in bits 8 to 31."""
    assert GAUGE.value(LOW=5, HIGH=0xABCDEF) == 0xABCDEF05
    assert GAUGE.mask("LOW", "FLAG") == 0x1F
    assert GAUGE.decode(0xABCDEF15) == {"LOW": 5, "FLAG": 1, "HIGH": 0xABCDEF}
    with pytest.raises(KeyError):
        GAUGE.value(TYPO=1)


def test_register_that_exists_several_times() -> None:
    """The third of four lies two strides behind the first; there is no fifth, and none before the first."""
    assert (QUEUE[2].name, QUEUE[2].offset, QUEUE[2].count) == ("QUEUE[2]", 0x180, 1)
    assert [row.offset for row in QUEUE] == [0x100, 0x140, 0x180, 0x1C0]
    for index in (4, -1):
        with pytest.raises(IndexError, match="QUEUE exists 4 times"):
            QUEUE[index]


def test_write_and_update() -> None:
    """Writing lays fields over a value and clears what stood at their place; updating keeps the other bits."""
    bar = FakeBar()
    registers = view(bar)
    registers.write(GAUGE, 0xFF, LOW=2)
    assert bar.memory[0x40] == 0xF2
    registers.update(GAUGE, HIGH=1, FLAG=0)
    assert bar.memory[0x40] == 0x1E2
    assert registers.get(GAUGE, "HIGH") == 1
    registers.write(GAUGE)
    assert bar.memory[0x40] == 0
    assert [kind for kind, _, _ in bar.log] == ["write", "read", "write", "read", "write"]


def test_updates_of_two_threads() -> None:
    """A second thread that comes between the read and the write of an update waits: both fields change."""
    bar = FakeBar()
    registers = view(bar)
    second = threading.Thread(target=lambda: registers.update(GAUGE, HIGH=7))

    def read32(offset: int) -> int:
        value = bar.memory.get(offset, 0)
        if not second.ident:
            second.start()
            second.join(0.05)  # without a lock, it would be done by then
        return value

    bar.read32 = read32  # type: ignore[method-assign]
    registers.update(GAUGE, LOW=5)
    second.join()
    assert bar.memory[0x40] == 0x705


def test_wait_ends_when_all_fields_are_there() -> None:
    """FLAG comes first, LOW later: the wait goes on until both are as awaited, and other bits do not matter."""
    bar = FakeBar([0x00, 0x10, 0x1000_0017])
    view(bar).wait(GAUGE, 60, FLAG=1, LOW=7)
    assert len(bar.log) == 3


def test_wait_has_a_deadline_that_explains_itself() -> None:
    """A register that never changes: the error names device, register, fields, the last value, and the section."""
    bar = FakeBar()
    bar.memory[0x40] = 0x0000_0013
    with pytest.raises(DeviceTimeout) as caught:
        view(bar, "0000:03:00.0").wait(GAUGE, 0.002, FLAG=0, LOW=7)
    assert str(caught.value) == (
        "0000:03:00.0: GAUGE did not reach FLAG=0, LOW=7 within 0.002 s: it reads 0x00000013 (datasheet section 9.1)"
    )


def test_wait_that_was_held_up_looks_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process sleeps through the deadline, and the register is ready: that is no failure."""
    clock = iter([0.0, 0.0, 99.0])
    monkeypatch.setattr("ixy.registers.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
    bar = FakeBar([0x00, 0x10])
    view(bar).wait(GAUGE, 1.0, FLAG=1)
    assert len(bar.log) == 2


def test_trace(caplog: pytest.LogCaptureFixture) -> None:
    """Each access is one line: who, what, fields old → new where the old value is known, and the section."""
    caplog.set_level(logging.DEBUG, "ixy.registers")
    registers = view(FakeBar())
    registers.write(GAUGE, LOW=5)
    registers.read(GAUGE)
    registers.update(GAUGE, LOW=6, FLAG=1)
    assert [" ".join(line.split()) for line in caplog.messages] == [
        "card write GAUGE 0x00000005 LOW 0x5 [§9.1]",
        "card read GAUGE 0x00000005 LOW 0x5 [§9.1]",
        "card read GAUGE 0x00000005 LOW 0x5 [§9.1]",
        "card write GAUGE 0x00000005 → 0x00000016 LOW 0x5 → 0x6, FLAG 0x0 → 0x1 [§9.1]",
    ]


def test_trace_is_silent_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """At the default level an access logs nothing."""
    caplog.set_level(logging.INFO, "ixy.registers")
    view(FakeBar()).write(GAUGE, LOW=5)
    assert caplog.messages == []


def test_explain_shows_fields_that_fell_to_zero() -> None:
    """FLAG went from 1 to 0, which is a change; HIGH was 0 and stayed so, which is not worth a word."""
    assert " ".join(explain("write", GAUGE, 0x12, 0x02).split()) == (
        "write GAUGE 0x00000012 → 0x00000002 LOW 0x2, FLAG 0x1 → 0x0 [§9.1]"
    )


# Offsets and bits as the Intel 82599 datasheet, revision 3.3, prints them
DATASHEET = [
    (reg.CTRL, 0x00000, {"RST": 1 << 26, "LRST": 1 << 3, "PCIE_MASTER_DISABLE": 1 << 2}),
    (reg.STATUS, 0x00008, {"PCIE_MASTER_ENABLE": 1 << 19}),
    (reg.CTRL_EXT, 0x00018, {"NS_DIS": 1 << 16}),
    (reg.EICR, 0x00800, {}),
    (reg.EIMS, 0x00880, {}),
    (reg.EIMC, 0x00888, {}),
    (reg.RDBAL[1], 0x01040, {}),
    (reg.RDT[63], 0x01FD8, {}),
    (reg.SRRCTL[0], 0x01014, {"DESCTYPE": 7 << 25, "DROP_EN": 1 << 28}),
    (reg.RXDCTL[0], 0x01028, {"ENABLE": 1 << 25, "VME": 1 << 30}),
    (reg.RDRXCTL, 0x02F00, {"CRC_STRIP": 1 << 1, "DMAIDONE": 1 << 3}),
    (reg.RXCTRL, 0x03000, {"RXEN": 1}),
    (reg.RXPBSIZE[7], 0x03C1C, {"SIZE": 0x3FF << 10}),
    (reg.HLREG0, 0x04240, {"TXCRCEN": 1, "RXCRCSTRP": 2, "JUMBOEN": 4, "TXPADEN": 1 << 10}),
    (reg.MAXFRS, 0x04268, {"MFS": 0xFFFF0000}),
    (reg.AUTOC, 0x042A0, {"RESTART_AN": 1 << 12, "LMS": 7 << 13}),
    (reg.LINKS, 0x042A4, {"LINK_UP": 1 << 30, "LINK_SPEED": 3 << 28}),
    (reg.FCRTH[0], 0x03260, {"RTH": 0x7FFE0, "FCEN": 1 << 31}),
    (reg.GCR_EXT, 0x11050, {"BUFFERS_CLEAR": 1 << 30}),
    (reg.FTQF[127], 0x0E7FC, {"QUEUE_ENABLE": 1 << 31}),
    (reg.TXPBTHRESH[7], 0x0496C, {"THRESH": 0x3FF}),
    (
        reg.MSCA,
        0x0425C,
        {"ADDRESS": 0xFFFF, "DEVICE": 0x1F0000, "PORT": 0x3E00000, "OPCODE": 3 << 26, "COMMAND": 1 << 30},
    ),
    (reg.MSRWD, 0x04260, {"WRITE": 0xFFFF, "READ": 0xFFFF0000}),
    (reg.AUTOC2, 0x042A8, {"SERIAL_10G": 3 << 16}),
    (reg.SW_FW_SYNC, 0x10160, {"SOFTWARE": 0x1F, "FIRMWARE": 0x3E0}),
    (reg.RTTDCS, 0x04900, {"ARBDIS": 1 << 6}),
    (reg.DMATXCTL, 0x04A80, {"TE": 1}),
    (reg.FCTRL, 0x05080, {"SBP": 2, "MPE": 1 << 8, "UPE": 1 << 9, "BAM": 1 << 10}),
    (reg.MTA[127], 0x053FC, {}),
    (reg.TDBAL[0], 0x06000, {}),
    (reg.TDT[2], 0x06098, {}),
    (reg.TXDCTL[0], 0x06028, {"PTHRESH": 0x7F, "HTHRESH": 0x7F00, "WTHRESH": 0x7F0000, "ENABLE": 1 << 25}),
    (reg.DTXMXSZRQ, 0x08100, {"MAX_BYTES_NUM_REQ": 0xFFF}),
    (reg.RAL[1], 0x0A208, {}),
    (reg.RAH[0], 0x0A204, {"AV": 1 << 31}),
    (reg.TXPBSIZE[0], 0x0CC00, {"SIZE": 0x3FF << 10}),
    (reg.EEC, 0x10010, {"EE_REQ": 1 << 6, "EE_GNT": 1 << 7, "AUTO_RD": 1 << 9}),
    (reg.EERD, 0x10014, {"START": 1, "DONE": 2, "ADDR": 0xFFFC, "DATA": 0xFFFF0000}),
    (reg.SWSM, 0x10140, {"SMBI": 1, "SWESMBI": 2}),
    (reg.GPRC, 0x04074, {}),
    (reg.GPTC, 0x04080, {}),
    (reg.GORCL, 0x04088, {}),
    (reg.GOTCH, 0x04094, {}),
]


@pytest.mark.parametrize(("row", "offset", "bits"), DATASHEET, ids=lambda value: getattr(value, "name", ""))
def test_rows_of_the_82599(row: Register, offset: int, bits: dict[str, int]) -> None:
    """Offsets and fields, typed in a second time from the datasheet."""
    assert row.offset == offset
    assert {name: row.mask(name) for name in bits} == bits


def test_rows_of_the_82599_do_not_overlap() -> None:
    """No two rows claim the same 32 bits of BAR 0, nor a row and a name, and no two fields of a row the same bit."""
    rows = [row for row in vars(reg).values() if isinstance(row, Register)]
    offsets = [single.offset for row in rows for single in row]
    assert len(offsets) == len(set(offsets))
    assert not any(map(name_of, offsets))
    assert all(offset % 4 == 0 and offset < reg.BAR0_SIZE for offset in offsets)
    for row in rows:
        assert sum(field.mask for field in row.fields.values()) == row.mask(*row.fields) <= 0xFFFFFFFF
        assert sum(field.mask.bit_count() for field in row.fields.values()) == row.mask(*row.fields).bit_count()
