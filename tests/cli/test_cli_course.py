"""`ixy course`: what a student and a teacher do with it, and what they are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ENVIRONMENT

from ixy.course.material import LABS, SOLUTIONS, skeleton

pytestmark = pytest.mark.once

TITLES = ["find the card", "map it and read a register", "reset and EEPROM", "DMA memory", "the receive ring"]
FIRST_LINE = "    found: list[str] = []\n"  # of lab 1's find_cards


def course(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ixy course`."""
    command = [sys.executable, "-m", "ixy", "course", *arguments]
    return subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def hand_in(directory: Path, first_line: str = FIRST_LINE, labs: Sequence[str] = ("lab1",)) -> Path:
    """Solutions in a directory; in that of lab 1 another line begins find_cards."""
    directory.mkdir(exist_ok=True)
    for lab in labs:
        text = (SOLUTIONS / f"{lab}.py").read_text()
        (directory / f"{lab}.py").write_text(text.replace(FIRST_LINE, first_line))
    return directory


def test_the_labs_are_listed(tmp_path: Path) -> None:
    """Eight labs and two extras, each with what is to be written."""
    ended = course(tmp_path, "list", "--json")
    assert ended.returncode == 0
    labs = json.loads(ended.stdout)
    assert [lab["lab"] for lab in labs] == [*"12345678", "interrupts", "rss"]
    assert [lab["title"] for lab in labs[:5]] == TITLES
    assert labs[2]["functions"] == ["reset", "wait_until_ready", "read_eeprom"]
    assert "the receive ring" in course(tmp_path, "list").stdout


def test_a_student_begins(tmp_path: Path) -> None:
    """Pages and skeletons are there; a skeleton runs, and its check says what is to be written, and where. Beginning
    again takes nothing away."""
    assert course(tmp_path, "start", "mine").returncode == 0
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert names == {"README.md", *(f"{lab.name}{end}" for lab in LABS for end in (".md", ".py"))}
    ended = course(tmp_path, "check", "1", "mine")
    assert ended.returncode == 1
    assert "find_cards is not written yet\n           → lab1.py:" in ended.stdout
    shutil.copy(SOLUTIONS / "lab1.py", tmp_path / "mine")
    ended = course(tmp_path, "start", "mine")
    assert "0 files written; left as they were: README.md, lab1.md" in ended.stdout
    ended = course(tmp_path, "check", "lab1", "mine")
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "all is well: go on with lab2.md")


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_skeletons(lab) -> None:
    """A skeleton is the solution without what the student writes, and without a trace of it."""
    solution = lab.solution.read_text()
    made = skeleton(solution)
    compile(made, lab.name, "exec")
    assert made.count("NotImplementedError") == len(lab.functions)
    assert "YOURS" not in made
    assert set(made.splitlines()) - set(solution.splitlines()) == {
        f'{"        " if "." in name else "    "}raise NotImplementedError("{name}")  # yours' for name in lab.functions
    }


@pytest.mark.parametrize(
    ("line", "sentence", "where"),
    [
        ("    found = [1 // 0]\n", "ZeroDivisionError: integer division or modulo by zero, at `found =", "lab1.py:20"),
        ("    while True:\n        pass\n", "the time is up: your code was still running", "lab1.py:2"),
        ("    import os; os._exit(0)\n", "your code has ended the program, with exit code 0", ""),
        ("    import ctypes; ctypes.string_at(0)\n", "your code has crashed the process: SIGSEGV", ""),
        ("    found = [\n", "Python does not understand line 20: '[' was never closed", "lab1.py:20"),
        ("    raise SystemExit\n", "SystemExit, at `raise SystemExit`", "lab1.py:20"),
    ],
    ids=["exception", "endless", "exits", "crashes", "syntax", "leaves"],
)  # fmt: skip
def test_what_code_may_do(tmp_path: Path, line: str, sentence: str, where: str) -> None:
    """Whatever becomes of a student's code is told in a sentence, with his line where there is one."""
    hand_in(tmp_path, line)
    ended = course(tmp_path, "check", "1", "--deadline", "2", "--json")
    assert (ended.returncode, ended.stderr) == (1, "")
    told = json.loads(ended.stdout)
    findings = [finding for trial in told["trials"] for finding in trial["findings"]] or [told["problem"]]
    assert findings[0]["sentence"].startswith(sentence)
    assert findings[0]["where"].startswith(where)


def test_code_that_will_not_end(tmp_path: Path) -> None:
    """Who catches everything is ended all the same, and so is what he has started."""
    hand_in(
        tmp_path,
        "    import subprocess\n    print(subprocess.Popen(['sleep', '1000']).pid, flush=True)\n"
        "    while True:\n        try:\n            while True:\n                sum(range(9))\n"
        "        except:\n            pass\n",
    )
    ended = course(tmp_path, "check", "1", "--deadline", "1")
    assert ended.returncode == 1
    assert "the time is up: after 1 s your code was still running, and would not be stopped" in ended.stdout
    status = Path("/proc") / ended.stderr.strip() / "stat"
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_ctrl_c(tmp_path: Path) -> None:
    """It ends the check and the code, with exit code 130."""
    hand_in(tmp_path, "    print('begun', flush=True)\n    while True:\n        pass\n")
    command = [sys.executable, "-m", "ixy", "course", "check", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stderr is not None
        assert run.stderr.readline() == b"begun\n"
        os.kill(run.pid, signal.SIGINT)
        begun = time.monotonic()
        assert run.wait(60) == 130
        assert run.stderr.read() == b""  # which ends when nobody has it open any more
        assert time.monotonic() - begun < 25  # and not when its time is up


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["check", "9"], "there is no lab '9': there are 1, 2, 3, 4, 5, 6, 7, 8, interrupts, rss"),
        (["check", "2"], ".: there is no lab2.py: name the directory of your files, which `ixy course start` makes"),
        (["check", "1", "--deadline", "0"], "--deadline 0.0: 1 to 3600 are possible"),
        (["start", "lab1.py"], "lab1.py: File exists"),
        (["grade", "nowhere"], "nowhere: is no directory"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    """What is asked for and cannot be is one line, and exit code 2."""
    hand_in(tmp_path)
    ended = course(tmp_path, *arguments)
    assert (ended.returncode, ended.stderr) == (2, f"ixy: {complaint}\n")


def test_a_teacher_grades(tmp_path: Path) -> None:
    """Each student's directory is checked, in a sandbox: who reads files is refused."""
    secret = tmp_path / "grades.txt"
    secret.write_text("all of them")
    hand_in(tmp_path / "ada")
    hand_in(tmp_path / "bob", f"    found = [open({str(secret)!r}).read()]\n")
    ended = course(tmp_path, "grade", "--json")
    assert ended.returncode == 1
    ada, bob = json.loads(ended.stdout)["students"]
    assert [(one["student"], one["passed"], one["extras"]) for one in (ada, bob)] == [("ada", 1, 0), ("bob", 0, 0)]
    assert ada["results"][1]["problem"]["sentence"] == "there is no lab2.py"
    found = bob["results"][0]["trials"][0]["findings"][0]["sentence"]
    assert found.startswith("PermissionError")
    assert "all of them" not in ended.stdout
    assert course(tmp_path, "grade", "ada").stdout.split() == ["ada", "1", "of", "8", "1", *"---------"]
