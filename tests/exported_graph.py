"""A swept adjacency as circuit-tracer's ``Graph``, for its pruning, scores and graph files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from circuit_tracer.attribution.targets import LogitTarget
from circuit_tracer.graph import Graph
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circuitdrift.attribution.edges import Components


def as_circuit_tracer_graph(
    A: Tensor,
    components: Components,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: Sequence[int],
    targets: Sequence[tuple[str, float]],
    scan: str,
) -> Graph:
    """Wrap an adjacency from :func:`circuitdrift.attribution.edges.sweep`.

    Args:
        targets: label and weight of each target, in the order of the last rows of ``A``. They get
            virtual indices above the vocabulary, as circuit-tracer gives its custom targets.
        scan: names the feature basis in graph files.
    """
    size = int(tokenizer.vocab_size)
    return Graph(
        input_string=tokenizer.decode(tokens),
        input_tokens=torch.tensor(tokens),
        logit_targets=[LogitTarget(label, size + i) for i, (label, _) in enumerate(targets)],
        logit_probabilities=torch.tensor([weight for _, weight in targets]),
        vocab_size=size,
        active_features=components.features,
        activation_values=components.activations,
        selected_features=torch.arange(len(components.features)),
        adjacency_matrix=A,
        cfg=model.config,
        scan=scan,
    )
