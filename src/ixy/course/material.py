"""The material of the course: the list of labs, their pages, and skeletons, which are made of the solutions.

A skeleton is a solution in which the functions that it names in `YOURS` have no body.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from ixy.errors import ConfigurationError

HERE = Path(__file__).parent
PAGES, SOLUTIONS = HERE / "pages", HERE / "solutions"
_TITLE = re.compile(r"# (?:Lab \d+|Extra): (.+)")


@dataclass(frozen=True)
class Lab:
    """A lab.

    Attributes:
        name: of its files: lab3.md, lab3.py.
        number: as it is written in the command: "3".
    """

    name: str
    number: str

    @property
    def page(self) -> Path:
        return PAGES / f"{self.name}.md"

    @property
    def solution(self) -> Path:
        return SOLUTIONS / f"{self.name}.py"

    @property
    def title(self) -> str:
        """As its page says."""
        found = _TITLE.match(self.page.read_text(encoding="utf-8"))
        assert found is not None, self.page
        return found[1]

    @property
    def functions(self) -> tuple[str, ...]:
        """What is to be written."""
        return _yours(ast.parse(self.solution.read_text(encoding="utf-8")))


MAIN = tuple(Lab(f"lab{number}", str(number)) for number in range(1, 9))
EXTRAS = (Lab("interrupts", "interrupts"), Lab("rss", "rss"))
LABS = (*MAIN, *EXTRAS)


def lab_of(given: str) -> Lab:
    """The lab that is meant by "3", "lab3" or "rss".

    Raises:
        ConfigurationError: none is.
    """
    for lab in LABS:
        if given in (lab.name, lab.number):
            return lab
    raise ConfigurationError(f"there is no lab {given!r}: there are {', '.join(lab.number for lab in LABS)}")


def start(directory: Path) -> tuple[list[str], list[str]]:
    """Copy pages and skeletons into a directory, which is made if need be. Files that are there stay as they are.

    Returns:
        the names of the files that were written, and of those that were there.

    Raises:
        OSError: they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"README.md": (PAGES / "README.md").read_text(encoding="utf-8")}
    for lab in LABS:
        texts[lab.page.name] = lab.page.read_text(encoding="utf-8")
        texts[lab.solution.name] = skeleton(lab.solution.read_text(encoding="utf-8"))
    written: list[str] = []
    kept: list[str] = []
    for name, text in texts.items():
        try:
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text)
            written.append(name)
        except FileExistsError:
            kept.append(name)
    return written, kept


def skeleton(solution: str) -> str:
    """A solution without what the student is to write."""
    lines = solution.splitlines()
    tree = ast.parse(solution)
    yours = _yours(tree)
    for name, function in reversed(_functions(tree)):
        if name in yours:
            first, *rest = function.body
            assert rest, f"{name} has no docstring"
            assert first.end_lineno is not None
            assert function.end_lineno is not None
            indent = " " * first.col_offset
            lines[first.end_lineno : function.end_lineno] = [f'{indent}raise NotImplementedError("{name}")  # yours']
    return "\n".join(line for line in lines if not line.startswith("YOURS = ")).replace("\n\n\n\n", "\n\n\n") + "\n"


def _functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    """Functions and methods, by the names that YOURS has for them, in their order."""
    found: list[tuple[str, ast.FunctionDef]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            found += [(f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, ast.FunctionDef)]
    return found


def _yours(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "YOURS":
            return ast.literal_eval(node.value)
    raise AssertionError("a solution names in YOURS what the student writes")
