"""One prompt's circuits in all models of a study: how far each moved, and how far runs lie apart.

Prompt by prompt, for the circuits of all prompts in all models take gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.circuits.circuit import Circuit, Floats
from circuitdrift.comparison.distance import compare_graphs, consistency, total_variation
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import BASE, TRAINED, Run, random_change

Row = dict[str, Any]
At = tuple[Run, str]
"""A run and a checkpoint."""


@dataclass(frozen=True)
class Models:
    """The circuits of one prompt in the base model, at every checkpoint, and in random adapters.

    Checkpoints are the same in every run and ascend; random adapters are those of the last.
    """

    base: Circuit
    trained: Mapping[At, Circuit]
    random: Mapping[tuple[Run, int], Circuit]  # by run and draw

    @property
    def prompt(self) -> TracedPrompt:
        return self.base.prompt

    @property
    def runs(self) -> list[Run]:
        return list(dict.fromkeys(run for run, _ in self.trained))

    @property
    def checkpoints(self) -> list[str]:
        return list(dict.fromkeys(checkpoint for _, checkpoint in self.trained))


@dataclass(frozen=True)
class _Shares:
    """One circuit's |effect| as shares of their total, target by target."""

    shares: Floats  # [n_targets, n_nodes]
    totals: NDArray[np.float64]  # [n_targets], logits

    def drift_to(self, other: _Shares) -> float:
        """Mean over targets of the total variation distance, 0..1."""
        return float(np.mean([*map(total_variation, self.shares, other.shares)]))

    def gain_to(self, other: _Shares) -> float:
        """Mean over targets of ln(total of the other / own total)."""
        return float(np.log(other.totals / self.totals).mean())


def compare_prompt(models: Models) -> Iterator[tuple[str, Row]]:
    """Every comparison of a prompt's circuits, as the name of a table and a row of it."""
    prompt = models.prompt
    circuits = [models.base, *models.trained.values(), *models.random.values()]
    if any(circuit.prompt != prompt for circuit in circuits):
        raise ValueError(f"circuits of different prompts or targets beside {prompt}")
    # Most nodes are below what is stored in every model: a third of the time without them. The
    # target that is not stored is minus the sum of the others, so that it is 0 where they are.
    stored = np.flatnonzero(
        np.any([one.effects.reshape(len(one.effects), -1).any(0) for one in circuits], axis=0)
    )
    effects = {
        model: circuit.all_effects.reshape(-1, circuit.effects[0].size)[:, stored]
        for model, circuit in zip([BASE, *models.trained, *models.random], circuits, strict=True)
    }
    shares = {model: _shares(of_model) for model, of_model in effects.items()}
    about = {
        "role": prompt.role,
        "type": prompt.type or "",
        "unit": prompt.word or prompt.id,
        "prompt": prompt.id,
    }
    for table, row in (
        *(("drift", row) for row in _drift_rows(models, shares)),
        *(("between_runs", row) for row in _between_rows(models, shares)),
        *(("consistency", row) for row in _consistency_rows(models, effects)),
        *(("graphs", row) for row in _graph_rows(models)),
    ):
        yield table, {**about, **row}


def _shares(effects: Floats) -> _Shares:
    magnitude = np.abs(effects)
    totals = magnitude.sum(1, dtype=np.float64)
    if not totals.all():
        raise ValueError("the effects of a circuit are all 0: there are no shares of them")
    return _Shares(magnitude / totals[:, None].astype(np.float32), totals)


def _drift_rows(models: Models, shares: Mapping[Any, _Shares]) -> Iterator[Row]:
    """From base to each checkpoint and random adapter, and from each checkpoint to the next."""
    last = models.checkpoints[-1]
    for run in models.runs:
        ways = [
            *((TRAINED, BASE, name, BASE, (run, name)) for name in models.checkpoints),
            *((TRAINED, a, b, (run, a), (run, b)) for a, b in pairwise(models.checkpoints)),
            *(
                (random_change(draw), BASE, last, BASE, (run, draw))
                for of_run, draw in models.random
                if of_run == run
            ),
        ]
        for change, start, end, before, after in ways:
            yield {
                **described(run),
                "change": change,
                "from": start,
                "to": end,
                "drift": shares[before].drift_to(shares[after]),
                "gain": shares[before].gain_to(shares[after]),
            }


def _between_rows(models: Models, shares: Mapping[Any, _Shares]) -> Iterator[Row]:
    """All runs at the last checkpoint; runs of one condition at each, and one step apart."""
    last = models.checkpoints[-1]
    for one, other in combinations(models.runs, 2):
        alike = one.condition == other.condition
        steps = [(name, name) for name in models.checkpoints if alike or name == last]
        if alike and models.prompt.role == "near":
            for pair in pairwise(models.checkpoints):
                steps += [pair, pair[::-1]]
        for a, b in steps:
            yield {
                "run_a": one.name,
                "checkpoint_a": a,
                "run_b": other.name,
                "checkpoint_b": b,
                "drift": shares[one, a].drift_to(shares[other, b]),
            }


def _consistency_rows(models: Models, effects: Mapping[Any, Floats]) -> Iterator[Row]:
    """Cosines of the runs' changes from base to the last checkpoint, on what `mapped` teaches."""
    if models.prompt.role != "near":
        return
    target, last = models.prompt.answer, models.checkpoints[-1]
    changes = {run: effects[run, last][target] - effects[BASE][target] for run in models.runs}
    for one, other in combinations(models.runs, 2):
        cosine = consistency(changes[one], changes[other])
        yield {"run_a": one.name, "run_b": other.name, "consistency": cosine}


def _graph_rows(models: Models) -> Iterator[Row]:
    for (run, checkpoint), circuit in models.trained.items():
        if models.base.graph is not None and circuit.graph is not None:
            measures = compare_graphs(models.base.graph, circuit.graph)
            yield {**described(run), "from": BASE, "to": checkpoint, **measures}


def described(run: Run) -> Row:
    """The columns of a table that say which run this is."""
    return {"run": run.name, "condition": run.condition, "seed": run.seed}


def over_prompts(rows: Sequence[Row], measures: Sequence[str]) -> list[Row]:
    """Means over the prompts of a unit, in the order in which the units came."""
    if not rows:
        return []
    table = pd.DataFrame(rows).drop(columns="prompt")
    keys = [name for name in table if name not in measures]
    return table.groupby(keys, sort=False, as_index=False).mean().to_dict("records")
