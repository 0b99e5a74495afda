"""Stage ``compare``: how far each prompt's circuit moves, between which checkpoints, and where."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.progress import track

from circuitdrift import paths
from circuitdrift.artifacts import write_json, write_table
from circuitdrift.circuit_pairs import (
    change_by_place,
    checkpoint_pairs,
    compare_pair,
    feature_changes,
    match_circuits,
)
from circuitdrift.config import Params
from circuitdrift.dataset import Prompt, read_prompts
from circuitdrift.graph import load_circuits
from circuitdrift.identifiers import BASE, Run
from circuitdrift.leftovers import remove_other_runs


def run(params: Params) -> None:
    remove_other_runs(paths.ATTRIBUTIONS, params.runs.all)
    prompts = {prompt.id: prompt for prompt in read_prompts(paths.PROMPTS)}
    base = load_circuits(paths.attribution(BASE, BASE))
    drift: list[dict[str, Any]] = []
    places: list[pd.DataFrame] = []
    features: list[pd.DataFrame] = []
    for member in params.runs.all:
        files = sorted(paths.attributions(member.name).glob("*.safetensors"))
        circuits = {BASE: base, **{file.stem: load_circuits(file) for file in files}}
        pairs = checkpoint_pairs([file.stem for file in files])
        for before, after in track(pairs, description=f"comparing {member.name}"):
            matched = list(match_circuits(circuits[before], circuits[after]))
            key = _key(member, before, after)
            for a, b in matched:
                described = {**key, **_described(prompts[b.prompt])}
                drift.append({**described, **compare_pair(a, b)})
                places.append(change_by_place(a, b).assign(**described))
            task = [pair for pair in matched if prompts[pair[1].prompt].role == "discovery"]
            features.append(feature_changes(task, params.compare.top_features).assign(**key))
    table = pd.DataFrame(drift)
    write_table(paths.DRIFT_TABLE, table)
    write_table(paths.PLACE_TABLE, _mean_by_place(pd.concat(places)))
    write_table(paths.FEATURE_TABLE, _key_first(pd.concat(features)))
    write_json(paths.DRIFT_METRICS, headline(table))


KEY = ["run", "condition", "seed", "from", "to"]
PLACE = [*KEY, "role", "type", "layer", "segment"]


def _key(member: Run, before: str, after: str) -> dict[str, Any]:
    return {
        "run": member.name,
        "condition": member.condition,
        "seed": member.seed,
        "from": before,
        "to": after,
    }


def _described(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt": prompt.id,
        "role": prompt.role,
        "type": prompt.type or "",
        "word": prompt.word or "",
    }


def _mean_by_place(places: pd.DataFrame) -> pd.DataFrame:
    """Average over the prompts of a role and type: ``gained``, ``lost``, ``moved``, ``before``."""
    measures = ["gained", "lost", "moved", "before"]
    return places.groupby(PLACE, as_index=False, sort=True)[measures].mean()


def _key_first(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*KEY, *(column for column in table if column not in KEY)]]


def headline(table: pd.DataFrame) -> dict[str, Any]:
    """Mean drift from base by run, checkpoint and role."""
    means: dict[str, Any] = {}
    from_base = table[table["from"] == BASE]
    for (member, checkpoint, role), rows in from_base.groupby(["run", "to", "role"]):
        means.setdefault(member, {}).setdefault(checkpoint, {})[role] = {
            measure: round(float(rows[measure].mean()), 6)
            for measure in ("drift", "signed_drift", "influence_drift", "error_mass_to")
        }
    return means
