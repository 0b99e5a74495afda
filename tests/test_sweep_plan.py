"""Which experiments a sweep consists of, and what is refused of sweep.yaml."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from circuitdrift.config.params import Params
from circuitdrift.errors import InputError
from circuitdrift.scaling.frames import flattened
from circuitdrift.sweeps.plan import Sweep, load_sweep
from circuitdrift.training import total_steps
from conftest import ROOT

HEAD = "every: {runs.seeds: [0]}\nmemory_gb: 1\n"


@pytest.fixture
def study_root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "constraints.yaml", tmp_path / "data")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def planned(root: Path, arms: str, head: str = HEAD) -> Sweep:
    (root / "sweep.yaml").write_text(head + "arms:\n" + arms, encoding="utf-8")
    return load_sweep(root)


def refused(root: Path, arms: str, head: str = HEAD) -> str:
    with pytest.raises(InputError) as caught:
        planned(root, arms, head)
    return str(caught.value)


def test_the_shipped_sweep() -> None:
    sweep = load_sweep(ROOT)
    grid, matched, ladder = sweep.arms
    assert (grid.kind, len(grid.members)) == ("product", 9)
    assert grid.keys == ("train.epochs", "dataset.n_examples")
    # The study's own size and length is in all three arms, and run once.
    assert matched.members[1] == ladder.members[-1] == "n_examples-50-epochs-3"
    assert len(sweep.members) == 9 + 2 + 8
    assert len({member.name for member in sweep.members}) == len(sweep.members)


def test_no_rung_of_the_shipped_ladder_hides_a_change_of_steps() -> None:
    sweep = load_sweep(ROOT)
    by_name = {member.name: member.params for member in sweep.members}
    steps = [steps_of(by_name[name]) for name in sweep.arms[-1].members]
    assert steps == [27] * (len(steps) - 1) + [21]  # the last changes the steps alone
    before, last = (flattened(by_name[name]) for name in sweep.arms[-1].members[-2:])
    assert [key for key in before if before[key] != last[key]] == ["train.epochs"]


def steps_of(params: Params) -> int:
    train = params.train
    return total_steps(params.dataset.n_examples, train.batch_size, train.epochs)


def test_a_product_is_every_combination(study_root: Path) -> None:
    arms = "  a: {product: {train.epochs: [1, 2], train.lora.r: [4, 8]}}"
    sweep = planned(study_root, arms)
    assert [(m.name, m.params.train.epochs, m.params.train.lora.r) for m in sweep.members] == [
        ("epochs-1-r-4", 1, 4),
        ("epochs-1-r-8", 1, 8),
        ("epochs-2-r-4", 2, 4),
        ("epochs-2-r-8", 2, 8),
    ]
    assert sweep.members[0].changes == {"runs.seeds": [0], "train.epochs": 1, "train.lora.r": 4}
    assert all(member.params.runs.seeds == (0,) for member in sweep.members)


def test_values_together_go_side_by_side(study_root: Path) -> None:
    arms = "  a: {together: {train.epochs: [5.25, 0.84], dataset.n_examples: [25, 200]}}"
    sweep = planned(study_root, arms)
    assert sweep.arms[0].members == ("n_examples-25-epochs-5.25", "n_examples-200-epochs-0.84")


def test_a_rung_keeps_the_changes_of_those_before(study_root: Path) -> None:
    arms = "  a: {rungs: {low: {train.epochs: 1, train.batch_size: 1}, high: {train.epochs: 2}}}"
    low, high = planned(study_root, arms).members
    assert (low.name, low.params.train.epochs, low.params.train.batch_size) == ("low", 1, 1)
    assert (high.name, high.params.train.epochs, high.params.train.batch_size) == ("high", 2, 1)


def test_an_experiment_of_two_arms_is_one(study_root: Path) -> None:
    arms = (
        "  a: {product: {train.epochs: [1, 2]}}\n"
        "  b: {rungs: {other: {train.epochs: 2.0}, last: {train.lora.r: 4}}}"
    )
    sweep = planned(study_root, arms)
    assert [member.name for member in sweep.members] == ["epochs-1", "epochs-2", "last"]
    assert [arm.members for arm in sweep.arms] == [("epochs-1", "epochs-2"), ("epochs-2", "last")]


def test_keys_that_end_alike_are_written_out(study_root: Path) -> None:
    arms = "  a: {product: {evaluate.batch_size: [16], train.batch_size: [4]}}"
    (member,) = planned(study_root, arms).members
    assert member.name == "evaluate.batch_size-16-train.batch_size-4"


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ("  {}", "arms"),
        ("  a: {product: {}}", "arms.a.product"),
        ("  a: {product: {train.epochs: []}}", "must have at least 1 entry"),
        ("  a: {product: {train.epoch: [1]}}", "did you mean 'train.epochs'?"),
        ("  a: {product: {train: [1]}}", "a key of params.yaml with its section in front"),
        ("  a: {product: {train.epochs: [-1]}}", "sweep.yaml (epochs-1): train.epochs"),
        ("  a: {product: {dataset.n_examples: [100000]}}", "sweep.yaml (n_examples-100000)"),
        ("  a: {together: {train.epochs: [1, 2], train.lora.r: [4]}}", "equally many values"),
        ("  a: {grid: {train.epochs: [1]}}", "must have one of the keys"),
        (
            "  a: {product: {train.epochs: [1]}, together: {train.epochs: [1]}}",
            "must have one of the keys",
        ),
        ("  a: {rungs: {'a b': {train.epochs: 1}}}", "must match pattern"),
        (
            "  a: {rungs: {one: {train.epochs: 1}}}\n  b: {rungs: {one: {train.epochs: 2}}}",
            "experiments with different params have different names",
        ),
    ],
)
def test_what_is_refused(study_root: Path, arms: str, said: str) -> None:
    assert said in refused(study_root, arms)


def test_a_key_of_every_that_is_not_there_is_refused(study_root: Path) -> None:
    head = "every: {runs.seed: [0]}\nmemory_gb: 1\n"
    message = refused(study_root, "  a: {product: {train.epochs: [1]}}", head)
    assert "sweep.yaml: every: got 'runs.seed'" in message
    assert "did you mean 'runs.seeds'?" in message


def test_all_refused_values_are_named_at_once(study_root: Path) -> None:
    arms = "  a: {product: {train.epochs: [-1, -2]}}"
    assert refused(study_root, arms).count("rule:") == 2
