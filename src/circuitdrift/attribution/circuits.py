"""Prompts and a model in, circuits out: targets, effects, the neurons to expand, the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.attribution.components import components_of
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.engines import engine_for
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.prompts import TokenisedPrompt, segment_tokens
from circuitdrift.attribution.selection import strongest
from circuitdrift.attribution.targets import Target, top_answer_target
from circuitdrift.config import Attribution
from circuitdrift.dataset import Prompt
from circuitdrift.features.neurons import NeuronBasis
from circuitdrift.graph import Circuit, CircuitGraph, NodeKind, node_table
from circuitdrift.influence import node_influence, normalise, prune, scores
from circuitdrift.models.loading import single_token_id


@torch.no_grad()
def tokenise(
    prompts: Sequence[Prompt], base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> list[TokenisedPrompt]:
    """Tokens, segments and targets. A prompt without an answer takes the base model's own.

    Raises:
        InputError: if an answer is not a single token.
    """
    tokenised = []
    for prompt in prompts:
        tokens, segments = segment_tokens(tokenizer, prompt.text, prompt.word)
        if prompt.role == "control":
            target = top_answer_target(base(torch.tensor([tokens])).logits[0, -1])
        else:
            assert prompt.answer is not None, f"{prompt.id} has no answer"
            target = Target(
                answer=single_token_id(tokenizer, prompt.answer),
                others=tuple(single_token_id(tokenizer, other) for other in prompt.others),
            )
        tokenised.append(TokenisedPrompt(prompt.id, tokens, segments, target))
    return tokenised


def trace_circuits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[TokenisedPrompt],
    settings: Attribution,
) -> Iterator[Circuit]:
    """Trace the circuit of each prompt, one after another."""
    engine = engine_for(model, tokenizer, settings)
    unembedding = model.lm_head.weight.detach()
    for prompt in prompts:
        direction = prompt.target.direction(unembedding)
        linear = LinearModel(model, freeze(model, [list(prompt.tokens)]))
        effect = effects(linear, direction.view(1, 1, -1))
        neurons = effect.neurons[0, 0]
        expanded = strongest(neurons, settings.feature_nodes)
        components = components_of(linear, NeuronBasis(model, expanded))
        yield Circuit(
            prompt=prompt.id,
            tokens=prompt.tokens,
            segments=prompt.segments,
            answer=prompt.target.answer,
            others=prompt.target.others,
            value=(direction @ linear.frozen.final_normalised[0]).item(),
            effects=neurons,
            token_effects=effect.tokens[0, 0],
            graph=pruned_graph(
                engine(prompt.tokens, linear, components, direction),
                node_table(expanded, linear.n_layers, list(prompt.tokens)),
                components.activations,
                settings,
            ),
        )


def pruned_graph(
    A: Tensor, nodes: Tensor, activations: Tensor, settings: Attribution
) -> CircuitGraph:
    """Score a dense graph, then keep of it what the thresholds say.

    Args:
        A: direct effects, targets by sources ``[n_nodes, n_nodes]``.
        nodes: from :func:`node_table`.
        activations: of the features, which come first ``[n_features]``.
    """
    kind = nodes[:, 0]
    is_feature, is_error = kind == NodeKind.FEATURE, kind == NodeKind.ERROR
    weights = (kind == NodeKind.TARGET).float()
    normalised = normalise(A)
    kept = prune(
        A, weights, is_feature, is_error, (settings.node_threshold, settings.edge_threshold)
    )
    new_index = kept.nodes.cumsum(0) - 1
    pairs = kept.edges.nonzero()
    activation = torch.zeros(len(nodes))
    activation[is_feature] = activations
    return CircuitGraph(
        nodes=nodes[kept.nodes],
        influence=node_influence(normalised, weights)[kept.nodes],
        activation=activation[kept.nodes],
        edges=new_index[pairs].int(),
        weights=A[kept.edges],
        scores=scores(normalised, weights, is_error, kind == NodeKind.TOKEN),
    )
