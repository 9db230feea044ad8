"""The EEPROM of a simulated card (datasheet, chapter 6)."""

EEPROM_WORDS = 0x4000
_MAC = 0x00  # words 0 to 2: the station's address
_CHECKSUM = 0x3F
_SUM = 0xBABA  # what words 0 to 0x3F add up to (6.3.2)


def build_eeprom(mac: bytes) -> list[int]:
    """The words of an EEPROM that holds `mac` and a right checksum."""
    words = [0] * EEPROM_WORDS
    for i in range(3):
        words[_MAC + i] = int.from_bytes(mac[2 * i : 2 * i + 2], "little")
    words[_CHECKSUM] = (_SUM - sum(words[:_CHECKSUM])) & 0xFFFF
    return words
