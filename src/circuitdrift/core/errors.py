"""The one error that a person is meant to read: where, what is allowed, what came, what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One refused input; the remedy may be empty where the rule says it."""

    where: str  # file and key, or file and line: "params.yaml: train.epochs"
    got: object  # None where nothing came
    rule: str
    remedy: str = ""

    def __str__(self) -> str:
        got = "nothing" if self.got is None else repr(self.got)
        return f"{self.where}: {self.rule} (got {got})" + (self.remedy and f"; {self.remedy}")


class InputError(Exception):
    """Input that was refused before any work was done on it; shown without a traceback."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
