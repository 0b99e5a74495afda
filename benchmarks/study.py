"""Wall time, processor time and peak memory of every stage of the study, in a temporary clone.

    python benchmarks/study.py [--out DIR] [--keep DIR]

Puts its rows into study.csv, in place of those of the same kernels. The working tree is measured as
it stands, committed or not, and stays as it is. Processor seconds and peak memory are the kernel's
for the stage's process: user and system time of it and its children, and the largest resident set
of it or of a single child.
"""

from __future__ import annotations

import argparse
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

from circuitdrift.core.files import write_table
from circuitdrift.params import load_params

ROOT = Path(__file__).resolve().parents[1]
BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Measurement:
    """One stage's cost: seconds of wall and processor time, GB (1e9 bytes) of memory."""

    stage: str
    wall_s: float
    cpu_s: float
    peak_gb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder; the clone stays")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as directory:
        clone = arguments.keep or Path(directory) / "study"
        clone_study(clone)
        measurements = [measure(stage, command, clone) for stage, command in commands(clone)]
        kernels = load_params(clone / "params.yaml").compute.kernels
    table = pd.DataFrame([asdict(measurement) for measurement in measurements])
    print(table.to_string(index=False))
    print(
        f"all: {table['wall_s'].sum():.1f} s of wall time, {table['cpu_s'].sum():.1f} s of "
        f"processor time, {table['peak_gb'].max():.2f} GB at most"
    )
    table.insert(0, "kernels", kernels)
    path = arguments.out / "study.csv"
    if path.is_file():
        before = pd.read_csv(path)
        table = pd.concat([before[before["kernels"] != kernels], table])
    write_table(path, table)


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


def commands(clone: Path, last_first: bool = False) -> list[tuple[str, str]]:
    """Name and command of every stage of dvc.yaml, each after those that it depends on.

    Args:
        last_first: of the stages that could come next, take the one that DVC would take last.
    """
    with Repo(str(clone)) as repo:
        needs = repo.index.graph
        ordered = list(networkx.dfs_postorder_nodes(needs))
        if last_first:
            place = {stage: index for index, stage in enumerate(ordered)}
            ordered = networkx.lexicographical_topological_sort(
                needs.reverse(), key=lambda stage: -place[stage]
            )
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
    wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{stage} failed with {process.returncode}: {command}")
    return Measurement(
        stage=stage,
        wall_s=round(wall_s, 1),
        cpu_s=round(usage.ru_utime + usage.ru_stime, 1),
        peak_gb=round(usage.ru_maxrss * BYTES_PER_MAXRSS / 1e9, 2),
    )


if __name__ == "__main__":
    main()
