"""What ablated neurons are set to, and a model with all of that computed once.

`mean`: a neuron's mean over all discovery prompts' tokens of the segment, in the same model.
`counterfactual`: its activation on the same template with another word of the type, in the same
model, segment by segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import SEGMENTS
from circuitdrift.interventions.hooks import Edit, Recording, Trial, record, results
from circuitdrift.interventions.units import at_positions, segment_indices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEAN = "mean"
COUNTERFACTUAL = "counterfactual"
ABLATIONS = (COUNTERFACTUAL, MEAN)


@dataclass(frozen=True)
class Subject:
    """A model that circuits are tested in."""

    model: PreTrainedModel
    prompts: tuple[TracedPrompt, ...]  # those that it is tested on
    recording: Recording  # of these prompts with nothing ablated
    means: Tensor  # segment_means of the discovery prompts [n_layers, n_segments, d_mlp]
    values: Mapping[str, tuple[Tensor, ...]]  # by ablation, what each prompt's activations become
    empty: Mapping[str, list[float]]  # by ablation, the targets with every neuron ablated, logits
    batch_size: int

    @property
    def full(self) -> list[float]:
        """The targets with nothing ablated, logits."""
        return self.recording.targets.tolist()

    @property
    def shortest_first(self) -> list[int]:
        """Indices of the prompts in an order that pads little."""
        return sorted(range(len(self.prompts)), key=lambda index: len(self.prompts[index].tokens))


def prepare(
    model: PreTrainedModel,
    discovery: Sequence[TracedPrompt],
    prompts: Sequence[TracedPrompt],
    batch_size: int,
) -> Subject:
    """Record what ablation needs of ``model``."""
    recording = record(model, prompts, batch_size)
    means = segment_means(record(model, discovery, batch_size), discovery)
    values = {
        COUNTERFACTUAL: counterfactual_values(recording, prompts),
        MEAN: mean_values(means, prompts),
    }
    empty = {}
    for ablation in ABLATIONS:
        trials: Iterator[Trial] = (
            ({}, Edit(prompt, torch.ones_like(value, dtype=torch.bool), value))
            for prompt, value in zip(prompts, values[ablation], strict=True)
        )
        empty[ablation] = [row["empty"] for row in results(model, trials, "empty", batch_size)]
    return Subject(model, tuple(prompts), recording, means, values, empty, batch_size)


def segment_means(recording: Recording, prompts: Sequence[TracedPrompt]) -> Tensor:
    """Mean activation of every unit over all tokens of its segment
    ``[n_layers, n_segments, d_mlp]``; NaN for a segment that no prompt has."""
    activations = torch.cat(recording.activations, dim=1)
    index = torch.cat([segment_indices(prompt.segments) for prompt in prompts])
    n_layers, _, d_mlp = activations.shape
    total = torch.zeros(n_layers, len(SEGMENTS), d_mlp).index_add_(1, index, activations)
    return total / torch.bincount(index, minlength=len(SEGMENTS)).view(-1, 1)


def mean_values(means: Tensor, prompts: Sequence[TracedPrompt]) -> tuple[Tensor, ...]:
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
        if segments := sorted(lacking.intersection(prompt.segments)):
            raise InputError(
                Problem(
                    where="params.yaml: attribution.discovery_prompts_per_word",
                    got=f"discovery prompts without {segments[0]!r}, which {prompt.id} has",
                    rule="mean ablation takes each part of a prompt from the discovery prompts",
                    remedy="raise it, or change the templates in data/constraints.yaml",
                )
            )
    return tuple(at_positions(means, prompt.segments) for prompt in prompts)


def counterfactual_values(
    recording: Recording, prompts: Sequence[TracedPrompt]
) -> tuple[Tensor, ...]:
    """The counterparts' activations in each prompt's places, each ``[n_layers, n_positions,
    d_mlp]``."""
    return tuple(
        recording.activations[other][:, aligned_positions(prompt, prompts[other])]
        for prompt, other in zip(prompts, counterparts(prompts), strict=True)
    )


def counterparts(prompts: Sequence[TracedPrompt]) -> list[int]:
    """Index of each prompt's counterfactual: its template with the next word of its type.

    Words follow each other as in ``prompts``, the first after the last.

    Raises:
        ValueError: if that prompt is missing, or the type has no other word.
    """
    place = {(prompt.type, prompt.word, prompt.template): i for i, prompt in enumerate(prompts)}
    words: dict[str | None, dict[str | None, None]] = {}
    for prompt in prompts:
        words.setdefault(prompt.type, {})[prompt.word] = None
    others = []
    for prompt in prompts:
        of_type = list(words[prompt.type])
        other = of_type[(of_type.index(prompt.word) + 1) % len(of_type)]
        key = (prompt.type, other, prompt.template)
        if other == prompt.word or key not in place:
            raise ValueError(f"{prompt.id} has no counterpart with another word of its type")
        others.append(place[key])
    return others


def aligned_positions(prompt: TracedPrompt, other: TracedPrompt) -> list[int]:
    """For each token of ``prompt`` the position of ``other`` that corresponds to it.

    What comes before the word is counted from the start, the word and what follows from the end. A
    word with fewer tokens gives its first again. So does the last token before the word: a
    tokenizer may join the space before one word to it and leave it alone before another. Where a
    prompt ends in its word, the last token is the word's.

    Raises:
        ValueError: if the prompts do not share a template.
    """
    before, other_before = (
        sum(segment in ("start", "before word") for segment in one.segments)
        for one in (prompt, other)
    )
    if abs(before - other_before) > 1 or (
        prompt.segments.count("after word") != other.segments.count("after word")
    ):
        raise ValueError(f"{prompt.id} and {other.id} do not share a template")
    shift = len(other.tokens) - len(prompt.tokens)
    return [
        min(position, max(other_before - 1, 0))
        if position < before
        else max(position + shift, other_before)
        for position in range(len(prompt.tokens))
    ]
