"""Circuits found by hand, and kept and ablated in a model against units picked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits import files
from circuitdrift.circuits.circuit import Circuit
from circuitdrift.circuits.files import load_circuits, save_circuits
from circuitdrift.core.prompts import Role, TracedPrompt
from circuitdrift.interventions.ablation import Subject, prepare
from circuitdrift.interventions.faithfulness import (
    faithfulness,
    matched_units,
    random_ranks,
    specificity,
    transfer,
    unit_ranks,
    units_of_size,
)
from circuitdrift.interventions.hooks import Edit, answer_logits, run_edits, target
from linearised import random_model

UNITS = (3, 5, 20)
START, BEFORE, WORD, AFTER, LAST = range(5)


def prompt(word: str, type_: str | None, tokens: tuple[int, ...]) -> TracedPrompt:
    inside = ["word" if type_ else "before word"] * (len(tokens) - 2)
    segments = ("start", *inside, "last")
    named = {"id": f"{word}-id", "type": type_, "word": word or None, "answers": (30, 3, 17)}
    return replace(PROMPT, **named, tokens=tokens, segments=segments, answer=1)


GLIDE = prompt("glide", "spatial", (2, 8, 7, 6, 12))
ORBIT = prompt("orbit", "spatial", (2, 9, 3, 5))
BLARF = prompt("blarf", "simple", (2, 5, 7, 9))
GLEEM = prompt("gleem", "simple", (2, 4, 8))
PROMPTS = [GLIDE, ORBIT, BLARF, GLEEM]
WORDS = [(str(one.type), str(one.word)) for one in PROMPTS]
CONTROL = replace(prompt("", None, (2, 11, 13, 9)), role="control")


@pytest.fixture(scope="module")
def subject() -> Subject:
    model = random_model("Gemma3ForCausalLM")
    return prepare(model, [*PROMPTS, CONTROL], PROMPTS, batch_size=8)


def ranks(*first: tuple[int, int, int]) -> Tensor:
    """Ranks of which these units come first."""
    order = torch.arange(300).view(UNITS) + 300
    for place, unit in enumerate(first):
        order[unit] = place
    return order.flatten().argsort().argsort().view(UNITS)


def by_hand(subject: Subject, word: str, ablation: str, masks: Tensor) -> float:
    """The target with the neurons of ``masks`` [n_layers, n_positions, d_mlp] ablated."""
    index = [one.word for one in PROMPTS].index(word)
    edit = Edit(PROMPTS[index], dict(enumerate(masks)), subject.values[ablation][index])
    ((_, _, logits),) = run_edits(subject.model, [({}, edit)], 1)
    return target(PROMPTS[index], logits)


def everywhere(word: str) -> Tensor:
    n_positions = {"glide": 5, "gleem": 3}.get(word, 4)
    return torch.ones(3, n_positions, 20, dtype=torch.bool)


def test_units_are_ranked_by_the_size_of_their_mean_signed_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer, two neurons; targets 0 and 1 are stored, the third is minus their sum."""
    monkeypatch.setattr(files, "MASS_DROPPED", 0)

    def traced(word: str, role: Role, segments: tuple[str, ...], *targets: list[int]) -> Circuit:
        effects = np.array([[[[x, 0.0] for x in of_target]] for of_target in targets], np.float32)
        one = replace(PROMPT, id=f"{word}{len(segments)}", word=word, role=role, answer=0)
        return circuit(replace(one, segments=segments), effects=effects)

    several = ("start", "word", "word", "last")
    circuits = [
        traced("blarf", "discovery", several, [1, 8, -4, 2], [0, 1, 3, 0]),
        traced("blarf", "discovery", ("start", "word", "last"), [2, -5, 1], [0, 0, 9]),
        traced("blarf", "near", several, [99, 0, 0, 0], [99, 0, 0, 0]),
        traced("gleem", "discovery", ("start", "last"), [0, 1], [2, -3]),
    ]
    save_circuits(tmp_path / "circuits", circuits)
    loaded = load_circuits(tmp_path / "circuits")
    # Units by place: segment * 2 + neuron, of which only the first neuron does anything. Sums of
    # target 0: start 3, word 4 - 5 = -1, last 3; ties in order.
    own = unit_ranks(loaded, "mapped")
    assert list(own) == [("simple", "blarf"), ("simple", "gleem")]
    assert own["simple", "blarf"].flatten().argsort()[:3].tolist() == [0, 8, 4]
    # Target 1: start 0, word 4, last 9. Target 2, minus both: start -3, word -3, last -12.
    order = {
        condition: unit_ranks(loaded, condition)["simple", "blarf"].flatten().argsort()
        for condition in ("rotated-1", "rotated-2")
    }
    assert order["rotated-1"][:2].tolist() == [8, 4]
    assert order["rotated-2"][:3].tolist() == [8, 0, 4]
    assert own["simple", "gleem"].flatten().argmin() == 8


def test_a_circuit_holds_its_share_of_the_units() -> None:
    order = torch.arange(8).view(1, 2, 4)
    # 0.3 * 8 = 2.4 rounds to 2, 0.45 * 8 = 3.6 to 4.
    assert [int(units_of_size(order, size).sum()) for size in (0.01, 0.3, 0.45, 1)] == [0, 2, 4, 8]
    assert units_of_size(order, 0.3).flatten().tolist() == [True] * 2 + [False] * 6


def test_a_random_circuit_has_as_many_units_in_every_layer_and_segment() -> None:
    one, other = (
        torch.rand(2, 3, 5, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    ).unbind()
    draw = random_ranks(one.shape, np.random.default_rng(0))
    matched = matched_units(draw, one)
    assert torch.equal(matched.sum(-1), one.sum(-1))
    assert not torch.equal(matched, one)
    assert torch.equal(matched_units(draw, one | other) & matched, matched)


def test_random_circuits_are_uniform_over_a_layers_neurons() -> None:
    units = torch.zeros(1, 5, 10, dtype=torch.bool)
    units[0, 2, :3] = True
    generator = np.random.default_rng(0)
    draws = [matched_units(random_ranks(units.shape, generator), units) for _ in range(2000)]
    frequency = torch.stack(draws).double().mean(0)
    assert frequency[0, 2].sub(0.3).abs().max() < 0.05  # five standard errors
    assert not frequency[0, [0, 1, 3, 4]].any()


def test_the_circuit_of_its_word_is_kept_and_all_else_ablated(subject: Subject) -> None:
    own = dict.fromkeys(WORDS, ranks((1, START, 1), (0, WORD, 3)))
    own["simple", "blarf"] = ranks((0, WORD, 3), (2, LAST, 5))
    draw = dict.fromkeys(WORDS, random_ranks(UNITS, np.random.default_rng(0)))
    rows = list(faithfulness(subject, own, draw, [0.0, 2 / 300, 1.0]))
    assert len(rows) == 4 * 2 * 2 * 3
    for row in rows:
        index = [word for _, word in WORDS].index(row["word"])
        assert row["full"] == subject.full[index]
        assert row["empty"] == subject.empty[row["ablation"]][index]
        if row["size"] in (0, 1):
            assert row["value"] == pytest.approx(row["full" if row["size"] else "empty"], abs=1e-5)
            continue
        assert row["value"] not in (row["empty"], row["full"])
        if row["circuit"] == "own":
            ablated = everywhere(row["word"])
            ablated[0, 1:-1, 3] = False
            ablated[(2, -1, 5) if row["word"] == "blarf" else (1, 0, 1)] = False
            value = by_hand(subject, row["word"], row["ablation"], ablated)
            assert row["value"] == pytest.approx(value, abs=1e-5)
    values = {
        (row["ablation"], row["word"], row["circuit"]): row["value"]
        for row in rows
        if row["size"] == 2 / 300
    }
    assert all(
        values[ablation, word, "own"] != values[ablation, word, "random"]
        for ablation in ("mean", "counterfactual")
        for _, word in WORDS
    )


def test_transfer_keeps_each_models_circuit_amid_the_means(subject: Subject) -> None:
    circuits = {"base": ranks((2, LAST, 0)), "100": ranks((1, LAST, 3))}
    by_word = {name: dict.fromkeys(WORDS, own) for name, own in circuits.items()}
    rows = list(transfer(subject, by_word, 1 / 300))
    assert len(rows) == 2 * 4
    for row in rows:
        ablated = everywhere(row["word"])
        ablated[(2, -1, 0) if row["circuit_from"] == "base" else (1, -1, 3)] = False
        value = by_hand(subject, row["word"], "mean", ablated)
        assert row["value"] == pytest.approx(value, abs=1e-5)


def test_the_circuits_of_a_types_words_are_ablated_together_where_a_prompt_has_them(
    subject: Subject,
) -> None:
    own = {
        ("simple", "blarf"): ranks((0, WORD, 3)),
        ("simple", "gleem"): ranks((1, WORD, 8)),
        ("spatial", "orbit"): ranks((1, LAST, 1)),
        ("spatial", "glide"): ranks((1, LAST, 1)),
    }
    # Random circuits: neurons 19, 18, ... first. Of the draws each type's first word's is taken.
    last_first = torch.arange(19, -1, -1).expand(UNITS)
    draws = dict.fromkeys(own, last_first) | {("simple", "gleem"): last_first.flip(-1)}
    rows = list(specificity(subject, [CONTROL], own, draws, 1 / 300))
    assert len(rows) == 5 * 4
    ablated: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        ablated.setdefault((row["unit"], row["circuit"]), []).append(row["ablated"])
    (control_full,) = (
        target(CONTROL, logits) for logits in answer_logits(subject.model, [CONTROL])
    )

    def one_by_one(word: str, *places: tuple[int, slice | int, int]) -> float:
        mask = ~everywhere(word)
        for place in places:
            mask[place] = True
        return by_hand(subject, word, "mean", mask)

    inside = slice(1, -1)
    for word in ("blarf", "orbit"):
        union = one_by_one(word, (0, inside, 3), (1, inside, 8))
        assert ablated[word, "simple"] == pytest.approx([union], abs=1e-5)
        drawn = one_by_one(word, (0, inside, 19), (1, inside, 19)), one_by_one(word, (1, -1, 19))
        assert sorted(ablated[word, "random"]) == pytest.approx(sorted(drawn), abs=1e-5)
        assert ablated[word, "spatial"] == pytest.approx([one_by_one(word, (1, -1, 1))], abs=1e-5)
    # A control prompt has no word, so nothing of the first circuit.
    assert ablated["-id", "simple"] == pytest.approx([control_full], abs=1e-5)
    assert abs(ablated["-id", "spatial"][0] - control_full) > 1e-4
    assert {row["prompts"] for row in rows} == {"simple", "spatial", "control"}
    whole = [*subject.full, control_full]
    assert sorted(row["full"] for row in rows[::4]) == pytest.approx(sorted(whole), abs=1e-5)
