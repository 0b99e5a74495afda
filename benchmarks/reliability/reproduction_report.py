"""reports/reliability/reproduction.csv: artifact by variation, identical or how far apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from circuitdrift.artifacts import write_table
from reliability.studies import Comparison
from reliability.tolerance import Tolerance, beyond

COLUMNS = ["profile", "variation", "artifact", "outcome", "first", "absolute", "relative"]
COMMITTED = "committed"  # the name of the comparison with what git keeps
IDENTICAL = "identical"
DIFFERS = "differs"
WITHIN, BEYOND = "within tolerance", "beyond tolerance"


def rows_of(
    profile: str,
    variation: str,
    comparisons: Sequence[Comparison],
    tolerance: Tolerance | None = None,
) -> pd.DataFrame:
    """A row per artifact; ``first`` names the first difference in it, the sizes are the largest."""
    rows = [
        {
            "profile": profile,
            "variation": variation,
            "artifact": each.artifact,
            "outcome": _outcome(each, tolerance),
            "first": None if each.identical else str(each.located[0]),
            "absolute": each.absolute,
            "relative": each.relative,
        }
        for each in comparisons
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _outcome(comparison: Comparison, tolerance: Tolerance | None) -> str:
    if comparison.identical:
        return IDENTICAL
    if tolerance is None or comparison.artifact not in tolerance:
        return DIFFERS
    return BEYOND if beyond(comparison, tolerance[comparison.artifact]) else WITHIN


def read_rows(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype={"artifact": str, "first": str})


def put_rows(path: Path, found: pd.DataFrame) -> pd.DataFrame:
    """Write ``found`` in place of the rows of its profile and variations; return all rows."""
    before = read_rows(path)
    keys = set(zip(found["profile"], found["variation"], strict=True))
    kept = [pair not in keys for pair in zip(before["profile"], before["variation"], strict=True)]
    tables = [table for table in (before[kept], found) if len(table)]
    rows = pd.concat(tables) if tables else found
    rows = rows.sort_values(["profile", "variation"], kind="stable", ignore_index=True)
    write_table(path, rows)
    return rows
