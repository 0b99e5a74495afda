"""What it costs to compute an artifact again, as measured by benchmarks/study.py."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

STAGE_COSTS = Path("reports/benchmarks/study.csv")


def stage_seconds(root: Path) -> dict[str, float]:
    """Wall time of each stage that was measured, in seconds; empty where none was."""
    try:
        with (root / STAGE_COSTS).open(encoding="utf-8", newline="") as file:
            return {row["stage"]: float(row["wall_s"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}


def duration(seconds: float | None) -> str:
    """As a person says it: "40 s", "12 min"."""
    if seconds is None:
        return "time unknown"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def total_duration(stages: Iterable[str], seconds: Mapping[str, float]) -> str:
    """What running ``stages`` takes, each once, with those of unknown time counted apart."""
    distinct = set(stages)
    known = [seconds[stage] for stage in distinct if stage in seconds]
    n_unknown = len(distinct) - len(known)
    if not known:
        return "time unknown"
    rest = f" and {n_unknown} of unknown time" if n_unknown else ""
    return f"about {duration(sum(known))}{rest}"
