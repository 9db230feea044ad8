"""The flow director of a simulated 82599: a table of flows in the packet buffer, and the queues that they go to.

A filter is in a bucket, by a hash of its fields that software computes when it adds it and the card for each packet.
The filters of a bucket are a list. In perfect match mode the fields of a filter are compared, in signature mode a
second hash. Numbers here are as on the wire, the first byte the most significant one, whatever the order of a register.

Sections are those of the Intel 82599 datasheet, revision 3.3. What that does not say of commands is as in the X550's
datasheet, 7.1.3.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ixy.jit import compiled
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card.classify import addresses_of
from ixy.sim.card.frame import half, word
from ixy.sim.card.layers import SCTP, TCP, UDP, Layers, tag_of
from ixy.sim.card.state import BUCKETS, FILTER_WORDS, OVERWRITTEN
from ixy.sim.card.words import Words
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.card.ready import Ready

# Words of a filter
(
    NEXT,  # the next one of its bucket, a number from 1 on; 0: it is the last
    IDENTITY,  # hash and signature, or hash and software's index, as in FDIRHASH
    COMMAND,  # as in FDIRCMD: what becomes of a packet
    SOURCE,
    TARGET,
    PORTS,  # the source's in the upper half
    TAG,  # VLAN, with its priority
    FLEX,  # two bytes from anywhere in the frame
) = range(8)

_FDIRCTRL = reg.FDIRCTRL.offset // 4
_FDIRDIP4M = reg.FDIRDIP4M.offset // 4
_FDIRHKEY = reg.FDIRHKEY.offset // 4
_FDIRIP6M = reg.FDIRIP6M.offset // 4
_FDIRM = reg.FDIRM.offset // 4
_FDIRSIP4M = reg.FDIRSIP4M.offset // 4
_FDIRSKEY = reg.FDIRSKEY.offset // 4
_FDIRTCPM = reg.FDIRTCPM.offset // 4
_FDIRUDPM = reg.FDIRUDPM.offset // 4

_PBALLOC, _PERFECT_MATCH = reg.FDIRCTRL.mask("PBALLOC"), reg.FDIRCTRL.mask("PERFECT_MATCH")
_CMD, _CLEARHT, _FILTER_VALID = reg.FDIRCMD.mask("CMD"), reg.FDIRCMD.mask("CLEARHT"), reg.FDIRCMD.mask("FILTER_VALID")
_FILTER_UPDATE, _POOL = reg.FDIRCMD.mask("FILTER_UPDATE"), reg.FDIRCMD.mask("POOL")
_ADD, _REMOVE, _QUERY = 1, 2, 3  # FDIRCMD.CMD
_ACTION = reg.FDIRCMD.mask("DROP", "QUEUE_EN", "RX_QUEUE")
_FLOW_TYPE = reg.FDIRCMD.mask("L4TYPE", "IPV6")
_COLLISION = reg.FDIRCMD.mask("COLLISION")
_HASH = reg.FDIRHASH.mask("HASH")
_FLOW_TYPE_SHIFT, _POOL_SHIFT = 5, 24  # in FDIRCMD
_INDEX_SHIFT = 16  # in FDIRHASH
_INDEX_MASK = 0x7FFF
_UDP_FLOW, _TCP_FLOW, _SCTP_FLOW, _IPV6_FLOW = 1, 2, 3, 4  # FDIRCMD.L4TYPE and IPV6
_VLAN_ID, _VLAN_PRIORITY = 0x0FFF, 0xE000
_MASK_ID, _MASK_PRIORITY, _MASK_POOL = reg.FDIRM.mask("VLANID"), reg.FDIRM.mask("VLANP"), reg.FDIRM.mask("POOL")
_MASK_PROTOCOL, _MASK_FLEX = reg.FDIRM.mask("L4P"), reg.FDIRM.mask("FLEX")


# ---------------------------------------------------------------------------------------------------------------------
# What the card does to a packet


class Flow(NamedTuple):
    """What the flow director sees of a packet; what is masked is 0.

    Attributes:
        source, target: IPv4 addresses, or for IPv6 the parts of each, added without carry.
        ports, tag, flex: as in a filter.
        kind: L4TYPE, and IPV6 as its third bit.
        pool: 0 without virtualisation.
    """

    source: int
    target: int
    ports: int
    tag: int
    flex: int
    kind: int
    pool: int


class Found(NamedTuple):
    """What came of a look into the table.

    Attributes:
        filter: its number, 0 for none.
        depth: how many filters were looked at before it, or in vain.
        identity: of the filter, or what one for this packet would have.
    """

    filter: int
    depth: int
    identity: int


@compiled
def is_candidate(registers: NDArray[np.uint32], layers: Layers) -> bool:
    """Whether a packet is compared with filters: IP, and no fragment unless protocol and ports are masked.

    IPv6 is not in perfect match mode: no driver is known that asks for it there.
    """
    control = load_acquire(registers, _FDIRCTRL)
    if control & _PBALLOC == 0 or control & OVERWRITTEN or layers.version == 0:
        return False
    if layers.version == 6 and control & _PERFECT_MATCH:
        return False
    return not layers.is_fragment or load_acquire(registers, _FDIRM) & _MASK_PROTOCOL != 0


@compiled
def flow_of(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers, pool: int) -> Flow:
    """The fields of a packet that are compared, and hashed (7.1.2.7.4)."""
    masked = load_acquire(registers, _FDIRM)
    kind = _IPV6_FLOW if layers.version == 6 else 0
    ports = 0
    if layers.transport_size > 0:
        if masked & _MASK_PROTOCOL == 0:
            kind |= flow_type(layers.protocol)
        # SCTP is treated as TCP (8.2.3.21.9)
        hidden = load_acquire(registers, _FDIRUDPM if layers.protocol == UDP else _FDIRTCPM)
        ports = word(frame, layers.transport) & ~mirrored(hidden)
    tag = tag_of(frame, start, layers)
    if masked & _MASK_ID:
        tag &= ~_VLAN_ID
    if masked & _MASK_PRIORITY:
        tag &= ~_VLAN_PRIORITY
    flex = 0
    if masked & _MASK_FLEX == 0:
        flex = half(frame, start + 2 * ((load_acquire(registers, _FDIRCTRL) >> 16) & 31))
    addresses, _ = addresses_of(layers)
    if layers.version == 4:
        source = word(frame, addresses) & ~swapped(load_acquire(registers, _FDIRSIP4M))
        target = word(frame, addresses + 4) & ~swapped(load_acquire(registers, _FDIRDIP4M))
    else:
        hidden = load_acquire(registers, _FDIRIP6M)
        source = folded(frame, addresses, hidden & 0xFFFF)
        target = folded(frame, addresses + 16, hidden >> 16)
    return Flow(
        source,
        target,
        ports,
        tag & (_VLAN_ID | _VLAN_PRIORITY),
        flex,
        kind,
        pool if masked & _MASK_POOL == 0 else 0,
    )


@compiled
def flow_type(protocol: int) -> int:
    if protocol == UDP:
        return _UDP_FLOW
    return _TCP_FLOW if protocol == TCP else _SCTP_FLOW * (protocol == SCTP)


@compiled
def folded(frame: NDArray[np.uint8], at: int, hidden: int) -> int:
    """An IPv6 address as four numbers that are added without carry, but for the bytes that are masked."""
    total = 0
    for i in range(16):
        if (hidden >> i) & 1 == 0:
            total ^= load_acquire(frame, at + i) << (8 * (3 - (i & 3)))
    return total


@compiled
def swapped(value: int) -> int:
    """32 bits with their bytes in the other order."""
    return ((value & 0xFF) << 24) | ((value & 0xFF00) << 8) | ((value >> 8) & 0xFF00) | (value >> 24)


@compiled
def mirrored(mask: int) -> int:
    """A mask of ports as it is to be applied: bit 0 is for bit 15 of the source's port (8.2.3.21.6)."""
    found = 0
    for bit in range(16):
        found |= ((mask >> bit) & 1) << (31 - bit)
        found |= ((mask >> (16 + bit)) & 1) << (15 - bit)
    return found


@compiled
def hash_of(flow: Flow, key: int) -> int:
    """The hash of a flow, 16 bits (7.1.2.7.16).

    By the datasheet, for each bit of the key, repeated as long as the fields are, 16 bits of the fields are added
    without carry. As the key repeats each 32 bits, so the fields may be added up before. The first 32 bits are special:
    bit 0 of the fields meets no bit of the key, and behind the last one come the first again.
    """
    head = (flow.pool << 24) | (flow.kind << 16) | flow.tag
    high = flow.source ^ flow.target ^ flow.ports ^ (flow.flex << 16)
    low = exchanged(high)
    high ^= head ^ (head >> 16)
    total = low * (key & 1) ^ high * ((key >> 16) & 1)
    low ^= head ^ ((head << 16) & 0xFFFFFFFF)
    for bit in range(1, 16):
        total ^= (low >> bit) * ((key >> bit) & 1) ^ (high >> bit) * ((key >> (16 + bit)) & 1)
    return total & 0xFFFF


@compiled
def exchanged(value: int) -> int:
    """32 bits with their halves in the other order."""
    return (value >> 16) | ((value & 0xFFFF) << 16)


@compiled
def bucket_mask(control: int) -> int:
    """The bits of a hash that name a bucket, by FDIRCTRL (7.1.2.7.5)."""
    least = 0x400 if control & _PERFECT_MATCH else 0x1000
    return (least << (control & _PBALLOC)) - 1


@compiled
def look_up(registers: NDArray[np.uint32], flows: NDArray[np.int64], flow: Flow) -> Found:
    """The first filter of its bucket that a flow matches (7.1.2.7.6)."""
    control = load_acquire(registers, _FDIRCTRL)
    bucket = hash_of(flow, load_acquire(registers, _FDIRHKEY)) & bucket_mask(control)
    signature = 0
    if control & _PERFECT_MATCH == 0:
        signature = hash_of(flow, load_acquire(registers, _FDIRSKEY)) & _INDEX_MASK
    number, depth = flows[bucket], 0
    while number != 0 and depth < BUCKETS:
        at = place(number)
        if control & _PERFECT_MATCH:
            found = equals(flows, at, flow)
        else:
            found = flows[at + IDENTITY] >> _INDEX_SHIFT == signature
        if found:
            return Found(number, depth, flows[at + IDENTITY])
        number = flows[at + NEXT]
        depth += 1
    return Found(0, depth, (signature << _INDEX_SHIFT) | bucket)


@compiled
def place(number: int) -> int:
    """Where a filter's words begin."""
    return BUCKETS + (number - 1) * FILTER_WORDS


@compiled
def equals(flows: NDArray[np.int64], at: int, flow: Flow) -> bool:
    """Whether all fields are those of the filter at this place."""
    command = flows[at + COMMAND]
    return (
        flows[at + SOURCE] == flow.source
        and flows[at + TARGET] == flow.target
        and flows[at + PORTS] == flow.ports
        and flows[at + TAG] == flow.tag
        and flows[at + FLEX] == flow.flex
        and (command & _FLOW_TYPE) >> _FLOW_TYPE_SHIFT == flow.kind
        and (flow.pool == 0 or (command >> _POOL_SHIFT) & 0x3F == flow.pool)
    )


# ---------------------------------------------------------------------------------------------------------------------
# What software does to the table


class FlowDirector(Words):
    """The registers of one card's flow director, and what commands do to its table.

    Args:
        registers, flows: the card's rows of the rack's arrays.
        ready: the card's.
        alarm: raises the flow director's interrupt.
    """

    def __init__(
        self, registers: NDArray[np.uint32], flows: NDArray[np.int64], ready: Ready, alarm: Callable[[], None]
    ) -> None:
        super().__init__(registers)
        self._flows = flows
        self._ready = ready
        self._alarm = alarm
        self.reset()

    def rules(self) -> tuple[dict[int, Callable[[], int]], dict[int, Callable[[int], None]]]:
        """What reading and writing the registers does, by offset."""
        reads = {row.offset: lambda row=row: self._take(row) for row in (reg.FDIRLEN, reg.FDIRUSTAT, reg.FDIRFSTAT)}
        return reads, {reg.FDIRCTRL.offset: self._write_fdirctrl}

    def reset(self) -> None:
        """There is no table: FDIRCTRL makes the next one."""
        self._fresh = True
        self._free: list[int] = []  # numbers of filters, the next one last

    def _write_fdirctrl(self, value: int) -> None:
        """Makes an empty table, but only the first time after a reset or CLEARHT (8.2.3.21.1; Linux, DPDK).

        With PBALLOC 0 there is no memory for one: the next time is still the first.
        """
        done = reg.FDIRCTRL.mask("INIT_DONE")
        self._put(reg.FDIRCTRL, value & ~OVERWRITTEN | done)
        self._ready.begin(reg.FDIRCTRL, done)
        if self._fresh and value & _PBALLOC:
            self._flows[:BUCKETS] = 0
            self._free = list(range(capacity(value), 0, -1))
            self._put(reg.FDIRFREE, len(self._free))
            self._fresh = False

    def adds(self, command: int) -> bool:
        """Whether a value of FDIRCMD does nothing but add a filter, or change one. The card may look meanwhile: a new
        filter is complete before it is linked, and in an old one it finds what a word was or will be.
        """
        return command & (_CMD | _CLEARHT) == _ADD

    def command(self, value: int) -> None:
        """What FDIRCMD's CMD says, which then reads 0 (8.2.3.21.22)."""
        if value & _CLEARHT:
            self._flows[:BUCKETS] = 0
            self.reset()
        done = {_ADD: self._add, _REMOVE: self._remove, _QUERY: self._query}.get(value & _CMD)
        answer = value & ~(_CMD | _FILTER_VALID)
        self._put(reg.FDIRCMD, done(answer) if done else answer)
        if done:
            self._ready.begin(reg.FDIRCMD, _CMD, shown=value)

    def _add(self, command: int) -> int:
        """Add a filter behind the others of its bucket, or change the one that has the same flow (7.1.2.7.7, …8)."""
        new = self._filter(command)
        numbers = self._bucket(new[IDENTITY] & _HASH)
        same = next((number for number in numbers if self._is_same(number, new)), None)
        if same is not None:
            self._change(same, new)
        elif not self._free:
            self._count(reg.FDIRFSTAT, FADD=1)
            self._alarm()
        else:
            number = self._free.pop()
            self._flows[place(number) :][:FILTER_WORDS] = new
            self._link(new[IDENTITY] & _HASH, numbers, number)
            self._note_free()
            self._count(reg.FDIRUSTAT, ADD=1)
            self._note_length(new[IDENTITY] & _HASH, len(numbers))
            if len(self._free) == 16 * self._decode(reg.FDIRCTRL)["FULL_THRESH"]:
                self._alarm()
        return command

    def _filter(self, command: int) -> list[int]:
        """The words of the filter that the registers describe; a number of the next one is still to come."""
        tag = self._get(reg.FDIRVLAN)
        return [
            0,
            self._identity(),
            command & ~_COLLISION,
            swapped(self._get(reg.FDIRIPSA)),
            swapped(self._get(reg.FDIRIPDA)),
            exchanged(self._get(reg.FDIRPORT)),
            tag & 0xFFFF,
            tag >> 24 | (tag >> 8) & 0xFF00,
        ]

    def _identity(self) -> int:
        """FDIRHASH, with as much of the hash as there are buckets."""
        mask = bucket_mask(self._get(reg.FDIRCTRL)) | _INDEX_MASK << _INDEX_SHIFT
        return self._get(reg.FDIRHASH) & mask

    def _is_same(self, number: int, new: list[int]) -> bool:
        """Whether a filter of the same bucket has the same flow, by fields or by signature."""
        old = self._words(number)
        if self._get(reg.FDIRCTRL) & _PERFECT_MATCH:
            return old[SOURCE:] == new[SOURCE:] and not (old[COMMAND] ^ new[COMMAND]) & (_FLOW_TYPE | _POOL)
        return old[IDENTITY] == new[IDENTITY]

    def _change(self, number: int, new: list[int]) -> None:
        """FILTER_UPDATE: it gets the new action. Else it keeps its own, and is marked if they differ."""
        at = place(number)
        old = self._words(number)
        if new[COMMAND] & _FILTER_UPDATE:
            new[NEXT] = old[NEXT]
            new[COMMAND] |= old[COMMAND] & _COLLISION
            self._flows[at:][:FILTER_WORDS] = new
        elif (old[COMMAND] ^ new[COMMAND]) & _ACTION and not old[COMMAND] & _COLLISION:
            self._flows[at + COMMAND] |= _COLLISION
            self._note_collisions(1)

    def _remove(self, command: int) -> int:
        """Remove the filter that FDIRHASH names (7.1.2.7.9)."""
        identity = self._identity()
        numbers = self._bucket(identity & _HASH)
        found = next((number for number in numbers if self._words(number)[IDENTITY] == identity), None)
        if found is None:
            self._count(reg.FDIRFSTAT, FREMOVE=1)
            return command
        words = self._words(found)
        self._link(identity & _HASH, numbers[: numbers.index(found)], words[NEXT])
        self._free.append(found)
        self._note_free()
        self._note_collisions(-1 if words[COMMAND] & _COLLISION else 0)
        self._count(reg.FDIRUSTAT, REMOVE=1)
        return command

    def _query(self, command: int) -> int:
        """Say whether FDIRHASH's filter is there, and what it is (7.1.2.7.12)."""
        identity = self._identity()
        numbers = self._bucket(identity & _HASH)
        index = next((i for i, number in enumerate(numbers) if self._words(number)[IDENTITY] == identity), None)
        self._set(reg.FDIRHASH, BUCKET_VALID=int(bool(numbers)))
        self._set(reg.FDIRLEN, BUCKET_LENGTH=min(len(numbers) if index is None else index, 63))
        if index is None:
            return command
        words = self._words(numbers[index])
        if self._decode(reg.FDIRCTRL)["PERFECT_MATCH"]:
            flex = words[FLEX] >> 8 | (words[FLEX] & 0xFF) << 8
            self._put(reg.FDIRIPSA, swapped(words[SOURCE]))
            self._put(reg.FDIRIPDA, swapped(words[TARGET]))
            self._put(reg.FDIRPORT, exchanged(words[PORTS]))
            self._put(reg.FDIRVLAN, reg.FDIRVLAN.value(VLAN=words[TAG], FLEX=flex))
        return words[COMMAND] & ~_FILTER_UPDATE | _FILTER_VALID

    # -- the table

    def _bucket(self, bucket: int) -> list[int]:
        """The numbers of a bucket's filters."""
        numbers: list[int] = []
        number = 0 if self._fresh else int(self._flows[bucket])
        while number:
            numbers.append(number)
            number = int(self._flows[place(number) + NEXT])
        return numbers

    def _link(self, bucket: int, before: list[int], number: int) -> None:
        """Let a filter, or none, follow the last of those before it."""
        self._flows[place(before[-1]) + NEXT if before else bucket] = number

    def _words(self, number: int) -> list[int]:
        return self._flows[place(number) :][:FILTER_WORDS].tolist()

    # -- registers

    def _note_free(self) -> None:
        self._set(reg.FDIRFREE, FREE=len(self._free))

    def _note_collisions(self, more: int) -> None:
        self._set(reg.FDIRFREE, COLL=max(self._decode(reg.FDIRFREE)["COLL"] + more, 0))

    def _note_length(self, bucket: int, depth: int) -> None:
        """The longest list so far has a filter more than MAXLEN says (8.2.3.21.11)."""
        if depth > self._decode(reg.FDIRLEN)["MAXLEN"]:
            self._set(reg.FDIRLEN, MAXLEN=min(depth, 63), MAXHASH=bucket)

    def _count(self, register: Register, **more: int) -> None:
        """Counters stick at their largest value."""
        old = self._decode(register)
        self._set(
            register,
            **{name: min(old[name] + n, register.mask(name) >> register.fields[name].low) for name, n in more.items()},
        )

    def _take(self, register: Register) -> int:
        """Reading clears."""
        value = self._get(register)
        self._put(register, 0)
        return value


def capacity(control: int) -> int:
    """How many filters the table has room for that FDIRCTRL describes (7.1.2.7.5; of perfect ones, Linux agrees)."""
    size = control & _PBALLOC
    if size == 0:
        return 0
    return (1024 << size) - 2 if control & _PERFECT_MATCH else (4096 << size) - 1
