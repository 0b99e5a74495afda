"""Every refusal that params.yaml alone can show: file, key, value, rule and remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from circuitdrift.config.params import load_params
from circuitdrift.errors import InputError, Problem
from circuitdrift.identifiers import Run

ROOT = Path(__file__).resolve().parents[1]
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")


def edited(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of params.yaml with the one place that reads ``old`` changed."""
    assert PARAMS.count(old) == 1, f"params.yaml has {old!r} {PARAMS.count(old)} times"
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace(old, new), encoding="utf-8")
    return path


def refusals(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as refused:
        load_params(path)
    return refused.value.problems


def test_the_studys_own_params_are_accepted() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.runs.all == tuple(
        Run(condition, seed) for condition in ("mapped", "shuffled") for seed in range(5)
    )
    assert params.train.checkpoint_names == ("025", "050", "075", "100")


def test_runs_are_conditions_times_seeds(tmp_path: Path) -> None:
    path = edited(tmp_path, "conditions: [mapped, shuffled]", "conditions: [unrelated, mapped]")
    path.write_text(path.read_text().replace("seeds: [0, 1, 2, 3, 4]", "seeds: [0, 3]"))
    names = [run.name for run in load_params(path).runs.all]
    assert names == ["unrelated-0", "unrelated-3", "mapped-0", "mapped-3"]


def test_what_is_off_is_none(tmp_path: Path) -> None:
    """No graphs, no random adapters, no random models; a planted neuron may be silenced."""
    path = edited(tmp_path, "random_lora: 1", "random_lora: 0")
    text = path.read_text()
    for old, new in (
        ("graph_prompts_per_word: 1", "graph_prompts_per_word: 0"),
        ("graph_control_prompts: 2", "graph_control_prompts: 0"),
        ("scale: 3.0", "scale: 0.0"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    params = load_params(path)
    assert params.nulls.random_lora == params.nulls.random_models == 0
    assert params.nulls.planted.scale == 0
    assert params.attribution.graph_prompts_per_word == 0
    assert params.attribution.graph_control_prompts == 0


EPOCHS = "set train.epochs to the number of passes over the training examples, such as 3"
CHECKPOINTS = (
    "set train.checkpoints to ascending fractions of the run's steps, "
    "such as [0.25, 0.5, 0.75, 1.0]"
)
CONDITIONS = "set runs.conditions to one condition or more, such as [mapped, shuffled]"
SEEDS = "set runs.seeds to one seed per repetition, such as [0, 1, 2]"
THRESHOLDS = (
    "set compare.thresholds to shares of |effect| that node sets hold, such as [0.5, 0.7, 0.9]"
)
SIZES = (
    "set validation.sizes to ascending shares of all nodes that a circuit holds, "
    "such as [0.001, 0.01, 0.1, 1.0]"
)
UNSORTED = [0.01, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
RESTORE = "write it as in the file that git keeps (`git diff` shows what changed)"
MODELS = (
    "must be one of gemma-3-270m, smollm2-135m, tiny; dir:PATH; or hub:OWNER/NAME@REVISION, "
    "the revision being a commit of 40 hex digits"
)


class Refusal(NamedTuple):
    """``old`` in params.yaml, replaced by ``new``, is refused as the rest says."""

    old: str
    new: str
    key: str
    got: object
    rule: str
    remedy: str


REFUSALS = [
    Refusal("epochs: 3", "epochs: -3", "train.epochs", -3, "must be greater than 0", EPOCHS),
    Refusal("epochs: 3", "epochs: .inf", "train.epochs", float("inf"), "finite number", EPOCHS),
    Refusal(
        "epochs: 3", "epochs: three", "train.epochs", "three", "must be a valid number", EPOCHS
    ),
    Refusal("epochs: 3", "epochs: true", "train.epochs", True, "must be a valid number", EPOCHS),
    Refusal(
        "n_examples: 50",
        "n_examples: 5e1",
        "dataset.n_examples",
        50.0,
        "must be a valid integer",
        "set dataset.n_examples to the number of training examples, such as 50",
    ),
    Refusal(
        "75, 1.0]",
        "75, 1.5]",
        "train.checkpoints.3",
        1.5,
        "less than or equal to 1",
        CHECKPOINTS,
    ),
    Refusal("[0.25, 0", "[0, 0", "train.checkpoints.0", 0, "must be greater than 0", CHECKPOINTS),
    Refusal(
        "[0.25, 0.5, 0.75, 1.0]",
        "[0.5, 0.25]",
        "train.checkpoints",
        [0.5, 0.25],
        "must ascend",
        CHECKPOINTS,
    ),
    Refusal(
        "[0.25, 0.5, 0.75, 1.0]",
        "[]",
        "train.checkpoints",
        [],
        "must have at least 1 entry",
        CHECKPOINTS,
    ),
    Refusal(
        "node_threshold: 0.8",
        "node_threshold: 80",
        "attribution.node_threshold",
        80,
        "must be less than or equal to 1",
        "set attribution.node_threshold to the share of influence that the kept nodes hold, "
        "such as 0.8",
    ),
    Refusal(
        "model: gemma-3-270m",
        "model: gemma",
        "base.model",
        "gemma",
        MODELS,
        "set base.model to the name of a base model, such as gemma-3-270m",
    ),
    Refusal(
        "model: gemma-3-270m",
        "model: hub:a/b@main",
        "base.model",
        "hub:a/b@main",
        MODELS,
        "set base.model to the name of a base model, such as gemma-3-270m",
    ),
    Refusal(
        "[mapped, shuffled]",
        "[maped]",
        "runs.conditions.0",
        "maped",
        "must be 'mapped', 'shuffled' or 'unrelated'",
        "did you mean 'mapped'?",
    ),
    Refusal(
        "[mapped, shuffled]",
        "[both]",
        "runs.conditions.0",
        "both",
        "must be 'mapped', 'shuffled' or 'unrelated'",
        CONDITIONS,
    ),
    Refusal(
        "[mapped, shuffled]", "mapped", "runs.conditions", "mapped", "must be a list", CONDITIONS
    ),
    Refusal(
        "[mapped, shuffled]", "[]", "runs.conditions", [], "must have at least 1 entry", CONDITIONS
    ),
    Refusal(
        "seeds: [0, 1, 2, 3, 4]", "seeds: []", "runs.seeds", [], "must have at least 1 entry", SEEDS
    ),
    Refusal(
        "seeds: [0, 1, 2, 3, 4]", "seeds: [0, 0]", "runs.seeds", [0, 0], "must all differ", SEEDS
    ),
    Refusal(
        "seeds: [0, 1, 2, 3, 4]",
        "seeds: [0, -1]",
        "runs.seeds.1",
        -1,
        "greater than or equal to 0",
        SEEDS,
    ),
    Refusal(
        "warmup_steps: 0",
        "warm_up_steps: 0\n  warmup_steps: 0",
        "train.warm_up_steps",
        0,
        "no such key",
        "did you mean 'warmup_steps'?",
    ),
    Refusal(
        "    r: 8",
        "    r: 8\n    colour: red",
        "train.lora.colour",
        "red",
        "no such key",
        "remove it; known: alpha, dropout, r, target_modules",
    ),
    Refusal(
        "  n_examples: 50\n",
        "",
        "dataset.n_examples",
        "nothing",
        "the key is required",
        "add dataset.n_examples: the number of training examples, such as 50",
    ),
    Refusal(
        "control_prompts: 12",
        "control_prompts: 1",
        "attribution.control_prompts",
        1,
        "must be greater than or equal to 2",
        "set attribution.control_prompts to the number of control prompts, such as 12",
    ),
    Refusal(
        "random_lora: 1",
        "random_lora: -1",
        "nulls.random_lora",
        -1,
        "must be greater than or equal to 0",
        "set nulls.random_lora to the number of random adapters per checkpoint of a run, such as 1",
    ),
    Refusal(
        "    scale: 3.0",
        "    scale: -3.0",
        "nulls.planted.scale",
        -3.0,
        "must be greater than or equal to 0",
        "set nulls.planted.scale to what the planted neuron's output is multiplied by, such as 3.0",
    ),
    Refusal(
        "    among: 100",
        "    amongst: 100\n    among: 100",
        "nulls.planted.amongst",
        100,
        "no such key",
        "did you mean 'among'?",
    ),
    Refusal("[0.5, 0.6,", "[1.5, 0.6,", "compare.thresholds.0", 1.5, "equal to 1", THRESHOLDS),
    Refusal(
        "[0.5, 0.6, 0.7, 0.8, 0.9]",
        "[0.5, 0.5]",
        "compare.thresholds",
        [0.5, 0.5],
        "must all differ",
        THRESHOLDS,
    ),
    Refusal(
        "fdr: 0.05",
        "fdr: 1.0",
        "compare.fdr",
        1.0,
        "must be less than 1",
        "set compare.fdr to the false discovery rate of recruited and retired nodes, such as 0.05",
    ),
    Refusal(
        "  conditions: [mapped]",
        "  conditions: [mapped, mapped]",
        "validation.conditions",
        ["mapped", "mapped"],
        "must all differ",
        "set validation.conditions to the conditions whose circuits are tested, such as [mapped]",
    ),
    Refusal("sizes: [0.001,", "sizes: [0.01,", "validation.sizes", UNSORTED, "ascend", SIZES),
    Refusal("sizes: [0.001,", "sizes: [0,", "validation.sizes.0", 0, "greater than 0", SIZES),
    Refusal(
        "ranked_nodes: 32",
        "ranked_nodes: 2",
        "validation.ranked_nodes",
        2,
        "must be greater than or equal to 3",
        "set validation.ranked_nodes to the number of nodes ablated one by one per prompt, "
        "such as 32",
    ),
    Refusal(
        "confidence: 0.95",
        "confidence: 95",
        "statistics.confidence",
        95,
        "must be less than 1",
        "set statistics.confidence to the confidence of the intervals, such as 0.95",
    ),
    Refusal(
        "permutations: 10000",
        "permutations: 0",
        "statistics.permutations",
        0,
        "must be greater than or equal to 1",
        "set statistics.permutations to the most permutations of a test, exact below that, "
        "such as 10000",
    ),
    Refusal(
        "  alpha: 0.05\n",
        "",
        "verdicts.alpha",
        "nothing",
        "the key is required",
        "add verdicts.alpha: the level of the tests, such as 0.05",
    ),
    Refusal(
        "evaluate:\n  batch_size: 32\n",
        "evaluate: 32\n",
        "evaluate",
        32,
        "must be a section of keys and values",
        RESTORE,
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: f"{refusal.key}={refusal.got}")
def test_a_bad_value_is_refused_with_its_remedy(tmp_path: Path, refusal: Refusal) -> None:
    (problem,) = refusals(edited(tmp_path, refusal.old, refusal.new))
    assert problem.where == f"params.yaml: {refusal.key}"
    assert problem.got == refusal.got
    assert refusal.rule in problem.rule
    assert problem.remedy == refusal.remedy


def test_every_bad_value_is_named_at_once(tmp_path: Path) -> None:
    path = edited(tmp_path, "epochs: 3", "epochs: 0\n  batch_size: 0\n  batches: 0")
    path.write_text(path.read_text().replace("  batch_size: 8", "", 1))
    assert [problem.where for problem in refusals(path)] == [
        "params.yaml: train.epochs",
        "params.yaml: train.batch_size",
        "params.yaml: train.batches",
    ]


@pytest.mark.parametrize(
    ("old", "new", "got"),
    [
        ("epochs: 3", "epochs: !!python/object/apply:os.abort []", "os.abort"),
        ("epochs: 3", "epochs: [3", "expected ',' or ']'"),
        ("epochs: 3", "epochs: 3\n  epochs: 4", "duplicate key"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_by_its_line(
    tmp_path: Path, old: str, new: str, got: str
) -> None:
    (problem,) = refusals(edited(tmp_path, old, new))
    file, _, line = problem.where.partition(", line ")
    assert file == "params.yaml"
    before = PARAMS[: PARAMS.index(old)].count("\n") + 1
    assert before <= int(line) <= before + 1
    assert got in str(problem.got)
    assert "plain YAML" in problem.rule
    assert problem.remedy == "mend that line"


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"three"])
def test_a_file_without_sections_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    (problem,) = refusals(tmp_path / "params.yaml")
    assert problem.where == "params.yaml"
    assert problem.rule == "must be a section of keys and values"
    assert problem.remedy == RESTORE


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"base: {model: \xff}")
    (problem,) = refusals(tmp_path / "params.yaml")
    assert "0xff" in str(problem.got)
    assert "UTF-8" in problem.rule


def test_a_missing_file_is_refused_with_the_way_back(tmp_path: Path) -> None:
    (problem,) = refusals(tmp_path / "params.yaml")
    assert problem.where == str(tmp_path / "params.yaml")
    assert problem.got == "no such file"
    assert "git checkout -- params.yaml" in problem.remedy


def test_a_stage_refuses_within_two_seconds_and_without_torch(tmp_path: Path) -> None:
    edited(tmp_path, "epochs: 3", "epochs: -3")
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=lambda *_: ["dataset", "attributions"])
    command = [sys.executable, "-X", "importtime", str(ROOT / "src/run.py"), "finetune", "mapped-0"]
    started = time.monotonic()
    stage = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 2
    assert stage.returncode == 1
    imported = {line.rpartition("|")[2].strip() for line in stage.stderr.splitlines()}
    assert "circuitdrift.config.params" in imported
    assert imported.isdisjoint({"torch", "transformers", "pandas"})
    message = stage.stderr[stage.stderr.index("finetune: refused") :]
    assert message.splitlines()[:4] == [
        "finetune: refused",
        "params.yaml: train.epochs: got -3",
        "  rule:   must be greater than 0",
        f"  remedy: {EPOCHS}",
    ]


def test_an_unknown_stage_and_an_unknown_run_are_refused() -> None:
    entry = [sys.executable, str(ROOT / "src/run.py")]
    stage = subprocess.run([*entry, "tune"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert stage.returncode == 2
    assert "usage: python src/run.py STAGE [RUN]" in stage.stderr
    assert "finetune" in stage.stderr
    run = [*entry, "finetune", "mapped-7"]
    stage = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert stage.returncode == 1
    assert "got 'mapped-7'" in stage.stderr
