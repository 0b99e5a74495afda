"""The engines that compute a graph's edges: one interface, the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circuitdrift.attribution.by_influence import attribute_by_influence
from circuitdrift.attribution.components import components_of
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.selection import decoder_norms, loudest, strongest
from circuitdrift.attribution.sweep import sweep
from circuitdrift.config.attribution import Attribution
from circuitdrift.features.neurons import NeuronBasis

ROUNDS = 4
"""In which a graph grows by influence. More cost more and hardly choose better
(``reports/benchmarks/selection.csv``)."""


@dataclass(frozen=True)
class DenseGraph:
    """A graph before it is pruned.

    Attributes:
        expanded: (layer, position, neuron), ascending ``[n_features, 3]``.
        activations: of these ``[n_features]``.
        A: direct effects, targets by sources ``[n_nodes, n_nodes]``, in the order of
            :func:`circuitdrift.graph.node_table`.
    """

    expanded: Tensor
    activations: Tensor
    A: Tensor


Engine = Callable[[Sequence[int], LinearModel, Tensor, Tensor], DenseGraph]
"""Tokens, the model frozen on them, the target's direction ``[d_model]``, and the effects of all
neurons ``[n_layers, n_positions, d_mlp]``."""


def engine_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Attribution
) -> Engine:
    """The engine that ``attribution.engine`` names, ready to attribute prompts on ``model``."""
    by_influence = settings.selection == "influence"
    ours = _by_influence(model, settings) if by_influence else _by_effect(settings)
    if settings.engine == "sweep":
        return ours
    return _circuit_tracer(model, tokenizer, settings, ours)


def _by_effect(settings: Attribution) -> Engine:
    def engine(
        _tokens: Sequence[int], linear: LinearModel, direction: Tensor, neurons: Tensor
    ) -> DenseGraph:
        expanded = strongest(neurons, settings.feature_nodes)
        components = components_of(linear, NeuronBasis(linear.model, expanded))
        A = sweep(linear, components, direction.unsqueeze(0), settings.max_memory_gb)
        return DenseGraph(expanded, components.activations, A)

    return engine


def _by_influence(model: PreTrainedModel, settings: Attribution) -> Engine:
    norms = decoder_norms(model)

    def engine(
        _tokens: Sequence[int], linear: LinearModel, direction: Tensor, _neurons: Tensor
    ) -> DenseGraph:
        candidates = loudest(linear, settings.candidates_per_place, norms)
        components = components_of(linear, NeuronBasis(model, candidates))
        chosen, A = attribute_by_influence(
            linear,
            components,
            direction.unsqueeze(0),
            torch.ones(1),
            max_feature_nodes=settings.feature_nodes,
            rows_per_round=max(1, settings.feature_nodes // ROUNDS),
            fold=True,
            max_memory_gb=settings.max_memory_gb,
        )
        return DenseGraph(components.features[chosen], components.activations[chosen], A)

    return engine


def _circuit_tracer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Attribution,
    ours: Engine,
) -> Engine:
    """circuit-tracer's edges between the neurons that our engine chooses."""
    # circuit-tracer and nnsight take seconds to import and patch torch: only where they are used.
    from circuitdrift.attribution.circuit_tracer_engine import (
        WholeReplacementModel,
        attribute_neurons,
        no_neurons,
    )

    replacement = WholeReplacementModel.around(model, tokenizer, no_neurons(model))

    def engine(
        tokens: Sequence[int], linear: LinearModel, direction: Tensor, neurons: Tensor
    ) -> DenseGraph:
        chosen = ours(tokens, linear, direction, neurons)
        graph = attribute_neurons(
            replacement, tokens, direction, chosen.expanded, settings.batch_size
        )
        return DenseGraph(chosen.expanded, chosen.activations, graph.adjacency_matrix)

    return engine
