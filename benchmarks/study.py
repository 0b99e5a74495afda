"""Wall time and peak memory of every stage of the study, run afresh in a temporary clone.

    python benchmarks/study.py [--out DIR] [--json FILE]

Writes study.csv, which tells `circuitdrift pull` what computing an artifact would take. The working
tree is measured as it stands, committed or not, and stays as it is. Peak memory is
the largest resident set of the stage's process (or of a single child of it), as the kernel
counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import networkx
import pandas as pd
from dvc.repo import Repo
from rich.console import Console
from rich.table import Table

from circuitdrift.artifacts import write_table

ROOT = Path(__file__).resolve().parents[1]
BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Measurement:
    """One stage's cost: seconds of wall time, GB (1e9 bytes) of memory."""

    stage: str
    wall_s: float
    peak_gb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as directory:
        clone = Path(directory) / "study"
        clone_study(clone)
        measurements = [measure(stage, command, clone) for stage, command in commands(clone)]
    Console().print(tabulated(measurements))
    figures = [asdict(measurement) for measurement in measurements]
    write_table(arguments.out / "study.csv", pd.DataFrame(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def clone_study(clone: Path) -> None:
    """Clone the last commit and lay the working tree's files over it."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
        else:
            (clone / name).unlink(missing_ok=True)


def commands(clone: Path) -> list[tuple[str, str]]:
    """Name and command of every stage of dvc.yaml, each after those that it depends on."""
    with Repo(str(clone)) as repo:
        ordered = networkx.dfs_postorder_nodes(repo.index.graph)
        return [(stage.name, stage.cmd) for stage in ordered]


def measure(stage: str, command: str, clone: Path) -> Measurement:
    """Run one stage's command in ``clone``.

    Raises:
        SystemExit: if the command fails.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    process = subprocess.Popen(
        shlex.split(command), cwd=clone, env={**os.environ, "PATH": path}, stdout=sys.stderr
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{stage} failed with {process.returncode}: {command}")
    peak = usage.ru_maxrss * BYTES_PER_MAXRSS / 1e9
    return Measurement(stage, round(time.monotonic() - started, 1), round(peak, 2))


def tabulated(measurements: list[Measurement]) -> Table:
    table = Table("stage", title="The study, stage by stage", show_footer=True)
    table.columns[0].footer = "all"
    total = sum(measurement.wall_s for measurement in measurements)
    most = max(measurement.peak_gb for measurement in measurements)
    table.add_column("wall time, s", f"{total:.1f}", justify="right")
    table.add_column("peak memory, GB", f"{most:.2f}", justify="right")
    for measurement in measurements:
        table.add_row(measurement.stage, f"{measurement.wall_s:.1f}", f"{measurement.peak_gb:.2f}")
    return table


if __name__ == "__main__":
    main()
