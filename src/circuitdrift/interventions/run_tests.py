"""All tests of one run's circuits, model by model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from circuitdrift.circuits.circuit import Floats
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import BASE, derived_seed, random_change
from circuitdrift.interventions.ablation import Subject, prepare
from circuitdrift.interventions.hooks import Recording, record
from circuitdrift.interventions.trials import (
    NECESSITY,
    RECRUITED,
    SUFFICIENCY,
    Features,
    RanksOf,
    Rows,
    circuits_by_size,
    described,
    faithfulness,
    patching,
    random_features,
    rank_agreement,
    specificity,
    stratified_nodes,
    transfer,
)
from circuitdrift.interventions.units import matched_units, random_ranks, units_of_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from transformers import PreTrainedModel

    from circuitdrift.params import Intervene

    ModelAt = Callable[[str], AbstractContextManager[PreTrainedModel]]

OWN = "own"
RANDOM = "random"


@dataclass(frozen=True)
class Study:
    """What is known of a run before its models are loaded.

    Effects are of the evaluation prompts that nodes are ablated on one by one, by checkpoint (the
    base and the last) and prompt ``[n_layers, n_positions, d_mlp]``.
    """

    settings: Intervene
    seed: int  # the run's
    checkpoints: Sequence[str]  # the base, then the run's, the earliest first
    discovery: Sequence[TracedPrompt]
    evaluation: Sequence[TracedPrompt]
    control: Sequence[TracedPrompt]
    ranks: Mapping[str, RanksOf]  # of the units, by checkpoint and type
    effects: Mapping[str, Mapping[str, Floats]]
    recruited: Mapping[str, Features]  # by word

    @property
    def n_experiments(self) -> int:
        """How many :func:`experiments` yields."""
        return 2 * len(self.checkpoints) + len(self.effects) + 3

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """(n_layers, n_segments, d_mlp)."""
        return tuple(next(iter(self.ranks[BASE].values())).shape)

    def generator(self, purpose: str, *parts: str | int) -> np.random.Generator:
        """Draws of their own for each purpose, the same in runs of the same seed."""
        seed = derived_seed(purpose, self.settings.seed, self.seed, *parts)
        return np.random.default_rng(seed)

    @cached_property
    def random_ranks(self) -> dict[str, RanksOf]:
        """The ranks of every random circuit, by its name and type."""
        ranks: dict[str, RanksOf] = {}
        for draw in range(self.settings.random_circuits):
            generator = self.generator("random circuits", draw)
            ranks[random_change(draw)] = {
                type_: random_ranks(self.unit_shape, generator) for type_ in self.ranks[BASE]
            }
        return ranks

    @cached_property
    def patched_features(self) -> dict[str, Mapping[str, Features]]:
        """The recruited features and as many random ones, by the set's name and by word."""
        features: dict[str, Mapping[str, Features]] = {RECRUITED: self.recruited}
        for draw in range(self.settings.random_circuits):
            generator = self.generator("random features", draw)
            features[random_change(draw)] = {
                word: random_features(self.recruited[word], self.unit_shape[-1], generator)
                for word in sorted(self.recruited)
            }
        return features


def experiments(study: Study, model_at: ModelAt) -> Iterator[tuple[str, Rows]]:
    """Run every test, model by model; yield the name of a table and rows of it.

    Args:
        model_at: the model of a checkpoint, ``base`` among them, while the context lasts.
    """
    recordings: dict[str, Recording] = {}
    batch_size = study.settings.batch_size

    def patching_rows(direction: str, model: PreTrainedModel) -> Rows:
        """Recruited and random features patched from the last checkpoint into the base or back."""
        features = study.patched_features
        return patching(
            direction, model, study.evaluation, recordings, features, batch_size=batch_size
        )

    for checkpoint in study.checkpoints:
        with model_at(checkpoint) as model:
            subject = prepare(model, study.discovery, study.evaluation, batch_size)
            yield "faithfulness", faithfulness_rows(study, checkpoint, subject)
            yield "transfer", transfer_rows(study, checkpoint, subject)
            if checkpoint in study.effects:
                recordings["base" if checkpoint == BASE else "tuned"] = subject.recording
                yield "ablation_rank", ablation_rank_rows(study, checkpoint, subject)
            if checkpoint == study.checkpoints[-1]:
                yield "specificity", specificity_rows(study, subject)
                yield "patching", patching_rows(NECESSITY, model)
    with model_at(BASE) as model:
        yield "patching", patching_rows(SUFFICIENCY, model)


def faithfulness_rows(study: Study, checkpoint: str, subject: Subject) -> Rows:
    """The checkpoint's own circuit, the base's and random ones, at every size, in the checkpoint.

    In the base model its own circuit is the base's: run once, written as both.
    """
    own = study.ranks[checkpoint]
    ranks = {OWN: own} if checkpoint == BASE else {OWN: own, BASE: study.ranks[BASE]}
    rows = faithfulness(
        subject, circuits_by_size(ranks, study.random_ranks, OWN, study.settings.sizes)
    )
    if checkpoint == BASE:
        rows += [{**row, "circuit": BASE} for row in rows if row["circuit"] == OWN]
    return [{"checkpoint": checkpoint, **row} for row in rows]


def transfer_rows(study: Study, checkpoint: str, subject: Subject) -> Rows:
    """The circuits of the base and of every checkpoint, of one size, in this checkpoint."""
    size = study.settings.transfer_size
    circuits = {
        name: {type_: units_of_size(ranks, size) for type_, ranks in of_type.items()}
        for name, of_type in study.ranks.items()
    }
    return [{"model": checkpoint, **row} for row in transfer(subject, circuits)]


def ablation_rank_rows(study: Study, checkpoint: str, subject: Subject) -> Rows:
    """Do effects rank what nodes do, prompt by prompt?"""
    rows: Rows = []
    for index, prompt in enumerate(subject.prompts):
        if prompt.id in study.effects[checkpoint]:
            effects = study.effects[checkpoint][prompt.id]
            generator = study.generator("ranked nodes", checkpoint, prompt.id)
            nodes = stratified_nodes(effects, study.settings.ranked_nodes, generator)
            spearman = rank_agreement(subject, index, nodes, effects)
            row = {"checkpoint": checkpoint, **described(prompt), "n_nodes": len(nodes)}
            rows.append({**row, "spearman": spearman})
    return rows


def specificity_rows(study: Study, subject: Subject) -> Rows:
    """Each type's circuit at the last checkpoint ablated, on prompts of every type and controls.

    `random` is the mean over random circuits, as many as there are draws for each type's circuit
    and with its counts per layer and segment.
    """
    circuits = [
        (type_, units_of_size(ranks, study.settings.transfer_size))
        for type_, ranks in study.ranks[study.checkpoints[-1]].items()
    ]
    matched = [
        (RANDOM, matched_units(of_type[type_], circuit))
        for of_type in study.random_ranks.values()
        for type_, circuit in circuits
    ]
    full = record(subject.model, study.control, subject.batch_size).targets.tolist()
    table = pd.DataFrame(specificity(subject, study.control, full, [*circuits, *matched]))
    means = table.groupby(["circuit", "prompts", "prompt"], as_index=False, sort=False).mean()
    return means.to_dict("records")
