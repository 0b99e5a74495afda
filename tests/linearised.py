"""The local replacement model as a forward pass, written apart from the code under test.

It runs on residual streams instead of gradients: attention patterns and norm scales are those of
the frozen pass, and an MLP adds either what it added there or the half-rule's linear map. What a
node does is then read off by taking it away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from circuitdrift.attribution.frozen import FrozenPass
from circuitdrift.models.architecture import architecture_of

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "attn_implementation": "eager",
}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
WINDOW = {"sliding_window": 4, "layer_types": LAYERS}
CONFIGS = {
    "Gemma2ForCausalLM": Gemma2Config(
        **SIZES, **WINDOW, attn_logit_softcapping=2.0, final_logit_softcapping=None
    ),
    "Gemma3ForCausalLM": Gemma3TextConfig(**SIZES, **WINDOW),
    "LlamaForCausalLM": LlamaConfig(**SIZES),
    "Qwen3ForCausalLM": Qwen3Config(**SIZES),
}
ARCHITECTURES = tuple(CONFIGS)


def random_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model of three layers with grouped heads and, for Gemma, a window of four."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture], attn_implementation="eager")
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    model.config.architectures = [architecture]
    return model.eval()


@dataclass
class Stream:
    """The residual stream at the places where features and targets read it.

    Attributes:
        before_mlps: the residual stream, per layer ``[n_positions, d_model]``.
        last: the final norm's output at the last position ``[d_model]``.
    """

    before_mlps: list[Tensor]
    last: Tensor


def run_frozen_mlps(
    model: PreTrainedModel, frozen: FrozenPass, taken: dict | None = None
) -> Stream:
    """The frozen model with every MLP adding what it added in the frozen pass.

    Args:
        taken: (layer, position) to the vector ``[d_model]`` taken out of what the MLP adds there;
            layer -1 is the embeddings.
    """

    def mlp(layer: int, _inputs: Tensor) -> Tensor:
        return frozen.layers[layer].mlp_output[0].clone()

    return _run(model, frozen, mlp, taken or {})


def run_half_rule(
    model: PreTrainedModel, frozen: FrozenPass, silenced: tuple | None = None
) -> Tensor:
    """The final norm's output at the last position of the wholly linear model.

    Args:
        silenced: (layer, position, neuron) whose output is set to nothing.
    """

    def mlp(layer: int, inputs: Tensor) -> Tensor:
        block, then = model.model.layers[layer], frozen.layers[layer]
        gate, up, phi = then.gate[0], then.up[0], block.mlp.act_fn
        half_gate = phi(gate) / gate * up * (inputs @ block.mlp.gate_proj.weight.T)
        half_up = phi(gate) * (inputs @ block.mlp.up_proj.weight.T)
        neurons = (half_gate + half_up) / 2
        if silenced is not None and silenced[0] == layer:
            neurons = neurons.clone()
            neurons[silenced[1], silenced[2]] = 0
        output = neurons @ block.mlp.down_proj.weight.T
        return _norm(then.after_mlp, output)

    return _run(model, frozen, mlp, {}).last


def _run(model, frozen: FrozenPass, mlp, taken: dict) -> Stream:
    stream = frozen.embeddings[0].clone()
    before_mlps = []

    def take(layer: int, added: Tensor) -> Tensor:
        for (where, position), vector in taken.items():
            if where == layer:
                added[position] -= vector
        return added

    stream = take(-1, stream)
    for layer, block in enumerate(model.model.layers):
        then = frozen.layers[layer]
        read = _norm(then.before_attention, stream)
        mixed = _attend(block.self_attn, then.pattern[0], read)
        stream = stream + _norm(then.after_attention, mixed)
        before_mlps.append(stream)
        stream = stream + take(layer, mlp(layer, _norm(then.before_mlp, stream)))
    weight = model.model.norm.weight + architecture_of(model).norm_offset
    return Stream(before_mlps, (stream * frozen.final_scale[0] * weight)[-1])


def _attend(attention, pattern: Tensor, read: Tensor) -> Tensor:
    """Each query head mixes the values of the key-value head that it shares."""
    heads = []
    for head in range(len(pattern)):
        shared = head // attention.num_key_value_groups
        rows = slice(shared * attention.head_dim, (shared + 1) * attention.head_dim)
        heads.append(pattern[head] @ read @ attention.v_proj.weight[rows].T)
    return torch.cat(heads, dim=1) @ attention.o_proj.weight.T


def _norm(factor: Tensor | None, x: Tensor) -> Tensor:
    return x if factor is None else x * factor[0]
