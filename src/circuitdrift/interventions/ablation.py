"""What ablated neurons are set to, and a model with all of that computed once.

`mean`: a neuron's mean over all discovery prompts' tokens of the segment, in the same model.
`counterfactual`: its activation on the same template with another word of the type, in the same
model, segment by segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import SEGMENTS
from circuitdrift.interventions.hooks import Edit, Recording, edit, record, run_edits, target

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
    means: Tensor  # segment_means of the discovery prompts [n_layers, n_segments, d_mlp]
    values: Mapping[str, tuple[Tensor, ...]]  # by ablation, what each prompt's activations become
    full: list[float]  # the targets with nothing ablated, logits
    empty: Mapping[str, list[float]]  # by ablation, the targets with every neuron ablated, logits
    batch_size: int

    def kept(self, index: int, ablation: str, units: Tensor) -> Edit:
        """A prompt with all but some units ablated ``[n_layers, n_segments, d_mlp]``."""
        prompt, ablated = self.prompts[index], torch.logical_not(units)
        values = self.values[ablation][index]
        return edit(prompt, ablated, segment_indices(prompt.segments), values)


def prepare(
    model: PreTrainedModel,
    discovery: Sequence[TracedPrompt],
    prompts: Sequence[TracedPrompt],
    batch_size: int,
) -> Subject:
    """Record what ablation needs of ``model``; targets are those of the prompts' answers."""
    recording = record(model, prompts, batch_size)
    means = segment_means(record(model, discovery, batch_size), discovery)
    values = {
        COUNTERFACTUAL: counterfactual_values(recording, prompts),
        MEAN: mean_values(means, prompts),
    }
    full = [target(*pair) for pair in zip(prompts, recording.logits, strict=True)]
    empty = {ablation: [0.0] * len(prompts) for ablation in ABLATIONS}
    subject = Subject(model, tuple(prompts), means, values, full, empty, batch_size)
    nothing = torch.zeros_like(means, dtype=torch.bool)
    trials = (
        ({"index": index, "ablation": ablation}, subject.kept(index, ablation, nothing))
        for ablation in ABLATIONS
        for index in range(len(prompts))
    )
    for row, prompt, logits in run_edits(model, trials, batch_size):
        empty[row["ablation"]][row["index"]] = target(prompt, logits)
    return subject


def segment_indices(segments: Sequence[str]) -> Tensor:
    """Each token's segment as an index into SEGMENTS ``[n_positions]``."""
    return torch.tensor([SEGMENTS.index(segment) for segment in segments])


def segment_means(recording: Recording, prompts: Sequence[TracedPrompt]) -> Tensor:
    """Mean activation of every neuron over all tokens of a segment
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
    placed = []
    for prompt in prompts:
        placed.append(means[:, segment_indices(prompt.segments)])
        if placed[-1].isnan().any():
            raise InputError(
                Problem(
                    where="params.yaml: attribution.discovery_prompts_per_word",
                    got=f"discovery prompts without a part that {prompt.id} has",
                    rule="mean ablation takes each part of a prompt from the discovery prompts",
                    remedy="raise it, or change the templates in data/constraints.yaml",
                )
            )
    return tuple(placed)


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
    """
    places = {(prompt.type, prompt.word, prompt.template): i for i, prompt in enumerate(prompts)}
    others = []
    for prompt in prompts:
        words = list(dict.fromkeys(one.word for one in prompts if one.type == prompt.type))
        following = words[(words.index(prompt.word) + 1) % len(words)]
        others.append(places[prompt.type, following, prompt.template])
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
