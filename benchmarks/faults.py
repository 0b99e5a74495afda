"""Faults on the tiny study, and whether each ends in the same dvc.lock or in a clear error.

    python benchmarks/faults.py [--only TEXT] [--study DIR] [--reports DIR]

Runs the tiny study once, undisturbed, then plays every fault in a copy of it. Writes
reports/reliability/faults.csv. Exits with 1 if something is lost, or comes out otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from reliability.clones import TINY
from reliability.faults import SCENARIOS, play_all
from reliability.finished import Finished
from reliability.outcomes import Outcome, Scenario
from reliability.page import write_page
from reliability.variations import REFERENCE, finished_clone
from rich.console import Console

from circuitdrift.artifacts import write_table

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    chosen = [each for each in SCENARIOS if options.only in f"{each.fault}, {each.point}"]
    console, rows, good = Console(soft_wrap=True), [], True
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as temporary:
        clone = finished_clone(REFERENCE, ROOT, options.study or Path(temporary), TINY)
        for scenario, outcome in play_all(chosen, Finished.of(clone)):
            mark = "" if outcome.good else "  <- not as it should be"
            console.print(
                f"{scenario.fault}, {scenario.point}: {outcome.outcome}{mark}", markup=False
            )
            rows.append(row(scenario, outcome))
            good &= outcome.good
    if options.only:
        console.print(pd.DataFrame(rows).to_string(), markup=False)
    else:
        write_table(options.reports / "faults.csv", pd.DataFrame(rows))
        write_page(options.reports)
    return 0 if good else 1


def row(scenario: Scenario, outcome: Outcome) -> dict[str, str]:
    return {
        "fault": scenario.fault,
        "point": scenario.point,
        "outcome": outcome.outcome,
        "message": outcome.message,
        "lost": ", ".join(outcome.lost) or "nothing",
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="faults whose name has this text; no table")
    parser.add_argument("--study", type=Path, help="where the undisturbed study is kept")
    parser.add_argument("--reports", type=Path, default=ROOT / "reports" / "reliability")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
