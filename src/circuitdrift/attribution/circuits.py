"""Prompts and a model in, circuits out: targets, effects, the neurons to expand, the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.engines import DenseGraph, Engine, engine_for
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.prompts import TokenisedPrompt, segment_tokens
from circuitdrift.attribution.targets import Target, top_answer_target
from circuitdrift.config.attribution import Attribution
from circuitdrift.dataset import Prompt
from circuitdrift.graph import Circuit, CircuitGraph, NodeKind, node_table
from circuitdrift.influence import node_influence, normalise, prune, scores
from circuitdrift.models.loading import single_token_id

# Together prompts cost a fifth of what they cost alone; more at once gain nothing (effects.csv).
_PROMPTS_AT_ONCE = 16


@torch.no_grad()
def tokenise(
    prompts: Mapping[Prompt, bool], base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> list[TokenisedPrompt]:
    """Tokens, segments and targets. A control prompt takes the base model's own answers.

    Args:
        prompts: each with whether it gets a graph.

    Raises:
        InputError: if an answer is not a single token.
    """
    tokenised = []
    for prompt, with_graph in prompts.items():
        tokens, segments = segment_tokens(tokenizer, prompt.text, prompt.word)
        if prompt.role == "control":
            output = base(torch.tensor([tokens]), logits_to_keep=1)
            target = top_answer_target(output.logits[0, -1])
        else:
            assert prompt.answer is not None, f"{prompt.id} has no answer"
            target = Target(
                answer=single_token_id(tokenizer, prompt.answer),
                others=tuple(single_token_id(tokenizer, other) for other in prompt.others),
            )
        tokenised.append(TokenisedPrompt(prompt.id, tokens, segments, target, with_graph))
    return tokenised


def trace_circuits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[TokenisedPrompt],
    settings: Attribution,
) -> list[Circuit]:
    """Trace the circuit of each prompt: effects in batches, graphs one after another."""
    engine = engine_for(model, tokenizer, settings)
    # Prompts of like length together: padding costs as much as tokens.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens))
    traced: dict[int, Circuit] = {}
    for first in range(0, len(order), _PROMPTS_AT_ONCE):
        chosen = order[first : first + _PROMPTS_AT_ONCE]
        batch = [prompts[index] for index in chosen]
        traced.update(zip(chosen, _trace_batch(model, engine, batch, settings), strict=True))
    return [traced[index] for index in range(len(prompts))]


def _trace_batch(
    model: PreTrainedModel,
    engine: Engine,
    prompts: Sequence[TokenisedPrompt],
    settings: Attribution,
) -> Iterator[Circuit]:
    unembedding = model.lm_head.weight.detach()
    directions = torch.stack([prompt.target.direction(unembedding) for prompt in prompts])
    linear = LinearModel(model, freeze(model, [list(prompt.tokens) for prompt in prompts]))
    effect = effects(linear, directions.unsqueeze(1))
    values = (directions * linear.frozen.final_normalised).sum(1)
    for index, prompt in enumerate(prompts):
        n_positions = len(prompt.tokens)
        neurons = effect.neurons[index, 0, :, :n_positions]
        graph = None
        if prompt.with_graph:
            alone = LinearModel(model, linear.frozen.alone(index))
            dense = engine(prompt.tokens, alone, directions[index], neurons)
            graph = pruned_graph(dense, alone.n_layers, prompt.tokens, settings)
        yield Circuit(
            prompt=prompt.id,
            tokens=prompt.tokens,
            segments=prompt.segments,
            answer=prompt.target.answer,
            others=prompt.target.others,
            value=values[index].item(),
            effects=neurons,
            token_effects=effect.tokens[index, 0, :n_positions],
            graph=graph,
        )


def pruned_graph(
    dense: DenseGraph, n_layers: int, tokens: Sequence[int], settings: Attribution
) -> CircuitGraph:
    """Score a dense graph, then keep of it what the thresholds say."""
    A, nodes = dense.A, node_table(dense.expanded, n_layers, list(tokens))
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
    activation[is_feature] = dense.activations
    return CircuitGraph(
        nodes=nodes[kept.nodes],
        influence=node_influence(normalised, weights)[kept.nodes],
        activation=activation[kept.nodes],
        edges=new_index[pairs].int(),
        weights=A[kept.edges],
        scores=scores(normalised, weights, is_error, kind == NodeKind.TOKEN),
    )
