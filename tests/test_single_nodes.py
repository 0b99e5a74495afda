"""Nodes drawn over the range of effects, ablated alone; features patched across models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitdrift.interventions.ablation import prepare
from circuitdrift.interventions.patching import (
    NECESSITY,
    SUFFICIENCY,
    feature_mask,
    patching_trials,
    random_features,
)
from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Edit, edited_targets, record, results
from circuitdrift.interventions.single_nodes import rank_agreement, stratified_nodes
from linearised import random_model


def prompt(word: str, tokens: tuple[int, ...]) -> TargetPrompt:
    segments = ("start", *["word"] * (len(tokens) - 2), "last")
    return TargetPrompt(word, "simple", word, "{word}", tokens, segments, 3, (30, 17))


BLARF, GLEEM = prompt("blarf", (2, 5, 7, 9)), prompt("gleem", (2, 4, 6, 8))


def test_one_node_comes_from_each_of_the_widening_intervals() -> None:
    # |effect| falls by a factor per place, so slowly that 99 % takes most of the 1000 nodes
    magnitudes = 0.995 ** np.arange(1000.0)
    shuffled = np.random.default_rng(1).permutation(1000)
    effects = torch.zeros(1000)
    effects[shuffled] = torch.tensor(magnitudes * np.where(np.arange(1000) % 2, 1, -1)).float()
    effects = effects.view(5, 4, 50)
    nodes = stratified_nodes(effects, 8, np.random.default_rng(0))
    flat = np.ravel_multi_index(tuple(nodes.T), effects.shape)
    places = np.argsort(shuffled)[flat]
    n_holding = int(np.searchsorted(magnitudes.cumsum(), 0.99 * magnitudes.sum())) + 1
    ratio = (n_holding + 1) ** (1 / 8)
    edges = [round(ratio**i - 1) for i in range(9)]
    assert edges[:4] == [0, 1, 4, 11]
    assert all(edges[i] <= place < edges[i + 1] for i, place in enumerate(places))


def test_nodes_are_distinct_where_there_are_hardly_enough() -> None:
    effects = torch.tensor([[[1.0, 0.9, 0.8, -0.7, 0.6, 1e-6, 0.0, 0.0]]])
    nodes = stratified_nodes(effects, 4, np.random.default_rng(0))
    assert len({tuple(node) for node in nodes.tolist()}) == 4
    # of the five that hold 99 %, all
    assert stratified_nodes(effects, 20, np.random.default_rng(0))[:, 2].tolist() == [0, 1, 2, 3, 4]


def test_draws_follow_their_generator() -> None:
    effects = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0))
    draws = [stratified_nodes(effects, 10, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_rank_agreement_is_1_for_effects_that_ablation_itself_measured() -> None:
    model = random_model("LlamaForCausalLM")
    subject = prepare(model, [BLARF, GLEEM], [BLARF, GLEEM], batch_size=4)
    nodes = np.array([[0, 1, 3], [0, 3, 4], [1, 2, 0], [2, 3, 19], [2, 3, 5]])
    effects = torch.zeros(3, 4, 20)
    nothing = torch.zeros(3, 4, 20)
    for node in map(tuple, nodes.tolist()):
        mask = nothing.bool()
        mask[node] = True
        effects[node] = subject.full[1] - edited_targets(model, [Edit(GLEEM, mask, nothing)])[0]
    assert rank_agreement(subject, 1, nodes, effects, 2) == pytest.approx(1)
    assert rank_agreement(subject, 1, nodes, -effects, 2) == pytest.approx(-1)


def test_a_feature_is_masked_at_every_position_of_its_layer() -> None:
    mask = feature_mask([(0, 2), (1, 0)], torch.zeros(2, 2, 3))
    assert mask.nonzero().tolist() == [[0, 0, 2], [0, 1, 2], [1, 0, 0], [1, 1, 0]]


def test_random_features_match_per_layer_and_avoid_the_recruited() -> None:
    recruited = [(4, 0), (1, 2), (1, 5), (4, 3), (4, 1)]
    seen = set()
    for seed in range(200):
        drawn = random_features(recruited, 6, np.random.default_rng(seed))
        assert sorted(layer for layer, _ in drawn) == [1, 1, 4, 4, 4]
        assert len(set(drawn)) == 5
        assert not set(drawn) & set(recruited)
        seen |= set(drawn)
    # every other neuron of both layers has its turn
    assert seen == {(1, n) for n in (0, 1, 3, 4)} | {(4, n) for n in (2, 4, 5)}
    assert len(random_features([(0, 0), (0, 1)], 3, np.random.default_rng(0))) == 1


def test_patching_moves_a_target_by_what_the_features_carry() -> None:
    """The models differ in one neuron's gate, so that neuron carries the whole difference."""
    base, tuned = random_model("Gemma3ForCausalLM"), random_model("Gemma3ForCausalLM")
    with torch.no_grad():
        tuned.model.layers[1].mlp.gate_proj.weight[7].mul_(-3)
    asked = [BLARF, GLEEM]
    recordings = record(base, asked, 2), record(tuned, asked, 2)
    features = {"recruited": {"blarf": [(1, 7)]}, "random-0": {"blarf": [(0, 7)]}}
    for direction, model in ((SUFFICIENCY, base), (NECESSITY, tuned)):
        rows = list(
            results(model, patching_trials(direction, asked, *recordings, features), "patched", 8)
        )
        # gleem has no features
        assert [(row["nodes"], row["prompt"]) for row in rows] == [
            ("recruited", "blarf"),
            ("random-0", "blarf"),
        ]
        recruited, random = rows
        assert recruited["n_nodes"] == 1
        assert abs(recruited["base"] - recruited["tuned"]) > 0.01
        goal, start = ("tuned", "base") if direction == SUFFICIENCY else ("base", "tuned")
        assert recruited["patched"] == pytest.approx(recruited[goal], abs=1e-5)
        # the neuron of the layer below fires alike in both
        assert random["patched"] == pytest.approx(random[start], abs=1e-5)
