"""Streams as a table of numbers, and the kernels that make packets by it: one machine code for all streams there are.

A packet begins as a copy of its frame, unless its buffer holds that still. Each field is a row: where it lies, how many
values it has, how they follow each other. A field's next value is number `index` of its values, and for all kinds
`index` is found alike, without a branch:

    index = (counted + drawn) modulo the number of values

where `drawn` is 0 for values that come in turn, and `counted` is 0 for random ones. With flows, `counted` is a digit of
the flow's number, which is written in as many digits as there are fields, each to the base of its field's values; so
no two flows have the same values. A random field is `drawn` by the digits before, so that flows are spread over its
values.

Checksums are made of a sum of what stays the same and of each value that is written (RFC 1624, equation 3): a frame
whose checksum was wrong keeps its fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import gcd, prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from ixy.apps.streams import MAX_SHARE, Stream, check_place, in_turn, numbers, payload_start, place_of
from ixy.apps.templates import Templates
from ixy.draws import HALF, drawn, key, mixed, scaled
from ixy.errors import ConfigurationError
from ixy.formats import signature
from ixy.formats.frames import MIN_FRAME
from ixy.headers import ABSENT, Icmp, Icmp6, Ipv4, Ipv6, Tcp, Udp, folded, put_word, word, words_sum
from ixy.jit import INTERPRETED, compiled, shared
from ixy.packets.buffers import BUFFER_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.streams import Choice
    from ixy.headers import Bytes

    Words = NDArray[np.int64]

T = TypeVar("T")

# What the generator writes into a packet's last bytes, by how many they are: nothing, its number, big-endian, or its
# signature (`formats/signature.py`)
NO_TAIL, NUMBER_BYTES, SIGNATURE_BYTES = 0, 4, signature.BYTES

# A row of `frames`, int32, see `Found`
LENGTH, IP_AT, IP_SUM, L4_AT, L4_SUM, ZERO, TAIL_MASK, TAIL_FACTOR, FRAME_WORDS = range(9)

# A row of `streams`: which entries of `entries` are its frames, how the next one is found; its fields, its flows;
# where its random numbers begin; and then what changes: packets so far, the key of the numbers at hand, the next entry
# and the next flow in turn
FIRST, ENTRIES, ENTRY_SPREAD, ENTRY_CYCLE, FIELD, FIELD_END, FLOWS, FLOW_SPREAD, FLOW_CYCLE, SEED = range(10)
COUNT, KEY, ENTRY, FLOW, STREAM_WORDS = range(10, 15)

# A row of `fields`: where it lies, in words of 16 bits; how many values it has, and 2^32 divided by that; their number
# again for random ones, else 0; for those that come in turn without flows, else 1; its value is BASE + index * STEP, or
# if LIST is not 0, BASE + values[LIST + index]; which sums it is in, as masks; and then what changes: the next index in
# turn
AT, WORDS, CHOICES, INVERSE, SPREAD, CYCLE, BASE, STEP, LIST, IN_IP, IN_L4, COUNTED, FIELD_WORDS = range(13)

_TAILS = {NO_TAIL: "nothing", NUMBER_BYTES: "number", SIGNATURE_BYTES: "signature"}
_INDEX = (1 << 40) - 1  # of an index: the compiler knows then that it is not below 0
_FEW = 1 << 12  # frames that the interpreter looks through in some tenths of a second; more, a kernel does


class StreamTable(NamedTuple):
    """Streams, as a kernel sees them.

    Attributes:
        data: the bytes of all frames, shape (any,), uint8.
        starts, sizes: where each frame lies in `data`, and how many bytes, shape (frames,), int64. What is missing to
            its length are zeros.
        frames: what else there is to know of each, shape (frames, FRAME_WORDS), int32.
        entries: numbers of frames, those of a stream in a row, int32.
        streams: shape (streams, STREAM_WORDS), int64.
        fields: shape (any, FIELD_WORDS), int64; the fields of a stream in a row.
        values: those of fields that have lists, int64; the first is nobody's.
        order: which stream has a packet next, int32, over and over.
        turn: shape (1,), int64: where in `order` that is.
        tail: how many of a packet's last bytes are written: NO_TAIL, NUMBER_BYTES or SIGNATURE_BYTES.
    """

    data: NDArray[np.uint8]
    starts: Words
    sizes: Words
    frames: NDArray[np.int32]
    entries: NDArray[np.int32]
    streams: Words
    fields: Words
    values: Words
    order: NDArray[np.int32]
    turn: Words
    tail: int


# ---------------------------------------------------------------------------------------------------------------------
# What is summed in a frame

# Words of what `find_sums` finds: where the checksums stand, 0 for none; what of the frame that of the transport layer
# covers, and whether the addresses too; what to write for it instead of 0; which bits of the number are covered, and by
# what their sum counts there: 256 if it begins at an odd byte (RFC 1071, 2 B)
_IP, _L4, _FROM, _END, _PSEUDO, _ZERO, _MASK, _FACTOR, _FOUND = range(9)

_ipv4, _ipv6 = Ipv4.locate, Ipv6.locate
_udp, _tcp, _icmp, _icmp6 = Udp.locate, Tcp.locate, Icmp.locate, Icmp6.locate


@shared(compiled)
def find_sums(packet: Bytes, numbered: bool, found: Words) -> None:
    """Find out what is summed in a frame."""
    for i in range(_FOUND):
        found[i] = 0
    end = 0
    ip = _ipv4(packet)
    if ip != ABSENT:
        found[_IP], end = ip + 10, ip + word(packet, ip + 2)
    else:
        ip = _ipv6(packet)
        if ip != ABSENT:
            end = ip + 40 + word(packet, ip + 4)
    at, field = _udp(packet), 6
    if at != ABSENT:
        end = min(end, at + word(packet, at + 4))
        found[_ZERO] = 0xFFFF  # RFC 768: zero means that there is none
    else:
        at, field = _tcp(packet), 16
    if at == ABSENT:
        at, field = _icmp6(packet), 2
    found[_PSEUDO] = at != ABSENT
    if at == ABSENT:
        at, field = _icmp(packet), 2
    # A datagram whose checksum is 0 has none.
    if at != ABSENT and not (found[_ZERO] != 0 and word(packet, at + field) == 0):
        found[_L4], found[_FROM], found[_END] = at + field, at, min(end, len(packet))
    tail = len(packet) - NUMBER_BYTES
    found[_FACTOR] = 256 if tail & 1 else 1
    if numbered and found[_L4] > 0:
        if tail < found[_L4] + 2:  # the number is written over headers: whoever wants that
            found[_L4] = 0
            return
        for i in range(NUMBER_BYTES):
            if tail + i < found[_END]:
                found[_MASK] |= 0xFF << 8 * (NUMBER_BYTES - 1 - i)


@shared(compiled)
def describe(packet: Bytes, numbered: bool, found: Words, frame: NDArray[np.int32]) -> None:
    """Write down what there is to know of a frame as long as only its number changes."""
    find_sums(packet, numbered, found)
    frame[LENGTH], frame[TAIL_FACTOR] = len(packet), found[_FACTOR]
    if found[_MASK] == 0:
        return
    frame[L4_AT], frame[ZERO] = found[_L4], found[_ZERO]
    frame[TAIL_MASK] = (found[_MASK] ^ 1 << 31) - (1 << 31)
    tail = len(packet) - NUMBER_BYTES
    before = number_sum(word(packet, tail) << 16 | word(packet, tail + 2), found[_MASK], found[_FACTOR])
    frame[L4_SUM] = inverse_sum(word(packet, found[_L4])) + inverse_sum(before)


@shared(compiled)
def inverse_sum(total: int) -> int:
    """What takes a sum away from another, of 16 bits in ones' complement."""
    return folded(total)


@shared(compiled)
def number_sum(number: int, mask: int, factor: int) -> int:
    """What a packet's number adds to the checksum's sum."""
    number &= mask
    return ((number >> 16 & 0xFFFF) + (number & 0xFFFF)) * factor


@compiled
def describe_all(
    data: NDArray[np.uint8], starts: Words, sizes: Words, numbered: bool, found: Words, frames: NDArray[np.int32]
) -> None:
    """The same for many frames, of which those that are too short are padded."""
    padded = np.zeros(MIN_FRAME, np.uint8)
    for i in range(starts.size):
        frame = data[starts[i] : starts[i] + sizes[i]]
        if frame.size < MIN_FRAME:
            padded[:] = 0
            padded[: frame.size] = frame
            frame = padded
        describe(frame, numbered, found, frames[i])


# ---------------------------------------------------------------------------------------------------------------------
# Making the table


def table_of(
    streams: Sequence[Stream] | Templates, *, tail: int = NO_TAIL, seed: int = 0, longest: int = BUFFER_SIZE
) -> StreamTable:
    """The table of some streams, or of one whose packets are templates in turn.

    Args:
        tail: what the generator writes into packets' last bytes, see above; no signatures into templates.
        seed: of what is drawn, 0 to 2^32 - 1.
        longest: bytes that a packet may have.

    Raises:
        ConfigurationError: there can be no such streams; the message says why.
    """
    numbered = tail == NUMBER_BYTES
    if isinstance(streams, Templates):
        return _table(streams, _described(streams, numbered), [_row(0, len(streams))], [], [0], [0], tail)
    order = _order(streams)
    each = [list(dict.fromkeys(stream.frames)) for stream in streams]  # each frame once
    for stream, own in zip(streams, each, strict=True):
        _check_sizes(stream, own, tail, longest)
    laid = [frame for own in each for frame in own]
    if tail == SIGNATURE_BYTES:
        laid = [_signable(stream.name, frame) for stream, own in zip(streams, each, strict=True) for frame in own]
    templates = Templates.of(laid, "streams", longest)
    frames = _described(templates, numbered)
    rows, fields, values, entries = list[list[int]](), list[list[int]](), [0], list[int]()
    first = 0
    for number, (stream, own) in enumerate(zip(streams, each, strict=True)):
        place = {frame: first + i for i, frame in enumerate(own)}
        row = _row(len(entries), len(stream.frames), random=stream.random_frames)
        row[SEED] = drawn(seed, number)
        if stream.flows is not None:
            row[FLOWS] = stream.flows
            row[FLOW_SPREAD], row[FLOW_CYCLE] = _next(stream.flows, stream.random_flows)
        row[FIELD] = len(fields)
        fields += _fields(stream, templates, frames, first, first + len(own), tail, values)
        row[FIELD_END] = len(fields)
        rows.append(row)
        entries += [place[frame] for frame in stream.frames]
        first += len(own)
    table = _table(templates, frames, rows, fields, values, order, tail)
    return table._replace(entries=np.array(entries, np.int32))


def _table(
    templates: Templates,
    frames: NDArray[np.int32],
    rows: list[list[int]],
    fields: list[list[int]],
    values: list[int],
    order: list[int],
    tail: int,
) -> StreamTable:
    return StreamTable(
        data=templates.data,
        starts=templates.starts,
        sizes=templates.sizes,
        frames=frames,
        entries=np.arange(len(templates), dtype=np.int32),
        streams=np.array(rows, np.int64),
        fields=np.array(fields, np.int64).reshape(-1, FIELD_WORDS),
        values=np.array(values, np.int64),
        order=np.array(order, np.int32),
        turn=np.zeros(1, np.int64),
        tail=tail,
    )


def rewind(table: StreamTable) -> None:
    """Let all streams begin anew."""
    table.streams[:, COUNT:] = 0
    table.fields[:, COUNTED] = 0
    table.turn[0] = 0


def _row(first: int, count: int, *, random: bool = False) -> list[int]:
    """A stream with these entries, and no fields."""
    row = [0] * STREAM_WORDS
    row[FIRST], row[ENTRIES] = first, count
    row[ENTRY_SPREAD], row[ENTRY_CYCLE] = _next(count, random)
    row[FLOW_CYCLE] = 1
    return row


def _next(count: int, random: bool) -> tuple[int, int]:
    """How one of `count` things is found: by chance among so many, 0 for not; after how many in turn it begins anew."""
    return (count, 1) if random else (0, count)


def _order(streams: Sequence[Stream]) -> list[int]:
    """Which stream sends next, over and over."""
    if not streams:
        raise ConfigurationError("no stream to send")
    shares = [stream.share for stream in streams]
    total = sum(shares) // reduce(gcd, shares)
    if total > MAX_SHARE:
        raise ConfigurationError(f"shares add up to {total}: up to {MAX_SHARE} are possible, as 3, 1 and 1")
    return in_turn(shares)


def _check_sizes(stream: Stream, frames: Sequence[bytes], tail: int, longest: int) -> None:
    for frame in frames:
        least = payload_start(frame) + tail
        if max(len(frame), MIN_FRAME) < least:
            raise ConfigurationError(
                f"{stream.name}: size {len(frame)}: its headers and the {_TAILS[tail]} behind them need {least} bytes"
            )
        if len(frame) > longest:
            raise ConfigurationError(f"{stream.name}: size {len(frame)}: up to {longest} bytes are possible")


def _signable(name: str, frame: bytes) -> bytes:
    """A frame that ends with what has the sum of all signatures, and its checksum as it is then; padded."""
    laid, found = bytearray(frame.ljust(MIN_FRAME, b"\0")), np.zeros(_FOUND, np.int64)
    start, end = len(laid) - SIGNATURE_BYTES, len(laid)
    find_sums(cast(Any, laid), False, found)
    before = words_sum(cast(Any, laid), start & ~1, end)
    laid[start:] = signature.SUM.to_bytes(SIGNATURE_BYTES, "big")
    if found[_L4] and found[_END] > start:
        if found[_END] < end:
            raise ConfigurationError(f"{name}: size {end}: its datagram ends within the last {SIGNATURE_BYTES} bytes")
        total = inverse_sum(word(cast(Any, laid), found[_L4])) + inverse_sum(before)
        checksum = folded(total + words_sum(cast(Any, laid), start & ~1, end))
        put_word(cast(Any, laid), found[_L4], checksum or int(found[_ZERO]))
    return bytes(laid)


def _described(templates: Templates, numbered: bool) -> NDArray[np.int32]:
    """What there is to know of each frame."""
    frames = np.zeros((len(templates), FRAME_WORDS), np.int32)
    found = np.zeros(_FOUND, np.int64)
    if not numbered:
        frames[:, LENGTH] = np.maximum(templates.sizes, MIN_FRAME)
    elif len(templates) <= _FEW or INTERPRETED:
        for number in range(len(templates)):
            describe(_frame(templates, number), numbered, found, frames[number])
    else:
        describe_all(templates.data, templates.starts, templates.sizes, numbered, found, frames)
    return frames


def _frame(templates: Templates, number: int) -> Any:
    """As it is sent, padded."""
    start = int(templates.starts[number])
    return templates.data[start : start + int(templates.sizes[number])].tobytes().ljust(MIN_FRAME, b"\0")


def _fields(
    stream: Stream,
    templates: Templates,
    frames: NDArray[np.int32],
    first: int,
    last: int,
    tail: int,
    values: list[int],
) -> list[list[int]]:
    """The rows of a stream's fields, whose frames are those from `first` to before `last`; their sums go there."""
    rows = list[list[int]]()
    own = [_frame(templates, number) for number in range(first, last)]
    found, numbered = np.zeros(_FOUND, np.int64), tail == NUMBER_BYTES
    for name, choice in stream.fields.items():
        rows.append(_field(f"{stream.name}: {name}", name, own, choice, stream.flows is not None, values))
        find_sums(own[0], numbered, found)
        rows[-1][IN_IP], rows[-1][IN_L4] = _sums_with(rows[-1], own[0], found)
    _check_apart(stream, rows, min(map(len, own)) - tail, _TAILS[tail])
    if stream.flows is not None:
        _check_flows(stream, rows)
        rows.sort(key=lambda row: row[SPREAD] and row[CHOICES])  # of random ones, the first is drawn least
    for number, frame in zip(range(first, last), own, strict=True):
        find_sums(frame, numbered, found)
        _take_out(rows, frame, found, frames[number])
    return rows


def _field(
    said: str, name: str, frames: Sequence[bytes], choice: Choice, with_flows: bool, values: list[int]
) -> list[int]:
    """The row of a field. What else stands in its words of 16 bits becomes a part of its value."""
    places = {_named(said, place_of, name, frame) for frame in frames}
    if len(places) > 1:
        raise ConfigurationError(f"{said}: it does not lie at the same place in all packets of the stream")
    (place,) = places
    choice = _named(said, numbers, name, choice)
    check_place(said, place, choice)
    start, end = place.offset & ~1, place.offset + place.size + 1 & ~1
    if end - start > 8:
        raise ConfigurationError(f"{said}: 8 bytes that begin at an odd one are too many")
    shift = place.shift + 8 * (end - place.offset - place.size)
    others = {int.from_bytes(frame[start:end].ljust(end - start, b"\0")) & ~(place.mask << shift) for frame in frames}
    if len(others) > 1:
        raise ConfigurationError(f"{said}: the bytes beside it differ from packet to packet of the stream")
    row = [0] * FIELD_WORDS
    count = _count(choice.values)
    row[AT], row[WORDS] = start, (end - start) // 2
    row[CHOICES], row[INVERSE] = count, (1 << 32) // count
    row[SPREAD], row[CYCLE] = (count, 1) if choice.random else (0, 1 if with_flows else count)
    (base,) = others
    if isinstance(choice.values, range):
        base += choice.values[0] << shift
        row[STEP] = choice.values.step << shift
    else:
        row[LIST] = len(values)
        values += [_signed(value << shift) for value in choice.values]
    row[BASE] = _signed(base)
    return row


def _named(said: str, function: Callable[..., T], *arguments: object) -> T:
    """Call a function; an error names the stream."""
    try:
        return function(*arguments)
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(f"{said.rpartition(': ')[0]}: {text}") from error


def _count(values: Sequence[int]) -> int:
    """How many there are, also where `len` cannot say it."""
    return (values[-1] - values[0]) // values.step + 1 if isinstance(values, range) else len(values)


def _signed(value: int) -> int:
    """64 bits as a signed number."""
    return (value & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)


def _sums_with(row: list[int], frame: bytes, found: Words) -> tuple[int, int]:
    """Whether a field is in the sum of IPv4's header, and in that of the transport layer, as masks."""
    start = row[AT]
    ip, ip6 = _ipv4(frame), _ipv6(frame)
    in_ip = ip != ABSENT and ip <= start < ip + 4 * (frame[ip] & 15)
    in_addresses = (in_ip and start >= ip + 12 and start < ip + 20) or (ip6 != ABSENT and ip6 + 8 <= start < ip6 + 40)
    in_l4 = found[_FROM] <= start < found[_END] or (in_addresses and bool(found[_PSEUDO]))
    return -int(in_ip), -int(in_l4 and bool(found[_L4]))


def _check_apart(stream: Stream, rows: Sequence[list[int]], end: int, tail: str) -> None:
    """Whether no two fields lie in the same words, and none where the tail is."""
    last = 0
    for row, name in sorted(zip(rows, stream.fields, strict=True)):
        if row[AT] < last:
            raise ConfigurationError(f"{stream.name}: {name} shares 16 bits with another field that changes")
        last = row[AT] + 2 * row[WORDS]
        if last > end:
            raise ConfigurationError(f"{stream.name}: {name} lies where the packet's {tail} is written")


def _check_flows(stream: Stream, rows: Sequence[list[int]]) -> None:
    possible = prod(row[CHOICES] for row in rows)
    assert stream.flows is not None
    if possible < stream.flows:
        raise ConfigurationError(f"{stream.name}: {stream.flows} flows: its fields tell {possible} apart")


def _take_out(rows: Sequence[list[int]], frame: Any, found: Words, sums: NDArray[np.int32]) -> None:
    """Take what fields of a frame hold out of its sums."""
    for checksum, mask, at, total in ((_IP, IN_IP, IP_AT, IP_SUM), (_L4, IN_L4, L4_AT, L4_SUM)):
        inside = [row for row in rows if row[mask]]
        if not inside or not found[checksum]:
            continue
        if not sums[at]:
            sums[at] = found[checksum]
            sums[total] = inverse_sum(word(frame, int(found[checksum])))
        for row in inside:
            for start in range(row[AT], row[AT] + 2 * row[WORDS], 2):
                sums[total] += inverse_sum(int.from_bytes(frame[start : start + 2].ljust(2, b"\0")))
    sums[ZERO] = found[_ZERO]


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


@compiled
def next_stream(table: StreamTable) -> int:
    """Whose turn it is."""
    turn = table.turn[0] & _INDEX
    table.turn[0] = turn + 1 if turn + 1 < table.order.size else 0
    return int(table.order[turn])


@compiled
def step(row: Words, counter: int, cycle: int) -> int:
    """A number in turn: what the counter says, which goes on."""
    value = row[counter]
    row[counter] = value + 1 if value + 1 < cycle else 0
    return value


@compiled
def next_frame(table: StreamTable, stream: int) -> int:
    """Which frame the stream's next packet is."""
    row = table.streams[stream & _INDEX]
    entry = step(row, ENTRY, row[ENTRY_CYCLE])
    if row[ENTRY_SPREAD] > 0:
        entry = scaled(drawn(row[SEED] + 1 & HALF, row[COUNT]), row[ENTRY_SPREAD])
    return int(table.entries[row[FIRST] + entry & _INDEX])


@compiled
def write(target: NDArray[np.uint8], at: int, words: int, value: int) -> int:
    """Write words of 16 bits in network byte order; their sum."""
    at &= _INDEX
    total = 0
    while words > 2:
        words -= 1
        total += write_word(target, at, value >> 16 * words & 0xFFFF)
        at += 2
    if words == 2:
        total += write_word(target, at, value >> 16 & 0xFFFF)
        at += 2
    return total + write_word(target, at, value & 0xFFFF)


@compiled
def write_word(target: NDArray[np.uint8], at: int, value: int) -> int:
    """The word, once it is written."""
    at &= _INDEX
    target[at] = value >> 8
    target[at + 1] = value & 0xFF
    return value


@compiled
def fill(table: StreamTable, target: NDArray[np.uint8], start: int, stream: int, frame: int, number: int) -> None:
    """Make what lies from `start` on, a copy of the frame but for its fields, the stream's next packet.

    Args:
        number: what is written into its last bytes and summed, if the frame has a mask for that.
    """
    row, about = table.streams[stream & _INDEX], table.frames[frame & _INDEX]
    number_of_stream = row[COUNT]
    if number_of_stream & HALF == 0:
        row[KEY] = key(row[SEED], number_of_stream)
    draw = mixed(row[KEY] ^ number_of_stream)
    row[COUNT] = number_of_stream + 1
    rest, flowing = 0, row[FLOWS] > 0
    if flowing:
        rest = step(row, FLOW, row[FLOW_CYCLE]) + scaled(draw, row[FLOW_SPREAD])
        draw = row[SEED]
    ip_sum, l4_sum = int(about[IP_SUM]), int(about[L4_SUM])
    for k in range(row[FIELD], row[FIELD_END]):
        field = table.fields[k & _INDEX]
        choices = field[CHOICES]
        if flowing:  # a digit, by a quotient that is one too small at most
            quotient = rest * field[INVERSE] >> 32
            index = rest - quotient * choices
            over = index >= choices
            index -= choices if over else 0
            rest = quotient + over
        else:
            index = step(field, COUNTED, field[CYCLE])
        digit = index
        index += scaled(draw, field[SPREAD])
        index -= choices if index >= choices else 0
        if k + 1 < row[FIELD_END]:  # another one is drawn
            draw = mixed(draw + digit + 1)
        value = field[BASE] + index * field[STEP]
        if field[LIST] > 0:
            value += table.values[field[LIST] + index & _INDEX]
        total = write(target, start + field[AT], field[WORDS], value)
        ip_sum += total & field[IN_IP]
        l4_sum += total & field[IN_L4]
    if about[IP_AT] > 0:
        write(target, start + int(about[IP_AT]), 1, folded(ip_sum))
    if about[L4_AT] > 0:
        l4_sum += number_sum(number, int(about[TAIL_MASK]), int(about[TAIL_FACTOR]))
        checksum = folded(l4_sum)
        write(target, start + int(about[L4_AT]), 1, checksum if checksum != 0 else int(about[ZERO]))
