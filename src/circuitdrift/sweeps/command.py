"""``circuitdrift sweep``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdrift.sweeps.display import ConsoleDisplay
from circuitdrift.sweeps.dvc_queue import QueueError
from circuitdrift.sweeps.finished import finished_members
from circuitdrift.sweeps.plan import Sweep, load_sweep
from circuitdrift.sweeps.runner import Outcome, run_sweep, workers_that_fit

LAST_LINES = 12
FAILED, STOPPED = 1, 130


def sweep_study(root: Path, workers: int | None, dry_run: bool) -> int:
    """Run what is not finished of sweep.yaml, or list it.

    Returns:
        the exit status: 0 where all are finished, 1 where one failed, 130 where it was stopped.

    Raises:
        InputError: if sweep.yaml, params.yaml or the clone is refused.
    """
    console = Console()
    plan = load_sweep(root)
    if dry_run:
        console.print(_listed(plan, finished_members(root, plan)))
        return 0
    try:
        with ConsoleDisplay(console) as display:
            outcome = run_sweep(root, plan, workers or workers_that_fit(plan), display)
    except QueueError as error:
        console.print(Text(str(error), style="red"), soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        return STOPPED
    return _report(console, plan, outcome)


def _report(console: Console, plan: Sweep, outcome: Outcome) -> int:
    """Say what came of it; returns the exit status."""
    console.print(
        f"{len(outcome.finished)} of {len(plan.members)} experiments are finished,"
        f" {len(outcome.ran)} of them run now."
    )
    for name, log in outcome.failed.items():
        console.print(Text(f"\n{name} failed. The end of {log}:", style="red"))
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else "no log"
        console.print(Text("\n".join(text.splitlines()[-LAST_LINES:])))
    missing = {member.name for member in plan.members} - {*outcome.finished, *outcome.failed}
    if missing:
        names = ", ".join(sorted(missing))
        console.print(Text(f"not run, for the workers ended before: {names}", style="red"))
    if not outcome.failed and not missing:
        return 0
    console.print("Mend the cause and call it again: what is finished is not run twice.")
    return FAILED


def _listed(plan: Sweep, finished: dict[str, str]) -> Table:
    table = Table("experiment", "arms", "finished as")
    for member in plan.members:
        arms = ", ".join(arm.name for arm in plan.arms if member.name in arm.members)
        table.add_row(member.name, arms, finished.get(member.name, "")[:7])
    return table
