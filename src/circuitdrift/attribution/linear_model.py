"""The local replacement model's linear pieces, each applied to gradients from the top down.

A gradient says how each target changes with the residual stream at each position. Every method
carries it through one frozen piece; see :mod:`circuitdrift.attribution.frozen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuitdrift.attribution.frozen import FrozenPass
from circuitdrift.models.architecture import Architecture, architecture_of, norm_weight

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LinearModel:
    """A model and its frozen pass: the linear map from any residual stream to the targets."""

    model: PreTrainedModel
    frozen: FrozenPass

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.model)

    @property
    def n_layers(self) -> int:
        return len(self.frozen.layers)

    def block(self, layer: int) -> Any:
        """A layer's module; what it holds differs between architectures, so it is untyped."""
        return self.model.model.layers[layer]

    def inject_targets(self, directions: Tensor) -> Tensor:
        """Gradients below the final norm ``[n_prompts, n_targets, n_positions, d_model]``.

        Args:
            directions: of the targets, read at a prompt's last token, in the final norm's output
                ``[n_prompts, n_targets, d_model]``.
        """
        prompt, last = self.frozen.last
        n_prompts, n_positions, d_model = self.frozen.embeddings.shape
        gradient = torch.zeros(n_prompts, directions.shape[1], n_positions, d_model)
        gradient[prompt, :, last] = (
            directions
            * norm_weight(self.model.model.norm, self.architecture)
            * self.frozen.final_scale[prompt, last].unsqueeze(1)
        )
        return gradient

    def hook_factor(self, layer: int, hook: str) -> Tensor:
        """The frozen factor from the residual stream before an MLP to one of circuit-tracer's
        hooks, the first prompt's ``[n_positions, d_model]``.

        Raises:
            ValueError: if the hook is not one of the three before an MLP.
        """
        frozen = self.frozen.layers[layer]
        if hook == "hook_resid_mid":
            return torch.ones_like(frozen.mlp_residual[0])
        if hook == "ln2.hook_normalized":
            return frozen.mlp_scale[0].expand_as(frozen.mlp_residual[0])
        if hook == "mlp.hook_in":
            return frozen.before_mlp[0]
        known = "hook_resid_mid, ln2.hook_normalized and mlp.hook_in"
        raise ValueError(f"a basis reads at {known}, got {hook!r}")

    def through_attention(self, layer: int, gradient: Tensor) -> Tensor:
        """From what the attention block adds to the residual stream to that stream below it.

        The heads of a key-value group read the same values, so their gradients are mixed over
        queries and heads together before the value projection. Gradients are
        ``[n_prompts, n_targets, n_positions, d_model]``.
        """
        attention, frozen = self.block(layer).self_attn, self.frozen.layers[layer]
        pattern = self._grouped_pattern(layer)
        if frozen.after_attention is not None:
            gradient = gradient * frozen.after_attention.unsqueeze(1)
        heads = gradient @ attention.o_proj.weight.detach()
        heads = heads.view(*heads.shape[:3], *pattern.shape[1:3], -1)
        values = torch.einsum("bghqk,btqghd->btkgd", pattern, heads).flatten(3)
        return (values @ attention.v_proj.weight.detach()).mul_(
            frozen.before_attention.unsqueeze(1)
        )

    def through_attention_of_groups(self, layer: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The same on groups of the first prompt's gradients, each on its first positions.

        The groups share the two projections, for one large matrix product costs less than many
        small ones. Gradients are ``[n_first_positions, n_targets, d_model]``.
        """
        attention, frozen = self.block(layer).self_attn, self.frozen.layers[layer]
        pattern = self._grouped_pattern(layer)[0]
        shapes = [gradient.shape[:2] for gradient in gradients]
        sizes = [n_positions * n_targets for n_positions, n_targets in shapes]
        if (after := frozen.after_attention) is not None:
            gradients = [gradient * after[0, : len(gradient), None] for gradient in gradients]
        flat = torch.cat([gradient.flatten(0, 1) for gradient in gradients])
        heads = (flat @ attention.o_proj.weight.detach()).split(sizes)
        values = [
            torch.einsum(
                "ghqk,qtghd->ktgd",
                pattern[:, :, :n_positions, :n_positions],
                part.view(n_positions, n_targets, *pattern.shape[:2], -1),
            ).flatten(0, 1)
            for part, (n_positions, n_targets) in zip(heads, shapes, strict=True)
        ]
        read = torch.cat(values).flatten(1) @ attention.v_proj.weight.detach()
        return [
            part.view(*shape, -1).mul_(frozen.before_attention[0, : shape[0], None])
            for part, shape in zip(read.split(sizes), shapes, strict=True)
        ]

    def _grouped_pattern(self, layer: int) -> Tensor:
        """Attention weights by key-value group and head within it
        ``[n_prompts, n_groups, n_heads_of_group, n_positions, n_positions]``."""
        per_group = self.block(layer).self_attn.num_key_value_groups
        return self.frozen.layers[layer].pattern.unflatten(1, (-1, per_group))
