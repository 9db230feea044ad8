"""`ixy bench xdp` with DPDK's drivers of the kernel's interfaces: all that they count was sent to them."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from ixy.cli.bench import bench

pytestmark = [pytest.mark.peer, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")]


def test_all_are_measured_and_compared() -> None:
    """A start of each: costs of our driver, then a row for each program, ours beside the faster one of DPDK's."""
    done = CliRunner().invoke(bench, ["xdp", "receive", "--batch", "32", "--seconds", "0.1", "--repeat", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    costs = [each for each in found if "unit" in each]
    assert sorted({each["batch"] for each in costs}) == [1, 8, 32, 64]
    assert all(each["median"] > 0 for each in costs)
    rows = {each["contender"]: each for each in found if "contender" in each}
    rivals = {"ixy xdp:": ["net_af_xdp", "net_af_xdp,busy_budget=0"], "ixy packet:": ["net_af_packet"]}
    for ours, names in rivals.items():
        theirs = max(names, key=lambda name: rows[name]["mpps"]["median"])
        assert rows[ours]["beside"]["rival"] == theirs
        assert rows[ours]["beside"]["fast"] == pytest.approx(
            rows[ours]["mpps"]["median"] / rows[theirs]["mpps"]["median"], abs=0.001
        )
    assert all(0 < row["share"] <= 1 for row in rows.values())
