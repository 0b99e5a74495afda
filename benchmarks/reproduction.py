"""The study run again in a clean clone elsewhere, and what came out otherwise.

    python benchmarks/reproduction.py [--tiny] [--reverse] [--keep DIR] [--out DIR]

The clone has another path, hash seed, time zone, locale and home, and takes nothing from DVC's run
cache. It is held against what is committed; with --tiny, which takes minutes, against another
clone. Every file that differs is named, with the tensor, column or key that differs most.
Puts its rows into reproduction.csv, and exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from study import ROOT, clone_study, commands

from circuitdrift.core.files import write_table
from circuitdrift.reproduced import files, largest_difference

# The whole pipeline in little more than the time of its imports.
TINY: Mapping[str, Any] = {
    "compute.threads": 1,
    "base.model": "tiny",
    "runs.conditions": ["mapped", "rotated-1", "rotated-2", "unrelated"],
    "runs.seeds": [0, 1],
    "dataset.n_examples": 12,
    "train.epochs": 1,
    "train.checkpoints": [0.5, 1.0],
    "attribution.near_prompts_per_word": 2,
    "attribution.discovery_prompts_per_word": 2,  # the first has nothing between word and end
    "attribution.control_prompts": 2,
    "attribution.feature_nodes": 16,
    "attribution.candidates_per_place": 8,
    "intervene.seeds": [1],
    "intervene.patched_nodes": [1, 3],
    "intervene.circuit_prompts_per_word": 1,
    "intervene.sizes": [0.1, 1.0],
    "intervene.transfer_size": 0.1,
    "statistics.permutations": 10,
    "statistics.coverage_samples": 100,
    "verdicts.patched_nodes": 3,
}
HERE = {"PYTHONHASHSEED": "1", "TZ": "UTC0", "LC_ALL": "C.UTF-8"}
ELSEWHERE = {"PYTHONHASHSEED": "2", "TZ": "NPT-5:45", "LC_ALL": "C"}
COLUMNS = ["profile", "variation", "artifact", "outcome", "part", "share"]
_CALLERS_OWN = ("GIT_", "DVC_", "PYTHON", "HF_", "XDG_", "LC_", "LANG", "TZ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="two clones of a tiny study")
    parser.add_argument("--reverse", action="store_true", help="the last stages first")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder; the clones stay")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/reliability")
    options = parser.parse_args()
    profile, params = ("tiny", TINY) if options.tiny else ("default", {})
    variation = "reversed" if options.reverse else "elsewhere"
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as temporary:
        parent, reference = options.keep or Path(temporary), ROOT
        if options.tiny:
            reference = prepare(parent / "here" / "study", params)
            run_study(reference, HERE)
        again = prepare(parent / "elsewhere" / "another stüdy", params)
        run_study(again, ELSEWHERE, options.reverse)
        rows = pd.DataFrame(compare(reference, again, options.reverse), columns=COLUMNS)
    rows = rows.assign(profile=profile, variation=variation)
    differing = rows[rows["outcome"] == "differs"]
    print(f"{len(rows) - len(differing)} of {len(rows)} identical")
    if len(differing):
        print(differing[COLUMNS[2:]].to_string(index=False))
    table = options.out / "reproduction.csv"
    before = pd.read_csv(table) if table.is_file() else rows[:0]
    kept = before[(before["profile"] != profile) | (before["variation"] != variation)]
    write_table(table, pd.concat([kept, rows])[COLUMNS])
    return 1 if len(differing) else 0


def prepare(clone: Path, params: Mapping[str, Any]) -> Path:
    """Clone the study without its results, with other ``params``, by section and key."""
    clone_study(clone)
    for path in outputs(stages(clone)):
        if (clone / path).is_dir():
            shutil.rmtree(clone / path)
        else:
            (clone / path).unlink(missing_ok=True)
    (clone / "dvc.lock").unlink()
    set_params(clone / "params.yaml", params)
    return clone


def set_params(path: Path, params: Mapping[str, Any]) -> None:
    """Write values into params.yaml, by section and key.

    Raises:
        SystemExit: if params.yaml has no such key.
    """
    yaml = YAML()
    values = yaml.load(path)
    for name, value in params.items():
        section, key = name.split(".")
        if key not in values[section]:
            raise SystemExit(f"{path} has no {name}, which benchmarks/ and tests/ set")
        values[section][key] = value
    yaml.dump(values, path)


def run_study(clone: Path, varied: Mapping[str, str], reverse: bool = False) -> None:
    """Run every stage; the folder that holds the clone is its home."""
    command = ["dvc", "repro", "--no-run-cache"]
    if reverse:
        command += ["--single-item", *(name for name, _ in commands(clone, last_first=True))]
    variables = environment(clone.parent, varied)
    subprocess.run(command, cwd=clone, env=variables, check=True, stdout=sys.stderr)


def environment(home: Path, varied: Mapping[str, str]) -> dict[str, str]:
    """Variables with which git and DVC know a clone alone, and `python` is this Python."""
    callers = {name: text for name, text in os.environ.items() if not name.startswith(_CALLERS_OWN)}
    return {
        # How this machine installs packages is no part of the study, and stands in the home.
        "PIP_CONFIG_FILE": str(Path.home() / ".config/pip/pip.conf"),
        **callers,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_NO_ANALYTICS": "1",
        **varied,
    }


def stages(root: Path) -> dict[str, Any]:
    """Stages of dvc.lock, in its order."""
    return dict(YAML(typ="safe", pure=True).load(root / "dvc.lock")["stages"])


def outputs(lock: Mapping[str, Any]) -> dict[str, str]:
    """Hash of every output that stages of dvc.lock list, by its path."""
    return {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}


def compare(one: Path, other: Path, any_order: bool) -> Iterator[dict[str, Any]]:
    """Rows of dvc.lock, of every output that is identical, and of the files of those that differ.

    Args:
        any_order: whether stages may stand in dvc.lock in another order.
    """
    locks = stages(one), stages(other)
    names = [name for name in {**locks[0], **locks[1]} if locks[0].get(name) != locks[1].get(name)]
    first = names[0] if names else None
    if not (
        first or any_order or (one / "dvc.lock").read_bytes() == (other / "dvc.lock").read_bytes()
    ):
        first = "the order of the stages"
    yield {"artifact": "dvc.lock", "outcome": "differs" if first else "identical", "part": first}
    hashes = outputs(locks[0]), outputs(locks[1])
    for path in {**hashes[0], **hashes[1]}:
        if hashes[0].get(path) == hashes[1].get(path):
            yield {"artifact": path, "outcome": "identical"}
        else:
            pairs = files(one, path), files(other, path)
            for name in sorted({*pairs[0], *pairs[1]}):
                a, b = (of.get(name) for of in pairs)
                if not (a and b and a.read_bytes() == b.read_bytes()):
                    _, part, share = largest_difference(name, a, b, Counter())
                    yield {"artifact": name, "outcome": "differs", "part": part, "share": share}


if __name__ == "__main__":
    sys.exit(main())
