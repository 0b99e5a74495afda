"""circuit-tracer's own attribution, on its nnsight backend, over neurons: the other engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.attribution.targets import CustomTarget
from circuit_tracer.replacement_model.replacement_model_nnsight import NNSightReplacementModel
from torch import Tensor
from transformers import AutoTokenizer

from circuitdrift.attribution.neurons import FeatureBasis, NeuronBasis

if TYPE_CHECKING:
    from circuit_tracer.attribution.context_nnsight import AttributionContext
    from circuit_tracer.graph import Graph
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """As circuit-tracer asks for it, from the directory that ``model`` was loaded from."""
    return AutoTokenizer.from_pretrained(
        model.name_or_path, local_files_only=True, trust_remote_code=False
    )


class WholeReplacementModel(NNSightReplacementModel):  # type: ignore[misc]
    """circuit-tracer's replacement model around a model in memory, with whole rows.

    Two corrections make a feature row's edges sum to its activation. circuit-tracer zeroes the
    features and errors of the first position, which suits transcoders that were never trained on
    it, but neurons are exact there; and it reads token vectors off the embedding's weight, where
    Gemma multiplies what it looks up.
    """

    @classmethod
    def around(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        basis: FeatureBasis | None = None,
    ) -> WholeReplacementModel:
        """Wrap ``model``; without a basis, each prompt chooses its own neurons.

        Raises:
            ValueError: if attention is not eager, the implementation that shows its pattern.
        """
        if model.config._attn_implementation != "eager":
            raise ValueError("attribution reads attention patterns: load with eager attention")
        no_neurons = NeuronBasis(model, torch.zeros(0, 3, dtype=torch.long))
        replacement = cls(model, tokenizer=tokenizer, dispatch=True)
        replacement._hf_config = model.config
        replacement._configure_replacement_model(basis or no_neurons)
        replacement.zero_positions = slice(0, 0)
        replacement.embedding_scale = getattr(model.model.embed_tokens, "embed_scale", 1.0)
        return replacement

    def setup_attribution(self, inputs: Tensor) -> AttributionContext:
        context = super().setup_attribution(inputs)
        context.token_vectors = context.token_vectors * self.embedding_scale
        return context


def attribute_neurons(
    replacement: WholeReplacementModel,
    tokens: Tensor,
    direction: Tensor,
    expanded: Tensor,
    batch_size: int,
) -> Graph:
    """The attribution graph of one prompt with exactly the ``expanded`` neurons as features.

    Args:
        tokens: of the prompt, special tokens included ``[n_positions]``.
        direction: of the target in the final norm's output ``[d_model]``.
        expanded: (layer, position, neuron), ascending ``[n_features, 3]``.
    """
    replacement.transcoders = NeuronBasis(replacement._model, expanded)
    return attribute(
        tokens,
        replacement,
        attribution_targets=[CustomTarget("target", 1.0, direction)],
        batch_size=batch_size,
    )
