"""What ablated neurons are set to, and a model with all of that computed once.

`mean`: a neuron's mean over all discovery prompts' tokens of the segment, in the same model.
`counterfactual`: its activation on the same template with another word of the type, in the same
model, segment by segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.errors import InputError, Problem
from circuitdrift.identifiers import SEGMENTS
from circuitdrift.interventions.prompts import TargetPrompt, aligned_positions, counterparts
from circuitdrift.interventions.runs import Edit, Recording, Trial, record, results
from circuitdrift.unit_circuits import at_positions, segment_indices

MEAN = "mean"
COUNTERFACTUAL = "counterfactual"
ABLATIONS = (COUNTERFACTUAL, MEAN)


@dataclass(frozen=True)
class Subject:
    """A model that circuits are tested in.

    Attributes:
        prompts: those that it is tested on.
        recording: of these prompts with nothing ablated.
        means: the units' ``[n_layers, n_segments, d_mlp]``; NaN for a segment that no discovery
            prompt has.
        values: by ablation, what each prompt's activations are set to, shaped as they are.
        empty: by ablation, the targets with every neuron ablated, logits ``[n_prompts]``.
    """

    model: PreTrainedModel
    prompts: tuple[TargetPrompt, ...]
    recording: Recording
    means: Tensor
    values: Mapping[str, tuple[Tensor, ...]]
    empty: Mapping[str, Tensor]

    @property
    def full(self) -> Tensor:
        """The targets with nothing ablated, logits ``[n_prompts]``."""
        return self.recording.targets

    @property
    def shortest_first(self) -> list[int]:
        """Indices of the prompts in an order that pads little."""
        return sorted(range(len(self.prompts)), key=lambda index: len(self.prompts[index].tokens))


def prepare(
    model: PreTrainedModel,
    discovery: Sequence[TargetPrompt],
    prompts: Sequence[TargetPrompt],
    batch_size: int,
) -> Subject:
    """Record what ablation needs of ``model``.

    Raises:
        InputError: if a prompt has a segment that no discovery prompt has.
        ValueError: if a prompt lacks its counterfactual among ``prompts``.
    """
    recording = record(model, prompts, batch_size)
    means = segment_means(record(model, discovery, batch_size), discovery)
    values = {
        COUNTERFACTUAL: counterfactual_values(recording, prompts),
        MEAN: mean_values(means, prompts),
    }
    return Subject(
        model=model,
        prompts=tuple(prompts),
        recording=recording,
        means=means,
        values=values,
        empty={
            ablation: _all_ablated(model, prompts, values[ablation], batch_size)
            for ablation in ABLATIONS
        },
    )


def segment_means(recording: Recording, prompts: Sequence[TargetPrompt]) -> Tensor:
    """Mean activation of every unit over all tokens of its segment
    ``[n_layers, n_segments, d_mlp]``; NaN for a segment that no prompt has."""
    activations = torch.cat(recording.activations, dim=1)
    index = torch.cat([segment_indices(prompt.segments) for prompt in prompts])
    n_layers, _, d_mlp = activations.shape
    total = torch.zeros(n_layers, len(SEGMENTS), d_mlp).index_add_(1, index, activations)
    return total / torch.bincount(index, minlength=len(SEGMENTS)).view(-1, 1)


def mean_values(means: Tensor, prompts: Sequence[TargetPrompt]) -> tuple[Tensor, ...]:
    """The means in each prompt's places, each ``[n_layers, n_positions, d_mlp]``.

    Raises:
        InputError: if a prompt has a segment without a mean.
    """
    lacking = {
        segment
        for segment, values in zip(SEGMENTS, means.unbind(1), strict=True)
        if values.isnan().any()
    }
    for prompt in prompts:
        if found := sorted(lacking.intersection(prompt.segments)):
            raise InputError(
                Problem(
                    where="params.yaml: attribution.discovery_prompts_per_word",
                    got=f"discovery prompts without {found[0]!r}, which {prompt.id} has",
                    rule="mean ablation takes each part of a prompt from the discovery prompts",
                    remedy="raise it, or change the templates in data/constraints.yaml",
                )
            )
    return tuple(at_positions(means, prompt.segments) for prompt in prompts)


def counterfactual_values(
    recording: Recording, prompts: Sequence[TargetPrompt]
) -> tuple[Tensor, ...]:
    """The counterparts' activations in each prompt's places, each ``[n_layers, n_positions,
    d_mlp]``.

    Raises:
        ValueError: if a prompt lacks its counterpart among ``prompts``.
    """
    return tuple(
        recording.activations[other][:, aligned_positions(prompt, prompts[other])]
        for prompt, other in zip(prompts, counterparts(prompts), strict=True)
    )


def _all_ablated(
    model: PreTrainedModel,
    prompts: Sequence[TargetPrompt],
    values: Sequence[Tensor],
    batch_size: int,
) -> Tensor:
    trials: Iterator[Trial] = (
        ({}, Edit(prompt, torch.ones_like(value, dtype=torch.bool), value))
        for prompt, value in zip(prompts, values, strict=True)
    )
    rows = results(model, trials, "empty", batch_size)
    return torch.tensor([row["empty"] for row in rows])
