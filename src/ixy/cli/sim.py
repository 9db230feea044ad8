"""The commands `ixy sim …`."""

from __future__ import annotations

import click

from ixy.cli.options import logging_options


@click.group()
def sim() -> None:
    """Simulated cards beyond this process.

    \b
    Example:
      sudo ixy sim qemu --card sim:a,tap=ixy0 -- -hda debian.qcow2 -nographic
    """


@sim.command()
@click.option("--card", "cards", multiple=True, metavar="SIM", help="A card; may be repeated.  [default: sim:a]")
@click.option("--qemu", "program", default="qemu-system-x86_64", show_default=True, help="QEMU's program.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- QEMU ARGUMENTS")
@logging_options
def qemu(cards: tuple[str, ...], program: str, arguments: tuple[str, ...]) -> int:
    """Start QEMU with simulated 82599s in its PCI slots: test any 82599 driver without a card.

    The cards are those of `ixy --help`, with the same wires; the first is PCI device 0000:00:10.0 of the guest. The
    machine is a q35 with 1 GiB of memory unless -m says otherwise. Ends when QEMU does, with its exit code; Ctrl-C
    and SIGTERM end both.

    \b
    Examples:
      sudo ixy sim qemu --card sim:a,tap=ixy0 -- -hda debian.qcow2 -nographic
      ixy sim qemu --card sim:a,cable=b --card sim:b,cable=a -- -m 2G -kernel vmlinuz -initrd initrd.img -nographic
      ixy sim qemu --card sim:a,gen=60,rate=1000 -- -hda debian.qcow2 -nographic
    """
    from ixy.apps.sim_qemu import run_qemu

    return run_qemu(cards or ("sim:a",), arguments, program)
