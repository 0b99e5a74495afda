"""Whole circuits kept or ablated, held against runs in which the units are picked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from circuitdrift.interventions.ablation import Subject, prepare
from circuitdrift.interventions.circuit_trials import (
    circuits_by_size,
    faithfulness_trials,
    specificity_trials,
    transfer_trials,
    whole_rows,
)
from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Edit, edited_targets, results, targets
from circuitdrift.unit_circuits import unit_ranks
from linearised import random_model

UNITS = (3, 5, 20)
START, WORD, LAST = 0, 2, 4


def prompt(word: str, type_: str | None, tokens: tuple[int, ...]) -> TargetPrompt:
    inside = ["word" if type_ else "before word"] * (len(tokens) - 2)
    segments = ("start", *inside, "last")
    return TargetPrompt(word, type_, word, "{word}", tokens, segments, 3, (30, 17))


PROMPTS = [
    prompt("glide", "spatial", (2, 8, 7, 6, 12)),
    prompt("orbit", "spatial", (2, 9, 3, 5)),
    prompt("blarf", "simple", (2, 5, 7, 9)),
    prompt("gleem", "simple", (2, 4, 8)),
]


@pytest.fixture
def subject() -> Subject:
    model = random_model("Gemma3ForCausalLM")
    control = prompt("", None, (2, 11, 13, 9))
    return prepare(model, [*PROMPTS, control], PROMPTS, batch_size=8)


def units(*kept: tuple[int, int, int]) -> Tensor:
    found = torch.zeros(UNITS, dtype=torch.bool)
    for unit in kept:
        found[unit] = True
    return found


def by_hand(subject: Subject, index: int, mask: Tensor, ablation: str = "mean") -> float:
    edit = Edit(subject.prompts[index], mask, subject.values[ablation][index])
    return float(edited_targets(subject.model, [edit])[0])


def test_a_circuit_of_its_type_is_kept_and_all_else_ablated(subject: Subject) -> None:
    circuit = {"simple": units((0, WORD, 3), (2, LAST, 5)), "spatial": units((1, START, 1))}
    trials = list(faithfulness_trials(subject, {("own", 0.01): circuit}))
    # shortest first: gleem, orbit, blarf, glide; the counterfactual ablation before the mean
    assert [row["word"] for row, _ in trials[::2]] == ["gleem", "orbit", "blarf", "glide"]
    rows = list(results(subject.model, trials, "value", 8))
    for row in rows:
        index = [one.word for one in PROMPTS].index(row["word"])
        ablated = torch.ones(3, len(PROMPTS[index].tokens), 20, dtype=torch.bool)
        if row["type"] == "simple":
            ablated[0, 1:-1, 3] = False
            ablated[2, -1, 5] = False
        else:
            ablated[1, 0, 1] = False
        assert row["value"] == pytest.approx(
            by_hand(subject, index, ablated, row["ablation"]), abs=1e-5
        )
        assert row["full"] == subject.full[index].item()
        assert row["empty"] == subject.empty[row["ablation"]][index].item()
        assert (row["circuit"], row["size"]) == ("own", 0.01)


def test_both_ends_of_a_curve(subject: Subject) -> None:
    nothing = dict.fromkeys(("simple", "spatial"), units())
    everything = dict.fromkeys(("simple", "spatial"), ~units())
    circuits = {("own", 0.0): nothing, ("own", 0.9): everything, ("own", 1.0): everything}
    rows = list(results(subject.model, faithfulness_trials(subject, circuits), "value", 8))
    assert {row["size"] for row in rows} == {0.0, 0.9}
    for row in rows:
        end = row["empty"] if row["size"] == 0 else row["full"]
        assert row["value"] == pytest.approx(end, abs=1e-5)
    whole = whole_rows(subject, circuits)
    assert len(whole) == 4 * 2
    assert all(row["size"] == 1 and row["value"] == row["full"] for row in whole)
    assert set(whole[0]) == set(rows[0])


def test_transfer_keeps_each_circuit_amid_the_models_own_means(subject: Subject) -> None:
    circuits = {
        "base": dict.fromkeys(("simple", "spatial"), units((2, LAST, 0))),
        "050": dict.fromkeys(("simple", "spatial"), ~units()),
    }
    rows = list(results(subject.model, transfer_trials(subject, circuits), "value", 8))
    assert len(rows) == 2 * 4
    for row in rows:
        index = [one.word for one in PROMPTS].index(row["word"])
        ablated = torch.ones(3, len(PROMPTS[index].tokens), 20, dtype=torch.bool)
        if row["circuit_from"] == "base":
            ablated[2, -1, 0] = False
        else:
            ablated[:] = False
        assert row["value"] == pytest.approx(by_hand(subject, index, ablated), abs=1e-5)
        assert row["empty"] == subject.empty["mean"][index].item()


def test_a_circuit_is_ablated_where_a_prompt_has_its_segments(subject: Subject) -> None:
    control = prompt("", None, (2, 11, 13, 9))
    asked = [*PROMPTS[2:], control]
    full = targets(subject.model, asked).tolist()
    circuits = [
        ("simple", units((0, WORD, 3), (1, WORD, 8))),
        ("random", units((1, LAST, 1))),
        ("random", units()),
    ]
    trials = specificity_trials(asked, full, subject.means, circuits)
    rows = list(results(subject.model, trials, "ablated", 4))
    assert len(rows) == 3 * 3
    assert {row["prompts"] for row in rows} == {"simple", "control"}
    found = {
        (row["prompt"], circuits[i % 3][0], i % 3): row["ablated"] for i, row in enumerate(rows)
    }
    mask = torch.zeros(3, 4, 20, dtype=torch.bool)
    mask[0, 1:3, 3] = True
    mask[1, 1:3, 8] = True
    assert found["blarf", "simple", 0] == pytest.approx(by_hand(subject, 2, mask), abs=1e-5)
    assert abs(found["blarf", "simple", 0] - full[0]) > 1e-4
    # a control prompt has no word, so nothing of this circuit
    assert found["", "simple", 0] == pytest.approx(full[2], abs=1e-5)
    assert abs(found["", "random", 1] - full[2]) > 1e-4
    assert found["", "random", 2] == pytest.approx(full[2], abs=1e-5)


def test_random_circuits_match_the_one_they_are_held_against() -> None:
    generator = torch.Generator().manual_seed(0)
    own, base, drawn = ({"simple": torch.rand(UNITS, generator=generator)} for _ in range(3))
    ranks = {"own": {"simple": unit_ranks(own["simple"])}}
    ranks["base"] = {"simple": unit_ranks(base["simple"])}
    matched = {"random-0": {"simple": drawn["simple"].argsort(-1).argsort(-1)}}
    found = circuits_by_size(ranks, matched, "own", (0.1, 0.5))
    assert set(found) == {(n, s) for n in ("own", "base", "random-0") for s in (0.1, 0.5)}
    for size in (0.1, 0.5):
        assert found["own", size]["simple"].sum() == round(size * 300)
        counts = found["own", size]["simple"].sum(-1)
        assert torch.equal(found["random-0", size]["simple"].sum(-1), counts)
        assert not torch.equal(found["base", size]["simple"].sum(-1), counts)
