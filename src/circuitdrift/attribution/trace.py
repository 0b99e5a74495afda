"""A prompt and a model in, a circuit out: the method, in the order of its steps.

Prompts are chosen and tokenised once, on the base. In each model they are then traced: one forward
pass freezes what is not linear, one backward pass gives the effect of every neuron, and where a
graph is wanted its edges are computed between chosen neurons and pruned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.growth import DenseGraph, Engine, engine_for
from circuitdrift.attribution.influence import node_influence, normalise, prune, scores
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.circuits.circuit import Circuit, CircuitGraph, NodeKind, node_table
from circuitdrift.core.prompts import Prompt, TracedPrompt
from circuitdrift.core.study import SEGMENTS
from circuitdrift.core.tokens import answer_id, encode

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from circuitdrift.params import Attribution

# Together prompts cost a fifth of what they cost alone; more at once gain nothing (effects.csv).
_PROMPTS_AT_ONCE = 16


def choose_prompts(prompts: Sequence[Prompt], settings: Attribution) -> dict[Prompt, bool]:
    """The first prompts of each word and role, in order, and whether each gets a graph."""
    most = {
        "discovery": (settings.discovery_prompts_per_word, 0),
        "near": (settings.near_prompts_per_word, settings.graph_prompts_per_word),
        "control": (settings.control_prompts, settings.graph_control_prompts),
    }
    chosen: dict[Prompt, bool] = {}
    seen: Counter[tuple[str, str | None]] = Counter()
    for prompt in prompts:
        n_circuits, n_graphs = most.get(prompt.role, (0, 0))
        place = seen[prompt.role, prompt.word]
        if place < n_circuits:
            chosen[prompt] = place < n_graphs
        seen[prompt.role, prompt.word] += 1
    return chosen


def segment_tokens(tokenizer: Tokenizer, prompt: Prompt) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Token ids of ``prompt``, and the segment of each."""
    if prompt.word is None or prompt.start is None:
        span = (0, 0)
    else:
        span = (prompt.start, prompt.start + len(prompt.word))
    encoded = encode(tokenizer, prompt.text, span)
    before = encoded.marked[0] if encoded.marked else len(encoded.ids)
    after = encoded.marked[-1] + 1 if encoded.marked else len(encoded.ids)
    lengths = (encoded.n_front, before - encoded.n_front, after - before, len(encoded.ids) - after)
    segments = [name for name, n in zip(SEGMENTS, lengths, strict=False) for _ in range(n)]
    return encoded.ids, (*segments[:-1], SEGMENTS[-1])


@torch.no_grad()
def tokenise(
    prompts: Sequence[Prompt], base: PreTrainedModel, tokenizer: Tokenizer
) -> list[TracedPrompt]:
    """Tokens, segments and targets. A control prompt takes the base model's own answers."""
    traced = []
    for prompt in prompts:
        tokens, segments = segment_tokens(tokenizer, prompt)
        if prompt.role == "control":
            logits = base(torch.tensor([tokens]), logits_to_keep=1).logits[0, -1]
            answers, answer = torch.topk(logits, 3).indices.tolist(), 0  # the top, the next two
        else:
            assert prompt.answer is not None, f"{prompt.id} has no answer"
            answers = [answer_id(tokenizer, prompt.text, text) for text in prompt.answers]
            answer = prompt.answers.index(prompt.answer)
        traced.append(
            TracedPrompt(
                id=prompt.id,
                role=prompt.role,
                type=prompt.type,
                word=prompt.word,
                template=prompt.template,
                tokens=tokens,
                segments=segments,
                answers=tuple(answers),
                answer=answer,
            )
        )
    return traced


def trace_circuits(
    model: PreTrainedModel,
    prompts: Sequence[TracedPrompt],
    settings: Attribution,
    graphs_of: Collection[str] = (),
) -> list[Circuit]:
    """The circuit of each prompt: effects in batches, a graph for each id in ``graphs_of``."""
    engine = engine_for(model, settings) if graphs_of else None
    # Prompts of like length together, for padding costs as much as tokens; and of as many targets.
    order = sorted(
        range(len(prompts)),
        key=lambda index: (prompts[index].n_targets, len(prompts[index].tokens)),
    )
    traced: dict[int, Circuit] = {}
    for _, group in groupby(order, key=lambda index: prompts[index].n_targets):
        alike = list(group)
        for first in range(0, len(alike), _PROMPTS_AT_ONCE):
            chosen = alike[first : first + _PROMPTS_AT_ONCE]
            batch = [prompts[index] for index in chosen]
            circuits = _trace_batch(model, engine, batch, settings, graphs_of)
            traced.update(zip(chosen, circuits, strict=True))
    return [traced[index] for index in range(len(prompts))]


def _trace_batch(
    model: PreTrainedModel,
    engine: Engine | None,
    prompts: Sequence[TracedPrompt],
    settings: Attribution,
    graphs_of: Collection[str],
) -> Iterator[Circuit]:
    """The circuits of prompts with as many targets."""
    unembedding = model.lm_head.weight.detach()
    directions = [target_directions(prompt, unembedding) for prompt in prompts]  # of every answer
    n = prompts[0].n_targets
    stored = torch.stack([of_answers[:n] for of_answers in directions])
    linear = LinearModel(model, freeze(model, [prompt.tokens for prompt in prompts]))
    effect = effects(linear, stored)
    values = torch.einsum("ptd,pd->pt", stored, linear.frozen.final_normalised)
    for index, prompt in enumerate(prompts):
        n_positions = len(prompt.tokens)
        neurons = effect.neurons[index, :, :, :n_positions]
        graph = None
        if engine is not None and prompt.id in graphs_of:
            alone = LinearModel(model, linear.frozen.alone(index))
            own = neurons[prompt.answer] if prompt.answer < n else -neurons.sum(0)
            dense = engine(alone, directions[index][prompt.answer], own)
            graph = pruned_graph(dense, alone.n_layers, prompt.tokens, settings)
        yield Circuit(
            prompt=prompt,
            values=values[index].numpy(),
            effects=neurons.numpy(),
            token_effects=effect.tokens[index, :, :n_positions].numpy(),
            graph=graph,
        )


def target_directions(prompt: TracedPrompt, unembedding: Tensor) -> Tensor:
    """The target of each answer as a direction in the final norm's output ``[n_answers, d_model]``.

    An answer's row of the unembedding ``[n_vocabulary, d_model]`` minus the mean of the others'.
    """
    rows = unembedding[list(prompt.answers)]
    others = (rows.sum(0) - rows) / (len(rows) - 1)
    return rows - others


def pruned_graph(
    dense: DenseGraph, n_layers: int, tokens: Sequence[int], settings: Attribution
) -> CircuitGraph:
    """Score a dense graph, then keep of it what the thresholds say."""
    A, nodes = dense.A, node_table(dense.expanded.numpy(), n_layers, tokens)
    kind = torch.from_numpy(nodes[:, 0])
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
        nodes=nodes[kept.nodes.numpy()],
        influence=node_influence(normalised, weights)[kept.nodes].numpy(),
        activation=activation[kept.nodes].numpy(),
        edges=new_index[pairs].int().numpy(),
        weights=A[kept.edges].numpy(),
        scores=scores(normalised, weights, is_error, kind == NodeKind.TOKEN),
    )
