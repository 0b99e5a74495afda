"""One forward pass, and all that the local replacement model freezes of it.

With attention patterns and norm scales held at their values on a prompt, the model between two
MLPs is linear (circuit-tracer's local replacement model). These values are recorded here once;
effects and edges are both read off them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from circuitdrift.models.architecture import (
    architecture_of,
    norm_epsilon,
    norm_weight,
    refuse_biases,
    rms_scale,
)
from circuitdrift.models.reading import pad_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class FrozenLayer:
    """What one layer did on a batch of prompts.

    Attributes:
        pattern: queries by keys ``[n_prompts, n_heads, n_positions, n_positions]``.
        before_attention, after_attention, before_mlp, after_mlp: each norm's weight over the root
            mean square ``[n_prompts, n_positions, d_model]``; None where the model lacks it.
        mlp_scale: ``before_mlp`` without the weight ``[n_prompts, n_positions, 1]``.
        mlp_residual: the residual stream before the MLP ``[n_prompts, n_positions, d_model]``.
        mlp_output: what the MLP adds to it, same shape.
        gate, up, activation: of the MLP's neurons ``[n_prompts, n_positions, d_mlp]``.
    """

    pattern: Tensor
    before_attention: Tensor
    before_mlp: Tensor
    mlp_scale: Tensor
    mlp_residual: Tensor
    mlp_output: Tensor
    gate: Tensor
    up: Tensor
    activation: Tensor
    after_attention: Tensor | None = None
    after_mlp: Tensor | None = None

    def alone(self, prompt: int, n_positions: int) -> FrozenLayer:
        """Of one prompt, its padding cut off."""
        cut: dict[str, Any] = {
            name: None if value is None else value[prompt : prompt + 1, :n_positions]
            for name, value in vars(self).items()
        }
        cut["pattern"] = self.pattern[prompt : prompt + 1, :, :n_positions, :n_positions]
        return FrozenLayer(**cut)


@dataclass(frozen=True)
class FrozenPass:
    """A forward pass over right-padded prompts.

    Attributes:
        tokens: ids, 0 where a prompt is padded ``[n_prompts, n_positions]``.
        lengths: tokens of each prompt, padding excluded ``[n_prompts]``.
        embeddings: the residual stream below layer 0 ``[n_prompts, n_positions, d_model]``.
        final_scale: the final norm's 1/rms ``[n_prompts, n_positions, 1]``.
        final_normalised: the final norm's output at the last tokens ``[n_prompts, d_model]``: a
            target's value is its direction times this.
    """

    tokens: Tensor
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
            tokens=self.tokens[one, :n_positions],
            lengths=self.lengths[one],
            embeddings=self.embeddings[one, :n_positions],
            layers=tuple(layer.alone(prompt, n_positions) for layer in self.layers),
            final_scale=self.final_scale[one, :n_positions],
            final_normalised=self.final_normalised[one],
        )


@torch.no_grad()
def freeze(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> FrozenPass:
    """Run ``model`` on tokenised prompts of any lengths and record what is to be frozen.

    Right padding needs no mask: attention is causal, so no real token sees the padding.

    Raises:
        ValueError: if a prompt is empty, the architecture is unsupported, or it has biases.
    """
    if not prompts or not all(prompts):
        raise ValueError("attribution needs at least one token per prompt")
    refuse_biases(model)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = pad_right(prompts, 0)
    with _recording(model) as (layers, ends):
        output = model.model(input_ids=tokens, output_attentions=True, use_cache=False)
    return FrozenPass(
        tokens=tokens,
        lengths=lengths,
        layers=tuple(
            FrozenLayer(pattern=pattern, **layer)
            for pattern, layer in zip(output.attentions, layers, strict=True)
        ),
        final_normalised=output.last_hidden_state[torch.arange(len(prompts)), lengths - 1],
        **ends,
    )


# From a module's input and output to what is noted of them.
Reader = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def _recording(
    model: PreTrainedModel,
) -> Iterator[tuple[list[dict[str, Tensor]], dict[str, Tensor]]]:
    """Hooks that note, by the names of the fields above, every layer and the two ends of the model;
    none is left behind."""
    names, decoder = architecture_of(model), model.model
    layers: list[dict[str, Tensor]] = [{} for _ in decoder.layers]
    ends: dict[str, Tensor] = {}
    handles = []

    def note(module: nn.Module, record: dict[str, Tensor], field: str, read: Reader) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            record[field] = read(inputs[0], output)

        handles.append(module.register_forward_hook(hook))

    def scale(norm: nn.Module, weight: Tensor | float = 1.0) -> Reader:
        epsilon = norm_epsilon(norm)
        return lambda inputs, _output: weight * rms_scale(inputs, epsilon)

    for block, layer in zip(decoder.layers, layers, strict=True):
        norms = {
            "before_attention": names.pre_attention_norm,
            "after_attention": names.post_attention_norm,
            "before_mlp": names.pre_mlp_norm,
            "after_mlp": names.post_mlp_norm,
        }
        for field, name in norms.items():
            if name is not None:
                norm = getattr(block, name)
                note(norm, layer, field, scale(norm, norm_weight(norm, names)))
        before_mlp = getattr(block, names.pre_mlp_norm)
        note(before_mlp, layer, "mlp_scale", scale(before_mlp))
        note(before_mlp, layer, "mlp_residual", _input)
        note(getattr(block, names.post_mlp_norm or "mlp"), layer, "mlp_output", _output)
        note(block.mlp.gate_proj, layer, "gate", _output)
        note(block.mlp.up_proj, layer, "up", _output)
        note(block.mlp.down_proj, layer, "activation", _input)
    note(getattr(decoder.layers[0], names.pre_attention_norm), ends, "embeddings", _input)
    note(decoder.norm, ends, "final_scale", scale(decoder.norm))
    try:
        yield layers, ends
    finally:
        for handle in handles:
            handle.remove()


def _input(inputs: Tensor, _output: Tensor) -> Tensor:
    return inputs


def _output(_inputs: Tensor, output: Tensor) -> Tensor:
    return output
