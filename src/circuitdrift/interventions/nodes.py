"""Nodes that carry what a word was taught to mean, put from one run into another.

A node is a neuron at the positions of one role (ROLES): its effects are summed over them. Nodes are
chosen on discovery prompts in pairs of runs of different assignments, a donor and a recipient, by
their effect on d: the logit of the donor's answer minus that of the recipient's. Two sets of other
nodes match them, one in effect and one in activation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitdrift.circuits.circuit import ROLES, Floats, node_roles
from circuitdrift.circuits.files import Circuits
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import Run, assigned
from circuitdrift.interventions import hooks
from circuitdrift.interventions.hooks import Edit, Recording, Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NODE_SETS = ("chosen", "effect null", "activation null")

Scores = NDArray[np.float64]
"""Of every node ``[..., n_layers, n_roles, d_mlp]``."""
Nodes = NDArray[np.int64]
"""(layer, role, neuron) ``[n, 3]``."""
Trace = tuple[Sequence[str], Sequence[Floats], Sequence[Floats]]
"""What runs did on a prompt: its segments, and run by run the effects on the target of every answer
``[n_answers, n_layers, n_roles, d_mlp]`` and activations ``[n_layers, n_positions, d_mlp]``."""
Word = tuple[str | None, str | None]
"""Type and word."""
Sets = dict[Word, dict[tuple[int, str], Tensor]]
"""By word, by number of nodes and name: True at the nodes ``[n_layers, n_roles, d_mlp]``."""


def word_of(prompt: TracedPrompt) -> Word:
    return prompt.type, prompt.word


def taught(prompt: TracedPrompt, condition: str) -> int:
    """Which of its answers a condition teaches."""
    return assigned(condition, prompt.answer, len(prompt.answers))


def role_indices(segments: Sequence[str]) -> NDArray[np.int64]:
    """Each token's role as an index into ROLES ``[n_positions]``."""
    return np.array([ROLES.index(role) for role in node_roles(segments)])


def choose(
    prompts: Sequence[TracedPrompt],
    runs: Mapping[Run, tuple[Circuits, Recording]],
    counts: Sequence[int],
) -> Sets:
    """The nodes of every word, as many as ``counts`` says, and those that match them.

    Args:
        prompts: discovery prompts.
        runs: circuits of these prompts, among others, and a recording of these; of two or more
            assignments.
    """
    of_word: defaultdict[Word, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        of_word[word_of(prompt)].append(index)
    sets: Sets = {}
    for word, indices in of_word.items():
        traces = (
            (
                prompts[index].segments,
                [one[one.prompts.index(prompts[index])].role_effects for one, _ in runs.values()],
                [recording.activations[index].numpy() for _, recording in runs.values()],
            )
            for index in indices
        )
        answers = [taught(prompts[indices[0]], run.condition) for run in runs]
        difference, effect, activation = score_nodes(traces, answers)
        sets[word] = {}
        for k in counts:
            chosen = strongest(difference, k)
            nulls = matched(chosen, effect), matched(chosen, activation)
            for name, nodes in zip(NODE_SETS, (chosen, *nulls), strict=True):
                places = torch.zeros(difference.shape, dtype=torch.bool)
                places[tuple(nodes.T)] = True
                sets[word][k, name] = places
    return sets


def score_nodes(traces: Iterable[Trace], answers: Sequence[int]) -> Scores:
    """Three means over a word's prompts and the pairs of runs that were taught different answers.

    Donor and recipient of a pair may change places: d and the effects on it only change their sign.

    Args:
        answers: which one each run was taught ``[n_runs]``.

    Returns:
        donor's minus recipient's effect on d, logits; |effect on d| of both, logits; |donor's minus
        recipient's activation|, summed over the role's positions
        ``[3, n_layers, n_roles, d_mlp]``.
    """
    pairs = [
        (donor, recipient)
        for donor, recipient in combinations(range(len(answers)), 2)
        if answers[donor] != answers[recipient]
    ]
    total, n_prompts = np.zeros(()), 0
    for segments, effects, activations in traces:
        n_prompts += 1
        n_answers = len(effects[0])
        belongs = (np.arange(len(ROLES))[:, None] == role_indices(segments)).astype(np.float32)
        for pair in pairs:
            a, b = (answers[run] for run in pair)
            # A target is a logit minus the others' mean: of two, the logits' difference follows.
            share = np.float32((n_answers - 1) / n_answers)
            donor, recipient = (share * (effects[run][a] - effects[run][b]) for run in pair)
            apart = np.abs(activations[pair[0]] - activations[pair[1]])
            size = (np.abs(donor) + np.abs(recipient)) / 2
            total = total + np.stack([donor - recipient, size, belongs @ apart])
    return total / (n_prompts * len(pairs))


def strongest(difference: Scores, k: int) -> Nodes:
    """The ``k`` nodes of the largest score, the largest first; of equal ones the lower index."""
    order = np.argsort(-difference, axis=None, kind="stable")[:k]
    return np.stack(np.unravel_index(order, difference.shape), axis=1)


def matched(chosen: Nodes, values: Scores) -> Nodes:
    """For each chosen node, in order, one of its layer and role that is not chosen.

    It is the one nearest in ``values`` among those that no earlier node took; of equally near ones
    the lower index. Where a layer and role has none left, the node gets none.
    """
    free = np.ones(values.shape, dtype=bool)
    free[tuple(chosen.T)] = False
    nodes = []
    for layer, role, neuron in chosen:
        place = values[layer, role]
        distance = np.where(free[layer, role], np.abs(place - place[neuron]), np.inf)
        nearest = distance.argmin()
        if free[layer, role, nearest]:
            free[layer, role, nearest] = False
            nodes.append((layer, role, nearest))
    return np.array(nodes, dtype=np.int64).reshape(-1, 3)


def interchange(
    model: PreTrainedModel,
    recipient: Run,
    donors: Mapping[Run, Recording],
    prompts: Sequence[TracedPrompt],
    sets: Sets,
    *,
    batch_size: int,
) -> Iterator[Row]:
    """Every donor's activations at every set of a prompt's word, put into the recipient.

    Args:
        model: the recipient's.
        donors: recordings of the same prompts.
    """
    unchanged = hooks.record(model, prompts, batch_size).logits

    def trials() -> Iterator[tuple[Row, Edit]]:
        for index in hooks.shortest_first(prompts):
            prompt = prompts[index]
            roles = torch.from_numpy(role_indices(prompt.segments))
            for (k, name), nodes in sets[word_of(prompt)].items():
                for donor, recording in donors.items():
                    row = {"index": index, "donor": donor, "k": k, "nodes": name}
                    yield row, hooks.edit(prompt, nodes, roles, recording.activations[index])

    for row, prompt, patched in hooks.run_edits(model, trials(), batch_size):
        index, donor = row.pop("index"), row.pop("donor")
        a, b = (taught(prompt, run.condition) for run in (donor, recipient))
        logits = {"donor": donors[donor].logits[index], "recipient": unchanged[index]}
        yield {
            "donor": donor.name,
            "recipient": recipient.name,
            "type": prompt.type,
            "word": prompt.word,
            **row,
            **{f"{of}_d": float(x[a] - x[b]) for of, x in (logits | {"patched": patched}).items()},
        }
