"""The commands `ixy course …`."""

from __future__ import annotations

from pathlib import Path

import click

from ixy.cli.options import FILE, Seconds, logging_options

_SHORTEST, _LONGEST = 1, 3600  # seconds

directory_argument = click.argument("directory", metavar="[DIR]", default=".", type=FILE)
deadline_option = click.option(
    "--deadline",
    type=Seconds(_SHORTEST, _LONGEST),
    default=30.0,
    show_default=True,
    help="Seconds after which code that still runs is ended.",
)


@click.group()
def course() -> None:
    """Learn to write your own driver for an 82599, lab by lab.

    Eight labs lead from an empty file to a forwarder, in plain Python, beside the datasheet; two more are about
    interrupts and receive-side scaling. Each is checked on simulated cards, and what is wrong is said by register or
    descriptor field and section.

    \b
    Examples:
      ixy course start mydriver
      ixy course check 1 mydriver
    """


@course.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a lab.")
@logging_options
def list_labs(as_json: bool) -> None:
    """List the labs, and the functions to write in each.

    \b
    Examples:
      ixy course list
      ixy course list --json | jq ".[].title"
    """
    from ixy.course.telling import print_list

    print_list(as_json=as_json)


@course.command()
@click.argument("directory", metavar="DIR", type=FILE)
@logging_options
def start(directory: str) -> None:
    """Write pages and skeletons of all labs into a directory.

    It is made if need be. Files that are there already are left as they are.

    \b
    Examples:
      ixy course start mydriver
    """
    from ixy.course.telling import print_start

    print_start(Path(directory))


@course.command()
@click.argument("lab", metavar="LAB")
@directory_argument
@deadline_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@logging_options
def check(lab: str, directory: str, deadline: float, as_json: bool) -> int:
    """Run the code of a lab on simulated cards, and say what is wrong.

    LAB is 1 to 8, interrupts or rss; the files are those in DIR, by default here. It runs in a process of its own,
    whose clocks are simulated: time.sleep() takes no time. What the code prints goes to standard error.

    Exit codes: 0 all is right; 1 something is wrong; 2 there is no such lab or file.

    \b
    Examples:
      ixy course check 3
      ixy course check rss mydriver --json | jq ".trials[] | select(.passed | not)"
    """
    from ixy.course.telling import print_check

    return int(not print_check(lab, Path(directory), deadline, as_json=as_json))


@course.command()
@directory_argument
@deadline_option
@click.option(
    "--sandbox/--no-sandbox",
    default=True,
    show_default=True,
    help="Let students' code open no files, sockets or programs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@logging_options
def grade(directory: str, deadline: float, sandbox: bool, as_json: bool) -> int:
    """Check all labs of a student, or of many: for teachers.

    DIR has a student's files, or a directory for each student. Printed is a line for each, with the labs that are
    right; --json has all that was found, in one object. The code is run with few rights, but not by another user.

    Exit codes: 0 all eight labs of everybody are right; 1 some are not; 2 there is nobody.

    \b
    Examples:
      ixy course grade mydriver
      ixy course grade handed-in --json > grades.json
    """
    from ixy.course.telling import print_grades

    return int(not print_grades(Path(directory), deadline, as_json=as_json, sandboxed=sandbox))
