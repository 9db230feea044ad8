"""Put small faults into the driver, one at a time, and see whether the tests that run through the place notice.

    python tools/mutants.py [--count 600] [--seed 1] [--workers 2] [FILE…]

Cosmic Ray makes the faults. First all tests run once, interpreted and under coverage, which tells for each line which
tests reach it and how long they take; then each fault of a seeded sample meets those, the quickest first. All that
happens in copies of the tree in `.cache/mutants`, where the report ends up too: each fault that no test noticed, and
why that is accepted, if `tools/mutants.toml` says so.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import coverage
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "mutants"
TREE = CACHE / "tree"  # a copy, in which nothing changes meanwhile
MUTATED = ["src/ixy/drivers", "src/ixy/packets", "src/ixy/path.py"]
# Without those that use network interfaces of the machine: two workers would be in each other's way.
TESTS = ["tests/unit", "tests/sim", "--ignore=tests/sim/test_real_traffic.py", "--ignore=tests/sim/test_bench.py"]
KERNELS = {"compiled", "outlined", "checked"}  # decorators that do nothing where kernels are interpreted
MEMORY = 8 << 30  # bytes that tests may allocate with a fault
STARTUP, SLOWNESS = 30, 4  # and how long they may take: seconds, and times as long as without it


@dataclass(frozen=True)
class Mutant:
    """One fault: what Cosmic Ray's `operator` makes of its place number `occurrence` in `file`."""

    file: str
    line: int
    operator: str
    occurrence: int

    def code(self) -> str:
        changed = mutate_code((TREE / self.file).read_text(), get_operator(self.operator)(), self.occurrence)
        assert changed is not None
        return changed


# ---------------------------------------------------------------------------------------------------------------------
# Which faults


def mutants(file: str) -> Iterator[Mutant]:
    """All faults of a file but those in what is never evaluated."""
    source = (TREE / file).read_text()
    ignored = [
        ((part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0))
        for part in unevaluated(ast.parse(source))
    ]
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue
        places = (start for node in nodes for start, _ in operator().mutation_positions(node))
        for occurrence, place in enumerate(places):
            if not any(start <= place < end for start, end in ignored):
                yield Mutant(file, place[0], name, occurrence)


def unevaluated(tree: ast.Module) -> Iterator[ast.expr | ast.stmt]:
    """Annotations, what only a type checker sees, and decorators of kernels."""
    for node in ast.walk(tree):
        parts: list[ast.expr | ast.stmt | None] = []
        if isinstance(node, ast.FunctionDef):
            kernel = [at for at in node.decorator_list if isinstance(at, ast.Name) and at.id in KERNELS]
            parts = [node.returns, *kernel]
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            parts = [node.annotation]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            parts = [node]
        yield from filter(None, parts)


# ---------------------------------------------------------------------------------------------------------------------
# Which tests


def measure() -> None:
    """Run all tests once, without a fault; keeps which lines each reached, and how long it took."""
    command = ["-m", "coverage", "run", f"--data-file={CACHE / 'coverage'}", "--source=ixy", "-m", "pytest", "-q", "-x"]
    command += ["-p", "no:cacheprovider", "-p", "mutant_contexts", *TESTS]
    environment = variables(TREE) | {"MUTANT_DURATIONS": str(CACHE / "durations.json")}
    environment["PYTHONPATH"] += os.pathsep + str(TREE / "tools")
    subprocess.run([sys.executable, *command], cwd=TREE, env=environment, check=True)


def covering(files: Iterable[str]) -> dict[tuple[str, int], list[str]]:
    """The tests that reach each line, the quickest first. What runs on import, all tests of its file reach."""
    durations = seconds()
    data = coverage.CoverageData(str(CACHE / "coverage"))
    data.read()
    found: dict[tuple[str, int], list[str]] = {}
    for file in files:
        lines = data.contexts_by_lineno(str(TREE / file))
        every = {test for tests in lines.values() for test in tests if test}
        for line, tests in lines.items():
            reaching = every if "" in tests else set(tests)
            found[file, line] = sorted(reaching, key=lambda test: durations[test])
    return found


def seconds() -> dict[str, float]:
    """How long each test took."""
    return json.loads((CACHE / "durations.json").read_text())


# ---------------------------------------------------------------------------------------------------------------------
# Do they notice


def variables(tree: Path) -> dict[str, str]:
    """The environment for tests of a tree. Bytecode is not kept: two faults within a second would look alike."""
    return os.environ | {"IXY_JIT": "0", "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def noticed(tree: Path, mutant: Mutant, tests: list[str], timeout: float) -> bool:
    """Whether one of `tests` fails, or does not end in time, with the fault in a copy of the tree."""
    (tree / mutant.file).write_text(mutant.code())
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    process = subprocess.Popen(
        ["prlimit", f"--data={MEMORY}", *command],
        cwd=tree,
        env=variables(tree),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        return process.wait(timeout) != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what the tests had started
        process.wait()
        shutil.copyfile(TREE / mutant.file, tree / mutant.file)


def unnoticed(sample: list[Mutant], tests: dict[tuple[str, int], list[str]], copies: list[Path]) -> list[Mutant]:
    """The faults that no test noticed, or reached."""
    durations = seconds()
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in copies:
        free.put(tree)

    def known(mutant: Mutant) -> bool:
        reaching = tests.get((mutant.file, mutant.line), [])
        tree = free.get()
        timeout = STARTUP + SLOWNESS * sum(durations[test] for test in reaching)
        result = bool(reaching) and noticed(tree, mutant, reaching, timeout)
        free.put(tree)
        print("." if result else "S", end="", flush=True)
        return result

    with ThreadPoolExecutor(len(copies)) as pool:
        return [mutant for mutant, killed in zip(sample, pool.map(known, sample), strict=True) if not killed]


# ---------------------------------------------------------------------------------------------------------------------
# The report


def report(sample: list[Mutant], survivors: list[Mutant]) -> str:
    """How many were noticed, and each that was not: the line before and after, and why that is accepted."""
    killed = len(sample) - len(survivors)
    lines = [f"{killed} of {len(sample)} faults noticed: {killed / len(sample):.1%}"]
    for mutant in sorted(survivors, key=lambda mutant: (mutant.file, mutant.line)):
        before, after = (
            text.splitlines()[mutant.line - 1].strip() for text in ((TREE / mutant.file).read_text(), mutant.code())
        )
        lines += ["", f"{mutant.file}:{mutant.line} {mutant.operator}", f"  - {before}", f"  + {after}"]
        lines += [f"  {reason(mutant, before)}"]
    return "\n".join(lines) + "\n"


def reason(mutant: Mutant, line: str) -> str:
    """Why a survivor is accepted."""
    for row in tomllib.loads((TREE / "tools" / "mutants.toml").read_text())["accepted"]:
        if re.search(row["operator"], mutant.operator) and re.search(row["line"], line):
            return row["reason"]
    return "not accepted: write a test"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("files", nargs="*", default=MUTATED)
    options = parser.parse_args()

    shutil.rmtree(CACHE, ignore_errors=True)
    shutil.copytree(ROOT, TREE, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    measure()
    copies = [shutil.copytree(TREE, CACHE / f"tree-{number}") for number in range(options.workers)]
    paths = [TREE / name for name in options.files]
    modules = [module for path in paths for module in (path.rglob("*.py") if path.is_dir() else [path])]
    files = sorted(str(module.relative_to(TREE)) for module in modules)
    everything = [mutant for file in files for mutant in mutants(file)]
    sample = random.Random(options.seed).sample(everything, min(options.count, len(everything)))
    text = report(sample, unnoticed(sample, covering(files), copies))
    (CACHE / "report.txt").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
