"""The engines that compute a graph's edges: one interface, the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circuitdrift.attribution.components import Components
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.sweep import sweep
from circuitdrift.config import Attribution

Engine = Callable[[Sequence[int], LinearModel, Components, Tensor], Tensor]
"""Tokens, the model frozen on them, components, target direction -> ``[n_nodes, n_nodes]``."""


def engine_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Attribution
) -> Engine:
    """The engine that ``attribution.engine`` names, ready to attribute prompts on ``model``."""
    if settings.engine == "sweep":
        return _sweep(settings.max_memory_gb)
    return _circuit_tracer(model, tokenizer, settings.batch_size)


def _sweep(max_memory_gb: float) -> Engine:
    def engine(
        _tokens: Sequence[int], linear: LinearModel, components: Components, direction: Tensor
    ) -> Tensor:
        return sweep(linear, components, direction.unsqueeze(0), max_memory_gb)

    return engine


def _circuit_tracer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> Engine:
    # circuit-tracer and nnsight take seconds to import and patch torch: only where they are used.
    from circuitdrift.attribution.circuit_tracer_engine import (
        WholeReplacementModel,
        attribute_neurons,
        no_neurons,
    )

    replacement = WholeReplacementModel.around(model, tokenizer, no_neurons(model))

    def engine(
        tokens: Sequence[int], _linear: LinearModel, components: Components, direction: Tensor
    ) -> Tensor:
        graph = attribute_neurons(replacement, tokens, direction, components.features, batch_size)
        adjacency: Tensor = graph.adjacency_matrix
        return adjacency

    return engine
