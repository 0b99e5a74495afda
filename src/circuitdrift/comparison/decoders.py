"""Which tokens a neuron writes towards, read off the base model's weights alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from circuitdrift.comparison.distance import Array
from circuitdrift.models.architecture import ARCHITECTURES

Feature = tuple[int, int]
"""(layer, neuron)."""
Weights = Mapping[str, Any]
"""By name, arrays, or safetensors' slices, of which only what is indexed is read."""

# Of the vocabulary's 262 144 tokens: 40 MB of the unembedding, and 64 kB of logits per feature.
TOKENS_AT_ONCE = 2**14


def decoder_directions(
    weights: Weights, config: Mapping[str, Any], features: Sequence[Feature]
) -> Array:
    """What the features' decoders write, as the unembedding reads it ``[n_features, d_model]``.

    Final norm's weight * post-MLP norm's weight * column j of the down projection, up to a factor:
    the scales that the two norms divide by depend on the prompt and are positive, so only the order
    of a feature's logits has a meaning. A gated neuron's activation may be negative, and then
    promotes what stands last.

    Args:
        features: ascending.
    """
    architecture = ARCHITECTURES[config["architectures"][0]]
    directions = []
    for layer, group in groupby(features, key=lambda feature: feature[0]):
        block = f"model.layers.{layer}"
        neurons = [neuron for _, neuron in group]
        decoders = weights[f"{block}.mlp.down_proj.weight"][:][:, neurons].T
        if architecture.post_mlp_norm is not None:
            norm = weights[f"{block}.{architecture.post_mlp_norm}.weight"][:]
            decoders = decoders * (norm + architecture.norm_offset)
        directions.append(decoders)
    final_norm = weights["model.norm.weight"][:] + architecture.norm_offset
    return np.concatenate(directions) * final_norm


def decoder_tokens(
    weights: Weights,
    config: Mapping[str, Any],
    decode: Callable[[int], str],
    features: Sequence[Feature],
    n_tokens: int,
) -> dict[Feature, dict[str, str]]:
    """The tokens that each feature promotes and suppresses most, by :func:`decoder_directions`.

    Returns:
        by feature, what it ``promotes`` and ``suppresses``: ``n_tokens`` tokens each, strongest
        first, with a space between them.
    """
    distinct = sorted(set(features))
    if not distinct:
        return {}
    directions = decoder_directions(weights, config, distinct)
    tied = "lm_head.weight" not in weights
    unembedding = weights["model.embed_tokens.weight" if tied else "lm_head.weight"]
    most, least = _strongest(directions, unembedding, config["vocab_size"], n_tokens)

    def listed(tokens: list[int]) -> str:
        return " ".join(readable(decode(token)) for token in tokens)

    return {
        feature: {"promotes": listed(promoted), "suppresses": listed(suppressed)}
        for feature, promoted, suppressed in zip(distinct, most, least, strict=True)
    }


def readable(token: str) -> str:
    """A token's text in one piece: without the space in front, and with _ for what would break a
    list or a table (spaces, commas, semicolons, quotes and what cannot be printed)."""
    text = token.removeprefix(" ")
    shown = (char if char.isprintable() and char not in ' ,;"' else "_" for char in text)
    return "".join(shown) or "_"


def _strongest(
    directions: Array, unembedding: Any, n_vocabulary: int, n: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The ``n`` tokens of highest and those of lowest logit for each direction, from the
    strongest of every stretch of the vocabulary."""
    logits, tokens = [], []
    n_stretches = -(-n_vocabulary // TOKENS_AT_ONCE)
    edges = [index * n_vocabulary // n_stretches for index in range(n_stretches + 1)]
    for start, stop in pairwise(edges):
        of_stretch = directions @ unembedding[start:stop].T
        order = np.argpartition(of_stretch, (n - 1, -n), axis=1)
        ends = np.concatenate([order[:, :n], order[:, -n:]], axis=1)
        logits.append(np.take_along_axis(of_stretch, ends, axis=1))
        tokens.append(ends + start)
    order = np.argsort(np.concatenate(logits, axis=1), axis=1)
    ascending = np.take_along_axis(np.concatenate(tokens, axis=1), order, axis=1)
    return ascending[:, : -n - 1 : -1].tolist(), ascending[:, :n].tolist()
