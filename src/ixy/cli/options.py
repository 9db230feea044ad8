"""Options that commands share, and what they set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ixy.apps.settings import (
    MAX_CORES,
    MAX_COUNT,
    MAX_POOL,
    MAX_RING,
    MAX_SECONDS,
    MIN_RING,
    Settings,
)
from ixy.arguments import number, whole_number
from ixy.drivers.offloads import MAX_MTU, MIN_MTU, OFFLOADS
from ixy.errors import ConfigurationError
from ixy.formats.frames import MAX_FRAME, MIN_FRAME

ParamType = click.ParamType[Any] if TYPE_CHECKING else click.ParamType
F = TypeVar("F", bound=Callable[..., Any])


class _Within(ParamType):
    """The type of an option that has bounds. The help shows them: --rate 1..1E9."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.name = f"{low}..{f'{high:g}'.replace('e+0', 'e').replace('e+', 'e') if high >= 1e7 else high}"


class Whole(_Within):
    """A whole number; 1e6 and 1_000_000 are numbers too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        return value if isinstance(value, int) else whole_number(_name(param), value, int(self.low), int(self.high))


class _Number(_Within):
    """A number, in fractions too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ARG002
        try:
            given = float(value)
        except ValueError:
            raise ConfigurationError(f"{_name(param)} {value!r} is no number") from None
        return number(_name(param), given, self.low, self.high)


class Seconds(_Number):
    """A time, in seconds or fractions of one."""


class Percent(_Number):
    """Hundredths, or fractions of one."""


class Cores(ParamType):
    """Numbers of processor cores, with commas between them."""

    name = "N,N…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:  # noqa: ARG002
        return [whole_number(_name(param), text, 0, MAX_CORES) for text in str(value).split(",")]


class Names(ParamType):
    """Words, with commas between them."""

    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(value.split(",")) if isinstance(value, str) else tuple(value)


def _name(option: click.Parameter | None) -> str:
    """As the user writes it: --count."""
    return max(option.opts, key=len) if option else "the value"


FRAME_SIZE = Whole(MIN_FRAME, MAX_FRAME)
FILE = click.Path(readable=False)  # a shell completes it; who opens it says what is wrong


def logging_options(function: F) -> F:
    """`--trace` and `--verbose`, which any command takes, before or after its name."""
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Say what is done."
    )
    return trace_option(verbose(function))


def trace_option(function: F) -> F:
    """`--trace`."""
    return click.option(
        "--trace",
        is_flag=True,
        expose_value=False,
        callback=_trace,
        help="Print each access to a register of a card, decoded, to standard error.",
    )(function)


def packet_options(function: Callable[..., int]) -> Callable[..., int]:
    """The options of a command that handles packets until a limit; it gets them as `settings`."""
    command = device_options(function)
    for option in (
        click.option(
            "--mtu",
            type=Whole(MIN_MTU, MAX_MTU),
            help="The longest payload of a frame, 9000 for jumbo frames.  [default: the device's, mostly 1500]",
        ),
        click.option("--seconds", type=Seconds(0, MAX_SECONDS), help="End after so many seconds."),
        click.option("-c", "--count", type=Whole(1, MAX_COUNT), help="End after so many packets."),
    ):
        command = option(command)
    return command


def device_options(function: Callable[..., int]) -> Callable[..., int]:
    """Those of a command that handles packets, and has its own limits; it gets them as `settings`, with its own option
    `--seconds` if it has one."""
    names = {field.name for field in fields(Settings)}

    @wraps(function)
    def command(**values: Any) -> int:
        settings = Settings(**{name: values.pop(name) for name in names & values.keys()})
        return function(settings=settings, **values)

    for option in (
        click.option("--force", is_flag=True, help="Even if a card's interface has an address or carries a route."),
        click.option(
            "--link-timeout",
            type=Seconds(0, MAX_SECONDS),
            default=Settings.link_timeout,
            show_default=True,
            help="Seconds to wait for a link.",
        ),
        click.option("--pool", type=Whole(1, MAX_POOL), help="Packet buffers per device, else 4096 or 2 rings."),
        click.option(
            "--ring",
            type=Whole(MIN_RING, MAX_RING),
            default=Settings.ring,
            show_default=True,
            help="Descriptors per ring, a power of two.",
        ),
        sandbox_option,
        json_option,
        batch_option,
    ):
        command = option(command)
    return command


offload_option = click.option(
    "--offload",
    "offloads",
    type=Names(),
    default=(),
    help=f"What both devices are to do to packets, with commas between: {', '.join(OFFLOADS)}.",
)
wait_option = click.option("--wait", is_flag=True, help="Sleep while no packets come, and poll while they do.")
json_option = click.option("--json", "as_json", is_flag=True, help="Report in JSON, an object a line.")
sandbox_option = click.option(
    "--sandbox/--no-sandbox",
    default=None,
    help="Give up privileges before the run: capabilities, files, most system calls.  [default: for root]",
)
batch_option = click.option(
    "--batch",
    type=Whole(1, MAX_RING),
    default=Settings.batch,
    show_default=True,
    help="The most packets handled at a time, up to a ring.",
)


def log_to_stderr() -> None:
    """Warnings, and what the options ask for, go to standard error; each line says that it is ixy's."""
    logger = logging.getLogger("ixy")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("ixy: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)


def _verbose(_context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        logging.getLogger("ixy").setLevel(logging.INFO)


def _trace(_context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        logger = logging.getLogger("ixy.registers")
        logger.handlers = [logging.StreamHandler()]
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
