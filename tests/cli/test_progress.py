"""What is shown while a command compiles: nothing if it is quick, a bar on a terminal, one line elsewhere."""

from __future__ import annotations

import io
import logging

import pytest

from ixy.apps import progress
from ixy.compiling import watchers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def compile_run() -> None:
    """What a command does that compiles one entry of 4 kernels."""
    for done in range(5):
        for watcher in watchers:
            watcher("run", done, 4)


def test_what_is_quick_is_not_shown(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Less than a second in all."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress.shown():
        compile_run()
        clock[0] += 0.9
        compile_run()
    assert terminal.getvalue() == ""
    assert caplog.messages == []


def test_bar_on_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is compiled and how far it is, and is gone in the end."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress.shown():
        compile_run()
        clock[0] += 2
        compile_run()
    shown = terminal.getvalue().split("\r")
    assert [text[text.index("]") + 1 :] for text in shown if "compiling" in text] == [
        f" {percent:3} % of run\x1b[K" for percent in (0, 25, 50, 75)
    ]
    assert shown[-1] == "\x1b[K"


def test_bar_is_taken_away_where_compiling_is_interrupted(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())

    def be_interrupted() -> None:
        with progress.shown():
            watchers[-1]("run", 0, 4)
            clock[0] += 2
            watchers[-1]("run", 1, 4)
            raise SystemExit

    with pytest.raises(SystemExit):
        be_interrupted()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_one_line_elsewhere(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a log file, or through a pipe."""
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    monkeypatch.setattr(logging.getLogger("ixy"), "propagate", True)  # a command that ran before may have ended that,
    monkeypatch.setattr(logging.getLogger("ixy"), "handlers", [])  # and have written to a stream that is closed now
    with caplog.at_level(logging.WARNING, "ixy.apps"), progress.shown():
        for _ in range(3):
            compile_run()
            clock[0] += 2
    assert caplog.messages == ["compiling the data path, which takes some time once"]
    assert stream.getvalue() == ""


def test_nothing_for_programs(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks for JSON reads no bars."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress.shown(lambda: True):
        compile_run()
        clock[0] += 2
        compile_run()
    assert terminal.getvalue() == ""
    assert caplog.messages == []
