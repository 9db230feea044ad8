"""The commands `ixy sim …`."""

from __future__ import annotations

import click

from ixy.cli.options import logging_options, sandbox_option


@click.group()
def sim() -> None:
    """Simulated cards beyond this process.

    \b
    Examples:
      sudo ixy sim qemu --card sim:a,tap=ixy0 -- -hda debian.qcow2 -nographic
      sudo ixy sim report
    """


@sim.command()
@click.argument("cards", nargs=-1, metavar="[SIM]...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a card.")
@logging_options
def report(cards: tuple[str, ...], as_json: bool) -> None:
    """Say what the drivers of simulated cards did.

    It is a check-list, and the rules that they broke. It asks the `ixy sim qemu` of yours that is running; when it
    ends, it prints the same on standard error. For each step of the datasheet's initialisation: done, left out, wrong
    order, not waited for. Rules that are punished do on the card what they do on a real one; the others cards bear. A
    program that opens simulated cards itself has the same by `ixy.sim.report("a")`.

    \b
    Examples:
      ixy sim report
      ixy sim report sim:a --json | jq '.[].broken'
    """
    from ixy.apps.sim_report import print_reports

    print_reports(cards, as_json=as_json)


@sim.command()
@click.option("--card", "cards", multiple=True, metavar="SIM", help="A card; may be repeated.  [default: sim:a]")
@click.option("--qemu", "program", default="qemu-system-x86_64", show_default=True, help="QEMU's program.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- QEMU ARGUMENTS")
@sandbox_option
@logging_options
def qemu(cards: tuple[str, ...], program: str, arguments: tuple[str, ...], sandbox: bool | None) -> int:
    """Start QEMU with simulated 82599s in its PCI slots.

    So any driver for an 82599 is tested without a card. The cards are those of `ixy --help`, with the same wires; the
    first is PCI device 0000:00:10.0 of the guest. The machine is a q35 with 1 GiB of memory unless -m says otherwise.
    A virtual function, such as sim:a.vf0, is a PCI device of its own, 8086:10ed; the driver of its physical function is
    then ours, and runs here. (The guest sees no SR-IOV capability, as it reaches 256 bytes of configuration space.)
    Ends when QEMU does, with its exit code; Ctrl-C and SIGTERM end both. At the end it says what the cards' drivers
    did; `ixy sim report` asks meanwhile.

    \b
    Examples:
      sudo ixy sim qemu --card sim:a,tap=ixy0 -- -hda debian.qcow2 -nographic
      ixy sim qemu --card sim:a,cable=b --card sim:b,cable=a -- -m 2G -kernel vmlinuz -initrd initrd.img -nographic
      ixy sim qemu --card sim:a,gen=60,rate=1000 -- -hda debian.qcow2 -nographic
      sudo ixy sim qemu --card sim:a.vf0,vfs=2,tap=ixy0 --card sim:a.vf1 -- -hda debian.qcow2 -nographic
    """
    from ixy.apps.sim_qemu import run_qemu

    return run_qemu(cards or ("sim:a",), arguments, program, sandbox)
