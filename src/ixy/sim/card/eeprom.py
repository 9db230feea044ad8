"""The EEPROM of a simulated card (datasheet, chapter 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ixy.sim.card.models import Model

EEPROM_WORDS = 0x4000
_MAC = 0x00  # words 0 to 2: the station's address
_FIRMWARE = 0x0F  # where the firmware's module starts (6.1.5)
_PBA = 0x15  # words 0x15 and 0x16: the number of the board's assembly, as digits
_INIT_SEQUENCES = 0x2B  # where the list of sequences that start an SFP+ module is (6.1)
_CAPABILITIES = 0x2C
_IMAGE = 0x2D  # words 0x2D and 0x2E: the id of what is in the EEPROM
_ANY_MODULE, _NO_CROSSTALK = 0x01, 0x80
_PRODUCT_DATA = 0x2F  # where the vital product data start (6.2.13)
_CHECKSUM = 0x3F
_SUM = 0xBABA  # what words 0 to 0x3F add up to (6.3.2)

_SEQUENCES = 0x100  # here: the list, then one sequence for all
_MODULE_TYPES = range(3, 7)  # passive copper and optical modules, on either port
_EMPTY_SEQUENCE = 0x120
_FIRMWARE_MODULE, _PATCH_MODULE = 0x140, 0x150  # here
_PATCH_POINTER, _PATCH_VERSION = 4, 7  # places in these
_PRODUCT = 0x180  # here
_END = 0xFFFF


def build_product_data(mac: bytes, model: Model) -> bytes:
    """The vital product data: a name, the number of the part and that of the card (PCI Local Bus 3.0, appendix I)."""
    name = f"Simulated Intel {model.name}".encode()
    fields = b"".join(
        key + bytes([len(value)]) + value
        for key, value in ((b"PN", model.part.encode()), (b"SN", mac.hex().upper().encode()))
    )
    read_only = fields + b"RV\1"
    data = b"\x82" + len(name).to_bytes(2, "little") + name
    data += b"\x90" + (len(read_only) + 1).to_bytes(2, "little") + read_only
    return data + bytes([-sum(data) & 0xFF]) + b"\x78"


def build_eeprom(mac: bytes, model: Model) -> list[int]:
    """The words of an EEPROM that holds `mac` and a right checksum."""
    words = [0] * EEPROM_WORDS
    for i in range(3):
        words[_MAC + i] = int.from_bytes(mac[2 * i : 2 * i + 2], "little")
    words[_FIRMWARE] = _FIRMWARE_MODULE
    words[_FIRMWARE_MODULE + _PATCH_POINTER] = _PATCH_MODULE
    words[_PATCH_MODULE + _PATCH_VERSION] = 6  # drivers refuse optical modules with 5 and below
    words[_PBA], words[_PBA + 1] = 0x8259, 0x9000
    words[_INIT_SEQUENCES] = _SEQUENCES
    words[_SEQUENCES + 1 : _SEQUENCES + 10] = [word for kind in _MODULE_TYPES for word in (kind, _EMPTY_SEQUENCE)] + [
        _END
    ]
    words[_EMPTY_SEQUENCE + 1] = _END
    words[_PRODUCT_DATA] = _PRODUCT
    product = build_product_data(mac, model)
    for i in range(0, len(product), 2):
        words[_PRODUCT + i // 2] = int.from_bytes(product[i : i + 2], "little")
    words[_IMAGE], words[_IMAGE + 1] = 0x0599, 0x8000
    words[_CAPABILITIES] = _ANY_MODULE | _NO_CROSSTALK
    words[_CHECKSUM] = (_SUM - sum(words[:_CHECKSUM])) & 0xFFFF
    return words
