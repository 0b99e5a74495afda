"""Two circuits compared by hand, and the walk over the checkpoints of a small study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits.circuit import Circuit
from circuitdrift.comparison.checkpoints import (
    Traced,
    change_by_place,
    compare_checkpoints,
    compare_pair,
    feature_changes,
)
from circuitdrift.comparison.distance import effect_change
from circuitdrift.comparison.overlap import node_sets
from circuitdrift.comparison.recruited import FeatureEffects, feature_effects
from circuitdrift.core.study import BASE, Run
from circuitdrift.params import load_params

SETTINGS = load_params(Path(__file__).parents[1] / "params.yaml").compare.model_copy(
    update={"thresholds": (0.9, 0.5), "random_sets": 10, "top_features": 2}
)


def of_effects(values: list[Any], **changes: Any) -> Circuit:
    return replace(circuit(effects=np.array(values, dtype=np.float32)), **changes)


BEFORE = of_effects([[[1.0, 0, 0], [0, 2, 0]], [[0, 0, 0], [0, 0, 1]]])
AFTER = of_effects([[[1.0, 0, 0], [0, 3, 0]], [[0, 0, 0], [0, 0, -1]]], value=3.5)


def row_of(a: Circuit, b: Circuit, share: float = 1.0) -> dict[str, Any]:
    sets = (node_sets(one.effects, (0.5, share)) for one in (a, b))
    return compare_pair(a, b, *sets)[1]


def test_a_pair_compared_by_hand() -> None:
    row = row_of(BEFORE, AFTER)
    assert row["drift"] == pytest.approx(1 - (1 + 2 + 1) / (1 + 3 + 1))
    assert row["signed_drift"] == pytest.approx(1 - (1 + 2) / (1 + 3 + 1 + 1))
    assert row["effect_moved"] == pytest.approx(1 + 2)
    # Over the three nodes that are not 0 in both, |effect| 1, 2, 1 and 1, 3, 1.
    assert row["spearman"] == pytest.approx(1)
    assert (row["target_from"], row["target_to"]) == (0.5, 3.5)
    assert (row["node_jaccard"], row["edge_jaccard"], row["influence_drift"]) == (1, 1, 0)


@pytest.mark.parametrize(("share", "spearman"), [(0.99, 1), (1.0, 33 / 35)])
def test_spearman_leaves_weak_nodes_out(share: float, spearman: float) -> None:
    one = of_effects([[[8.0, -6, 4, 2, 0.01, 0.02]]])
    other = of_effects([[[8.0, 6, 4, -2, 0.02, 0.01]]])
    assert row_of(one, other, share)["spearman"] == pytest.approx(spearman)


@pytest.mark.parametrize("changed", [{"id": "b"}, {"others": (9, 3)}])
def test_circuits_of_other_prompts_or_targets_are_not_compared(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="different prompts or targets"):
        row_of(BEFORE, replace(AFTER, prompt=replace(PROMPT, **changed)))


def test_change_is_placed_by_layer_and_segment() -> None:
    change = effect_change(BEFORE.effects, AFTER.effects)
    table = change_by_place(change, PROMPT.segments).set_index(["layer", "segment"])
    assert table.loc[(0, "last"), ["gained", "lost", "moved", "before"]].tolist() == [1, 0, 1, 2]
    assert table.loc[(1, "last"), ["gained", "lost", "moved", "before"]].tolist() == [0, 0, 2, 1]
    assert table.loc[(0, "start"), ["gained", "lost", "moved", "before"]].tolist() == [0, 0, 0, 1]
    # Positions of one segment are added up.
    table = change_by_place(change, ("before word", "before word"))
    assert table["segment"].tolist() == ["before word", "before word"]
    assert table["before"].tolist() == [3, 1]


def test_the_features_that_changed_most_in_the_order_of_features() -> None:
    before, after = feature_effects([BEFORE, BEFORE]), feature_effects([AFTER, BEFORE])
    assert np.array_equal(before[0], [[1, 2, 0], [0, 0, 1]])  # summed over positions
    table = feature_changes(before, after, n_top=2)
    assert table["feature"].tolist() == ["L0/F1", "L1/F2"]
    assert table["effect_from"].tolist() == [2, 1]
    assert table["change"].tolist() == [0.5, -1]
    assert table["agreement"].tolist() == [0.5, 0.5]


PROMPTS = [
    replace(PROMPT, id="blarf"),
    replace(PROMPT, id="glide", type="spatial", word="glide"),
    replace(PROMPT, id="unseen", role="evaluation"),
    replace(PROMPT, id="control", role="control", type=None, word=None, template=None),
]
RUNS = [Run("mapped", 1), Run("mapped", 0), Run("shuffled", 0)]


def model(seed: int, noise: float) -> list[Circuit]:
    """One circuit of each prompt, common to all models, and the model's own noise."""
    common = np.random.default_rng(0).normal(size=(4, 2, 2, 3))
    values = common + noise * np.random.default_rng(seed).normal(size=common.shape)
    made = [
        circuit(prompt, effects=effects.astype(np.float32))
        for prompt, effects in zip(PROMPTS, values, strict=True)
    ]
    return [made[0], *(replace(one, graph=None) for one in made[1:])]


def traced() -> Iterator[Traced]:
    """Two checkpoints of three runs; training moves further than the random adapter."""
    for step, checkpoint in enumerate(("050", "100"), start=1):
        for index, run in enumerate(RUNS):
            yield run, checkpoint, "trained", model(10 * step + index, 0.5 * step)
            yield run, checkpoint, "random-0", model(100 + 10 * step + index, 0.1)


@pytest.fixture(scope="module")
def study() -> tuple[dict[str, pd.DataFrame], FeatureEffects]:
    """Every table of the walk, and what it returns."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    walk = compare_checkpoints(model(1, 0.0), traced(), SETTINGS, 0, 2)
    while True:
        try:
            name, some = next(walk)
        except StopIteration as end:
            return {name: pd.DataFrame(some) for name, some in rows.items()}, end.value
        rows[name] += some


def test_every_checkpoint_is_compared_with_the_base_and_with_the_one_before(study: Any) -> None:
    drift = study[0]["drift"]
    assert drift.groupby(["change", "from", "to"]).size().to_dict() == {
        ("random-0", "base", "050"): 12,
        ("random-0", "base", "100"): 12,
        ("trained", "050", "100"): 12,
        ("trained", "base", "050"): 12,
        ("trained", "base", "100"): 12,
    }
    assert set(drift.loc[drift["node_jaccard"].notna(), "prompt"]) == {"blarf"}
    means = drift[drift["from"] == BASE].groupby(["change", "to"])["drift"].mean()
    assert means["trained", "100"] > means["trained", "050"] > means["random-0", "100"]
    one = drift.query("run == 'mapped-0' and `from` == '050' and prompt == 'glide'")
    before, after = (model(10 * step + 1, 0.5 * step)[1].effects for step in (1, 2))
    assert one["drift"].item() == pytest.approx(effect_change(before, after).drift)


def test_places_and_features_are_of_trained_checkpoints(study: Any) -> None:
    places, features = (study[0][name] for name in ("change_by_place", "changed_features"))
    assert set(places["from"]) == {BASE}
    assert set(zip(places["role"], places["type"], strict=True)) == {
        ("discovery", "simple"),
        ("discovery", "spatial"),
        ("control", ""),
    }
    assert len(places) == 3 * 2 * 3 * 2 * 2
    assert len(features) == 3 * 3 * SETTINGS.top_features


def test_runs_are_compared_with_each_other_at_every_checkpoint(study: Any) -> None:
    between = study[0]["between_runs"]
    pairs = between.groupby(["checkpoint", "run_a", "run_b"]).size()
    assert len(pairs) == 2 * 3
    assert set(pairs) == {4}
    assert list(pairs["100"].index) == [
        *(("mapped-0", "mapped-1"), ("mapped-0", "shuffled-0")),
        ("mapped-1", "shuffled-0"),
    ]


def test_overlap_is_of_all_pairs_of_checkpoints_run_by_run(study: Any) -> None:
    overlap = study[0]["overlap"]
    assert list(overlap["run"].unique()) == ["mapped-0", "mapped-1", "shuffled-0"]
    assert len(overlap) == 3 * 3 * 3 * 2
    assert overlap["threshold"].unique().tolist() == [0.5, 0.9]


def test_what_is_handed_on_is_the_last_checkpoint_of_every_run(study: Any) -> None:
    effects = study[1]
    assert effects.prompts == PROMPTS
    assert np.array_equal(effects.base, feature_effects(model(1, 0.0)))
    assert np.array_equal(effects.runs[RUNS[2]], feature_effects(model(22, 1.0)))
    assert np.array_equal(effects.random[RUNS[2]], feature_effects(model(122, 0.1)))
