"""A first start, with an empty cache: what it compiles. It is counted and not timed, so that it stays what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

PATH = {
    "ixy.drivers.rings",
    "ixy.packets.buffers",
    "ixy.packets.checking",
    "ixy.packets.packets",
    "ixy.packets.pool",
    "ixy.path",
    "ixy.asking",
    "ixy.polls",
    "ixy.unsafe",
    "ixy.unsafe.views",
}
IXGBE = {"ixy.drivers.ixgbe.datapath"}
VIRTIO = {
    "ixy.drivers.virtio.rings.packed",
    "ixy.drivers.virtio.rings.state",
    "ixy.drivers.virtio.transports.transport",
}
# What the demo runs besides: the model, as far as frames go from a generator through two cards to a sink.
MODEL = {
    *(f"ixy.sim.card.{name}" for name in ("dma", "frame", "receive", "transmit")),
    *("ixy.sim.loop", "ixy.sim.slots", "ixy.sim.wires.generator", "ixy.sim.wires.sink", "ixy.tables.order"),
}


def program(what: str, cache: Path, *number: str) -> Counter[str]:
    """The functions that a program of `ixy bench start` compiles in a process of its own."""
    command = [sys.executable, "-m", "ixy.bench.start", what, *number]
    environment = os.environ | {
        "IXY_JIT": "1",
        "IXY_CHECK": "0",
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    compiled, seconds = json.loads(run.stdout)
    assert (seconds is not None and seconds > 0) == bool(number)
    return Counter(name for name, _ in compiled)


def modules(names: Counter[str]) -> set[str]:
    """The modules of ours that functions are of."""
    return {name.partition(".<locals>")[0].rpartition(".")[0] for name in names if name.startswith("ixy.")}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


def test_demo(caches: Path) -> None:
    """The demo compiles its own and no more than that, each function for few types; the second time nothing."""
    compiled = program("demo", caches / "demo")
    assert modules(compiled) <= PATH | IXGBE | MODEL
    assert sum(compiled.values()) <= 117
    assert max(compiled.values()) <= 2
    assert program("demo", caches / "demo") == {}


@pytest.mark.parametrize(("what", "driver", "most"), [("forward", IXGBE, 74), ("virtio", VIRTIO, 88)])
def test_forwarder_on_other_devices(caches: Path, what: str, driver: set[str], most: int) -> None:
    """Without simulated cards nothing of the model is compiled, nor another driver's rings; nor what recovers a path,
    as nothing has gone wrong. What a function of the user's is part of is not kept for others."""
    compiled = program(what, caches / what)
    assert modules(compiled) <= PATH | driver
    assert sum(compiled.values()) <= most
    assert not any("recover" in name for name in compiled)
    kept = {path.name.partition(".callee-")[0] for path in (caches / what).glob("*.callee-*")}
    assert {"pool.give", "path._enter"} <= kept
    assert not any(name.endswith((".poll", ".ask", ".verdict")) for name in kept)
    assert program(what, caches / what) == {}
    compiled = program(what, caches / what, "3")
    assert any(name.endswith("count") for name in compiled)
    assert not modules(compiled) & driver
    assert program(what, caches / what, "3") == {}
