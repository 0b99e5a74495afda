"""One forward pass, and all that the local replacement model freezes of it.

With attention patterns and norm scales held at their values on a prompt, the model between two
MLPs is linear (circuit-tracer's local replacement model). This file records these values once;
effects and edges are both read off them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from circuitdrift.models.architecture import (
    Architecture,
    architecture_of,
    norm_epsilon,
    refuse_biases,
    rms_scale,
)


@dataclass(frozen=True)
class FrozenLayer:
    """What one layer did on a batch of prompts.

    Attributes:
        pattern: attention weights, queries by keys
            ``[n_prompts, n_heads, n_positions, n_positions]``.
        pre_attention_scale, post_attention_scale, pre_mlp_scale, post_mlp_scale: the norms'
            1/rms ``[n_prompts, n_positions, 1]``; None for a post-norm that the model lacks.
        mlp_residual: the residual stream before the MLP ``[n_prompts, n_positions, d_model]``.
        mlp_output: what the MLP adds to it, same shape.
        gate, up: the MLP's two projections of its input ``[n_prompts, n_positions, d_mlp]``.
    """

    pattern: Tensor
    pre_attention_scale: Tensor
    post_attention_scale: Tensor | None
    pre_mlp_scale: Tensor
    post_mlp_scale: Tensor | None
    mlp_residual: Tensor
    mlp_output: Tensor
    gate: Tensor
    up: Tensor

    def alone(self, prompt: int, n_positions: int) -> FrozenLayer:
        """Of one prompt, its padding cut off."""
        cut: dict[str, Any] = {
            name: None if value is None else value[prompt : prompt + 1, :n_positions]
            for name, value in vars(self).items()
            if name != "pattern"
        }
        pattern = self.pattern[prompt : prompt + 1, :, :n_positions, :n_positions]
        return FrozenLayer(pattern=pattern, **cut)


@dataclass(frozen=True)
class FrozenPass:
    """A forward pass over right-padded prompts.

    Attributes:
        lengths: tokens of each prompt, padding excluded ``[n_prompts]``.
        embeddings: the residual stream below layer 0 ``[n_prompts, n_positions, d_model]``.
        final_scale: the final norm's 1/rms ``[n_prompts, n_positions, 1]``.
        final_normalised: the final norm's output at each prompt's last token
            ``[n_prompts, d_model]``: a target's value is its direction times this.
    """

    lengths: Tensor
    embeddings: Tensor
    layers: tuple[FrozenLayer, ...]
    final_scale: Tensor
    final_normalised: Tensor

    @property
    def last(self) -> tuple[Tensor, Tensor]:
        """Index of each prompt's last token into ``[n_prompts, n_positions]``."""
        return torch.arange(len(self.lengths)), self.lengths - 1

    def alone(self, prompt: int) -> FrozenPass:
        """The pass of one prompt of the batch, its padding cut off."""
        one, n_positions = slice(prompt, prompt + 1), int(self.lengths[prompt])
        return FrozenPass(
            lengths=self.lengths[one],
            embeddings=self.embeddings[one, :n_positions],
            layers=tuple(layer.alone(prompt, n_positions) for layer in self.layers),
            final_scale=self.final_scale[one, :n_positions],
            final_normalised=self.final_normalised[one],
        )


@torch.no_grad()
def freeze(model: PreTrainedModel, prompts: list[list[int]]) -> FrozenPass:
    """Run ``model`` on tokenised prompts of any lengths and record what is to be frozen.

    Right padding needs no mask: attention is causal, so no real token sees the padding.

    Raises:
        ValueError: if a prompt is empty, the architecture is unsupported, or it has biases.
    """
    if not prompts or not all(prompts):
        raise ValueError("attribution needs at least one token per prompt")
    architecture = architecture_of(model)
    refuse_biases(model)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    with _recording(model, architecture) as seen:
        output = model.model(input_ids=tokens, output_attentions=True, use_cache=False)
    return FrozenPass(
        lengths=lengths,
        embeddings=seen[0, architecture.pre_attention_norm, "input"],
        layers=tuple(
            _frozen_layer(seen, layer, architecture, pattern)
            for layer, pattern in enumerate(output.attentions)
        ),
        final_scale=seen[len(output.attentions), "norm", "scale"],
        final_normalised=output.last_hidden_state[torch.arange(len(prompts)), lengths - 1],
    )


Seen = dict[tuple[int, str, str], Tensor]


def _frozen_layer(
    seen: Seen, layer: int, architecture: Architecture, pattern: Tensor
) -> FrozenLayer:
    def scale(norm: str | None) -> Tensor | None:
        return None if norm is None else seen[layer, norm, "scale"]

    return FrozenLayer(
        pattern=pattern,
        pre_attention_scale=seen[layer, architecture.pre_attention_norm, "scale"],
        post_attention_scale=scale(architecture.post_attention_norm),
        pre_mlp_scale=seen[layer, architecture.pre_mlp_norm, "scale"],
        post_mlp_scale=scale(architecture.post_mlp_norm),
        mlp_residual=seen[layer, architecture.pre_mlp_norm, "input"],
        mlp_output=seen[layer, architecture.post_mlp_norm or "mlp", "output"],
        gate=seen[layer, "gate_proj", "output"],
        up=seen[layer, "up_proj", "output"],
    )


@contextmanager
def _recording(model: PreTrainedModel, architecture: Architecture) -> Iterator[Seen]:
    """Hooks that note norm scales and what modules return; none is left behind."""
    seen: Seen = {}
    handles = []

    def note_output(module: nn.Module, layer: int, name: str) -> None:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[layer, name, "output"] = output

        handles.append(module.register_forward_hook(hook))

    def note_input(norm: nn.Module, layer: int, name: str) -> None:
        epsilon = norm_epsilon(norm)

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[layer, name, "input"] = inputs[0]
            seen[layer, name, "scale"] = rms_scale(inputs[0], epsilon)

        handles.append(norm.register_forward_pre_hook(hook))

    for index, block in enumerate(model.model.layers):
        for name in architecture.norms:
            note_input(getattr(block, name), index, name)
        writer = architecture.post_mlp_norm or "mlp"
        note_output(getattr(block, writer), index, writer)
        for name in ("gate_proj", "up_proj"):
            note_output(getattr(block.mlp, name), index, name)
    note_input(model.model.norm, len(model.model.layers), "norm")
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
