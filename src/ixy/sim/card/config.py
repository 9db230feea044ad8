"""The configuration space of the 82599: its header, capabilities and base address registers.

References: PCI Local Bus 3.0 (header 6.1 to 6.2, MSI 6.8.1, MSI-X 6.8.2, vital product data appendix I), PCI Power
Management 1.2 (3.2), PCI Express Base 3.0 (capability 7.8); values as the Intel 82599 datasheet (revision 3.3), chapter
9, gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 256

VENDOR_INTEL = 0x8086
DEVICE, SUBSYSTEM = 0x02, 0x2E
CLASS_ETHERNET = 0x020000

COMMAND = 0x04
COMMAND_MEMORY = 1 << 1
COMMAND_BUS_MASTER = 1 << 2
COMMAND_INTX_DISABLE = 1 << 10
STATUS = 0x06
STATUS_INTERRUPT = 1 << 3
BAR_0 = 0x10

POWER = 0x40
POWER_STATUS = POWER + 4
POWER_STATE = 0b11

MSI = 0x50
MSI_CONTROL = MSI + 2
MSI_ENABLE = 1 << 0
MSI_ADDRESS, MSI_DATA, MSI_MASK, MSI_PENDING = MSI + 0x04, MSI + 0x0C, MSI + 0x10, MSI + 0x14

MSIX = 0x70
MSIX_CONTROL = MSIX + 2
MSIX_ENABLE = 1 << 15
MSIX_MASK_ALL = 1 << 14
MSIX_VECTORS = 64
VF_VECTORS = 3

EXPRESS = 0xA0
EXPRESS_CONTROL = EXPRESS + 8
FUNCTION_RESET = 1 << 15

VPD = 0xE0
VPD_ADDRESS = VPD + 2
VPD_DATA = VPD + 4
VPD_FLAG = 1 << 15  # of the address: set once what was asked for is read, cleared once it is written

REGISTERS_BAR, MSIX_BAR = 0, 4
BAR_SIZES = {REGISTERS_BAR: 512 << 10, MSIX_BAR: 16 << 10}
VF_MSIX_BAR = 3
VF_BAR_SIZES = {REGISTERS_BAR: 16 << 10, VF_MSIX_BAR: 16 << 10}
PENDING_OFFSET = 0x2000  # of MSI-X's pending bits within their BAR; the table comes first

_BAR_MEMORY_64_PREFETCHABLE = 0b1100


@dataclass(frozen=True)
class _Field:
    """Some bytes of the configuration space.

    Attributes:
        value: after a reset.
        writable: bits that software can set and clear.
        clearable: bits that software clears by writing 1.
    """

    offset: int
    size: int
    value: int
    writable: int = 0
    clearable: int = 0


def _bars(sizes: dict[int, int]) -> tuple[_Field, ...]:
    kind = _BAR_MEMORY_64_PREFETCHABLE
    return tuple(_Field(BAR_0 + 4 * bar, 4, kind, writable=2**32 - size) for bar, size in sizes.items())


_HEADER = (
    _Field(0x00, 2, VENDOR_INTEL),
    _Field(STATUS, 2, 0x0010, clearable=0xF900),  # has capabilities
    _Field(0x08, 4, CLASS_ETHERNET << 8 | 0x01),  # revision
    _Field(0x0C, 1, 0, writable=0xFF),  # cache line size
    _Field(0x2C, 2, VENDOR_INTEL),
)
_FIELDS = (
    *_HEADER,
    _Field(COMMAND, 2, 0, writable=0x0547),
    *_bars(BAR_SIZES),
    _Field(0x34, 1, POWER),
    _Field(0x3C, 1, 0, writable=0xFF),  # interrupt line
    _Field(0x3D, 1, 1),  # interrupt pin INTA
    # Power management: version 3, device-specific initialization, PME from D0 and D3
    _Field(POWER, 4, 0x4823 << 16 | MSI << 8 | 0x01),
    _Field(POWER_STATUS, 2, 0, writable=0x0103, clearable=0x8000),
    # One message, which can be masked, to a 64-bit address
    _Field(MSI, 2, MSIX << 8 | 0x05),
    _Field(MSI_CONTROL, 2, 0x0180, writable=MSI_ENABLE | 0x0070),
    _Field(MSI_ADDRESS, 8, 0, writable=2**64 - 4),
    _Field(MSI_DATA, 2, 0, writable=0xFFFF),
    _Field(MSI_MASK, 4, 0, writable=1),
    _Field(MSIX, 2, EXPRESS << 8 | 0x11),
    _Field(MSIX_CONTROL, 2, MSIX_VECTORS - 1, writable=MSIX_ENABLE | MSIX_MASK_ALL),
    _Field(MSIX + 4, 4, MSIX_BAR),
    _Field(MSIX + 8, 4, PENDING_OFFSET | MSIX_BAR),
    # PCI Express, version 2: an endpoint with function-level reset, payload up to 512 bytes, 5 GT/s on 8 lanes
    _Field(EXPRESS, 4, 0x0002 << 16 | VPD << 8 | 0x10),
    _Field(EXPRESS + 0x04, 4, 0x10008CC2),
    _Field(EXPRESS_CONTROL, 2, 0x2810, writable=0x7FFF | FUNCTION_RESET),
    _Field(EXPRESS + 0x0A, 2, 0, clearable=0x000F),
    _Field(EXPRESS + 0x0C, 4, 0x00000082),
    _Field(EXPRESS + 0x10, 2, 0, writable=0x00C3),
    _Field(EXPRESS + 0x12, 2, 0x1082),
    _Field(EXPRESS + 0x24, 4, 0x0000001F),  # completion timeout, ranges A to D
    _Field(EXPRESS + 0x28, 2, 0, writable=0x001F),
    _Field(EXPRESS + 0x30, 2, 0x0002, writable=0x000F),
    _Field(VPD, 2, 0x03),
    _Field(VPD_ADDRESS, 2, 0, writable=0xFFFF),
    _Field(VPD_DATA, 4, 0, writable=0xFFFFFFFF),
)

# Of a virtual function (9.5). Its identity and its base address registers are where whoever hands it to a guest shows
# them: on the bus, the former read as ones, and the latter are in the physical function's SR-IOV capability.
_VF_FIELDS = (
    *_HEADER,
    _Field(COMMAND, 2, 0, writable=COMMAND_MEMORY | COMMAND_BUS_MASTER),
    *_bars(VF_BAR_SIZES),
    _Field(0x34, 1, MSIX),
    _Field(MSIX, 2, EXPRESS << 8 | 0x11),
    _Field(MSIX_CONTROL, 2, VF_VECTORS - 1, writable=MSIX_ENABLE | MSIX_MASK_ALL),
    _Field(MSIX + 4, 4, VF_MSIX_BAR),
    _Field(MSIX + 8, 4, PENDING_OFFSET | VF_MSIX_BAR),
    _Field(EXPRESS, 4, 0x0002 << 16 | 0x10),
    _Field(EXPRESS + 0x04, 4, 0x10008CC2),
    _Field(EXPRESS_CONTROL, 2, 0, writable=FUNCTION_RESET),
    _Field(EXPRESS + 0x0A, 2, 0, clearable=0x000F),
    _Field(EXPRESS + 0x0C, 4, 0x00000082),
    _Field(EXPRESS + 0x12, 2, 0x0082),
    _Field(EXPRESS + 0x24, 4, 0x0000001F),
)


@dataclass(frozen=True)
class Layout:
    """What a kind of functions has in its configuration space.

    Attributes:
        bars: the size of each base address register.
        msix_bar: in which of them the vectors of MSI-X are.
    """

    fields: tuple[_Field, ...]
    bars: dict[int, int]
    msix_bar: int


LAYOUT = Layout(_FIELDS, BAR_SIZES, MSIX_BAR)
VF_LAYOUT = Layout(_VF_FIELDS, VF_BAR_SIZES, VF_MSIX_BAR)


class ConfigSpace:
    """256 bytes of registers, each bit with its rule.

    The base address registers are of the 64-bit kind, but their upper halves are hard-wired to 0, for QEMU maps a
    proxied device below 4 GiB only.

    Args:
        product: the vital product data, which cannot be written.
        device, subsystem: the ids of the card.
        layout: that of the physical function, or of a virtual one.
    """

    def __init__(
        self, product: bytes = b"", device: int = 0x10FB, subsystem: int = 0x000C, layout: Layout = LAYOUT
    ) -> None:
        self._product = product
        self.layout = layout
        self._fields = (*layout.fields, _Field(DEVICE, 2, device), _Field(SUBSYSTEM, 2, subsystem))
        self._bytes = bytearray(SIZE)
        self._writable = bytearray(SIZE)
        self._clearable = bytearray(SIZE)
        for field in self._fields:
            place = slice(field.offset, field.offset + field.size)
            self._writable[place] = field.writable.to_bytes(field.size, "little")
            self._clearable[place] = field.clearable.to_bytes(field.size, "little")
        self.reset()

    def reset(self) -> None:
        """Every register as after power-on."""
        for field in self._fields:
            self.force(field.offset, field.size, field.value)

    def read(self, offset: int, size: int) -> int:
        """`size` bytes at `offset`; what lies behind the end reads as ones, as from no device."""
        data = self._bytes[offset : offset + size]
        return int.from_bytes(data.ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as software does: only what is writable changes."""
        for i in range(offset, min(offset + size, SIZE)):
            new = value >> 8 * (i - offset) & 0xFF
            kept = self._bytes[i] & ~self._writable[i] & ~(self._clearable[i] & new)
            self._bytes[i] = kept | new & self._writable[i]
        if self._product and offset <= VPD_ADDRESS + 1 < offset + size:
            self._access_product()

    def _access_product(self) -> None:
        """Software has written an address in the vital product data, and with it whether it reads or writes there."""
        address = self.read(VPD_ADDRESS, 2)
        if not address & VPD_FLAG:
            found = self._product[address & ~3 :][:4].ljust(4, b"\xff")
            self.force(VPD_DATA, 4, int.from_bytes(found, "little"))
        self.force(VPD_ADDRESS, 2, address ^ VPD_FLAG)

    def force(self, offset: int, size: int, value: int) -> None:
        """Write as the device itself does."""
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")

    def has(self, offset: int, bits: int) -> bool:
        """Whether any of `bits` is set in the 16-bit register at `offset`."""
        return bool(self.read(offset, 2) & bits)

    def decode(self, address: int, size: int) -> tuple[int, int] | None:
        """The base address register that claims `size` bytes at `address`, and the offset within; None if none does."""
        if not self.has(COMMAND, COMMAND_MEMORY) or self.has(POWER_STATUS, POWER_STATE):
            return None
        for bar, bar_size in self.layout.bars.items():
            offset = address - (self.read(BAR_0 + 4 * bar, 4) & ~0xF)
            if 0 <= offset <= bar_size - size:
                return bar, offset
        return None
