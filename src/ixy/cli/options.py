"""Options that commands share, and what they set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import click

from ixy.apps.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def number(given: str | int) -> int:
    """A whole number from 1 up, as the type of an option; 1e6 and 1_000_000 are numbers too."""
    text = str(given)
    try:
        value = float(text) if "e" in text.lower() else int(text)
        if value == int(value) >= 1:
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise click.BadParameter(f"{text!r} is no whole number from 1 up")


def logging_options(function: F) -> F:
    """`--trace` and `--verbose`, which any command takes, before or after its name."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Say what is done."),
        click.option(
            "--trace",
            is_flag=True,
            expose_value=False,
            callback=_trace,
            help="Print each access to a register of a card, decoded, to standard error.",
        ),
    ):
        function = option(function)
    return function


def packet_options(function: Callable[..., int]) -> Callable[..., int]:
    """The options of a command that handles packets; it gets them as `settings`."""
    names = {field.name for field in fields(Settings)}

    @wraps(function)
    def command(**values: Any) -> int:
        settings = Settings(**{name: values.pop(name) for name in names})
        return function(settings=settings, **values)

    for option in (
        click.option("--force", is_flag=True, help="Even if a card's interface has an address or carries a route."),
        click.option("--link-timeout", default=Settings.link_timeout, metavar="S", help="Seconds to wait for a link."),
        click.option("--pool", type=int, metavar="N", help="Packet buffers per device, else 4096 or 2 rings."),
        click.option("--ring", default=Settings.ring, metavar="N", help="Descriptors per ring, 64 to 4096."),
        json_option,
        batch_option,
        click.option("--seconds", type=click.FloatRange(min=0), metavar="S", help="End after so many seconds."),
        click.option("--count", type=number, metavar="N", help="End after so many packets."),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Report in JSON, an object a line.")
batch_option = click.option("--batch", default=Settings.batch, metavar="N", help="The most packets handled at a time.")


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
