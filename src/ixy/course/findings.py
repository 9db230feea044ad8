"""What a check has to say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        sentence: what, and what to do.
        subject: the register, or the field of a descriptor, "" where it is about Python.
        section: of the datasheet, or of another document that it names.
        where: the student's line, such as "lab5.py:31"; "" if there is none.
        todo: it is not written yet.
    """

    sentence: str
    subject: str = ""
    section: str = ""
    where: str = ""
    todo: bool = False

    def __str__(self) -> str:
        """One line."""
        source = ", ".join(filter(None, (self.subject, self.section and f"section {self.section}", self.where)))
        return f"{self.sentence} ({source})" if source else self.sentence


class Wrong(Exception):
    """A trial cannot go on: this is what is wrong."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass
class Trial:
    """One thing that a check tries.

    Attributes:
        title: what should be so.
        findings: what is wrong; nothing, if it is.
    """

    title: str
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def passed(self) -> bool:
        return not self.findings


@dataclass
class Result:
    """What became of the check of a lab.

    Attributes:
        lab: its name.
        problem: why it could not be tried; "" if it was.
    """

    lab: str
    trials: list[Trial] = field(default_factory=list[Trial])
    problem: Finding | None = None

    @property
    def passed(self) -> bool:
        return self.problem is None and bool(self.trials) and all(trial.passed for trial in self.trials)

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        found = [finding for trial in self.trials for finding in trial.findings]
        return found if self.problem is None else [*found, self.problem]

    def as_dict(self) -> dict[str, Any]:
        """In what JSON knows."""
        return {
            "lab": self.lab,
            "passed": self.passed,
            "trials": [
                {"title": trial.title, "passed": trial.passed, "findings": [asdict(one) for one in trial.findings]}
                for trial in self.trials
            ],
            "problem": None if self.problem is None else asdict(self.problem),
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Result:
        """What `as_dict` gave."""
        return cls(
            told["lab"],
            [Trial(one["title"], [Finding(**finding) for finding in one["findings"]]) for one in told["trials"]],
            Finding(**told["problem"]) if told["problem"] else None,
        )
