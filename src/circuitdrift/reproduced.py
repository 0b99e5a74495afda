"""``circuitdrift verify --reproduced``: the results that lie here against the committed ones.

They are the same bytes; or the same within a tolerance, as on a processor whose kernels give other
last bits; or different, and then it is said from which stage on, and why where that can be told.
What git keeps is compared with the last commit, what DVC keeps with the cache's copies of it.
"""

from __future__ import annotations

import io
import math
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from packaging.requirements import Requirement
from rich.console import Console
from ruamel.yaml import YAML
from safetensors import safe_open

from circuitdrift.circuits.circuit import Circuit
from circuitdrift.circuits.files import load_circuits
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import read_json
from circuitdrift.fingerprint import differing
from circuitdrift.verify import files_of

# By kind of artifact how large a difference may be and what it is a share of. Two and a half times
# what native kernels gave against portable ones at least (LOG.md): the first steps of training
# make a small difference a large one where a gradient is next to nothing, and single prompts
# answer to single neurons that enter a small circuit.
TOLERANCES = {
    "metric": (1e-3, "the number, or 1 where it is smaller"),
    "table": (0.1, "the largest value of the column"),
    "adapter": (0.05, "the tensor's norm"),
    "circuit": (5e-3, "the total |effect| on the prompt"),
    "other": (0.0, "equal or not"),
}
DRAWN = (".png", ".md")  # from tables that are compared themselves
SAME, WITHIN, DIFFERENT = "the same bytes", "the same within the tolerances", "different"

Parts = Iterator[tuple[str, float]]  # a tensor, cell or prompt, and by what share it differs


@dataclass
class Reproduction:
    """What came of the comparison.

    Attributes:
        n_same, unseen: outputs of the same bytes; those whose committed bytes are not in the cache.
        drawn: figures and pages of other bytes.
        worst: by kind how many files differ, and the largest difference with its file and part.
        first_bytes, first: the first stage of other bytes, and that beyond the tolerance.
        moved: how many nodes and edges of the compared graphs there are, and are in one alone.
        verdicts: whether they are equal, None where one is not there.
        changed, reasons: what differs in inputs, and other causes.
    """

    n_same: int = 0
    unseen: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    worst: dict[str, tuple[int, float, str, str]] = field(default_factory=dict)
    first_bytes: str | None = None
    first: str | None = None
    moved: Counter[str] = field(default_factory=Counter)
    verdicts: bool | None = None
    changed: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        different = self.first is not None or self.verdicts is False
        return SAME if self.first_bytes is None else DIFFERENT if different else WITHIN

    def add(self, kind: str, name: str, part: str, share: float) -> None:
        count, most, *where = self.worst.get(kind, (0, -1.0, "", ""))
        where = [name, part] if share > most else where
        self.worst[kind] = (count + 1, max(share, most), where[0], where[1])


def reproduction(root: Path) -> Reproduction:
    """Hold the results at ``root`` against those of its last commit.

    Raises:
        InputError: if there is nothing to compare.
    """
    with TemporaryDirectory() as folder:
        committed = Path(folder)
        _extract(root, committed)
        locks = [_lock(place / "dvc.lock") for place in (committed, root)]
        order = list(YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"])
        result = Reproduction()
        # Entries of stages that are no more stay in dvc.lock.
        stages = [name for name in locks[0] if name.split("@")[0] in order]
        for stage in sorted(stages, key=lambda name: order.index(name.split("@")[0])):
            here = {out["path"]: out["md5"] for out in locks[1].get(stage, {}).get("outs", [])}
            for out in locks[0][stage].get("outs", []):
                equal = here.get(out["path"]) == out["md5"]
                if equal and not (committed / out["path"]).exists():
                    result.n_same += 1  # `circuitdrift verify` holds DVC's own against dvc.lock
                else:
                    _compare_output(result, stage, out, committed, root)
        both = [place / paths.VERDICTS for place in (committed, root)]
        if all(path.is_file() for path in both):
            one, other = ([read_json(p)[q]["verdict"] for q in ("rq1", "rq2")] for p in both)
            result.verdicts = one == other
        result.changed = list(_changed_inputs(*locks))
        if result.outcome != SAME:
            result.reasons = list(_reasons(committed, root))
    return result


def _extract(root: Path, committed: Path) -> None:
    """The last commit's results and lock files, as files."""
    names = ["dvc.lock", "requirements.lock", "reports"]
    done = subprocess.run(
        ["git", "-C", str(root), "archive", "HEAD", *names], capture_output=True, check=False
    )
    if done.returncode:
        error = done.stderr.decode(errors="replace").strip()
        rule = "the folder of a study whose dvc.lock and reports are committed"
        raise InputError(Problem(str(root), error, rule, "commit the results, or clone the study"))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(committed, filter="data")


def _lock(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(Problem(str(path), None, "the results of a study", "run `dvc repro`"))
    return dict(YAML(typ="safe", pure=True).load(path)["stages"])


def _compare_output(
    result: Reproduction, stage: str, out: Mapping[str, Any], committed: Path, root: Path
) -> None:
    """An output, file by file."""
    pairs = _pairs(out, committed, root)
    if pairs is None:
        result.unseen.append(out["path"])
        result.first_bytes = result.first_bytes or stage
        return
    unequal = {
        name: (one, other)
        for name, (one, other) in pairs.items()
        if one is None or other is None or one.read_bytes() != other.read_bytes()
    }
    result.n_same += not unequal
    if unequal:
        result.first_bytes = result.first_bytes or stage
    for name, (one, other) in unequal.items():
        if name.endswith(DRAWN):
            result.drawn.append(name)
            continue
        kind, part, share = largest_difference(name, one, other, result.moved)
        result.add(kind, name, part, share)
        if share > TOLERANCES[kind][0]:
            result.first = result.first or stage


def _pairs(
    out: Mapping[str, Any], committed: Path, root: Path
) -> dict[str, tuple[Path | None, Path | None]] | None:
    """The committed file and the one here by name; None if the committed bytes are not here."""
    name = str(out["path"])
    if (committed / name).exists():
        ones = files(committed, name)
    else:
        place = _cache(root).oid_to_path
        oids = files_of(name, out["md5"], Path(place(out["md5"])))
        ones = {path: Path(place(oid)) for path, oid in oids.items() if not oid.endswith(".dir")}
        if not ones or not all(path.is_file() for path in ones.values()):
            return None
    others = files(root, name)
    return {path: (ones.get(path), others.get(path)) for path in sorted({*ones, *others})}


@cache
def _cache(root: Path) -> Any:
    """DVC's cache of objects, opened once for all outputs."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return repo.cache.local


def files(root: Path, output: str) -> dict[str, Path]:
    """The files of an output, by path below ``root``."""
    found = [root / output, *(root / output).rglob("*")]
    return {path.relative_to(root).as_posix(): path for path in found if path.is_file()}


def largest_difference(
    name: str, one: Path | None, other: Path | None, moved: Counter[str]
) -> tuple[str, str, float]:
    """The kind of a file that differs, the part that differs most, and by what share of what
    TOLERANCES says.

    Args:
        name: its path in the study.
        moved: counts the nodes and edges of graphs.
    """
    if one is None or other is None:
        return "other", f"only in the {'second' if one is None else 'first'}", math.inf
    suffix = Path(name).suffix
    kind, parts = "other", iter([("its bytes", math.inf)])
    if suffix == ".safetensors" and name.startswith(paths.ATTRIBUTIONS.as_posix()):
        kind, parts = "circuit", _circuits(one, other, moved)
    elif suffix == ".safetensors":
        kind, parts = "adapter", _tensors(one, other)
    elif suffix in (".csv", ".tsv"):
        kind, parts = "table", _columns(one, other, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        kind, parts = "metric", _leaves(read_json(one), read_json(other))
    return kind, *max(parts, key=lambda each: each[1], default=("written otherwise", 0.0))


def _circuits(one: Path, other: Path, moved: Counter[str]) -> Parts:
    a, b = load_circuits(one), load_circuits(other)
    if [circuit.prompt for circuit in a] != [circuit.prompt for circuit in b]:
        yield "the prompts", math.inf
        return
    for before, after in zip(a, b, strict=True):
        total = np.abs(before.effects).sum(dtype=np.float64)
        apart = np.abs(before.effects - after.effects).sum(dtype=np.float64)
        yield before.prompt.id, float(apart / total) if total else float(apart)
        (nodes, edges), (others, other_edges) = _graph(before), _graph(after)
        moved["nodes"] += len(nodes | others)
        moved["nodes in one"] += len(nodes ^ others)
        moved["edges"] += len(edges | other_edges)
        moved["edges in one"] += len(edges ^ other_edges)


def _graph(circuit: Circuit) -> tuple[set[Any], set[Any]]:
    """A graph's nodes and edges, whatever their order."""
    if circuit.graph is None:
        return set(), set()
    nodes = [tuple(node) for node in circuit.graph.nodes.tolist()]
    return set(nodes), {(nodes[target], nodes[source]) for target, source in circuit.graph.edges}


def _tensors(one: Path, other: Path) -> Parts:
    with safe_open(one, framework="np") as before, safe_open(other, framework="np") as after:
        if sorted(before.keys()) != sorted(after.keys()):
            yield "the tensors' names", math.inf
            return
        for name in before.keys():  # noqa: SIM118
            a, b = (file.get_tensor(name).astype(np.float64) for file in (before, after))
            length = np.linalg.norm(a)
            apart = np.linalg.norm(a - b) if a.shape == b.shape else math.inf
            yield name, float(apart / length) if length else float(apart)


def _columns(one: Path, other: Path, separator: str) -> Parts:
    """Of a table: words are equal; numbers differ by a share of their column's largest."""
    a, b = (
        pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False) for path in (one, other)
    )
    if len(a) != len(b) or list(a) != list(b):
        yield "its rows or columns", math.inf
        return
    for column in a:
        if not a[column].equals(b[column]):
            yield str(column), _apart(a[column], b[column])


def _apart(a: pd.Series, b: pd.Series) -> float:
    """The largest difference as a share of the largest number; infinite where one is a word."""
    x, y = (pd.to_numeric(values.replace("", "nan"), errors="coerce") for values in (a, b))
    words = (x.isna() | y.isna()) & (a != b)
    if words.any():
        return math.inf
    return float((x - y).abs().max() / pd.concat([x, y]).abs().max())


def _leaves(one: Any, other: Any, key: str = "") -> Parts:
    """Of JSON: what is no number is equal; numbers differ by a share of themselves or of 1."""
    both = one, other
    if all(isinstance(value, dict) for value in both) and one.keys() == other.keys():
        for name in one:
            yield from _leaves(one[name], other[name], f"{key}.{name}".lstrip("."))
    elif all(isinstance(value, list) for value in both) and len(one) == len(other):
        for place, pair in enumerate(zip(*both, strict=True)):
            yield from _leaves(*pair, f"{key}[{place}]")
    elif one != other:
        numbers = all(isinstance(value, (int, float)) for value in both)
        yield key, abs(one - other) / max(1, abs(one), abs(other)) if numbers else math.inf


def _changed_inputs(committed: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Params, code and data that stages had otherwise, and commands; each once."""
    made = {out["path"] for stage in committed.values() for out in stage.get("outs", [])}
    told: dict[str, None] = {}
    for name, stage in committed.items():
        other = here.get(name, {})
        old, new = (_values(each.get("params", {})) for each in (stage, other))
        for key in old.keys() | new.keys() if other else ():
            if old.get(key) != new.get(key):
                told[f"params.yaml: {key}: {old.get(key)} -> {new.get(key)}"] = None
        old, new = (
            {dep["path"]: dep["md5"] for dep in each.get("deps", [])} for each in (stage, other)
        )
        for path in sorted(old.keys() & new.keys()):
            within = any(out.startswith(path) or path.startswith(out) for out in made)
            if old[path] != new[path] and not within:
                told[f"{path} changed"] = None
        if not other:
            told[f"no {name} here"] = None
    yield from told


def _values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params of a stage in dvc.lock by section and key."""
    values = {}
    for sections in params.values():
        for section, keys in sections.items():
            for key, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
                values[f"{section}.{key}".rstrip(".")] = value
    return values


def _reasons(committed: Path, root: Path) -> Iterator[str]:
    """Why equal inputs may have come out otherwise on this machine."""
    if bits := differing(root):
        yield f"this machine computes other bits than where the results come from: {bits[0]}" + (
            f" and {len(bits) - 1} more of its fingerprint" if len(bits) > 1 else ""
        )
    locked = committed / "requirements.lock"
    for line in locked.read_text("utf-8").splitlines() if locked.is_file() else ():
        pin = Requirement(line) if "==" in line else None
        if pin is None or (pin.marker and not pin.marker.evaluate()):
            continue
        try:
            installed = version(pin.name)
        except PackageNotFoundError:
            installed = "nothing"
        if installed == "nothing" or not pin.specifier.contains(installed, prereleases=True):
            yield f"{pin.name}: {installed} is installed, requirements.lock has {pin.specifier}"


def show(result: Reproduction, console: Console) -> None:
    """Say what came of the comparison, why, and what to do."""
    moved = result.moved
    lines = [
        f"{kind}: {count} files differ, at most by {share:.1e} of {TOLERANCES[kind][1]} "
        f"(tolerance {TOLERANCES[kind][0]:g}), in {name}: {part}"
        for kind, (count, share, name, part) in sorted(result.worst.items())
    ]
    lines += [
        f"{moved[f'{what} in one']} of {moved[what]} {what} of graphs are in one of the two alone"
        for what in ("nodes", "edges")
        if moved[f"{what} in one"]
    ]
    lines += [f"another study: {change}" for change in result.changed]
    lines += [f"why: {reason}" for reason in result.reasons]
    if result.drawn:
        lines.append(f"{len(result.drawn)} figures and pages were drawn from these otherwise")
    if result.unseen:
        lines.append(
            f"{len(result.unseen)} outputs of other bytes, as {result.unseen[0]}, cannot be "
            "compared: `dvc pull` in another clone has their committed bytes"
        )
    at = f" from {result.first} on" if result.first else ""
    lines.append(f"{result.n_same} outputs have the committed bytes")
    if result.outcome != SAME:
        lines.append(f"other bytes from {result.first_bytes} on")
        verdicts = {None: "not there", True: "yes", False: "no"}[result.verdicts]
        lines += [
            f"verdicts equal: {verdicts}",
            "`git checkout reports dvc.lock` keeps the committed results; "
            "`git commit reports dvc.lock` makes these the committed ones",
        ]
    lines.append(f"reproduced: {result.outcome}{at}")
    for line in lines:
        console.out(line, highlight=False)
