"""The local replacement model's linear pieces, each applied to gradients from the top down.

A gradient says how each target changes with the residual stream at each position. Every method
carries it through one frozen piece; see :mod:`circuitdrift.attribution.frozen_pass`.
"""

from __future__ import annotations

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

        Args:
            gradient: ``[n_prompts, n_targets, n_positions, d_model]``.
        """
        rows = gradient.transpose(1, 2)
        through = torch.stack(
            [self._through_attention_of(layer, prompt, rows[prompt]) for prompt in range(len(rows))]
        )
        return through.transpose(1, 2)

    def through_attention_of_first(self, layer: int, gradient: Tensor) -> Tensor:
        """As :meth:`through_attention`, on the first positions of the first prompt.

        Args:
            gradient: ``[n_first_positions, n_targets, d_model]``.
        """
        return self._through_attention_of(layer, 0, gradient)

    def _through_attention_of(self, layer: int, prompt: int, gradient: Tensor) -> Tensor:
        """One prompt's gradient ``[n_positions, n_targets, d_model]`` through attention.

        The heads of a group read the same values, so position and head are contracted together
        with the transposed pattern, before the value projection.
        """
        frozen, attention = self.frozen.layers[layer], self.block(layer).self_attn
        names = self.architecture
        n_positions, n_targets, _ = gradient.shape
        output = self._factor(layer, names.post_attention_norm, frozen.post_attention_scale)
        if output is not None:
            gradient = gradient * output[prompt, :n_positions].unsqueeze(1)
        heads = gradient @ attention.o_proj.weight.detach()
        pattern = frozen.pattern[prompt, :, :n_positions, :n_positions]
        per_group = attention.num_key_value_groups
        values = torch.einsum(
            "ghqk,qtghd->ktgd",
            pattern.unflatten(0, (-1, per_group)),
            heads.view(n_positions, n_targets, -1, per_group, attention.head_dim),
        )
        below = values.flatten(2) @ attention.v_proj.weight.detach()
        factor = self._factor(layer, names.pre_attention_norm, frozen.pre_attention_scale)
        assert factor is not None
        return below.mul_(factor[prompt, :n_positions].unsqueeze(1))

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
