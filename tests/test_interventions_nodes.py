"""Nodes chosen and matched, on a handful of them; interchange against hooks written by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits.files import load_circuits, save_circuits
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import Run
from circuitdrift.interventions.hooks import Recording, record
from circuitdrift.interventions.nodes import (
    NODE_SETS,
    choose,
    interchange,
    matched,
    score_nodes,
    strongest,
)
from linearised import random_model

MAPPED, ROTATED = Run("mapped", 2), Run("rotated-1", 3)
SEGMENTS = ("start", "word", "word", "after word", "last")
ROLES_BY_HAND = {"word": [2], "last": [4], "other": [0, 1, 3]}


def test_scores_are_means_over_prompts_and_ordered_pairs_of_different_assignments() -> None:
    rng, n_runs, n_layers, d_mlp = np.random.default_rng(0), 4, 2, 3
    answers = [0, 1, 1, 2]
    traces, rows = [], []
    for _ in range(2):
        logits = rng.normal(size=(n_runs, 3, n_layers, 3, d_mlp)).astype(np.float32)
        others = (logits.sum(1, keepdims=True) - logits) / 2
        activations = rng.normal(size=(n_runs, n_layers, 5, d_mlp)).astype(np.float32)
        traces.append((SEGMENTS, list(logits - others), list(activations)))
        for donor, recipient in permutations(range(n_runs), 2):
            if (a := answers[donor]) != (b := answers[recipient]):
                on_d = [logits[run, a] - logits[run, b] for run in (donor, recipient)]
                apart = abs(activations[donor] - activations[recipient])
                by_role = [apart[:, at].sum(1) for at in ROLES_BY_HAND.values()]
                size = (abs(on_d[0]) + abs(on_d[1])) / 2
                rows.append([on_d[0] - on_d[1], size, np.stack(by_role, axis=1)])
    assert len(rows) == 2 * 10
    np.testing.assert_allclose(score_nodes(traces, answers), np.mean(rows, axis=0), atol=1e-6)


def test_the_strongest_nodes_are_those_of_largest_signed_score() -> None:
    difference = np.array([[[1.0, -9], [3, 0]], [[3, 2], [0.5, 3]]])
    # Layer, role, neuron; of the three that score 3 the lower index first.
    by_hand = [[0, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 1]]
    assert strongest(difference, 4).tolist() == by_hand
    assert strongest(difference, 1).tolist() == by_hand[:1]


@pytest.mark.parametrize(
    ("neurons", "partners"),
    [
        # Values 4 5 6 5.2 5.5 9. The first takes 5.2, so that 6 is nearest to 5.5.
        ([1, 4], [3, 2]),
        # 5.5 comes first and takes 5.2, so that 4 and 6 are equally near to 5.
        ([4, 1], [3, 0]),
        # Chosen ones are no partners, whatever their place in the order; nobody is taken twice.
        ([3, 4, 1], [2, 0, 5]),
        # Two are left for four.
        ([1, 3, 4, 2], [0, 5]),
        ([0, 1, 2, 3, 4, 5], []),
    ],
)
def test_a_node_is_matched_by_the_nearest_that_is_left(
    neurons: list[int], partners: list[int]
) -> None:
    values = np.full((2, 3, 6), 5.0)
    values[1, 2] = [4, 5, 6, 5.2, 5.5, 9]
    chosen = np.array([[1, 2, neuron] for neuron in neurons])
    assert matched(chosen, values).tolist() == [[1, 2, neuron] for neuron in partners]


def test_partners_share_layer_and_role() -> None:
    rng = np.random.default_rng(0)
    difference, values = rng.normal(size=(2, 4, 3, 50))
    chosen = strongest(difference, 100)
    partners = matched(chosen, values)
    assert np.array_equal(partners[:, :2], chosen[:, :2])
    assert len(np.unique(np.concatenate([chosen, partners]), axis=0)) == 200


def test_each_word_has_its_own_nodes_and_nulls_from_its_own_prompts(tmp_path: Path) -> None:
    rng, segments = np.random.default_rng(0), ("word", "last")
    prompts = [
        replace(PROMPT, id=f"{word}-{i}", role="discovery", word=word, answer=answer)
        for i in range(2)
        for word, answer in (("blarf", 0), ("gleem", 1))
    ]
    prompts = [replace(prompt, segments=segments) for prompt in prompts]
    runs = {}
    for run in (Run("mapped", 0), Run("rotated-1", 0)):
        effects = rng.normal(size=(5, 2, 2, 2, 8)).astype(np.float32)
        asked = [replace(prompts[0], id="near", role="near"), *prompts]
        of_run = [circuit(prompt, effects=own) for prompt, own in zip(asked, effects, strict=True)]
        save_circuits(tmp_path / run.name, of_run)
        activations = torch.from_numpy(rng.normal(size=(4, 2, 2, 8)).astype(np.float32))
        runs[run] = load_circuits(tmp_path / run.name), Recording(tuple(activations), ())
    sets = choose(prompts, runs, [1, 3])
    assert list(sets) == [("simple", "blarf"), ("simple", "gleem")]
    for place, answers in ((0, [0, 1]), (1, [1, 2])):
        own = [place, place + 2]  # the word's prompts; the files hold another one before them
        traces = [
            (
                segments,
                [circuits[1 + index].role_effects for circuits, _ in runs.values()],
                [recording.activations[index].numpy() for _, recording in runs.values()],
            )
            for index in own
        ]
        difference, effect, activation = score_nodes(traces, answers)
        for k in (1, 3):
            chosen = strongest(difference, k)
            expected = chosen, matched(chosen, effect), matched(chosen, activation)
            assert expected[1].tolist() != expected[2].tolist()
            for name, nodes in zip(NODE_SETS, expected, strict=True):
                places = list(sets.values())[place][k, name].nonzero().tolist()
                assert places == sorted(nodes.tolist())


ASKED = [
    replace(PROMPT, id="long", tokens=(2, 8, 7, 6, 12), segments=SEGMENTS, answers=(3, 30, 17)),
    replace(PROMPT, id="short", word="gleem", tokens=(2, 9, 5), segments=("start", "word", "last")),
]
ASKED[1] = replace(ASKED[1], answers=(3, 30, 17), answer=2)


@torch.no_grad()
def by_hand(model: PreTrainedModel, prompt: TracedPrompt, put: dict[int, Tensor]) -> list[float]:
    """The logits of the answers in a plain forward pass with other activations.

    Args:
        put: by layer, NaN where the model's own stay ``[n_positions, d_mlp]``.
    """
    handles = []
    for layer, values in put.items():

        def hook(_module: object, inputs: tuple[Tensor], new: Tensor = values) -> tuple[Tensor]:
            return (torch.where(new.isnan(), inputs[0], new[None]),)

        projection = model.model.layers[layer].mlp.down_proj
        handles.append(projection.register_forward_pre_hook(hook))
    logits = model(torch.tensor([prompt.tokens])).logits[0, -1, list(prompt.answers)]
    for handle in handles:
        handle.remove()
    return logits.tolist()


def test_a_donors_activations_are_put_at_the_nodes_of_the_word_and_nowhere_else() -> None:
    own, other = (random_model("Gemma3ForCausalLM", seed) for seed in (0, 1))
    recording = record(other, ASKED, 1)
    none = torch.zeros(3, 3, 20, dtype=torch.bool)
    one = none.clone()
    one[1, 0, 7] = one[1, 2, 4] = True  # neurons of the word's last token and of no role's
    sets = {
        ("simple", word): {(0, "none"): none, (2, "two"): one, (180, "all"): ~none}
        for word in ("blarf", "gleem")
    }
    rows = list(interchange(own, MAPPED, {ROTATED: recording}, ASKED, sets, batch_size=4))
    assert [(row["word"], row["k"]) for row in rows] == [
        (word, k) for word in ("gleem", "blarf") for k in (0, 2, 180)
    ]
    for row in rows:
        index = ["blarf", "gleem"].index(row["word"])
        prompt, values = ASKED[index], recording.activations[index]
        # Rotated by one, blarf's first answer is its second, gleem's last its first.
        a, b = ((1, 0), (0, 2))[index]
        put = {}
        if row["nodes"] == "all":
            put = dict(enumerate(values))
        elif row["nodes"] == "two":
            put[1] = torch.full_like(values[1], torch.nan)
            for at, neuron in ((2, 7), (0, 4), (1, 4), (3, 4)) if index == 0 else ((1, 7), (0, 4)):
                put[1][at, neuron] = values[1][at, neuron]
        for column, model, patch in (
            ("donor_d", other, {}),
            ("recipient_d", own, {}),
            ("patched_d", own, put),
        ):
            logits = by_hand(model, prompt, patch)
            assert row[column] == pytest.approx(logits[a] - logits[b], abs=1e-4)
        assert (abs(row["patched_d"] - row["recipient_d"]) > 1e-3) == (row["k"] > 0)
        assert (row["donor"], row["recipient"], row["type"]) == (
            "rotated-1-3",
            "mapped-2",
            "simple",
        )
