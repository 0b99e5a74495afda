"""What it costs how torch's threads wait for one another: idle, and beside one busy process.

    python benchmarks/waiting.py [--base DIR] [--repeats N] [--examples N] [--out DIR]

Every policy is a setting of OpenMP, which reads it when torch is imported. Each is timed on parts
of the study, imports left out: one epoch of fine-tuning and the circuits of some prompts, on the
base model. Writes waiting.csv. Rounds are interleaved; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import pandas as pd
from reproduction import set_params
from study import ROOT

from circuitdrift.core.files import write_table

POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin count 3000": {"GOMP_SPINCOUNT": "3000"},
}
BESIDE = {"nothing": "", "one busy process": "while True: pass"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--examples", type=int, default=32, help="of the epoch of fine-tuning")
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work()
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as temporary:
        study = make_study(Path(temporary), arguments.base.resolve(), arguments.examples)
        for _ in range(arguments.repeats):
            for beside in BESIDE:
                for policy in POLICIES:
                    seconds = measure(study, policy, beside)
                    rows.append({"policy": policy, "beside": beside, "seconds": seconds})
                    print(rows[-1], flush=True)
    taken = pd.DataFrame(rows).groupby(["policy", "beside"], sort=False)["seconds"]
    table = taken.agg(median_s="median", min_s="min", max_s="max", repeats="count")
    table = table.round(2).reset_index()
    print(table.to_string(index=False))
    write_table(arguments.out / "waiting.csv", table)


def make_study(folder: Path, base: Path, n_examples: int) -> Path:
    """Put what the two stages read into ``folder``: params, data set, base model."""
    (folder / "models").mkdir()
    (folder / "models/base").symlink_to(base)
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data/constraints.yaml", folder / "data")
    shutil.copy(ROOT / "params.yaml", folder)
    shortened = {
        "dataset.n_examples": n_examples,
        "train.epochs": 1,
        "attribution.discovery_prompts_per_word": 1,
        "attribution.near_prompts_per_word": 1,
        "attribution.control_prompts": 2,
        "intervene.circuit_prompts_per_word": 1,
    }
    set_params(folder / "params.yaml", shortened)
    command = [sys.executable, str(ROOT / "src/run.py"), "make_dataset"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def measure(study: Path, policy: str, beside: str) -> float:
    """Seconds of the work in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    busy = subprocess.Popen([sys.executable, "-c", BESIDE[beside]])
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--work"],
            cwd=study,
            env={**inherited, **POLICIES[policy]},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        busy.kill()
        busy.wait()
    return float(done.stdout.splitlines()[-1])


def work() -> None:
    """Run the stages in the working directory, and print the seconds that they took."""
    for name in ("torch", "transformers", "peft", "dvclive"):
        import_module(name)
    from circuitdrift.params import load_params
    from circuitdrift.stages import attribute, finetune

    params = load_params(Path("params.yaml"))
    began = time.perf_counter()
    finetune.run(params, "mapped-0")
    attribute.run(params, "base")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
