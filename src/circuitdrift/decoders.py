"""Which tokens a neuron writes towards, read off the weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.architecture import architecture_of, norm_weight

Feature = tuple[int, int]

# Logits over a vocabulary of 262 144 tokens take a megabyte for each feature.
FEATURES_AT_ONCE = 64


@torch.no_grad()
def decoder_logits(model: PreTrainedModel, layer: int, neurons: Sequence[int]) -> Tensor:
    """Logits of the neurons' decoder directions ``[n_neurons, vocabulary]``, up to a factor.

    W_U (final norm's weight * post-MLP norm's weight * column j of the down projection): what a
    positive activation writes straight to the logits. The scales that the two norms divide by
    depend on the prompt and are positive, so only the order of a row's logits has a meaning. A
    gated neuron's activation may be negative, and then promotes what stands last.
    """
    architecture = architecture_of(model)
    block = model.model.layers[layer]
    decoders = block.mlp.down_proj.weight[:, list(neurons)].T
    if architecture.post_mlp_norm is not None:
        decoders = decoders * norm_weight(getattr(block, architecture.post_mlp_norm), architecture)
    logits: Tensor = model.lm_head(decoders * norm_weight(model.model.norm, architecture))
    return logits


def decoder_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    features: Sequence[Feature],
    n_tokens: int,
) -> dict[Feature, tuple[str, str]]:
    """The tokens that each feature (layer, neuron) promotes and suppresses most, strongest first.

    See :func:`decoder_logits` for what that means.

    Returns:
        by feature, two lists of ``n_tokens`` tokens with a space between them.
    """
    found: dict[Feature, tuple[str, str]] = {}
    for layer, neurons in _batches(features):
        logits = decoder_logits(model, layer, neurons)
        highest = logits.topk(n_tokens).indices
        lowest = logits.topk(n_tokens, largest=False).indices
        for neuron, most, least in zip(neurons, highest.tolist(), lowest.tolist(), strict=True):
            found[layer, neuron] = (
                " ".join(readable_token(tokenizer, token) for token in most),
                " ".join(readable_token(tokenizer, token) for token in least),
            )
    return found


def readable_token(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    """A token's text in one piece: without the space in front, and with _ for what would break a
    list or a table (spaces, commas, semicolons, quotes and what cannot be printed)."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False).removeprefix(" ")
    shown = (char if char.isprintable() and char not in ' ,;"' else "_" for char in text)
    return "".join(shown) or "_"


def _batches(features: Sequence[Feature]) -> Iterator[tuple[int, list[int]]]:
    """The distinct features layer by layer, a few at a time."""
    for layer, group in groupby(sorted(set(features)), key=lambda feature: feature[0]):
        neurons = [neuron for _, neuron in group]
        for start in range(0, len(neurons), FEATURES_AT_ONCE):
            yield layer, neurons[start : start + FEATURES_AT_ONCE]
