"""The local replacement model's linear pieces, each applied to gradients from the top down.

A gradient says how each target changes with the residual stream at each position. Every method
carries it through one frozen piece; see :mod:`circuitdrift.attribution.frozen_pass`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.attribution.frozen_pass import FrozenPass
from circuitdrift.models.architecture import Architecture, architecture_of, norm_weight


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
        """The gradient of the targets in the residual stream below the final norm.

        Args:
            directions: of each target in the final norm's output
                ``[n_prompts, n_targets, d_model]``; targets are read at a prompt's last token.

        Returns:
            ``[n_prompts, n_targets, n_positions, d_model]``.
        """
        frozen = self.frozen
        prompt, last = frozen.last
        n_prompts, n_positions, d_model = frozen.embeddings.shape
        gradient = torch.zeros(n_prompts, directions.shape[1], n_positions, d_model)
        gradient[prompt, :, last] = (
            directions
            * norm_weight(self.model.model.norm, self.architecture)
            * frozen.final_scale[prompt, last].unsqueeze(1)
        )
        return gradient

    def through_post_mlp_norm(self, layer: int, gradient: Tensor) -> Tensor:
        """From what the MLP adds to the residual stream to the MLP's own output.

        Args:
            gradient: ``[n_prompts, n_targets, n_positions, d_model]``.
        """
        factor = self._factor(
            layer, self.architecture.post_mlp_norm, self.frozen.layers[layer].post_mlp_scale
        )
        return gradient if factor is None else gradient * factor.unsqueeze(1)

    def through_pre_mlp_norm(self, layer: int, gradient: Tensor) -> Tensor:
        """From the MLP's normalised input to the residual stream, shapes as above."""
        return gradient * self._pre_mlp_factor(layer).unsqueeze(1)

    def hook_input(self, layer: int, hook: str) -> Tensor:
        """What a feature basis reads at one of circuit-tracer's hooks: the first prompt's
        ``[n_positions, d_model]``.

        Raises:
            ValueError: if the hook is not one of the three before an MLP.
        """
        return self.frozen.layers[layer].mlp_residual[0] * self.hook_factor(layer, hook)

    def hook_factor(self, layer: int, hook: str) -> Tensor:
        """The frozen factor from the residual stream before an MLP to a hook, the first prompt's
        ``[n_positions, d_model]``."""
        residual = self.frozen.layers[layer].mlp_residual[0]
        if hook == "hook_resid_mid":
            return torch.ones_like(residual)
        if hook == "ln2.hook_normalized":
            return self.frozen.layers[layer].pre_mlp_scale[0].expand_as(residual)
        if hook == "mlp.hook_in":
            return self._pre_mlp_factor(layer)[0]
        known = "hook_resid_mid, ln2.hook_normalized and mlp.hook_in"
        raise ValueError(f"a basis reads at {known}, got {hook!r}")

    def through_attention(self, layer: int, gradient: Tensor) -> Tensor:
        """From what the attention block adds to the residual stream to that stream below it.

        The heads of a key-value group read the same values, so their gradients are mixed over
        queries and heads together before the value projection.

        Args:
            gradient: ``[n_prompts, n_targets, n_positions, d_model]``.
        """
        attention = self.block(layer).self_attn
        above, below = self._attention_factors(layer)
        pattern = self._grouped_pattern(layer)
        if above is not None:
            gradient = gradient * above.unsqueeze(1)
        heads = gradient @ attention.o_proj.weight.detach()
        heads = heads.view(*heads.shape[:3], *pattern.shape[1:3], -1)
        values = torch.einsum("bghqk,btqghd->btkgd", pattern, heads).flatten(3)
        return (values @ attention.v_proj.weight.detach()).mul_(below.unsqueeze(1))

    def through_attention_of_groups(self, layer: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The same on groups of the first prompt's gradients, each on its first positions.

        The groups share the two projections, for one large matrix product costs less than many
        small ones.

        Args:
            gradients: ``[n_first_positions, n_targets, d_model]`` each.

        Returns:
            tensors of the same shapes.
        """
        attention = self.block(layer).self_attn
        above, below = self._attention_factors(layer)
        pattern = self._grouped_pattern(layer)[0]
        shapes = [gradient.shape[:2] for gradient in gradients]
        sizes = [n_positions * n_targets for n_positions, n_targets in shapes]
        if above is not None:
            gradients = [
                gradient * above[0, : len(gradient)].unsqueeze(1) for gradient in gradients
            ]
        flat = torch.cat([gradient.flatten(0, 1) for gradient in gradients])
        heads = (flat @ attention.o_proj.weight.detach()).split(sizes)
        values = torch.cat(
            [
                torch.einsum(
                    "ghqk,qtghd->ktgd",
                    pattern[:, :, :n_positions, :n_positions],
                    part.view(n_positions, n_targets, *pattern.shape[:2], -1),
                ).flatten(0, 1)
                for part, (n_positions, n_targets) in zip(heads, shapes, strict=True)
            ]
        )
        read = (values.flatten(1) @ attention.v_proj.weight.detach()).split(sizes)
        return [
            part.view(*shape, -1).mul_(below[0, : shape[0]].unsqueeze(1))
            for part, shape in zip(read, shapes, strict=True)
        ]

    def _attention_factors(self, layer: int) -> tuple[Tensor | None, Tensor]:
        """The frozen norms after (None if absent) and before the attention block."""
        frozen, names = self.frozen.layers[layer], self.architecture
        before = self._factor(layer, names.pre_attention_norm, frozen.pre_attention_scale)
        assert before is not None
        return self._factor(layer, names.post_attention_norm, frozen.post_attention_scale), before

    def _grouped_pattern(self, layer: int) -> Tensor:
        """Attention weights by key-value group and head within it
        ``[n_prompts, n_groups, n_heads_of_group, n_positions, n_positions]``."""
        per_group = self.block(layer).self_attn.num_key_value_groups
        return self.frozen.layers[layer].pattern.unflatten(1, (-1, per_group))

    def _pre_mlp_factor(self, layer: int) -> Tensor:
        factor = self._factor(
            layer, self.architecture.pre_mlp_norm, self.frozen.layers[layer].pre_mlp_scale
        )
        assert factor is not None
        return factor

    def _factor(self, layer: int, name: str | None, scale: Tensor | None) -> Tensor | None:
        """A frozen norm as a factor ``[n_prompts, n_positions, d_model]``; None if absent."""
        if name is None or scale is None:
            return None
        return norm_weight(getattr(self.block(layer), name), self.architecture) * scale
