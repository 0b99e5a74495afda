"""Experiments per hour with one worker and with two, each in a clone of its own.

    python benchmarks/sweep.py [--experiments N] [--workers 1 2]

The last commit is measured, on the first N experiments of sweep.yaml, from the base model's import
on; a clone starts with an empty cache, so nothing is shared between the rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from machine import describe
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from circuitdrift.sweeps.git import experiments
from circuitdrift.sweeps.plan import load_sweep

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=2, help="the first of sweep.yaml")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    table = Table("workers", title=describe())
    table.add_column("experiments", justify="right")
    table.add_column("wall time, s", justify="right")
    table.add_column("experiments per hour", justify="right")
    for workers in arguments.workers:
        seconds = measure(arguments.experiments, workers)
        per_hour = 3600 * arguments.experiments / seconds
        table.add_row(str(workers), str(arguments.experiments), f"{seconds:.0f}", f"{per_hour:.1f}")
    Console().print(table)


def measure(n_experiments: int, workers: int) -> float:
    """Seconds that the sweep takes in a fresh clone.

    Raises:
        SystemExit: if an experiment fails.
    """
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as directory:
        clone = Path(directory) / "study"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        shorten(clone, n_experiments)
        command = ["circuitdrift", "sweep", "--root", str(clone), "--workers", str(workers)]
        started = time.monotonic()
        program = Path(sys.executable).parent / command[0]
        subprocess.run([str(program), *command[1:]], check=True, stdout=sys.stderr)
        seconds = time.monotonic() - started
        if (found := len(list(experiments(clone)))) != n_experiments:
            raise SystemExit(f"{found} experiments were run, {n_experiments} were asked for")
    return seconds


def shorten(clone: Path, n_experiments: int) -> None:
    """Make the sweep one of its first experiments, and commit it."""
    members = islice(load_sweep(clone).members, n_experiments)
    yaml = YAML()
    file = yaml.load(clone / "sweep.yaml")
    rungs = {member.name: dict(member.changes) for member in members}
    file["every"], file["arms"] = {}, {"few": {"rungs": rungs}}
    yaml.dump(file, clone / "sweep.yaml")
    identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost"]
    command = ["git", *identity, "commit", "--quiet", "--all", "--message", "A few experiments"]
    subprocess.run(command, cwd=clone, check=True)
    for key, value in (("user.name", "Benchmark"), ("user.email", "benchmark@localhost")):
        subprocess.run(["git", "config", key, value], cwd=clone, check=True)


if __name__ == "__main__":
    main()
