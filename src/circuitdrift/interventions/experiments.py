"""All tests of one run's circuits, model by model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.config.validation import Validation
from circuitdrift.identifiers import BASE, derived_seed, random_change
from circuitdrift.interventions.ablation import Subject, prepare
from circuitdrift.interventions.circuit_trials import (
    RanksOf,
    circuits_by_size,
    faithfulness_trials,
    specificity_trials,
    transfer_trials,
    whole_rows,
)
from circuitdrift.interventions.patching import (
    NECESSITY,
    RECRUITED,
    SUFFICIENCY,
    Features,
    patching_trials,
    random_features,
)
from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Recording, Trial, record, results
from circuitdrift.interventions.single_nodes import rank_agreement, stratified_nodes
from circuitdrift.unit_circuits import matched_units, random_ranks, units_of_size

OWN = "own"
RANDOM = "random"

Rows = list[dict[str, Any]]
LoadModel = Callable[[str], PreTrainedModel]
"""The model of a checkpoint, ``base`` among them."""


@dataclass(frozen=True)
class Study:
    """What is known of a run before its models are loaded.

    Attributes:
        seed: the run's.
        checkpoints: the base, then the run's, the earliest first.
        discovery, evaluation, control: the prompts of a role.
        ranks: of the units, by checkpoint and type.
        effects: of the evaluation prompts that nodes are ablated on one by one, by checkpoint (the
            base and the last) and prompt ``[n_layers, n_positions, d_mlp]``.
        recruited: features by word.
    """

    settings: Validation
    seed: int
    checkpoints: Sequence[str]
    discovery: Sequence[TargetPrompt]
    evaluation: Sequence[TargetPrompt]
    control: Sequence[TargetPrompt]
    ranks: Mapping[str, RanksOf]
    effects: Mapping[str, Mapping[str, Tensor]]
    recruited: Mapping[str, Features]

    @property
    def n_experiments(self) -> int:
        """How many :func:`experiments` yields."""
        return 2 * len(self.checkpoints) + len(self.effects) + 3

    @property
    def unit_shape(self) -> tuple[int, int, int]:
        """(n_layers, n_segments, d_mlp)."""
        n_layers, n_segments, d_mlp = next(iter(self.ranks[BASE].values())).shape
        return n_layers, n_segments, d_mlp

    def generator(self, purpose: str, *parts: str | int) -> np.random.Generator:
        """Draws of their own for each purpose, the same in runs of the same seed."""
        seed = derived_seed(purpose, self.settings.seed, self.seed, *parts)
        return np.random.default_rng(seed)

    def random_ranks(self) -> dict[str, RanksOf]:
        """The ranks of every random circuit, by its name and type."""
        found: dict[str, RanksOf] = {}
        for draw in range(self.settings.random_circuits):
            generator = self.generator("random circuits", draw)
            found[random_change(draw)] = {
                type_: random_ranks(self.unit_shape, generator) for type_ in self.ranks[BASE]
            }
        return found


def experiments(study: Study, load: LoadModel) -> Iterator[tuple[str, Rows]]:
    """Run every test, one model in memory at a time; yield the name of a table and rows of it."""
    recordings: dict[str, Recording] = {}
    for checkpoint in study.checkpoints:
        yield from _experiments_in(study, checkpoint, load(checkpoint), recordings)
    yield "patching", patching_rows(study, SUFFICIENCY, load(BASE), recordings)


def _experiments_in(
    study: Study, checkpoint: str, model: PreTrainedModel, recordings: dict[str, Recording]
) -> Iterator[tuple[str, Rows]]:
    """All tests in one model but sufficiency; the base and the last leave their recording."""
    subject = prepare(model, study.discovery, study.evaluation, study.settings.batch_size)
    yield "faithfulness", faithfulness_rows(study, checkpoint, subject)
    yield "transfer", transfer_rows(study, checkpoint, subject)
    if checkpoint in study.effects:
        recordings[checkpoint] = subject.recording
        yield "ablation_rank", ablation_rank_rows(study, checkpoint, subject)
    if checkpoint == study.checkpoints[-1]:
        yield "specificity", specificity_rows(study, subject)
        yield "patching", patching_rows(study, NECESSITY, model, recordings)


def faithfulness_rows(study: Study, checkpoint: str, subject: Subject) -> Rows:
    """The checkpoint's own circuit, the base's and random ones, at every size, in the checkpoint.

    In the base model its own circuit is the base's: run once, written as both.
    """
    own = study.ranks[checkpoint]
    ranks = {OWN: own} if checkpoint == BASE else {OWN: own, BASE: study.ranks[BASE]}
    circuits = circuits_by_size(ranks, study.random_ranks(), OWN, study.settings.sizes)
    rows = [*_run(study, subject, faithfulness_trials(subject, circuits), "value")]
    rows += whole_rows(subject, circuits)
    if checkpoint == BASE:
        rows += [{**row, "circuit": BASE} for row in rows if row["circuit"] == OWN]
    return [{"checkpoint": checkpoint, **row} for row in rows]


def transfer_rows(study: Study, checkpoint: str, subject: Subject) -> Rows:
    """The circuits of the base and of every checkpoint, of one size, in this checkpoint."""
    circuits = {
        name: {
            type_: units_of_size(ranks, study.settings.transfer_size)
            for type_, ranks in of_type.items()
        }
        for name, of_type in study.ranks.items()
    }
    rows = _run(study, subject, transfer_trials(subject, circuits), "value")
    return [{"model": checkpoint, **row} for row in rows]


def ablation_rank_rows(study: Study, checkpoint: str, subject: Subject) -> Rows:
    """Do effects rank what nodes do, prompt by prompt?"""
    rows: Rows = []
    for index, prompt in enumerate(subject.prompts):
        if prompt.id in study.effects[checkpoint]:
            effects = study.effects[checkpoint][prompt.id]
            generator = study.generator("ranked nodes", checkpoint, prompt.id)
            nodes = stratified_nodes(effects, study.settings.ranked_nodes, generator)
            spearman = rank_agreement(subject, index, nodes, effects, study.settings.batch_size)
            row = {"checkpoint": checkpoint, **prompt.described, "n_nodes": len(nodes)}
            rows.append({**row, "spearman": spearman})
    return rows


def specificity_rows(study: Study, subject: Subject) -> Rows:
    """Each type's circuit at the last checkpoint ablated, on prompts of every type and controls.

    `random` is the mean over random circuits, as many as there are draws for each type's circuit
    and with its counts per layer and segment.
    """
    ranks = study.ranks[study.checkpoints[-1]]
    circuits = [
        (type_, units_of_size(places, study.settings.transfer_size))
        for type_, places in ranks.items()
    ]
    matched = [
        (RANDOM, matched_units(of_type[type_], circuit))
        for of_type in study.random_ranks().values()
        for type_, circuit in circuits
    ]
    control = record(subject.model, study.control, study.settings.batch_size).targets
    trials = specificity_trials(
        [*subject.prompts, *study.control],
        [*subject.full.tolist(), *control.tolist()],
        subject.means,
        [*circuits, *matched],
    )
    table = pd.DataFrame(_run(study, subject, trials, "ablated"))
    means = table.groupby(["circuit", "prompts", "prompt"], as_index=False, sort=False).mean()
    return means.to_dict("records")


def patching_rows(
    study: Study, direction: str, model: PreTrainedModel, recordings: Mapping[str, Recording]
) -> Rows:
    """Recruited features, and as many random ones, patched from the last checkpoint into the base
    or back.

    Args:
        model: the one that is patched.
        recordings: of the base and the last checkpoint on the evaluation prompts.
    """
    features: dict[str, Mapping[str, Features]] = {RECRUITED: study.recruited}
    for draw in range(study.settings.random_circuits):
        generator = study.generator("random features", draw)
        features[random_change(draw)] = {
            word: random_features(study.recruited[word], study.unit_shape[-1], generator)
            for word in sorted(study.recruited)
        }
    trials = patching_trials(
        direction,
        study.evaluation,
        recordings[BASE],
        recordings[study.checkpoints[-1]],
        features,
    )
    return list(results(model, trials, "patched", study.settings.batch_size))


def _run(study: Study, subject: Subject, trials: Iterator[Trial], column: str) -> Rows:
    return list(results(subject.model, trials, column, study.settings.batch_size))
