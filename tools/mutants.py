"""Put small faults into the driver, one at a time, and see whether the tests that run through the place notice.

    python tools/mutants.py [--count 600] [--seed 1] [--workers 2] [FILE…]

Cosmic Ray makes the faults. First all tests run once, interpreted and under coverage, which tells for each line which
tests reach it and how long they take; then each fault of a seeded sample meets those until one fails, the most
promising first. All that happens in copies of the tree in `.cache/mutants`, where the report ends up too: each fault
that no test noticed, and why that is accepted, if `tools/mutants.toml` says so.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import coverage
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"
CACHE = ROOT / ".cache" / "mutants"
TREE = CACHE / "tree"  # a copy, in which nothing changes meanwhile
MEASURED = CACHE / "measured"  # what was found out about the tests of that copy
MUTATED = ["src/ixy/drivers", "src/ixy/packets", "src/ixy/path.py", "src/ixy/polls.py"]
# Without those that use network interfaces of the machine: two workers would be in each other's way.
TESTS = ["tests/unit", "tests/sim", "--ignore=tests/sim/test_real_traffic.py", "--ignore=tests/sim/test_bench.py"]
KERNELS = {"compiled", "outlined", "checked"}  # decorators that do nothing where kernels are interpreted
PATIENCE, SLOWNESS = 5, 4  # how long a test may take with a fault: seconds, and times as long as without it
KEYS = "operator", "before", "after"  # of a row in `mutants.toml`
BUDGET = 100  # seconds that tests take together: of those that reach a place, the quickest; others would take minutes
FIRST = 16  # so many tests come first: often one of them fails, and the others need not be imported


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

    def lines(self) -> tuple[str, str]:
        """The line of the fault, before and after."""
        texts = (TREE / self.file).read_text(), self.code()
        before, after = (text.splitlines()[self.line - 1].strip() for text in texts)
        return before, after


# ---------------------------------------------------------------------------------------------------------------------
# Which faults


def mutants(file: str) -> Iterator[Mutant]:
    """All faults of a file but those in what is never evaluated."""
    source = (TREE / file).read_text()
    ignored = list(unevaluated(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue
        places = (start for node in nodes for start, _ in operator().mutation_positions(node))
        for occurrence, place in enumerate(places):
            if not any(start <= place < end for start, end in ignored):
                yield Mutant(file, place[0], name, occurrence)


def draw(everything: list[Mutant], seed: int, count: int) -> list[Mutant]:
    """Some of them at random, without those that are no faults, because they change nothing."""
    shuffled = random.Random(seed).sample(everything, len(everything))
    return list(islice((mutant for mutant in shuffled if not reason("equivalent", mutant)), count))


def unevaluated(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, what only a type checker sees, and decorators of kernels."""
    for node in ast.walk(tree):
        parts: list[ast.expr | ast.stmt | None] = []
        if isinstance(node, ast.FunctionDef):
            parts = [node.returns, *(at for at in node.decorator_list if isinstance(at, ast.Name) and at.id in KERNELS)]
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            parts = [node.annotation]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            parts = [node]
        for part in filter(None, parts):
            before = max(part.col_offset - 1, 0)  # the @ of a decorator belongs to it
            yield (part.lineno, before), (part.end_lineno or 0, part.end_col_offset or 0)


# ---------------------------------------------------------------------------------------------------------------------
# Which tests


def prepare() -> None:
    """Copy the tree, and run all tests once, without a fault; keeps which lines each reached, and how long it took.

    What is known of the same source and tests is not found out again. A test that fails finds no faults.
    """
    content = hashlib.sha256()
    for file in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
        content.update(f"{file.relative_to(ROOT)} {file.stat().st_size} ".encode() + file.read_bytes())
    mark = CACHE / content.hexdigest()
    if mark.exists():
        return
    shutil.rmtree(CACHE, ignore_errors=True)
    shutil.copytree(ROOT, TREE, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    measure(TESTS)
    mark.touch()


def measure(tests: list[str]) -> None:
    MEASURED.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = variables(TREE) | {"MUTANTS_MEASURED": str(MEASURED), "PYTEST_ADDOPTS": "-p mutant_contexts"}
    environment["PYTHONPATH"] += os.pathsep + str(TOOLS)
    del environment["PYTHONDONTWRITEBYTECODE"]  # the copies of this tree are to have it
    if subprocess.run(command, cwd=TREE, env=environment, check=False).returncode > 1:
        raise SystemExit("the tests did not run")


def covering(files: Iterable[str]) -> dict[tuple[str, int], set[str]]:
    """The tests that reach the statement on each line, without those that fail anyway, as far as the budget goes. What
    runs on import, all tests of its file reach.
    """
    durations = seconds()
    data = coverage.CoverageData(no_disk=True)
    for part in MEASURED.glob("coverage.*"):
        data.update(read(part))
    found: dict[tuple[str, int], set[str]] = {}
    for file in files:
        contexts = data.contexts_by_lineno(str(TREE / file))
        every = affordable({test for tests in contexts.values() for test in tests}, durations)
        for lines in statements(ast.parse((TREE / file).read_text())):
            tests = {test for line in lines for test in contexts.get(line, [])}
            chosen = every if "" in tests else affordable(tests, durations)
            found |= {(file, line): chosen for line in lines}
    return found


def affordable(tests: set[str], durations: dict[str, float]) -> set[str]:
    """The quickest of the tests, one at least, that take no longer together than the budget."""
    ordered = sorted(tests & durations.keys(), key=lambda test: durations[test])
    sums = accumulate(durations[test] for test in ordered)
    return {test for test, total in zip(ordered, sums, strict=True) if total <= BUDGET or test == ordered[0]}


def seconds() -> dict[str, float]:
    """How long each test took that passed."""
    return json.loads((MEASURED / "seconds.json").read_text())


def read(file: Path) -> coverage.CoverageData:
    data = coverage.CoverageData(str(file))
    data.read()
    return data


def statements(tree: ast.Module) -> Iterator[range]:
    """The lines of each statement, without those of others that it contains; these come later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body: list[ast.stmt] = getattr(node, "body", [])
            yield range(node.lineno, body[0].lineno if body else (node.end_lineno or 0) + 1)
        for decorator in getattr(node, "decorator_list", []):
            yield range(decorator.lineno, (decorator.end_lineno or 0) + 1)


class Promise:
    """Which tests are the most promising: those that have often failed when they were run, and are quick."""

    def __init__(self) -> None:
        self.seconds = seconds()
        self._runs: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    def order(self, tests: Iterable[str]) -> list[str]:
        return sorted(tests, key=self._price)

    def _price(self, test: str) -> float:
        """Seconds for a failure, as far as is known."""
        return (self.seconds[test] + 0.02) * (self._runs[test] + 2) / (self._failures[test] + 1)

    def learn(self, tests: list[str], failed: str) -> None:
        """`failed` is the last of `tests` that was run, or none has failed."""
        self._runs.update(tests[: tests.index(failed) + 1] if failed in tests else tests)
        self._failures[failed] += 1


# ---------------------------------------------------------------------------------------------------------------------
# Do they notice


def variables(tree: Path) -> dict[str, str]:
    """The environment for tests of a tree. Bytecode is not kept: two faults within a second would look alike."""
    return os.environ | {"IXY_JIT": "0", "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


class Runner:
    """A copy of the tree, and a process that runs tests in it."""

    def __init__(self, number: int) -> None:
        self._tree = CACHE / f"tree-{number}"
        shutil.rmtree(self._tree, ignore_errors=True)
        shutil.copytree(TREE, self._tree)
        command = [sys.executable, TOOLS / "mutant_runner.py"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=self._tree, env=variables(self._tree), **pipes)

    def notices(self, mutant: Mutant, tests: list[str], promise: Promise) -> bool:
        """Whether one of `tests` fails, or does not end in time, with the fault in this copy."""
        place = self._tree / mutant.file
        place.write_text(mutant.code())
        try:
            return any(self._failed(part, promise) for part in (tests[:FIRST], tests[FIRST:]) if part)
        finally:
            shutil.copy2(TREE / mutant.file, place)  # with its time, so that its bytecode is that of this file again

    def _failed(self, tests: list[str], promise: Promise) -> bool:
        limits = {test: PATIENCE + SLOWNESS * promise.seconds[test] for test in tests}
        print(json.dumps(limits), file=self._process.stdin, flush=True)
        failed = self._process.stdout.readline().strip()
        promise.learn(tests, failed)
        return failed != ""

    def close(self) -> None:
        self._process.communicate()


def unnoticed(sample: list[Mutant], tests: dict[tuple[str, int], set[str]], runners: list[Runner]) -> list[Mutant]:
    """The faults that no test noticed, or reached."""
    promise = Promise()
    free: SimpleQueue[Runner] = SimpleQueue()
    for runner in runners:
        free.put(runner)

    def known(mutant: Mutant) -> bool:
        runner = free.get()
        result = runner.notices(mutant, promise.order(tests.get((mutant.file, mutant.line), set())), promise)
        free.put(runner)
        print("." if result else "S", end="", flush=True)
        return result

    with ThreadPoolExecutor(len(runners)) as pool:
        return [mutant for mutant, killed in zip(sample, pool.map(known, sample), strict=True) if not killed]


# ---------------------------------------------------------------------------------------------------------------------
# The report


def report(sample: list[Mutant], survivors: list[Mutant]) -> str:
    """How many were noticed, and each that was not: the line before and after, and why that is accepted."""
    killed = len(sample) - len(survivors)
    lines = [f"{killed} of {len(sample)} faults noticed: {killed / len(sample):.1%}"]
    for mutant in sorted(survivors, key=lambda mutant: (mutant.file, mutant.line)):
        before, after = mutant.lines()
        lines += ["", f"{mutant.file}:{mutant.line} {mutant.operator}", f"  - {before}", f"  + {after}"]
        lines += [f"  {reason('accepted', mutant) or 'not accepted: write a test'}"]
    return "\n".join(lines) + "\n"


def reason(kind: str, mutant: Mutant) -> str | None:
    """What `tools/mutants.toml` says of such faults, as faults that are accepted, or as equivalents."""
    before, after = mutant.lines()
    for row in tomllib.loads((TOOLS / "mutants.toml").read_text())[kind]:
        found = (
            re.search(row.get(key, ""), text) for key, text in zip(KEYS, (mutant.operator, before, after), strict=True)
        )
        if all(found):
            return row["reason"]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("files", nargs="*", default=MUTATED)
    options = parser.parse_args()

    prepare()
    runners = [Runner(number) for number in range(options.workers)]
    paths = [TREE / name for name in options.files]
    modules = [module for path in paths for module in (path.rglob("*.py") if path.is_dir() else [path])]
    files = sorted(str(module.relative_to(TREE)) for module in modules)
    everything = [mutant for file in files for mutant in mutants(file)]
    sample = draw(everything, options.seed, options.count)
    text = report(sample, unnoticed(sample, covering(files), runners))
    for runner in runners:
        runner.close()
    (CACHE / "report.txt").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
