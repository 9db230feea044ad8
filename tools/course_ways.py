"""Other right ways to write each lab of the course than the solutions', as changes to these: (file, old, new).

The datasheet leaves much open: another order, legacy descriptors, other ways to learn that a packet was sent. A check
that finds fault with one of them is wrong.
"""

from __future__ import annotations

Change = tuple[str, str, str]

WAYS: dict[str, dict[str, tuple[Change, ...]]] = {
    "lab1": {
        "vendor and device in one read": (
            (
                "lab1",
                "        vendor = bus.config_read(where, VENDOR, 2)\n        device = bus.config_read(where, DEVICE, 2)\n",
                "        both = bus.config_read(where, VENDOR, 4)\n        vendor, device = both & 0xFFFF, both >> 16\n",
            ),
        ),
        "a write for each bit": (
            (
                "lab1",
                "    command = bus.config_read(where, COMMAND, 2)\n"
                "    bus.config_write(where, COMMAND, 2, command | MEMORY_SPACE | BUS_MASTER)\n",
                "    for bit in (BUS_MASTER, MEMORY_SPACE):\n"
                "        bus.config_write(where, COMMAND, 2, bus.config_read(where, COMMAND, 2) | bit)\n",
            ),
        ),
        "the lower byte of COMMAND alone": (
            (
                "lab1",
                "    command = bus.config_read(where, COMMAND, 2)\n"
                "    bus.config_write(where, COMMAND, 2, command | MEMORY_SPACE | BUS_MASTER)\n",
                "    command = bus.config_read(where, COMMAND, 1)\n"
                "    bus.config_write(where, COMMAND, 1, command | MEMORY_SPACE | BUS_MASTER)\n",
            ),
        ),
    },
    "lab2": {
        "the size of all 64 bits": (
            (
                "lab2",
                "    bus.config_write(where, BAR_0, 4, 0xFFFFFFFF)\n"
                "    kept = bus.config_read(where, BAR_0, 4) & ~BAR_KIND\n"
                "    bus.config_write(where, BAR_0, 4, before)\n"
                "    return (~kept & 0xFFFFFFFF) + 1\n",
                "    high = bus.config_read(where, BAR_1, 4)\n"
                "    bus.config_write(where, BAR_0, 4, 0xFFFFFFFF)\n"
                "    bus.config_write(where, BAR_1, 4, 0xFFFFFFFF)\n"
                "    kept = bus.config_read(where, BAR_1, 4) << 32 | bus.config_read(where, BAR_0, 4) & ~BAR_KIND\n"
                "    bus.config_write(where, BAR_1, 4, high)\n"
                "    bus.config_write(where, BAR_0, 4, before)\n"
                "    return (1 << 64) - kept\n",
            ),
        ),
        "the lowest bit that can be chosen, while the device does not answer": (
            (
                "lab2",
                "    bus.config_write(where, BAR_0, 4, 0xFFFFFFFF)\n"
                "    kept = bus.config_read(where, BAR_0, 4) & ~BAR_KIND\n"
                "    bus.config_write(where, BAR_0, 4, before)\n"
                "    return (~kept & 0xFFFFFFFF) + 1\n",
                "    command = bus.config_read(where, 4, 2)\n"
                "    bus.config_write(where, 4, 2, command & ~2)\n"
                "    bus.config_write(where, BAR_0, 4, 0xFFFFFFF0)\n"
                "    kept = bus.config_read(where, BAR_0, 4) & ~BAR_KIND\n"
                "    bus.config_write(where, BAR_0, 4, before)\n"
                "    bus.config_write(where, 4, 2, command)\n"
                "    return kept & -kept\n",
            ),
        ),
        "addresses by bytes": (
            (
                "lab2",
                '    return low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")\n',
                "    return bytes((high << 32 | low) >> 8 * number & 0xFF for number in range(6))\n",
            ),
            ("lab2", "    return high << 32 | low\n", "    return (high << 32) + low\n"),
        ),
    },
    "lab3": {
        "longer pauses, and all interrupt registers": (
            ("lab3", "time.sleep(0.001)", "time.sleep(0.005)"),
            (
                "lab3",
                "    time.sleep(0.01)\n    bar.write32(EIMC, ALL_INTERRUPTS)\n",
                "    time.sleep(0.05)\n    bar.write32(EIMC, 0xFFFFFFFF)\n    bar.read32(0x00800)\n"
                "    bar.write32(0x00AB0, 0xFFFFFFFF)\n    bar.write32(0x00AB4, 0xFFFFFFFF)\n",
            ),
        ),
        "DMA first, then the EEPROM": (
            (
                "lab3",
                "    wait_for(bar, EEC, EEC_AUTO_RD, EEC_AUTO_RD)\n"
                "    wait_for(bar, RDRXCTL, RDRXCTL_DMAIDONE, RDRXCTL_DMAIDONE)\n",
                "    wait_for(bar, RDRXCTL, RDRXCTL_DMAIDONE, RDRXCTL_DMAIDONE)\n"
                "    wait_for(bar, EEC, EEC_AUTO_RD, EEC_AUTO_RD)\n",
            ),
            ("lab3", "    bar.write32(CTRL, CTRL_RST | CTRL_LRST)\n", "    bar.write32(CTRL, bar.read32(CTRL) | CTRL_RST | CTRL_LRST)\n"),
        ),
        "pauses between looks": (
            (
                "lab3",
                "            return read\n",
                "            return read\n        time.sleep(0.0001)\n",
            ),
            (
                "lab3",
                "    return wait_for(bar, EERD, EERD_DONE, EERD_DONE) >> EERD_DATA_SHIFT\n",
                "    while not bar.read32(EERD) & EERD_DONE:\n        pass\n    return bar.read32(EERD) >> EERD_DATA_SHIFT\n",
            ),
        ),
    },
    "lab4": {
        "page by page, oldest first": (
            ("lab4", "bus.allocate(size * DESCRIPTOR, RING_ALIGNMENT)", "bus.allocate(-(-size * DESCRIPTOR // 4096) * 4096, 4096)"),
            ("lab4", "self.free.pop()", "self.free.pop(0)"),
        ),
        "a list of flags": (
            (
                "lab4",
                "        if not self.free:\n            return None\n        buffer = self.free.pop()\n"
                "        self.used.add(buffer)\n        return buffer\n",
                "        for buffer in self.free:\n            if buffer not in self.used:\n"
                "                self.used.add(buffer)\n                return buffer\n        return None\n",
            ),
            ("lab4", "        self.used.remove(buffer)\n        self.free.append(buffer)\n", "        self.used.remove(buffer)\n"),
        ),
        "by division, and in pieces": (
            ("lab4", "return address & 0xFFFFFFFF, address >> 32", "return address % (1 << 32), address // (1 << 32)"),
            (
                "lab4",
                "    memory.write(0, bytes(size * DESCRIPTOR))\n",
                "    for place in range(0, size * DESCRIPTOR, 8):\n        memory.write(place, bytes(8))\n",
            ),
        ),
    },
    "lab5": {
        "legacy descriptors": (
            ("lab5", "SRRCTL_DESCTYPE_ADVANCED = 1 << 25", "SRRCTL_DESCTYPE_ADVANCED = 0"),
            ("lab5", "DD = 1 << 0\nEOP = 1 << 1\nLENGTH_SHIFT = 32", "DD = 1 << 32\nEOP = 1 << 33\nLENGTH_SHIFT = 0"),
        ),
        "descriptors first, then registers in another order": (
            (
                "lab5",
                "    bar.write32(RDBAL + at, low)\n    bar.write32(RDBAH + at, high)\n"
                "    bar.write32(RDLEN + at, ring.size * DESCRIPTOR)\n    bar.write32(RDH + at, 0)\n    bar.write32(RDT + at, 0)\n",
                "",
            ),
            (
                "lab5",
                "        arm(ring, slot, buffer)\n    bar.write32(RXDCTL",
                "        arm(ring, slot, buffer)\n    bar.write32(RDLEN + at, ring.size * DESCRIPTOR)\n"
                "    bar.write32(RDBAH + at, high)\n    bar.write32(RDBAL + at, low)\n    allow_snooping(ring)\n    bar.write32(RXDCTL",
            ),
            ("lab5", "    prepare_receive(bar)\n    ring = RxRing(bus, bar, pool, size)\n", "    ring = RxRing(bus, bar, pool, size)\n    prepare_receive(bar)\n"),
        ),
        "a fresh buffer for each packet": (
            (
                "lab5",
                "    arm(ring, slot, buffer)\n    ring.next",
                "    ring.pool.give(buffer)\n    fresh = ring.pool.take()\n    assert fresh is not None\n    arm(ring, slot, fresh)\n    ring.next",
            ),
        ),
        "the tail is moved once in eight": (
            (
                "lab5",
                "    ring.bar.write32(RDT + ring.registers, slot)\n",
                "    if slot % 8 == 7:\n        ring.bar.write32(RDT + ring.registers, slot)\n",
            ),
        ),
        "status alone is read, and the queue waited for by a pause": (
            (
                "lab5",
                '    _, status = struct.unpack("<QQ", ring.memory.read(slot * DESCRIPTOR, DESCRIPTOR))\n',
                '    status = int.from_bytes(ring.memory.read(slot * DESCRIPTOR + 8, 8), "little")\n',
            ),
            (
                "lab5",
                "    wait_for(bar, RXDCTL + at, RXDCTL_ENABLE, RXDCTL_ENABLE)\n",
                "    while not bar.read32(RXDCTL + at) & RXDCTL_ENABLE:\n        pass\n",
            ),
        ),
    },
    "lab6": {
        "legacy descriptors": (
            ("lab6", "length << PAYLEN_SHIFT | DEXT | RS | IFCS | EOP | DTYP_DATA | length", "RS | IFCS | EOP | length"),
        ),
        "the head is read instead of DD": (
            ("lab6", "DEXT | RS | IFCS", "DEXT | IFCS"),
            (
                "lab6",
                "    while ring.clean != ring.next:\n"
                '        _, status = struct.unpack("<QQ", ring.memory.read(ring.clean * DESCRIPTOR, DESCRIPTOR))\n'
                "        if not status & DD:\n            break\n",
                "    head = ring.bar.read32(TDH)\n    while ring.clean != head:\n",
            ),
        ),
        "another order": (
            (
                "lab6",
                "    bar.write32(TDBAL, low)\n    bar.write32(TDBAH, high)\n    bar.write32(TDLEN, ring.size * DESCRIPTOR)\n"
                "    bar.write32(TDH, 0)\n    bar.write32(TDT, 0)\n    bar.write32(DMATXCTL, bar.read32(DMATXCTL) | DMATXCTL_TE)\n",
                "    bar.write32(TDLEN, ring.size * DESCRIPTOR)\n    bar.write32(TDBAH, high)\n    bar.write32(TDBAL, low)\n"
                "    bar.write32(TXDCTL, TXDCTL_PREFETCH)\n    bar.write32(DMATXCTL, bar.read32(DMATXCTL) | DMATXCTL_TE)\n",
            ),
            ("lab6", "    prepare_transmit(bar)\n    ring = TxRing(bus, bar, pool, size)\n", "    ring = TxRing(bus, bar, pool, size)\n    prepare_transmit(bar)\n"),
        ),
        "two buffers a packet": (
            (
                "lab6",
                "    length = len(packet)\n"
                "    command = length << PAYLEN_SHIFT | DEXT | RS | IFCS | EOP | DTYP_DATA | length\n"
                '    ring.memory.write(slot * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer), command))\n'
                "    ring.buffers[slot] = buffer\n",
                "    length = len(packet)\n"
                "    second = (slot + 1) % ring.size\n"
                "    if length > 14 and (slot + 2) % ring.size != ring.clean:\n"
                "        command = length << PAYLEN_SHIFT | DEXT | IFCS | DTYP_DATA | 14\n"
                '        ring.memory.write(slot * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer), command))\n'
                "        command = length << PAYLEN_SHIFT | DEXT | RS | IFCS | EOP | DTYP_DATA | length - 14\n"
                '        ring.memory.write(second * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer) + 14, command))\n'
                "        ring.buffers[slot], ring.buffers[second] = -1, buffer\n"
                "        following = (slot + 2) % ring.size\n"
                "    else:\n"
                "        command = length << PAYLEN_SHIFT | DEXT | RS | IFCS | EOP | DTYP_DATA | length\n"
                '        ring.memory.write(slot * DESCRIPTOR, struct.pack("<QQ", ring.pool.address(buffer), command))\n'
                "        ring.buffers[slot] = buffer\n",
            ),
            (
                "lab6",
                "        if not status & DD:\n            break\n        ring.pool.give(ring.buffers[ring.clean])\n",
                "        first = ring.buffers[ring.clean] < 0\n"
                "        if first:\n"
                "            ring.clean = (ring.clean + 1) % ring.size\n"
                '            _, status = struct.unpack("<QQ", ring.memory.read(ring.clean * DESCRIPTOR, DESCRIPTOR))\n'
                "        if not status & DD:\n"
                "            ring.clean = (ring.clean - first) % ring.size\n"
                "            break\n"
                "        ring.pool.give(ring.buffers[ring.clean])\n",
            ),
        ),
    },
    "lab7": {
        "groups of 16": (("lab7", "GROUP = 8 ", "GROUP = 16 "),),
        "legacy descriptors both ways": (
            ("lab5", "SRRCTL_DESCTYPE_ADVANCED = 1 << 25", "SRRCTL_DESCTYPE_ADVANCED = 0"),
            ("lab5", "DD = 1 << 0\nEOP = 1 << 1\nLENGTH_SHIFT = 32", "DD = 1 << 32\nEOP = 1 << 33\nLENGTH_SHIFT = 0"),
            ("lab7", "length << PAYLEN_SHIFT | DEXT | IFCS | EOP | DTYP_DATA | length", "IFCS | EOP | length"),
        ),
        "the head is read instead of DD": (
            ("lab7", "        if slot % GROUP == GROUP - 1:\n            command |= RS\n", ""),
            (
                "lab7",
                "    while (ring.next - ring.clean) % ring.size >= GROUP:\n"
                "        last = ring.clean + GROUP - 1\n"
                '        _, status = struct.unpack("<QQ", ring.memory.read(last * DESCRIPTOR, DESCRIPTOR))\n'
                "        if not status & TX_DD:\n            break\n"
                "        for slot in range(ring.clean, ring.clean + GROUP):\n"
                "            ring.pool.give(ring.buffers[slot])\n"
                "        ring.clean = (ring.clean + GROUP) % ring.size\n",
                "    head = ring.bar.read32(0x06010)\n"
                "    while ring.clean != head:\n"
                "        ring.pool.give(ring.buffers[ring.clean])\n"
                "        ring.clean = (ring.clean + 1) % ring.size\n",
            ),
        ),
        "descriptors are armed behind the batch": (
            ("lab7", "        packets.append((ring.buffers[slot],", "        fresh_ones.append((slot, fresh))\n        packets.append((ring.buffers[slot],"),
            ("lab7", "        arm(ring, slot, fresh)\n", ""),
            ("lab7", "    packets: list[Packet] = []\n", "    packets: list[Packet] = []\n    fresh_ones: list[tuple[int, int]] = []\n"),
            ("lab7", "    if packets:\n        ring.bar", "    for slot, fresh in fresh_ones:\n        arm(ring, slot, fresh)\n    if packets:\n        ring.bar"),
        ),
    },
    "lab8": {
        "what finds no room waits": (
            (
                "lab8",
                "    while more():\n"
                "        for source, target in ((first, second), (second, first)):\n"
                "            packets = receive_batch(source.rx, BATCH)\n"
                "            sent = send_batch(target.tx, packets)\n"
                "            for buffer, _ in packets[sent:]:\n"
                "                source.rx.pool.give(buffer)\n",
                "    waiting: list[list[tuple[int, int]]] = [[], []]\n"
                "    while more():\n"
                "        for way, (source, target) in enumerate(((first, second), (second, first))):\n"
                "            packets = waiting[way] or receive_batch(source.rx, BATCH)\n"
                "            waiting[way] = packets[send_batch(target.tx, packets) :]\n"
                "    for packets in waiting:\n"
                "        for buffer, _ in packets:\n"
                "            first.rx.pool.give(buffer)\n",
            ),
        ),
        "one packet at a time, bytes by their upper half last": (
            ("lab8", "BATCH = 16", "BATCH = 1"),
            (
                "lab8",
                '    low = bar.read32(GORCL)\n    totals["rx_bytes"] += bar.read32(GORCH) << 32 | low\n',
                '    totals["rx_bytes"] += bar.read32(GORCL) + (bar.read32(GORCH) << 32)\n',
            ),
        ),
        "transmit is stopped first, in one go": (
            (
                "lab8",
                "    for control, enable in ((RXDCTL, RXDCTL_ENABLE), (TXDCTL, TXDCTL_ENABLE)):\n"
                "        bar.write32(control, bar.read32(control) & ~enable)\n"
                "        wait_for(bar, control, enable, 0)\n",
                "    bar.write32(TXDCTL, bar.read32(TXDCTL) & ~TXDCTL_ENABLE)\n"
                "    bar.write32(RXDCTL, bar.read32(RXDCTL) & ~RXDCTL_ENABLE)\n"
                "    for control, enable in ((RXDCTL, RXDCTL_ENABLE), (TXDCTL, TXDCTL_ENABLE)):\n"
                "        wait_for(bar, control, enable, 0)\n",
            ),
            (
                "lab8",
                "    return SPEEDS[links >> LINKS_SPEED_SHIFT & 3] if links & LINKS_UP else 0\n",
                "    return {5: 100, 6: 1_000, 7: 10_000}.get(links >> LINKS_SPEED_SHIFT & 7, 0)\n",
            ),
        ),
    },
    "interrupts": {
        "masked by the driver": (
            ("interrupts", "    bar.write32(EIAM_EX, 1 << 0)\n", ""),
            ("interrupts", " | GPIE_EIAME", ""),
            (
                "interrupts",
                "    if packet is None and interrupt.wait(timeout):\n        packet = receive(ring)\n",
                "    if packet is None and interrupt.wait(timeout):\n        packet = receive(ring)\n"
                "    ring.bar.write32(0x00888, 1 << 0)\n",
            ),
        ),
        "by the registers for more than 16 vectors": (
            ("interrupts", "EIMS = 0x00880", "EIMS = 0x00AA0"),
            ("interrupts", "bar.write32(EIAC, 1 << 0)", "bar.write32(EIAC, 0xFFFF)"),
        ),
        "the card remembers": (
            (
                "interrupts",
                "    packet = receive(ring)  # one that came before the interrupt was on\n"
                "    if packet is None and interrupt.wait(timeout):\n        packet = receive(ring)\n    return packet\n",
                "    return receive(ring) if interrupt.wait(timeout) else None\n",
            ),
        ),
    },
    "rss": {
        "the table first": (
            (
                "rss",
                '    for number, word in enumerate(struct.unpack("<10I", key)):\n'
                "        bar.write32(RSSRK + 4 * number, word)\n"
                '    for number, entries in enumerate(struct.unpack("<32I", bytes(table))):\n'
                "        bar.write32(RETA + 4 * number, entries)\n"
                "    bar.write32(RXCSUM, bar.read32(RXCSUM) | RXCSUM_PCSD)\n",
                "    bar.write32(RXCSUM, bar.read32(RXCSUM) | RXCSUM_PCSD)\n"
                "    for place in range(0, 128, 4):\n"
                '        bar.write32(RETA + place, int.from_bytes(bytes(table[place : place + 4]), "little"))\n'
                "    for place in range(0, 40, 4):\n"
                '        bar.write32(RSSRK + place, int.from_bytes(key[place : place + 4], "little"))\n',
            ),
        ),
        "by 32-bit words": (
            (
                "rss",
                '    kind, status = struct.unpack("<QQ", ring.memory.read(ring.next * DESCRIPTOR, DESCRIPTOR))\n'
                "    return kind >> HASH_SHIFT if status & DD else None\n",
                '    _, value, status, _ = struct.unpack("<4I", ring.memory.read(ring.next * DESCRIPTOR, DESCRIPTOR))\n'
                "    return value if status & DD else None\n",
            ),
        ),
        "MRQC in two steps": (
            (
                "rss",
                "    bar.write32(MRQC, MRQC_RSS | MRQC_TCP_IPV4 | MRQC_IPV4 | MRQC_UDP_IPV4)\n",
                "    bar.write32(MRQC, MRQC_TCP_IPV4 | MRQC_IPV4 | MRQC_UDP_IPV4)\n"
                "    bar.write32(MRQC, bar.read32(MRQC) | MRQC_RSS)\n",
            ),
        ),
    },
}  # fmt: skip
