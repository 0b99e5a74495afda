"""Which experiments a sweep consists of, what is refused of sweep.yaml, and workers that fit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from circuitdrift.core.errors import InputError
from circuitdrift.core.study import total_steps
from circuitdrift.params import Params
from circuitdrift.sweep.plan import Sweep, fitting_workers, load_sweep

ROOT = Path(__file__).resolve().parents[1]
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


def test_the_shipped_sweep() -> None:
    sweep = load_sweep(ROOT)
    grid, matched = sweep.arms["product"]["grid"], sweep.arms["together"]["matched-steps"]
    ladder = sweep.arms["rungs"]["ladder"]
    assert (len(grid), len(matched), len(ladder)) == (9, 3, 9)
    # The study's own size and length is in all three arms, and run once.
    assert len(sweep.experiments) == 9 + 2 + 8
    assert set(grid) & set(matched) & set(ladder) == {"n_examples-50-epochs-3"}
    assert sweep.arms_with("original") == ["ladder"]
    # No rung hides a change of steps; the last changes them alone.
    params = {each.name: each.params for each in sweep.experiments}
    rungs = [params[name] for name in sweep.arms["rungs"]["ladder"]]
    steps = [
        total_steps(each.dataset.n_examples, each.train.batch_size, each.train.epochs)
        for each in map(Params.model_validate, rungs)
    ]
    assert steps == [27] * 8 + [21]
    before, last = rungs[-2:]
    assert {**before, "train": {**before["train"], "epochs": last["train"]["epochs"]}} == last


def test_a_product_is_every_combination(study_root: Path) -> None:
    arms = "  a: {product: {train.epochs: [2, 3], train.lora.r: [4, 8]}}"
    experiments = planned(study_root, arms).experiments
    assert [each.name for each in experiments] == [
        "epochs-2-r-4",
        "epochs-2-r-8",
        "epochs-3-r-4",
        "epochs-3-r-8",
    ]
    changes = {"runs.seeds": [0], "train.epochs": 2, "train.lora.r": 8}
    assert experiments[1].changes == changes
    params = Params.model_validate(experiments[1].params)
    assert (params.runs.seeds, params.train.epochs, params.train.lora.r) == ((0,), 2, 8)


def test_values_together_go_side_by_side_and_rungs_keep_changes(study_root: Path) -> None:
    arms = """
  a: {together: {train.epochs: [5.25, 0.84], dataset.n_examples: [25, 200]}}
  b: {rungs: {low: {train.epochs: 1, train.batch_size: 1}, high: {train.epochs: 2}}}
  c: {product: {evaluate.batch_size: [16], train.batch_size: [4]}}"""
    experiments = {each.name: each.params for each in planned(study_root, arms).experiments}
    assert list(experiments) == [
        "n_examples-25-epochs-5.25",
        "n_examples-200-epochs-0.84",
        "low",
        "high",
        "evaluate.batch_size-16-train.batch_size-4",  # keys that end alike are written out
    ]
    high = experiments["high"]["train"]
    assert (high["epochs"], high["batch_size"]) == (2, 1)


def test_directories_are_named_for_git_and_found_from_every_folder(
    study_root: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(study_root))
    for name in ("one", "two"):
        shutil.copytree(tiny_base, study_root / "my models" / name)
    arms = '  a: {product: {base.directory: ["./my models/../my models/one", "~/my models/two"]}}'
    head = HEAD.replace("[0]", "[0], base.model: directory")
    sweep = planned(study_root, arms, head)
    places = [each.params["base"]["directory"] for each in sweep.experiments]
    assert places == [str(study_root / "my models" / name) for name in ("one", "two")]
    for each in sweep.experiments:
        git = ["git", "check-ref-format", f"refs/exps/{each.name}"]
        assert subprocess.run(git, check=False).returncode == 0
    # Also where params.yaml names the directory and the sweep varies something else.
    params = (study_root / "params.yaml").read_text(encoding="utf-8")
    relative = params.replace("directory: models/own", 'directory: "my models/one"')
    (study_root / "params.yaml").write_text(relative, encoding="utf-8")
    (experiment,) = planned(study_root, "  a: {product: {train.epochs: [4]}}", head).experiments
    assert experiment.changes["base.directory"] == places[0]
    with pytest.raises(InputError, match=r"sweep\.yaml .*base\.model: .*base\.directory: PATH"):
        planned(study_root, '  a: {product: {base.model: ["dir:../my-models/one"]}}')


def test_an_experiment_of_two_arms_is_one(study_root: Path) -> None:
    arms = (
        "  a: {product: {train.epochs: [2, 3]}}\n"
        "  b: {rungs: {other: {train.epochs: 3.0}, last: {train.lora.r: 4}}}"
    )
    sweep = planned(study_root, arms)
    assert [each.name for each in sweep.experiments] == ["epochs-2", "epochs-3", "last"]
    assert sweep.arms["rungs"] == {"b": ("epochs-3", "last")}
    assert sweep.arms_with("epochs-3") == ["a", "b"]


@pytest.mark.parametrize(
    ("arms", "place"),
    [
        ("  {}", "sweep.yaml: arms"),
        ("  a: {product: {}}", "sweep.yaml: arms.a.product"),
        ("  a: {product: {train.epochs: []}}", "sweep.yaml: arms.a.product.train.epochs"),
        ("  a: {product: {train.epoch: [1]}}", "sweep.yaml (epoch-1): train.epoch"),
        ("  a: {product: {train: [1]}}", "sweep.yaml (train-1): train"),
        ("  a: {product: {epochs: [1]}}", "sweep.yaml (epochs-1): epochs"),
        ("  a: {product: {train.epochs.all: [1]}}", "sweep.yaml (all-1): train.epochs"),
        ("  a: {product: {training.epochs: [1]}}", "sweep.yaml (epochs-1): training"),
        ("  a: {product: {train.epochs: [-1]}}", "sweep.yaml (epochs-1): train.epochs"),
        ("  a: {product: {dataset.n_examples: [100000]}}", "sweep.yaml (n_examples-100000)"),
        ("  a: {together: {train.epochs: [2, 3], train.lora.r: [4]}}", "equally many"),
        ("  a: {grid: {train.epochs: [1]}}", "sweep.yaml: arms.a.grid"),
        ("  a: {product: {train.epochs: [1]}, rungs: {b: {train.epochs: 1}}}", "arms.a"),
        ("  a: {rungs: {'a b': {train.epochs: 1}}}", "arms.a.rungs"),
        (
            "  a: {rungs: {one: {train.epochs: 1}}}\n  b: {rungs: {one: {train.epochs: 2}}}",
            "sweep.yaml: arms.b",
        ),
    ],
)
def test_what_is_refused(study_root: Path, arms: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        planned(study_root, arms)
    assert place in str(caught.value)


def test_a_key_of_every_that_is_not_there_is_refused(study_root: Path) -> None:
    head = HEAD.replace("runs.seeds", "runs.seed")
    with pytest.raises(InputError, match=r"\(epochs-1\): runs\.seed: .*'seeds'"):
        planned(study_root, "  a: {product: {train.epochs: [1]}}", head)


def test_as_many_workers_as_cores_and_memory_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep(ROOT)

    class Memory:
        available = 20e9

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    for cores, workers in ((1, 1), (2, 2), (8, 3)):  # three times 6 GB are there
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert fitting_workers(sweep) == workers
    Memory.available = 1e9
    assert fitting_workers(sweep) == 1
