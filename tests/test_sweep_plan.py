"""Which experiments a sweep consists of, what is refused of sweep.yaml, and workers that fit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from circuitdrift.check import check_params
from circuitdrift.core.errors import InputError
from circuitdrift.core.study import total_steps
from circuitdrift.params import Params, load_params
from circuitdrift.sweep.plan import Sweep, fitting_workers, load_sweep

ROOT = Path(__file__).resolve().parents[1]
HEAD = "every: {runs.seeds: [0], intervene.seeds: []}\nmemory_gb: 1\n"


@pytest.fixture
def study_root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "constraints.yaml", tmp_path / "data")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def planned(root: Path, arms: str, head: str = HEAD) -> Sweep:
    (root / "sweep.yaml").write_text(head + "arms:\n" + arms, encoding="utf-8")
    return load_sweep(root)


@pytest.fixture(scope="module")
def shipped() -> Sweep:
    return load_sweep(ROOT)


def test_the_shipped_sweep_is_the_registered_one(shipped: Sweep) -> None:
    params = {each.name: Params.model_validate(each.params) for each in shipped.experiments}
    cells = {
        arm: {(p.dataset.n_examples, p.train.epochs) for p in (params[n] for n in names)}
        for arm, names in shipped.arms.items()
    }
    assert cells["grid"] == {(n, epochs) for n in (25, 50, 200) for epochs in (1, 3, 10)}
    assert cells["matched-steps"] == {(25, 5.25), (50, 3), (200, 0.84)}
    for name in {*shipped.arms["grid"], *shipped.arms["matched-steps"], "original-regime"}:
        assert params[name].runs.conditions == ("mapped", "rotated-1", "rotated-2")
        assert params[name].runs.seeds == (0, 1)
        constant = name != "original-regime"
        assert params[name].train.schedule == ("constant" if constant else "linear")
        # As in the default study, whose drift between runs RQ3.2 compares with.
        default = load_params(ROOT / "params.yaml").attribution.near_prompts_per_word
        assert params[name].attribution.near_prompts_per_word == default
    assert {_steps(params[name]) for name in shipped.arms["matched-steps"]} == {21}
    # The size and length of the study stand in both arms, and are run once.
    assert shipped.arms_with("n_examples-50-epochs-3") == ["grid", "matched-steps"]
    assert len(shipped.experiments) == sum(map(len, shipped.arms.values())) - 1
    for p in params.values():
        assert p.intervene.conditions == p.attribution.graph_seeds == ()
        assert p.train.checkpoints[-1] == 1.0


def test_the_shipped_sweep_goes_from_the_original_to_the_study(shipped: Sweep) -> None:
    params = {each.name: each.params for each in shipped.experiments}
    rungs = [params[name] for name in shipped.arms["ladder"]]
    # No rung hides a change of steps; the last changes them alone.
    assert [_steps(Params.model_validate(each)) for each in rungs] == [27] * 8 + [21]
    before, last = rungs[-2:]
    assert {**before, "train": {**before["train"], "epochs": last["train"]["epochs"]}} == last
    first, regime = rungs[0], params["original-regime"]
    assert {**first, "runs": regime["runs"]} == regime
    long = Params.model_validate(params["original-904"])
    assert _steps(long) == 904
    # As many examples as the pool gives.
    more = {**params["original-904"]["dataset"], "n_examples": long.dataset.n_examples + 6}
    with pytest.raises(InputError, match="n_examples"):
        check_params(
            Params.model_validate({**params["original-904"], "dataset": more}), ROOT, "params.yaml"
        )


def _steps(params: Params) -> int:
    train = params.train
    return total_steps(params.dataset.n_examples, train.batch_size, train.epochs)


def test_a_product_is_every_combination(study_root: Path) -> None:
    arms = "  a: {product: {train.epochs: [2, 3], train.lora.r: [4, 8]}}"
    experiments = planned(study_root, arms).experiments
    assert [each.name for each in experiments] == [
        "epochs-2-r-4",
        "epochs-2-r-8",
        "epochs-3-r-4",
        "epochs-3-r-8",
    ]
    changes = {"train.epochs": 2, "train.lora.r": 8}
    assert experiments[1].changes == {"runs.seeds": [0], "intervene.seeds": [], **changes}
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


def test_an_arm_sets_its_own_over_that_of_every(study_root: Path) -> None:
    arms = """
  a: {every: {runs.seeds: [1], train.epochs: 2}, named: {one: {}, two: {train.epochs: 4}}}
  b: {named: {three: {train.lora.r: 4}}}"""
    params = {
        each.name: Params.model_validate(each.params)
        for each in planned(study_root, arms).experiments
    }
    seen = {name: (p.runs.seeds, p.train.epochs, p.train.lora.r) for name, p in params.items()}
    assert seen == {"one": ((1,), 2, 8), "two": ((1,), 4, 8), "three": ((0,), 3, 4)}


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
    assert sweep.arms["b"] == ("epochs-3", "last")
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
        ("  a: {every: {train.epochs: 1}}", "sweep.yaml: arms.a"),
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


def test_as_many_workers_as_cores_and_memory_hold(
    shipped: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Memory:
        available = 20e9

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    for cores, workers in ((1, 1), (2, 2), (8, 3)):  # three times 6 GB are there
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert fitting_workers(shipped) == workers
    Memory.available = 1e9
    assert fitting_workers(shipped) == 1
