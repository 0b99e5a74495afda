"""What the linearised model must know of an architecture, as a table instead of copies of code.

All supported models are decoder-only, pre-norm, with RMS norms, gated MLPs and no biases; they
differ in which norms stand after a block and in how a norm uses its weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # compare reads the table and imports no torch
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """Names of a layer's norms in Hugging Face's modules, and how they scale.

    Attributes:
        norm_offset: a norm multiplies by ``norm_offset + weight``.
        hook_input, hook_output: circuit-tracer's names for the MLP's normalised input and for
            what the MLP adds to the residual stream.
    """

    pre_attention_norm: str
    post_attention_norm: str | None
    pre_mlp_norm: str
    post_mlp_norm: str | None
    norm_offset: float
    hook_input: str = "mlp.hook_in"
    hook_output: str = "hook_mlp_out"


_GEMMA = Architecture(
    pre_attention_norm="input_layernorm",
    post_attention_norm="post_attention_layernorm",
    pre_mlp_norm="pre_feedforward_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
    norm_offset=1.0,
)
_LLAMA = Architecture(
    pre_attention_norm="input_layernorm",
    post_attention_norm=None,
    pre_mlp_norm="post_attention_layernorm",
    post_mlp_norm=None,
    norm_offset=0.0,
    hook_output="mlp.hook_out",
)

ARCHITECTURES = {
    "Gemma2ForCausalLM": replace(_GEMMA, hook_input="ln2.hook_normalized"),
    "Gemma3ForCausalLM": _GEMMA,
    "LlamaForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
}


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The table's row for ``model``.

    Raises:
        ValueError: if the architecture is not in the table.
    """
    name = type(model).__name__
    if name not in ARCHITECTURES:
        supported = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(f"attribution supports {supported}; got {name}")
    return ARCHITECTURES[name]


def refuse_biases(model: PreTrainedModel) -> None:
    """Biases add to the residual stream what no node stands for.

    Raises:
        ValueError: if the model has any.
    """
    biases = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    if biases:
        raise ValueError(f"attribution needs a model without biases; this one has {biases[0]}")


def norm_weight(norm: Any, architecture: Architecture) -> Tensor:
    """The factor ``[d_model]`` a norm applies after dividing by the root mean square."""
    weight: Tensor = norm.weight.detach()
    return weight + architecture.norm_offset


def norm_epsilon(norm: Any) -> float:
    for name in ("eps", "variance_epsilon"):
        if hasattr(norm, name):
            return float(getattr(norm, name))
    raise ValueError(f"{type(norm).__name__} is not an RMS norm that attribution knows")


def rms_scale(x: Tensor, epsilon: float) -> Tensor:
    """1 / root mean square over the last axis, kept: ``[..., d_model]`` -> ``[..., 1]``."""
    return (x.float().pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()


def mlp_activation(mlp: Any) -> Callable[[Tensor], Tensor]:
    """The gate's nonlinearity phi."""
    phi: Callable[[Tensor], Tensor] = mlp.act_fn
    return phi
