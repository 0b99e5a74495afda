"""The one error that a person is meant to read: what came, the rule, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One refused input.

    Attributes:
        where: file and key, or file and line ("params.yaml: train.epochs").
        got: what came.
        rule: what is allowed.
        remedy: what to do.
    """

    where: str
    got: object
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: got {self.got!r}\n  rule:   {self.rule}\n  remedy: {self.remedy}"


class InputError(Exception):
    """Input that was refused before any work was done on it; shown without a traceback."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
