"""Every refusal that params.yaml alone can show: file, key, value, and pydantic's message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.study import Run
from circuitdrift.core.yaml import read_yaml, validate
from circuitdrift.params import Params, load_params

ROOT = Path(__file__).resolve().parents[1]


def keys_of(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of every section and field."""
    for key, value in section.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


KEYS = list(keys_of(read_yaml(ROOT / "params.yaml")))
NONSENSE: list[Any] = [None, -1, True, float("nan"), {"no": 1}, [[]]]
MAY_BE_0 = {
    *("intervene.seed", "statistics.seed", "train.warmup_steps", "train.weight_decay"),
    *("train.lora.dropout", "attribution.graph_prompts_per_word"),
    *("attribution.graph_control_prompts", "nulls.random_lora"),
    *("verdicts.min_consistency_gain", "verdicts.min_distance_closed"),
    *("verdicts.min_donor_difference", "verdicts.max_accuracy_from_chance"),
    *("verdicts.min_accuracy_above_chance", "verdicts.min_substitution_above_chance"),
}
# What docs/preregistration.md says of each threshold, with the value that params.yaml must have.
REGISTERED = {
    "alpha": (0.05, "its test has p ≤ .05"),
    "coverage": ([0.93, 0.97], "97 % the interval is not printed, and the criterion cannot fail"),
    "min_consistency_gain": (0.10, "and an `unrelated` run is at least .10; test: 70 relabelings"),
    "min_assignment_ratio": (1.05, "near prompts, at least 1.05, and above the same ratio on"),
    "min_distance_closed": (0.10, "Distance closed beyond it is at least .10; interval over words"),
    "patched_nodes": (100, "the 100 nodes with the largest mean"),
    "min_donor_difference": (1.0, "below 1 logit (signed) are left out and named"),
    "min_patched_words": (5, "with fewer than five left the criterion is undecided"),
    "min_step_ratio": (1.05, "at least 1.05 for one of 25→50, 50→75, 75→100"),
    "min_accuracy_above_chance": (0.20, "balanced accuracy on near prompts at least ⅓ + .20"),
    "min_discrimination": (0.75, "discrimination at least .75"),
    "min_substitution_above_chance": (0.10, "substitution at least ⅓ + .10"),
    "max_range_share": (0.5, "is less than half of the range over 1, 3, 10 epochs"),
    "max_accuracy_from_chance": (0.05, "lies within ⅓ ± .05"),
}
OUT_OF_RANGE: dict[str, list[Any]] = {
    "runs.conditions": ["mapped", [], ["maped"], ["mapped", "mapped"]],
    "runs.seeds": [[], [0, 0], [2**31]],
    "base.model": ["gemma", "dir:models/own", "hub:a/b@main"],
    "dataset.n_examples": [50.0],
    "dataset.constraints": [""],
    "dataset.examples_from": [""],
    "train.epochs": ["three"],
    "train.schedule": ["cosine"],
    "train.loss_on": ["answers"],
    "train.checkpoints": [[], [0.5, 0.25], [0.251, 0.252], [0.001], [0.5, 1.5], [0, 1]],
    "train.lora.dropout": [1],
    "train.lora.target_modules": ["mlp"],
    "attribution.engine": ["sweep"],
    "attribution.control_prompts": [1],
    "attribution.node_threshold": [80],
    "compare.fdr": [1],
    "intervene.conditions": [["mapped", "mapped"]],
    "intervene.sizes": [[0.01, 0.002], [0.01, 0.01], [0]],
    "intervene.seeds": [[2, 2]],
    "intervene.patched_nodes": [[], [3, 1], [1.0], [0]],
    "statistics.confidence": [95],
    "verdicts.min_consistency_gain": [1],
    "verdicts.coverage": [[0.97, 0.93]],
}
IN_RANGE: dict[str, list[Any]] = {
    **{key: [0] for key in MAY_BE_0},
    "runs.seeds": [[2**31 - 1]],
    "base.model": ["tiny", "directory", f"hub:some-one/model.v2@{'0a' * 20}"],
    "train.epochs": [0.5],
    "train.checkpoints": [[0.01, 0.02]],
    "attribution.node_threshold": [1],
    **{key: [[]] for key in ("attribution.graph_seeds", "nulls.seeds", "intervene.seeds")},
    "intervene.conditions": [[]],
    "intervene.patched_nodes": [[1]],
}


def load_with(changes: dict[str, Any], remove: str = "") -> Params:
    """The study's own params with dotted keys set to other values, and one removed."""
    params = read_yaml(ROOT / "params.yaml")
    for key in [*changes, remove]:
        *sections, last = key.split(".")
        section = params
        for part in sections:
            section = section[part]
        if key in changes:
            section[last] = changes[key]
        else:
            section.pop(last, None)
    return validate(Params, params, source="params.yaml")


def refusals(changes: dict[str, Any], remove: str = "") -> tuple[Problem, ...]:
    with pytest.raises(InputError) as refused:
        load_with(changes, remove)
    return refused.value.problems


def test_runs_are_conditions_times_seeds_and_checkpoints_are_percents() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.runs.all[::5] == (
        *(Run("mapped", 0), Run("rotated-1", 1), Run("rotated-2", 2), Run("shuffled", 3)),
    )
    assert params.train.checkpoint_names == ("025", "050", "075", "100")


@pytest.mark.parametrize("key", KEYS)
def test_nonsense_is_refused_by_its_key(key: str) -> None:
    for value in NONSENSE if key in MAY_BE_0 else [*NONSENSE, 0]:
        for problem in refusals({key: value}):
            assert f"{problem.where}.".startswith(f"params.yaml: {key}.")


@pytest.mark.parametrize("key", KEYS)
def test_a_misspelt_key_is_named_with_the_one_meant(key: str) -> None:
    missing, unknown = refusals({f"{key}x": 0}, remove=key)
    assert str(missing) == f"params.yaml: {key}: Field required (got nothing)"
    assert unknown.where == f"params.yaml: {key}x"
    assert unknown.remedy == f"did you mean {key.rpartition('.')[2]!r}?"


@pytest.mark.parametrize("key", OUT_OF_RANGE)
def test_a_value_out_of_range_is_one_line_that_names_it(key: str) -> None:
    for value in OUT_OF_RANGE[key]:
        (problem,) = refusals({key: value})
        item = problem.where.removeprefix(f"params.yaml: {key}").removeprefix(".")
        assert problem.got == (value[int(item)] if item else value)
        assert str(problem) == f"{problem.where}: {problem.rule} (got {problem.got!r})"
        assert " should " in problem.rule


@pytest.mark.parametrize("key", sorted(IN_RANGE))
def test_a_value_at_the_edge_of_its_range_is_accepted(key: str) -> None:
    for value in IN_RANGE[key]:
        load_with({key: value})


def test_the_registered_thresholds_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "preregistration.md").read_text(encoding="utf-8")
    registered = read_yaml(ROOT / "params.yaml")["verdicts"]
    assert registered == {key: value for key, (value, _) in REGISTERED.items()}
    assert not [phrase for _, phrase in REGISTERED.values() if phrase not in text]


def test_every_bad_value_is_named_at_once() -> None:
    first, *others = refusals({"train.epochs": -1, "train.batch_size": 0, "compare.x": 0})
    assert str(first) == "params.yaml: train.epochs: Input should be greater than 0 (got -1)"
    keys = [problem.where.partition(" ")[2] for problem in others]
    assert keys == ["train.batch_size", "compare.x"]


@pytest.mark.parametrize(
    ("content", "where", "got"),
    [
        ("a: 1\nb: !!python/object/apply:os.abort []", "params.yaml, line 2", "os.abort"),
        ("a: 1\nb: [3", "params.yaml, line 2", "expected ',' or ']'"),
        ("a: 1\na: 2", "params.yaml, line 2", "duplicate key"),
        ("base: {model: \xff}", "params.yaml", "0xff"),
        ("", "params.yaml", "nothing"),
        ("[1, 2]", "params.yaml", "[1, 2]"),
        (None, "params.yaml", "no such file"),
    ],
)
def test_what_is_no_mapping_in_plain_yaml_is_refused(
    tmp_path: Path, content: str | None, where: str, got: str
) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as refused:
        load_params(path)
    (problem,) = refused.value.problems
    assert problem.where.removeprefix(f"{tmp_path}/") == where
    assert got in str(problem)
