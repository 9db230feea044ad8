"""Streams from a YAML file.

    streams:
      - name: web
        share: 3
        size: imix                # 64, or 64,512,1500 in turn, or 64-1500 at random; without frame check sequence
        flows: 1000000            # each packet is of any of them; "1000000 in turn"
        packet:                   # headers, from the outermost on; what is not said follows from the rest
          eth: {dst: 02:00:00:00:00:02}
          vlan: {id: {count: 100-199}}
          ipv4: {src: {random: 10.0.0.0/8}, dst: 192.0.2.1}
          udp: {sport: {random: 1024-65535}, dport: {count: [53, 443]}}
          payload: {fill: "abc", "0:4": {count: 0-999, step: 3}}
      - scapy: Ether()/IP(dst="192.0.2.0/24")/ICMP()
        fields: {ipv4.id: {count: 0-65535}}

All values are read as text, so that 12:34:56 is no number of seconds. An error names the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ixy.apps.compose import DEFAULT_FILL, compose, payload_fill
from ixy.apps.streams import MAX_FLOWS, MAX_SHARE, Choice, Stream, parse_sizes
from ixy.apps.templates import scapy_frames
from ixy.arguments import whole_number
from ixy.errors import ConfigurationError
from ixy.formats.frames import MAX_FRAME, MIN_FRAME
from ixy.headers import HEADERS, fields

T = TypeVar("T")

_MAX_FILE = 1 << 20  # bytes
_MAX_STREAMS = 1 << 8
_STREAM = ("name", "share", "size", "flows", "packet", "scapy", "fields")
_IN_TURN = " in turn"
_BYTES = re.compile(r"\d{1,4}:\d{1,4}", re.ASCII)


class _Node(NamedTuple):
    """A part of the file: a text, a list of parts or a mapping from texts to parts, and its line, counted from 1."""

    value: str | list[_Node] | dict[str, _Node]
    line: int


class _File:
    """A file that is being read.

    Args:
        path: for messages.
        longest: bytes that a frame may have.
    """

    def __init__(self, path: str, longest: int) -> None:
        self.path, self.longest = path, longest

    def error(self, node: _Node, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: line {node.line}: {text}")

    def at(self, node: _Node, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function; an error names the line."""
        try:
            return function(*arguments)
        except ConfigurationError as error:
            raise self.error(node, str(error)) from error

    def text(self, node: _Node, what: str) -> str:
        if not isinstance(node.value, str):
            raise self.error(node, f"{what} is one value")
        return node.value

    def mapping(self, node: _Node, what: str, known: Mapping[str, object] | tuple[str, ...] = ()) -> dict[str, _Node]:
        """A mapping whose keys are `known`, if there are such."""
        if not isinstance(node.value, dict):
            raise self.error(node, f"{what} is a mapping, NAME: VALUE")
        for key, value in node.value.items():
            if known and key not in known:
                raise self.error(value, f"{what}: {key!r} is unknown; there are {', '.join(known)}")
        return node.value

    def sequence(self, node: _Node, what: str) -> list[_Node]:
        if not isinstance(node.value, list):
            raise self.error(node, f"{what} is a list, each of its items behind a hyphen")
        return node.value


def read_streams(path: str, longest: int = MAX_FRAME) -> list[Stream]:
    """The streams of a file.

    Args:
        longest: what `size` may be.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, or its streams cannot be.
    """
    file = _File(path, longest)
    root = _parsed(path, _contents(path))
    top = file.mapping(root, "the file", ("streams",))
    if "streams" not in top:
        raise file.error(root, "streams: is missing")
    nodes = file.sequence(top["streams"], "streams")
    if not 1 <= len(nodes) <= _MAX_STREAMS:
        raise file.error(top["streams"], f"{len(nodes)} streams: 1 to {_MAX_STREAMS} are possible")
    return [_stream(file, node, number) for number, node in enumerate(nodes)]


def _contents(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise ConfigurationError(f"{path}: larger than {_MAX_FILE} bytes, so hardly a description of streams")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: no text in UTF-8") from error


def _parsed(path: str, text: str) -> _Node:
    import yaml  # which takes some time to load

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigurationError(f"{path}: line 1: streams: is missing")
        return _converted(path, root, {})
    except RecursionError as error:
        raise ConfigurationError(f"{path}: nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigurationError(f"{path}: line {line}: {problem}") from error


def _converted(path: str, node: Any, done: dict[int, _Node | None]) -> _Node:
    """A node of PyYAML's as one of ours. One that is named in several places (&NAME, *NAME) is converted once.

    Args:
        done: nodes that were converted, and None for those that are being.
    """
    line = node.start_mark.line + 1
    if id(node) in done:
        known = done[id(node)]
        if known is None:
            raise ConfigurationError(f"{path}: line {line}: it contains itself")
        return known
    done[id(node)] = None
    value: Any = node.value
    if node.id == "sequence":
        value = [_converted(path, item, done) for item in node.value]
    elif node.id == "mapping":
        value = _entries(path, node, done)
    done[id(node)] = converted = _Node(value, line)
    return converted


def _entries(path: str, node: Any, done: dict[int, _Node | None]) -> dict[str, _Node]:
    """The entries of a mapping, each with the line of its name."""
    entries: dict[str, _Node] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.id != "scalar":
            raise ConfigurationError(f"{path}: line {line}: a name is a text")
        if key.value in entries:
            raise ConfigurationError(f"{path}: line {line}: {key.value!r} is there twice")
        entries[key.value] = _Node(_converted(path, value, done).value, line)
    return entries


def _stream(file: _File, node: _Node, number: int) -> Stream:
    parts = file.mapping(node, "a stream", _STREAM)
    name = file.text(parts["name"], "name") if "name" in parts else f"stream {number}"
    share, flows, random_flows = 1, None, True
    if "share" in parts:
        share = file.at(parts["share"], whole_number, "share", file.text(parts["share"], "share"), 1, MAX_SHARE)
    if "flows" in parts:
        text = file.text(parts["flows"], "flows")
        random_flows = not text.endswith(_IN_TURN)
        flows = file.at(parts["flows"], whole_number, "flows", text.removesuffix(_IN_TURN), 1, MAX_FLOWS)
    frames, choices, random_frames = _from_scapy(file, parts) if "scapy" in parts else _from_headers(file, node, parts)
    return file.at(
        node,
        lambda: Stream(name, frames, choices, share, flows, random_flows=random_flows, random_frames=random_frames),
    )


def _from_scapy(file: _File, parts: dict[str, _Node]) -> tuple[list[bytes], dict[str, Choice], bool]:
    """The frames of a stream that Scapy builds."""
    for other in ("packet", "size"):
        if other in parts:
            raise file.error(parts[other], f"scapy and {other} exclude each other")
    expression = file.text(parts["scapy"], "scapy")
    frames = [frame.ljust(MIN_FRAME, b"\0") for frame in file.at(parts["scapy"], scapy_frames, expression)]
    given = file.mapping(parts["fields"], "fields") if "fields" in parts else {}
    return frames, {name: _choice(file, value, name) for name, value in given.items()}, False


def _from_headers(file: _File, node: _Node, parts: dict[str, _Node]) -> tuple[list[bytes], dict[str, Choice], bool]:
    """Those of one whose headers are listed; UDP if they are not."""
    if "fields" in parts:
        raise file.error(parts["fields"], "fields goes with scapy; in packet, a field has its values where it stands")
    size = file.text(parts["size"], "size") if "size" in parts else str(MIN_FRAME)
    sizes = file.at(parts.get("size", node), parse_sizes, "size", size, MIN_FRAME, file.longest)
    packet = parts.get("packet", _Node({"ipv4": _Node({}, node.line), "udp": _Node({}, node.line)}, node.line))
    headers = dict(file.mapping(packet, "packet", (*HEADERS, "payload")))
    fill, choices = _payload(file, headers.pop("payload", None))
    constants: dict[str, dict[str, Any]] = {}
    for name, header in headers.items():
        constants[name] = {}
        for what, value in file.mapping(header, name, tuple(fields(HEADERS[name]))).items():
            if isinstance(value.value, str):
                constants[name][what] = _number(file, value, f"{name}.{what}", value.value)
            else:
                choice = choices[f"{name}.{what}"] = _choice(file, value, f"{name}.{what}")
                constants[name][what] = choice.values[0]
    unique = list(dict.fromkeys(sizes.each))
    made = dict(zip(unique, file.at(packet, compose, constants, fill, unique), strict=True))
    return [made[each] for each in sizes.each], choices, sizes.random


def _payload(file: _File, node: _Node | None) -> tuple[bytes, dict[str, Choice]]:
    """What the payload repeats, and the bytes of it that change."""
    if node is None:
        return DEFAULT_FILL, {}
    if isinstance(node.value, str):
        return file.at(node, payload_fill, node.value), {}
    given = dict(file.mapping(node, "payload"))
    fill = DEFAULT_FILL
    if "fill" in given:
        text = given.pop("fill")
        fill = file.at(text, payload_fill, file.text(text, "fill"))
    for where, value in given.items():
        if not _BYTES.fullmatch(where):
            raise file.error(value, f'payload[{where}]: write FROM:TO, such as "0:4" for the first 4 bytes, or fill')
    return fill, {f"payload[{where}]": _choice(file, value, f"payload[{where}]") for where, value in given.items()}


def _choice(file: _File, node: _Node, name: str) -> Choice:
    """Values of a field: `{count: 1-9, step: 2}`, `{random: [1, 5]}`."""
    parts = file.mapping(node, name, ("count", "random", "step"))
    kinds = [kind for kind in ("count", "random") if kind in parts]
    if len(kinds) != 1:
        raise file.error(node, f"{name}: write one value, or {{count: …}}, or {{random: …}}")
    (kind,) = kinds
    given = parts[kind]
    if isinstance(given.value, str):
        text = parts.get("step")
        step = file.at(text, whole_number, "step", file.text(text, "step"), 1, 1 << 32) if text else 1
        values: Any = _range(file, given, name, given.value, step)
    elif "step" in parts:
        raise file.error(parts["step"], f"{name}: step goes with a range, not with a list")
    else:
        values = [_number(file, item, name, file.text(item, name)) for item in file.sequence(given, name)]
    return file.at(given, Choice, values, kind == "random")


def _range(file: _File, node: _Node, name: str, text: str, step: int) -> range:
    """`1-9`, `10.0.0.1-10.0.0.9`, `10.0.0.0/8`; one value is a range too."""
    if "/" in text:
        try:
            network = ip_network(text.strip())
        except ValueError as error:
            raise file.error(node, f"{name}: {error}") from error
        return range(int(network.network_address), int(network.broadcast_address) + 1, step)
    first, dash, last = text.partition("-")
    low = _number(file, node, name, first.strip())
    high = _number(file, node, name, last.strip()) if dash else low
    if low > high:
        raise file.error(node, f"{name} {text}: write the smaller value first")
    return range(low, high + 1, step)


def _number(file: _File, node: _Node, name: str, text: str) -> int:
    """A value as a number: 42, 0x2a, or an address where the field is one."""
    header, _, what = name.partition(".")
    place = fields(HEADERS[header]).get(what) if header in HEADERS else None
    kind: Any = place.kind if place else int
    if kind is int:
        if text.lower().startswith("0x"):
            try:
                return int(text, 16)
            except ValueError:
                raise file.error(node, f"{name}: {text!r} is no number") from None
        return file.at(node, whole_number, name, text, 0, place.mask if place else (1 << 64) - 1)
    try:
        return int(kind.parse(text))
    except ValueError as error:
        raise file.error(node, f"{name}: {error}") from error
