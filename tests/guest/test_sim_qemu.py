"""`ixy sim qemu`, and two cards in one guest, across a reboot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cards import guest_with_cards

from ixy.sim.checklist import Status, report_of

_RUN = "import sys; from ixy.cli.sim import sim; sys.exit(sim.main(sys.argv[1:], standalone_mode=False))"


def sim(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run `ixy sim …`."""
    command = [sys.executable, "-c", _RUN, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)


def test_the_cards_are_in_qemus_slots() -> None:
    """QEMU's monitor, without a guest, shows two 82599s; QEMU's end ends the command."""
    done = sim(
        *("qemu", "--card", "sim:a,cable=b", "--card", "sim:b,cable=a", "--"),
        *("-nodefaults", "-display", "none", "-monitor", "stdio", "-m", "256M"),
        text="info pci\nquit\n",
    )
    assert done.returncode == 0, done.stderr
    for slot, name in ((16, "a"), (17, "b")):
        card = done.stdout.partition(f"device  {slot}, function 0:")[2].partition("Bus")[0]
        assert f'id "{name}"' in card
        assert "[0x0007fffe]" in card  # BAR 0: 512 KiB
    assert "how its driver brought it up" not in done.stderr  # there was none


def test_qemus_exit_code_is_the_commands() -> None:
    """QEMU refuses an option: its words and exit code."""
    done = sim("qemu", "--", "-no-such-option")
    assert done.returncode == 1
    assert "no-such-option" in done.stderr


_PING = """set -e
modprobe ixgbe
/usr/sbin/ip netns add other
/usr/sbin/ip link set eth1 netns other
/usr/sbin/ip addr add 10.82.98.1/24 dev eth0
/usr/sbin/ip -n other addr add 10.82.98.2/24 dev eth1
/usr/sbin/ip link set eth0 up
/usr/sbin/ip -n other link set eth1 up
until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 10000; done
until ping -c 1 -W 1 10.82.98.2; do :; done
ping -A -q -c 200 10.82.98.2
"""


def test_two_cards_with_a_cable_survive_a_reboot(tmp_path: Path) -> None:
    """Linux pings from one card to the other; the machine restarts amid it all, and so it does once more."""
    addresses = ["sim:a,cable=b", "sim:b,cable=a"]
    with guest_with_cards(tmp_path / "guest", addresses, ["-action", "reboot=reset"]) as (guest, attachment):
        for boot in range(2):
            if boot:
                guest.reboot()
            result = guest.run(_PING)
            assert result.exit_code == 0, result.output
            assert "200 packets received" in result.output
        assert [attachment.machine.dma_refused(card.card) for card in attachment.cards] == [0, 0]
        for report in (report_of(card.card) for card in attachment.cards):
            # A driver that works on cards is punished for nothing, whatever it leaves out.
            assert not [rule for rule in report.broken if rule.punished], str(report)
            became = {step: status for step, _, status in report.steps}
            for step in ("reset", "receive rings set", "receive queues enabled", "transmit queues enabled"):
                assert became[step] is Status.DONE, str(report)
