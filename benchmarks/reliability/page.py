"""reports/reliability/README.md: what the two tables beside it say, in short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from circuitdrift.artifacts import write_text
from circuitdrift.markdown import literal, markdown
from reliability.outcomes import GOOD
from reliability.reproduction_report import BEYOND, COMMITTED, IDENTICAL, read_rows
from reliability.variations import VARIATIONS

_SAYS = {name: variation.says for name, variation in VARIATIONS.items()}
_SAYS[COMMITTED] = "nothing: a clean clone against the results that git keeps"
_REPRODUCTION = """\
## Reproduction

`make verify-reproduction` runs the pipeline from nothing in clean clones, without run cache, and \
compares every artifact of dvc.lock with a reference run, byte by byte. The profile `default` is \
the study, `tiny` the same pipeline on a random model of two layers. Where bytes differ, \
[reproduction.csv](reproduction.csv) names the first tensor, cell or key that does, and the \
largest difference, absolute and as a share of the largest magnitude beside it.

Another `compute.threads` is another param: float bits differ from the first matrix product on. \
There the headline measures (reports/metrics/study.json) may lie .05 apart, or a tenth of the \
larger, and every verdict must be the same; "beyond tolerance" counts the artifacts that break this.
"""
_FAULTS = """\
## Faults

`make bench-faults` plays these on the tiny study. After each, `dvc repro` is asked to bring the \
study to its end; "same lock" says that dvc.lock and every artifact are then, byte for byte, those \
of an undisturbed run. Messages stand in [faults.csv](faults.csv).
"""


def write_page(reports: Path) -> None:
    """Write the page over those of the two tables that are there."""
    parts = ["# Reliability\n"]
    rows = read_rows(reports / "reproduction.csv")
    if len(rows):
        parts += [_REPRODUCTION, _summary(rows) + "\n"]
    if (reports / "faults.csv").is_file():
        parts += [_FAULTS, _faults(pd.read_csv(reports / "faults.csv", keep_default_na=False))]
    write_text(reports / "README.md", "\n".join(parts))


def _summary(rows: pd.DataFrame) -> str:
    """By profile and variation: how much is identical, and what differs first and most."""
    summaries = []
    for (profile, variation), group in rows.groupby(["profile", "variation"], sort=True):
        differing = group[group["outcome"] != IDENTICAL]
        largest = differing["relative"].max()
        summaries.append(
            {
                "profile": profile,
                "variation": variation,
                "what varies": _SAYS.get(str(variation), ""),
                "identical": f"{len(group) - len(differing)} of {len(group)}",
                "beyond tolerance": int((group["outcome"] == BEYOND).sum()),
                "first to differ": "".join(differing["artifact"][:1]) or "-",
                "largest relative difference": "-" if pd.isna(largest) else f"{largest:.1e}",
            }
        )
    return markdown(pd.DataFrame(summaries))


def _faults(table: pd.DataFrame) -> str:
    good = table["outcome"].isin(GOOD) & (table["lost"] == "nothing")
    counts = ", ".join(f"{outcome}: {n}" for outcome, n in table["outcome"].value_counts().items())
    shown = table[["fault", "point", "outcome", "lost"]].map(literal)
    return f"{int(good.sum())} of {len(table)} as they should be ({counts}).\n\n{markdown(shown)}\n"
