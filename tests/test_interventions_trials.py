"""Circuits kept or ablated, single nodes and features, held against units picked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from circuit_samples import PROMPT
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.interventions.ablation import Subject, prepare
from circuitdrift.interventions.hooks import Edit, edited_targets, record, targets
from circuitdrift.interventions.trials import (
    NECESSITY,
    SUFFICIENCY,
    faithfulness,
    patching,
    random_features,
    rank_agreement,
    specificity,
    stratified_nodes,
    transfer,
)
from linearised import random_model

UNITS = (3, 5, 20)
START, WORD, LAST = 0, 2, 4


def prompt(word: str, type_: str | None, tokens: tuple[int, ...]) -> TracedPrompt:
    inside = ["word" if type_ else "before word"] * (len(tokens) - 2)
    segments = ("start", *inside, "last")
    named = {"id": word, "type": type_, "word": word, "answer": 3, "others": (30, 17)}
    return replace(PROMPT, **named, tokens=tokens, segments=segments)


GLIDE = prompt("glide", "spatial", (2, 8, 7, 6, 12))
ORBIT = prompt("orbit", "spatial", (2, 9, 3, 5))
BLARF = prompt("blarf", "simple", (2, 5, 7, 9))
GLEEM = prompt("gleem", "simple", (2, 4, 8))
PROMPTS = [GLIDE, ORBIT, BLARF, GLEEM]
CONTROL = prompt("", None, (2, 11, 13, 9))


@pytest.fixture(scope="module")
def subject() -> Subject:
    model = random_model("Gemma3ForCausalLM")
    return prepare(model, [*PROMPTS, CONTROL], PROMPTS, batch_size=8)


def units(*kept: tuple[int, int, int]) -> Tensor:
    circuit = torch.zeros(UNITS, dtype=torch.bool)
    for unit in kept:
        circuit[unit] = True
    return circuit


def of_both(circuit: Tensor) -> dict[str, Tensor]:
    return dict.fromkeys(("simple", "spatial"), circuit)


def by_hand(subject: Subject, word: str, ablation: str, mask: Tensor) -> float:
    index = [one.word for one in PROMPTS].index(word)
    edit = Edit(PROMPTS[index], mask, subject.values[ablation][index])
    return float(edited_targets(subject.model, [edit])[0])


def everywhere(word: str) -> Tensor:
    n_positions = {"glide": 5, "gleem": 3}.get(word, 4)
    return torch.ones(3, n_positions, 20, dtype=torch.bool)


def test_a_circuit_of_its_type_is_kept_and_all_else_ablated(subject: Subject) -> None:
    circuit = {"simple": units((0, WORD, 3), (2, LAST, 5)), "spatial": units((1, START, 1))}
    rows = faithfulness(subject, {("own", 0.01): circuit})
    # Shortest first; the counterfactual ablation before the mean.
    assert [row["word"] for row in rows[::2]] == ["gleem", "orbit", "blarf", "glide"]
    for row in rows:
        ablated = everywhere(row["word"])
        if row["type"] == "simple":
            ablated[0, 1:-1, 3] = False
            ablated[2, -1, 5] = False
        else:
            ablated[1, 0, 1] = False
        value = by_hand(subject, row["word"], row["ablation"], ablated)
        assert row["value"] == pytest.approx(value, abs=1e-5)
        assert (row["circuit"], row["size"]) == ("own", 0.01)


def test_both_ends_of_a_curve(subject: Subject) -> None:
    circuits = {("own", 0.0): of_both(units())}
    circuits |= {("own", size): of_both(~units()) for size in (0.9, 1.0)}
    rows = faithfulness(subject, circuits)
    assert len(rows) == 3 * 4 * 2
    for row in rows:
        end = row["empty"] if row["size"] == 0 else row["full"]
        # A circuit of size 1 is the whole model and is not run again.
        assert row["value"] == (end if row["size"] == 1 else pytest.approx(end, abs=1e-5))


def test_transfer_keeps_each_circuit_amid_the_models_own_means(subject: Subject) -> None:
    circuits = {"base": of_both(units((2, LAST, 0))), "050": of_both(~units())}
    rows = transfer(subject, circuits)
    assert len(rows) == 2 * 4
    for row in rows:
        ablated = everywhere(row["word"])
        ablated[2, -1, 0] = False
        ablated &= row["circuit_from"] == "base"
        value = by_hand(subject, row["word"], "mean", ablated)
        assert row["value"] == pytest.approx(value, abs=1e-5)


def test_a_circuit_is_ablated_where_a_prompt_has_its_segments(subject: Subject) -> None:
    full = targets(subject.model, [CONTROL]).tolist()
    circuits = [("simple", units((0, WORD, 3), (1, WORD, 8))), ("random", units((1, LAST, 1)))]
    rows = specificity(subject, [CONTROL], full, circuits)
    assert len(rows) == 5 * 2
    ablated = {(row["prompt"], row["circuit"]): row["ablated"] for row in rows}
    mask = ~everywhere("blarf")
    mask[0, 1:3, 3] = True
    mask[1, 1:3, 8] = True
    value = by_hand(subject, "blarf", "mean", mask)
    assert ablated["blarf", "simple"] == pytest.approx(value, abs=1e-5)
    assert abs(value - subject.full[2]) > 1e-4
    # A control prompt has no word, so nothing of this circuit.
    assert ablated["", "simple"] == pytest.approx(full[0], abs=1e-5)
    assert abs(ablated["", "random"] - full[0]) > 1e-4
    assert {row["prompts"] for row in rows} == {"simple", "spatial", "control"}


def test_one_node_comes_from_each_of_the_widening_intervals() -> None:
    # |effect| falls by a factor per place, so slowly that 99 % takes most of the 1000 nodes.
    magnitudes = 0.995 ** np.arange(1000.0)
    shuffled = np.random.default_rng(1).permutation(1000)
    effects = np.zeros(1000, dtype=np.float32)
    effects[shuffled] = magnitudes * np.where(np.arange(1000) % 2, 1, -1)
    effects = effects.reshape(5, 4, 50)
    nodes = stratified_nodes(effects, 8, np.random.default_rng(0))
    places = np.argsort(shuffled)[np.ravel_multi_index(tuple(nodes.T), effects.shape)]
    n_holding = int(np.searchsorted(magnitudes.cumsum(), 0.99 * magnitudes.sum())) + 1
    edges = [round((n_holding + 1) ** (i / 8) - 1) for i in range(9)]
    assert edges[:4] == [0, 1, 4, 11]
    assert all(edges[i] <= place < edges[i + 1] for i, place in enumerate(places))
    assert np.array_equal(nodes, stratified_nodes(effects, 8, np.random.default_rng(0)))
    assert not np.array_equal(nodes, stratified_nodes(effects, 8, np.random.default_rng(1)))


def test_nodes_are_distinct_where_there_are_hardly_enough() -> None:
    effects = np.array([[[1.0, 0.9, 0.8, -0.7, 0.6, 1e-6, 0.0, 0.0]]], dtype=np.float32)
    nodes = stratified_nodes(effects, 4, np.random.default_rng(0))
    assert len({tuple(node) for node in nodes.tolist()}) == 4
    # Of the five that hold 99 %, all.
    assert stratified_nodes(effects, 20, np.random.default_rng(0))[:, 2].tolist() == [0, 1, 2, 3, 4]


def test_rank_agreement_is_1_for_effects_that_ablation_itself_measured(subject: Subject) -> None:
    nodes = np.array([[0, 1, 3], [0, 3, 4], [1, 2, 0], [2, 3, 19], [2, 3, 5]])
    effects = np.zeros((3, 4, 20), dtype=np.float32)
    for node in map(tuple, nodes.tolist()):
        mask = torch.zeros(3, 4, 20, dtype=torch.bool)
        mask[node] = True
        edit = Edit(BLARF, mask, torch.zeros(3, 4, 20))
        effects[node] = subject.full[2] - edited_targets(subject.model, [edit]).item()
    assert rank_agreement(subject, 2, nodes, effects) == pytest.approx(1)
    assert rank_agreement(subject, 2, nodes, -effects) == pytest.approx(-1)


def test_random_features_match_per_layer_and_avoid_the_recruited() -> None:
    recruited = [(4, 0), (1, 2), (1, 5), (4, 3), (4, 1)]
    seen = set()
    for seed in range(200):
        drawn = random_features(recruited, 6, np.random.default_rng(seed))
        assert sorted(layer for layer, _ in drawn) == [1, 1, 4, 4, 4]
        assert len(set(drawn)) == 5
        seen |= set(drawn)
    # Every other neuron of both layers has its turn.
    assert seen == {(1, n) for n in (0, 1, 3, 4)} | {(4, n) for n in (2, 4, 5)}
    assert len(random_features([(0, 0), (0, 1)], 3, np.random.default_rng(0))) == 1


@pytest.mark.parametrize("direction", [SUFFICIENCY, NECESSITY])
def test_patching_moves_a_target_by_what_the_features_carry(direction: str) -> None:
    """The models differ in one neuron's gate, so that neuron carries the whole difference."""
    models = {name: random_model("Gemma3ForCausalLM") for name in ("base", "tuned")}
    with torch.no_grad():
        models["tuned"].model.layers[1].mlp.gate_proj.weight[7].mul_(-3)
    asked = [BLARF, GLEEM]
    recordings = {name: record(model, asked, 2) for name, model in models.items()}
    features = {"recruited": {"blarf": [(1, 7)]}, "random-0": {"blarf": [(0, 7)]}}
    start, goal = ("base", "tuned") if direction == SUFFICIENCY else ("tuned", "base")
    rows = patching(direction, models[start], asked, recordings, features, batch_size=8)
    # gleem has no features; the neuron of the layer below fires alike in both models.
    assert [(row["nodes"], row["prompt"]) for row in rows] == [
        ("recruited", "blarf"),
        ("random-0", "blarf"),
    ]
    assert [row["n_nodes"] for row in rows] == [1, 1]
    assert abs(rows[0]["base"] - rows[0]["tuned"]) > 0.01
    assert rows[0]["patched"] == pytest.approx(rows[0][goal], abs=1e-5)
    assert rows[1]["patched"] == pytest.approx(rows[1][start], abs=1e-5)
