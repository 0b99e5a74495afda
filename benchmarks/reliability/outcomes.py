"""What came of a fault, in the words of the table."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from reliability.clones import Clone, CommandError
from reliability.finished import Finished, leftovers

SAME_LOCK = "same lock"
CLEAR_ERROR = "clear error, then the same lock"
UNCLEAR = "an error in other words, then the same lock"
SILENT = "silent in DVC; caught by circuitdrift verify"
MISSED = "silent"
OTHER_LOCK = "another lock"
RWLOCK = ".dvc/tmp/rwlock"
_COMPLAINT = re.compile(r"ERROR|[\w.]*Error\b|.*: refused|\s+(rule|remedy):")
GOOD = (SAME_LOCK, CLEAR_ERROR, SILENT)


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        outcome: one of the words above; those of GOOD are what is asked for.
        message: what a person was told.
        lost: what was there before and is not after; nothing, if all is well.
    """

    outcome: str
    message: str
    lost: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.outcome in GOOD and not self.lost


@dataclass(frozen=True)
class Scenario:
    """A fault, where it strikes, and what happens then.

    Attributes:
        run: plays it in a folder of its own; raises FaultMissedError if the fault could not be
            brought about.
        says: pattern of what an error must say, for a person to know what failed or why.
        quick: whether it is one of those that run with the tests.
    """

    fault: str
    point: str
    run: Callable[[Finished, Path], Outcome]
    says: str = ""
    quick: bool = False

    def play(self, study: Finished, parent: Path) -> Outcome:
        """Run it, and read what the error says."""
        outcome = self.run(study, parent)
        clear = self.says and re.search(self.says, outcome.message)
        if outcome.outcome == CLEAR_ERROR and not clear:
            return replace(outcome, outcome=UNCLEAR)
        return outcome


class FaultMissedError(Exception):
    """The fault did not happen, so nothing can be said of it."""


def failing(process: subprocess.Popen[str]) -> str:
    """The output of a command that must fail.

    Raises:
        FaultMissedError: if it succeeds.
    """
    output, _ = process.communicate()
    if process.returncode == 0:
        raise FaultMissedError(f"the command succeeded:\n{output}")
    return output


def killed(process: subprocess.Popen[str]) -> None:
    """Wait for a command that is to be killed.

    Raises:
        FaultMissedError: if it ends otherwise.
    """
    output, _ = process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise FaultMissedError(f"ended with {process.returncode}:\n{output}")


def recovered(study: Finished, clone: Clone, word: str, message: str, lost: list[str]) -> Outcome:
    """The outcome, after `dvc repro` is asked to bring all back."""
    told = [message]
    try:
        clone.do("dvc", "repro")
    except CommandError as error:
        told.append(f"the next run: {errors(str(error), clone)}")
        if RWLOCK not in str(error):
            return Outcome("the next run fails", "; ".join(filter(None, told)), tuple(lost))
        # DVC writes this file in place, and neither reads nor replaces the half of one that a full
        # disk leaves behind. It holds nothing but who is at work.
        (clone.root / RWLOCK).unlink()
        told.append(f"after `rm {RWLOCK}` all is well")
        clone.do("dvc", "repro")
    if left := [_the_same_everywhere(str(path), clone.root) for path in leftovers(clone)]:
        told.append(f"left behind: {', '.join(left)}")
    outcome = word if study.same(clone) else OTHER_LOCK
    return Outcome(outcome, "; ".join(filter(None, told)), tuple(lost))


def errors(output: str, clone: Clone) -> str:
    """What DVC or a stage said went wrong, each thing once: the same words in every place."""
    lines = [line for line in output.splitlines() if line.strip()]
    said = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if _COMPLAINT.match(line):
            said.append(f"{line} {following}" if line.endswith(":") else line)
    text = [_the_same_everywhere(line.strip(), clone.root) for line in said or lines[-2:]]
    return " ".join(dict.fromkeys(text))


def _the_same_everywhere(text: str, root: Path) -> str:
    """Without what differs from run to run: places, process ids, ports; and without hashes."""
    for path, name in ((root, "."), (root.parent, ".."), (Path(sys.executable).parent, "<bin>")):
        text = text.replace(str(path), name)
    text = re.sub(r"partial-\d+", "partial-*", text)
    text = re.sub(r"\b[0-9a-f]{2}/[0-9a-f]{30}\b|\b[0-9a-f]{32}\b", "<hash>", text)
    text = re.sub(r"\.[\w-]{22}\.tmp\b", ".*.tmp", text)
    return re.sub(r"(?i)(\bpid )\d+|(127\.0\.0\.1):\d+", r"\1\2*", text)
